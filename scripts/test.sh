#!/bin/sh
# Runs the tests; arguments are pytest's.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
# one thread a worker, so that the workers do not compete for cores
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 "$@"
