#!/bin/sh
# Runs the tests; arguments are pytest's.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
# one thread a worker, so that the workers do not compete for cores
export OMP_NUM_THREADS=1
# so that what pytest makes of the test files is kept between runs
unset PYTHONDONTWRITEBYTECODE
# only the plugins that are used: a kept torch brings its neighbors into sight, and their plugins' warnings are errors
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
exec .venv/bin/python -m pytest -p xdist -p hypothesispytest --numprocesses auto --maxprocesses 4 "$@"
