#!/usr/bin/env bash
# The founding run, corrected: CLIP ViT-B/32 joined with SciBERT, as FlaxHybridCLIP was in 2021. Not yet run here to its
# end: these weights could not be downloaded where it was written.
# usage: recipes/roco-clip-b32-scibert.sh DATA RUN [more flags of medclip train]
set -euo pipefail
exec medclip train --data "${1:?DATA}" --out "${2:?RUN}" \
  --vision-model openai/clip-vit-base-patch32 --text-model allenai/scibert_scivocab_uncased --context-length 128 \
  --batch-size 1024 --micro-batch-size 128 --precision bfloat16 --epochs 20 \
  --lr 5e-4 --vision-lr 1e-5 --text-lr 5e-5 --early-stopping-patience 4 "${@:3}"
