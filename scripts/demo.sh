#!/bin/sh
# The main job: fits the planar densities and the handwritten digits, prints one table and writes one figure.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
exec .venv/bin/pyro-gflows demo "$@"
