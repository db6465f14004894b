"""The crash matrix: a small part of it on every push, and the whole of it among the slow tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from crash_matrix import FAULTS, STAGES

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "results" / "crash_matrix.json"


def run(out, *places, again=False):
    """The rows of `tools/crash_matrix.py`, in a process of its own, which can be forked."""
    arguments = [word for name, value in places for word in (f"--{name}", value)]
    arguments += ["--again"] if again else []
    done = subprocess.run(
        [sys.executable, "tools/crash_matrix.py", *arguments, "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    wrong = [row for row in rows if row["right"] is False]
    assert done.returncode == 0 and not wrong, f"{wrong}\n{done.stderr}"
    return {(row["stage"], row["fault"]): row for row in rows}


def test_a_killed_warm_start_and_a_judge_that_is_stopped_lose_nothing(tmp_path):
    faults = [("fault", "SIGKILL"), ("fault", "flipped bit")]
    rows = run(tmp_path / "out.json", ("stage", "warm start"), ("stage", "judge"), *faults)
    assert rows["warm start", "SIGKILL"]["then"] == "the undisturbed result"
    assert "adapter_model.safetensors" in rows["warm start", "flipped bit"]["did"]
    assert rows["judge", "SIGKILL"]["extra"] <= 1, "at most the call under way is paid twice"
    again = run(tmp_path / "out.json", ("stage", "warm start"), *faults)
    assert again == rows, "what was run is not run again"
    old = [row | {"seconds": -1} for row in rows.values()]
    kept = json.loads((tmp_path / "out.json").read_text())
    (tmp_path / "out.json").write_text(json.dumps(kept | {"rows": old}))
    again = run(tmp_path / "out.json", ("stage", "judge"), ("fault", "SIGKILL"), again=True)
    newer = {place for place, row in again.items() if row["seconds"] >= 0}
    assert newer == {("judge", "SIGKILL")} and again.keys() == rows.keys(), "unless asked to"


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_survives_every_fault(tmp_path, stage):
    rows = run(tmp_path / "out.json", ("stage", stage))
    assert {fault for _, fault in rows} == set(FAULTS)


def test_the_kept_matrix_has_no_wrong_cell_and_says_where_it_comes_from():
    kept = json.loads(KEPT.read_text())
    places = [(row["stage"], row["fault"]) for row in kept["rows"]]
    assert len(places) == len(set(places)) and set(places) <= {
        (s, f) for s in STAGES for f in FAULTS
    }
    assert [row for row in kept["rows"] if row["right"] is False] == []
    assert {"date", "versions", "hardware", "code"} <= set(kept)
