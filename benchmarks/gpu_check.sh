#!/bin/sh
# Checks everything vidsr does on an NVIDIA card, in about eight minutes: one JSON line a step. See results/README.md.
#
#   benchmarks/gpu_check.sh [-o FILE] [--only 1,7,13] [--minutes 8]
#
# PYTHON names the interpreter, else it is the checkout's .venv or python3.
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd) || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$root/.venv/bin/python" ] && PYTHON=$root/.venv/bin/python
fi
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$PYTHON" -m benchmarks.gpu_check "$@"
