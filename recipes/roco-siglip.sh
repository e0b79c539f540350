#!/usr/bin/env bash
# SigLIP B/16 with its own sigmoid loss, which needs no large batch. Not yet run here to its end.
# usage: recipes/roco-siglip.sh DATA RUN [more flags of medclip train]
set -euo pipefail
exec medclip train --data "${1:?DATA}" --out "${2:?RUN}" --init google/siglip-base-patch16-224 \
  --batch-size 512 --micro-batch-size 128 --precision bfloat16 --epochs 10 --lr 5e-6 --early-stopping-patience 4 "${@:3}"
