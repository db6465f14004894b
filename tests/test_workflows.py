"""The workflows of public CI: they run what people run, with as few rights as they need."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from alignpro.config import load_preset

ROOT = Path(__file__).parent.parent
WORKFLOWS = {p.stem: yaml.safe_load(p.read_text()) for p in (ROOT / ".github").glob("*/*.yml")}
JOBS = [
    pytest.param(job, id=f"{name}-{key}")
    for name, workflow in WORKFLOWS.items()
    for key, job in workflow["jobs"].items()
]


def steps(name, kind):
    return [s[kind] for j in WORKFLOWS[name]["jobs"].values() for s in j["steps"] if kind in s]


def test_there_is_one_for_pushes_reproduction_the_book_and_the_set_up_cells():
    assert set(WORKFLOWS) == {"check", "pages", "reproduce", "setups"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_step_calls_a_make_target_or_opens_an_issue(name):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in steps(name, "run"):
        called = re.match(r"make ([a-z]+)( ARGS=\"[^\"]*\")?$", command)
        assert called and called.group(1) in targets or "gh issue create" in command


def test_a_push_is_checked_by_what_the_local_check_runs_and_its_style():
    local = re.findall(r"^make .*$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert set(steps("check", "run")) == {*local, "make lint"}


def test_every_cell_of_the_cpu_preset_is_reproduced():
    matrix = WORKFLOWS["reproduce"]["jobs"]["reproduce"]["strategy"]["matrix"]
    cpu = load_preset("cpu")
    assert (tuple(matrix["dataset"]), tuple(matrix["seed"])) == (cpu.datasets, cpu.seeds)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_a_time_limit_and_pinned_actions(job):
    assert 0 < job["timeout-minutes"] <= 360
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_apart_from_the_jobs_that_publish(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert WORKFLOWS[name]["concurrency"]["group"]
    more = {k: j["permissions"] for k, j in WORKFLOWS[name]["jobs"].items() if "permissions" in j}
    assert more == {
        "pages": {"deploy": {"pages": "write", "id-token": "write"}},
        "setups": {"report": {"issues": "write"}},
    }.get(name, {})


def test_the_shell_of_a_step_parses():
    for name in WORKFLOWS:
        for command in steps(name, "run"):
            plain = re.sub(r"\$\{\{.*?\}\}", "value", command)
            subprocess.run(["bash", "-n"], input=plain, text=True, check=True)
