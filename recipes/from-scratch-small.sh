#!/usr/bin/env bash
# Both towers from scratch, on two CPU cores in an hour or so: what docs/log.md calls "small".
# usage: recipes/from-scratch-small.sh DATA RUN [more flags of medclip train]
set -euo pipefail
exec medclip train --data "${1:?DATA}" --out "${2:?RUN}" --preset small --epochs 20 --lr 1e-3 "${@:3}"
