#!/usr/bin/env bash
# The settings of 2021 for comparison, faults included: a loss over 16 pairs, flips, no warm-up. See the benchmark's text.
# usage: recipes/founding-2021.sh DATA OUT [more flags of benchmarks/founding_recipe.py]
set -euo pipefail
exec python "$(dirname "$0")/../benchmarks/founding_recipe.py" --data "${1:?DATA}" --out "${2:?OUT}" \
  --only founding-2021 "${@:3}"
