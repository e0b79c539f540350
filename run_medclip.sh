#!/usr/bin/env bash
# The founding project's entry point; the run it started is now recipes/roco-clip-b32-scibert.sh.
exec "$(dirname "$0")/recipes/roco-clip-b32-scibert.sh" "$@"
