#!/usr/bin/env bash
# BiomedCLIP, already trained on such pairs: a very small learning rate, the guard on, WiSE-FT at the end. At 1e-5 its
# retrieval on ROCO is known to fall below that of the untouched weights. Not yet run here to its end.
# usage: recipes/roco-biomedclip.sh DATA RUN [more flags of medclip train]
set -euo pipefail
exec medclip train --data "${1:?DATA}" --out "${2:?RUN}" \
  --init microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224 \
  --batch-size 1024 --micro-batch-size 64 --precision bfloat16 --epochs 5 --lr 1e-6 --layerwise-lr-decay 0.9 --on-regression stop "${@:3}"
