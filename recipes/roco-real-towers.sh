#!/usr/bin/env bash
# DINOv2-small joined with all-MiniLM-L6-v2, in under 40 minutes on two CPU cores (docs/log.md). First the projections alone, on
# features that are computed once (7 s of training): random projections would pull the towers out of shape (Kumar et al.
# 2022). Then the text tower and the last 4 vision blocks too, these on two fifths of the tokens that the 8 blocks below
# them gave once for each image as it is.
# `python benchmarks/real_towers.py OUT` writes the towers.
# MEDCLIP_SEED, if set, is the seed of both.
# usage: recipes/roco-real-towers.sh DATA RUN OUT/dinov2-small OUT/all-MiniLM-L6-v2 [more flags of the last medclip train]
set -euo pipefail
data=${1:?DATA} run=${2:?RUN} vision=${3:?VISION} text=${4:?TEXT} seed=${MEDCLIP_SEED:-0}
medclip train --data "$data" --out "$run-projections" --vision-model "$vision" --text-model "$text" --context-length 128 \
  --freeze "vision_model.*" "text_model.*" --batch-size 512 --steps 200 --num-evals 4 --lr 1e-3 --seed "$seed"
exec medclip train --data "$data" --out "$run" --init "$run-projections" \
  --freeze "vision_model.embeddings.*" "vision_model.encoder.layer.[0-7].*" \
  --cached-views 1 --min-crop-scale 1 --color-jitter 0 --patch-dropout 0.6 \
  --batch-size 256 --epochs 4 --num-evals 1 --lr 4.5e-4 --layerwise-lr-decay 0.8 --seed "$seed" "${@:5}"
