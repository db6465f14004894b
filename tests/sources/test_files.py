"""Files of a run: one process at a time, and every changed bit of what is kept is noticed."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

from alignpro import models
from alignpro.config import ModelSpec
from alignpro.evaluation import kept
from alignpro.runs import Run, RunError
from alignpro.sources import weights
from alignpro.sources.files import (
    check_seal,
    load_tensors,
    locked,
    require_readable,
    save_tensors,
    seal,
    try_out,
    write_table,
)

HOLD = """
import sys, time
from pathlib import Path
from alignpro.sources.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def flip(path, position):
    """Turn one bit of the file at `position` (counted from the end where it is negative)."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_second_process_is_told_who_is_at_work_and_a_dead_one_leaves_no_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"process {other.pid} has worked on .* since 20"):
            with locked(tmp_path):
                pass
        other.kill()
    with locked(tmp_path), locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_need_not_lock_does_not(tmp_path):
    with locked(tmp_path / "nowhere", here=False):
        pass


def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    """Of its tensors, its facts and its header: none is loaded as if nothing had happened."""
    path = tmp_path / "step.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(path, tensors, {"step": "3"})
    facts, found = load_tensors(path)
    assert facts == {"step": "3"} and all(torch.equal(found[n], tensors[n]) for n in tensors)
    whole = path.read_bytes()
    for position in range(len(whole)):
        flip(path, position)
        with pytest.raises((OSError, SafetensorError)):
            load_tensors(path)
        path.write_bytes(whole)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(quick, tmp_path, capsys):
    run = Run(tmp_path, quick, "help", ("P1", "F1"), "align-pro", 0)
    for step in (1, 2):
        run.save_checkpoint(step, {"x": torch.full((3,), float(step))})
    flip(run.folder / "checkpoints" / "step-000002.safetensors", -1)
    step, tensors = run.load_checkpoint()
    assert step == 1 and tensors["x"].tolist() == [1.0] * 3
    assert "step-000002.safetensors is damaged" in capsys.readouterr().out


def test_a_model_of_the_cache_whose_bits_have_changed_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_CACHE", str(tmp_path))
    folder = weights.tiny_folder("llama")
    models.load(ModelSpec("tiny:llama"))
    flip(folder / "model.safetensors", -1)
    with pytest.raises(RunError, match="tiny-llama-v1/model.safetensors is damaged.*delete .*tiny"):
        models.load(ModelSpec("tiny:llama"))
    shutil.rmtree(folder)
    models.load(ModelSpec("tiny:llama"))


def test_a_seal_names_the_file_that_was_changed_or_is_missing(tmp_path):
    check_seal(tmp_path)  # a folder without a seal is not ours
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"0" * 9)
    (tmp_path / "config.json").write_text("{}")
    seal(tmp_path)
    (tmp_path / "config.json").write_text("{1}")
    check_seal(tmp_path)  # settings may be changed, weights may not
    flip(tmp_path / "b.safetensors", 0)
    with pytest.raises(RunError, match="b.safetensors is damaged"):
        check_seal(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(RunError, match="b.safetensors is damaged"):
        check_seal(tmp_path)
    (tmp_path / "sha256.json").write_text("{")
    with pytest.raises(RunError, match="sha256.json is damaged"):
        check_seal(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_table_is_named_and_can_be_made_again(tmp_path, damage):
    path, table = tmp_path / "t.parquet", pd.DataFrame({"reward": [k / 7 for k in range(99)]})
    kept(path, lambda: table)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        flip(path, 200)
    with pytest.raises(RunError, match="t.parquet is damaged .*: delete it, and the same command"):
        kept(path, lambda: table)
    path.unlink()
    pd.testing.assert_frame_equal(kept(path, lambda: table), table)


def test_a_cache_that_cannot_be_written_to_is_named_with_the_variable_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALIGNPRO_CACHE", str(tmp_path / "file"))
    with pytest.raises(weights.ModelError, match="file/tiny-llama.* ALIGNPRO_CACHE to a folder"):
        models.load(ModelSpec("tiny:llama"))
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(weights.ModelError, match="file/new.* ALIGNPRO_CACHE to a folder"):
        weights.convert_gguf(gguf, "me/model", weights.cache_folder() / "new", {}, print)


def test_what_must_work_at_the_end_is_tried_and_leaves_nothing(tmp_path):
    seen = []
    try_out(lambda place: seen.append(place.write_text("adapter")), tmp_path)
    assert seen == [7] and list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="cannot write .*: no room"):
        try_out(fail_to_write, tmp_path)
    with pytest.raises(ZeroDivisionError):
        try_out(lambda place: 1 / 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def fail_to_write(place):
    raise OSError("no room")


def test_damaged_files_are_not_copied_into_the_results(tmp_path):
    write_table(tmp_path / "t.parquet", pd.DataFrame({"reward": [0.5] * 99}))
    (tmp_path / "card.json").write_text('{"seed": 0}\n')
    (tmp_path / "m.jsonl").write_text('{"step": 1, "text": "a\u2028b"}\n{"step": 2}\n')
    for path in tmp_path.iterdir():
        require_readable(path)
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2] + b"\n", b"\xff" + whole):
            path.write_bytes(damaged)
            with pytest.raises(RunError, match=path.name):
                require_readable(path)
