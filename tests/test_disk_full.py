"""A full disk: the run stops and says so, its last checkpoint is whole, and later it goes on.

RLIMIT_FSIZE plays the full disk: the kernel cuts a write off in the middle of the file and refuses
the rest, with another error number than that of a full disk. It would hit pytest's own files, so
that a process of its own trains.
"""

import json
import os
import subprocess
import sys

import pytest

from alignpro.config import PRESETS
from alignpro.sources.files import load_tensors

PROGRAM = """
import resource, sys
from pathlib import Path

from alignpro import ppo
from alignpro.config import load_preset
from alignpro.experiments import Cell
from alignpro.runs import RunError

preset, root, cut = load_preset(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
cell = lambda: Cell(preset, "help", 0, root=root)
step = ppo.Trainer.step

def fills_the_disk(trainer, number):
    result = step(trainer, number)
    if number == 3:
        size = (trainer.run.folder / cut).stat().st_size
        # One more line of metrics does not fit, nor do the last bytes of one more checkpoint.
        room = size + 100 if cut == "metrics.jsonl" else size - 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    return result

if cut != "nothing":
    ppo.Trainer.step = fills_the_disk
    try:
        cell().train(progress=False)
    except RunError as error:
        print(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        ppo.Trainer.step = step
    print(*sorted(p.name for p in cell().run.folder.glob("checkpoints/*")))
cell().train(progress=False)
"""
LAST = "checkpoints/step-000002.safetensors"


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Trains a prompter for four steps while a file cannot grow in the third; the run's folder."""
    folder = tmp_path_factory.mktemp("disk")
    preset = folder / "short.yaml"
    preset.write_text((PRESETS / "smoke.yaml").read_text().replace("_every: 2", "_every: 1"))

    def run(cut):
        root = folder / cut.replace("/", "-")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(preset), str(root), cut],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return next(root.glob("*align-pro*")), done.stdout

    return run


@pytest.fixture(scope="module")
def whole(train):
    """The same run with room enough."""
    return train("nothing")[0]


def rows(folder, name):
    lines = (folder / name).read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not k.startswith("time/")} for x in lines]


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["metrics.jsonl", LAST])
def test_a_full_disk_stops_the_run_and_loses_nothing(train, whole, cut):
    folder, printed = train(cut)
    said, kept = printed.splitlines()
    cannot = "metrics.jsonl" if cut == "metrics.jsonl" else "checkpoints/step-000003.safetensors"
    assert said.startswith(f"cannot write {cannot} in ") and "File too large" in said
    assert "step-000002.safetensors is whole" in said and "the same command goes on" in said
    assert kept == "step-000001.safetensors step-000002.safetensors"
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows(folder, name) == rows(whole, name)
    adapter = "prompter/adapter_model.safetensors"
    assert (folder / adapter).read_bytes() == (whole / adapter).read_bytes()
    facts, _ = load_tensors(folder / "checkpoints/step-000004.safetensors")
    assert facts["step"] == "4"
