#!/usr/bin/env bash
# CLIP ViT-B/16 fine-tuned whole, with its own text tower. Not yet run here to its end.
# usage: recipes/roco-clip-b16.sh DATA RUN [more flags of medclip train]
set -euo pipefail
exec medclip train --data "${1:?DATA}" --out "${2:?RUN}" --init openai/clip-vit-base-patch16 \
  --batch-size 1024 --micro-batch-size 128 --precision bfloat16 --epochs 15 --lr 1e-5 --early-stopping-patience 4 "${@:3}"
