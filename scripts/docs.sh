#!/bin/sh
# Builds the documentation into docs/_build/html; warnings are errors. Arguments are sphinx-build's.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
if ! .venv/bin/python -c 'import furo, myst_nb, sphinx, sphinx_design, ziamath' 2>/dev/null; then
    say "installing what the documentation needs into .venv"
    install --constraint .venv/constraints.txt --editable '.[docs]'
fi
rm -rf docs/_build/html  # pages that are no longer made would stay
.venv/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html "$@"
say "the documentation is in docs/_build/html/index.html"
