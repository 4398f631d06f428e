#!/bin/sh
# Runs the tutorials in full and writes the notebooks with their outputs; arguments are beginnings of names (01 05).
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
exec .venv/bin/python scripts/tutorials.py "$@"
