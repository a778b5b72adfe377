#!/bin/sh
# SPDX-License-Identifier: MIT
# Measures and checks the goals of a GPU machine in at most 9 minutes; fails if one is missed.
#   benchmarks/gpu.sh                          with .venv, or PYTHON=/path/to/python
# Needs torch with CUDA, and what requirements-dev.txt and requirements-sam2.txt bring.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "torch finds no CUDA device here." >&2
    exit 1
}
exec "$PYTHON" -m benchmarks --device cuda --minutes "${MINUTES:-7}" "$@"
