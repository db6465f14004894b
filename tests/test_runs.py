"""A run on disk: nothing half-written, nothing foreign, nothing lost."""

import dataclasses
import json
import shutil
import subprocess
from importlib import metadata

import pytest
import torch
from checkpoints import save_language_model
from safetensors.torch import load_file, save_file

from alignpro import runs
from alignpro.config import ModelSpec
from alignpro.experiments import Cell
from alignpro.models import identity
from alignpro.rewards import rubric
from alignpro.runs import Run, RunError, atomic_write, stage_seed
from alignpro.sources import provenance
from alignpro.sources.own_reward import reward_name
from alignpro.sources.room import require


@pytest.fixture
def run(tmp_path, smoke):
    return Run(tmp_path, smoke, "help", ("P1", "F1"), "align-pro", 0)


def test_equal_cells_share_a_folder_and_others_do_not(tmp_path, smoke, run):
    again = Run(tmp_path, smoke, "help", ("P1", "F1"), "align-pro", 0)
    assert again.folder == run.folder
    for other in (("chat", ("P1", "F1"), 0), ("help", ("P2", "F1"), 0), ("help", ("P1", "F1"), 1)):
        dataset, pair, seed = other
        assert Run(tmp_path, smoke, dataset, pair, "align-pro", seed).folder != run.folder


def test_other_code_makes_another_run(tmp_path, smoke, run, monkeypatch):
    monkeypatch.setattr(runs, "code_digest", lambda: "changed")
    assert Run(tmp_path, smoke, "help", ("P1", "F1"), "align-pro", 0).folder != run.folder


def test_the_code_of_a_run_holds_all_that_decides_its_result(tmp_path, monkeypatch):
    """Evaluation and the client of an endpoint too; not what only reads or shows results."""
    shutil.copytree(runs.PACKAGE, tmp_path / "alignpro")
    monkeypatch.setattr(runs, "PACKAGE", tmp_path / "alignpro")
    seen = {runs.code_digest()}
    for name in ("evaluation.py", "sources/endpoint.py", "sources/openai_client.py",
                 "sources/chat.py", "fast/decode.py", "prompts/help.jsonl"):  # fmt: skip
        with open(tmp_path / "alignpro" / name, "a") as file:
            file.write("\n")
        assert runs.code_digest() not in seen, name
        seen.add(runs.code_digest())
    (tmp_path / "alignpro" / "report" / "html.py").write_text("")
    assert runs.code_digest() in seen


def test_other_weights_in_the_same_directory_make_another_run(tmp_path, quick):
    """The name of a directory does not tell its weights; that of a package's model does."""
    folder = save_language_model("llama", tmp_path / "own")
    own = {**quick.models, "F1": ModelSpec(str(folder))}
    preset = dataclasses.replace(quick, models=own)

    def cell():
        return Cell(preset, "help", 0, root=tmp_path / "runs")

    first = cell()
    assert cell().run.folder == first.run.folder
    assert first.run.cell["weights"] == {"F1": identity(own["F1"])}
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t + 1 for n, t in tensors.items()}, folder / "model.safetensors")
    second = cell()
    assert second.run.folder != first.run.folder
    assert second.oracle_run.folder != first.oracle_run.folder
    # The chat template decides what the model reads, and the end tokens where it stops.
    for name in ("chat_template.jinja", "generation_config.json"):
        before = cell().run.folder
        (folder / name).write_text((folder / name).read_text() + " ")
        assert cell().run.folder != before, name
    before = cell().run.folder
    (folder / "README.md").write_text("A note.")
    assert cell().run.folder == before
    assert "weights" not in Cell(quick, "help", 0, root=tmp_path / "runs").run.cell


def test_other_software_on_resume_is_told_and_stays_on_the_record(tmp_path, monkeypatch):
    assert provenance.note_session(tmp_path) == provenance.note_session(tmp_path) == []
    own = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "9.9" if n == "torch" else own(n))
    change = [f"torch {own('torch')} -> 9.9"]
    assert provenance.note_session(tmp_path) == change
    monkeypatch.setattr(metadata, "version", own)
    assert provenance.note_session(tmp_path) == change, "one session of several was another"


def test_another_reward_makes_another_run(tmp_path, smoke, run):
    def of(reward):
        name = reward_name(reward)
        return Run(tmp_path, smoke, "help", ("P1", "F1"), "align-pro", 0, name).folder

    def length(prompts, responses):
        return [len(y) / 100 for y in responses]

    shorter = length

    def length(prompts, responses):
        return [1 - len(y) / 100 for y in responses]

    assert of(rubric) == run.folder
    assert len({run.folder, of(length), of(shorter), of(lambda x, y: [0.0])}) == 4


def test_a_file_is_replaced_when_the_new_one_is_whole_and_not_before(tmp_path):
    target = tmp_path / "deep" / "notes.txt"
    with atomic_write(target) as partial:
        partial.write_text("old")
        assert not target.exists() and partial.suffix == ".txt"
    with pytest.raises(KeyError), atomic_write(target) as partial:
        partial.write_text("half of the n")
        raise KeyError
    assert target.read_text() == "old"
    with atomic_write(target) as first, atomic_write(target) as second:
        assert first != second, "two writers never share a path"
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first", "the outer one finished last"
    assert list(target.parent.iterdir()) == [target], "nothing else is left behind"


def test_a_folder_that_another_process_finished_first_is_kept(tmp_path):
    target = tmp_path / "model"
    with atomic_write(target) as slow:
        slow.mkdir()
        (slow / "weights").write_text("slow")
        with atomic_write(target) as fast:
            fast.mkdir()
            (fast / "weights").write_text("fast")
    assert (target / "weights").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_cannot_be_finished_is_an_error(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError), atomic_write(tmp_path / "taken") as partial:
        partial.write_text("a file in place of a folder")


def test_the_newest_checkpoint_comes_back_exactly(run):
    for step in (1, 2, 3):
        run.save_checkpoint(step, {"a": torch.arange(4.0) * step})
    step, tensors = run.load_checkpoint()
    assert step == 3 and torch.equal(tensors["a"], torch.arange(4.0) * 3)
    assert len(list((run.folder / "checkpoints").iterdir())) == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, capsys):
    run.save_checkpoint(1, {"a": torch.ones(2)})
    run.save_checkpoint(2, {"a": torch.ones(2) * 2})
    newest = run.folder / "checkpoints" / "step-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:40])
    step, tensors = run.load_checkpoint()
    assert step == 1 and tensors["a"].tolist() == [1.0, 1.0]
    assert "damaged" in capsys.readouterr().out


def test_a_foreign_checkpoint_is_refused(tmp_path, smoke, run):
    other = Run(tmp_path, smoke, "chat", ("P1", "F1"), "align-pro", 0)
    other.save_checkpoint(1, {"a": torch.ones(2)})
    (other.folder / "checkpoints").rename(run.folder / "checkpoints")
    with pytest.raises(RunError, match="belongs to the run 'smoke-chat"):
        run.load_checkpoint()


def test_cutting_back_drops_later_steps_and_a_half_written_line(run):
    run.append("metrics.jsonl", [{"step": s} for s in (1, 2, 3)])
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "obj')
    run.cut_back("metrics.jsonl", 2)
    assert run.read("metrics.jsonl") == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\x0c", "\r"])
def test_a_text_may_hold_any_separator_of_lines(run, inside):
    rows = [{"step": s, "response": f"one{inside}two"} for s in (1, 2)]
    run.append("samples.jsonl", rows)
    run.cut_back("samples.jsonl", 2)
    assert run.read("samples.jsonl") == rows


def test_a_kill_within_a_character_loses_its_row_alone(run):
    run.append("samples.jsonl", [{"step": 1, "response": "λ"}])
    with open(run.folder / "samples.jsonl", "ab") as file:
        file.write('{"step": 2, "response": "λ'.encode()[:-1])
    run.cut_back("samples.jsonl", 5)
    assert run.read("samples.jsonl") == [{"step": 1, "response": "λ"}]


def test_a_card_needs_no_git(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    run.finish()
    assert json.loads((run.folder / "card.json").read_text())["commit"] is None


def test_a_fact_that_is_missing_is_no_error(run, monkeypatch):
    """Of a library that a reward of one's own does without, of git, and of the CPU."""

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    def unreadable(*arguments, **options):
        raise PermissionError("not allowed")

    monkeypatch.setattr(provenance.metadata, "version", absent)
    monkeypatch.setattr(provenance.subprocess, "run", unreadable)
    monkeypatch.setattr(provenance.Path, "read_text", unreadable)
    told = provenance.provenance()
    assert told["commit"] is None and set(told["versions"].values()) == {None}
    assert isinstance(told["hardware"]["cpu"], str)


def test_a_damaged_row_is_named_with_its_file(run):
    run.append("metrics.jsonl", [{"step": 1}, {"step": 2}])
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 1', '"step" 1'))
    with pytest.raises(RunError, match="metrics.jsonl is damaged"):
        run.read("metrics.jsonl")


def test_a_copy_inside_another_repository_has_no_commit(run, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path / "copy")
    assert provenance.provenance()["commit"] is None


def test_a_card_says_what_a_result_needs(run):
    assert not run.finished
    run.finish(training_seconds=1.5)
    card = json.loads((run.folder / "card.json").read_text())
    assert run.finished and card["seed"] == 0 and card["training_seconds"] == 1.5
    assert {"date", "commit", "python", "versions", "hardware"} <= card.keys()
    assert card["versions"]["torch"].startswith("2.")


def test_too_little_disk_or_memory_is_said_before_the_run(tmp_path):
    require(tmp_path, disk=1, memory=1)
    with pytest.raises(RunError, match="needs 1000000000.0 GB on the disk"):
        require(tmp_path, disk=1e18, memory=1)
    with pytest.raises(RunError, match="of memory, .* are free"):
        require(tmp_path, disk=1, memory=1e18)


def test_stage_seeds_differ_by_every_part_and_are_stable():
    assert stage_seed(0, 1, "rollout") == stage_seed(0, 1, "rollout")
    assert len({stage_seed(s, t, n) for s in (0, 1) for t in (0, 1) for n in "ab"}) == 8
    assert 0 <= stage_seed(3) < 2**63
