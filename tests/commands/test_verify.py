"""`verify`: what is kept in `results/` follows from its causes, and an altered file is noticed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from alignpro.commands import verify
from alignpro.config import PRESETS, load_preset
from alignpro.runs import RESULTS

CELL = "smoke/help/P1F1/seed0"


def test_every_kept_file_has_the_hash_of_the_manifest():
    assert verify.check_files(RESULTS) == [], "to accept: python -m alignpro verify --keep"
    sums = ["sha256sum", "--check", "--quiet", "--strict", verify.MANIFEST]
    done = subprocess.run(sums, cwd=RESULTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_numbers_of_the_book_follow_from_the_kept_files():
    problems = verify.check_numbers(load_preset("cpu"), RESULTS)
    assert problems == [], "to accept: python -m alignpro verify --keep"


@pytest.mark.slow
def test_a_cell_trained_today_is_the_one_that_is_kept(tmp_path):
    problems = verify.check_cell(load_preset("cpu"), RESULTS, None, tmp_path)
    assert problems == [], "to accept: python -m alignpro verify --keep"


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The folders of two runs of the same cell and reward study, each in processes of its own."""
    text = "name: smoke\n" + (PRESETS / "smoke.yaml").read_text()
    text = text.replace("seeds: [0, 1]", "seeds: [0]")
    text = text.replace("[[P1, F1], [P1, F2], [P2, F1], [P2, F2]]", "[[P1, F1]]")
    folders = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        preset = folder / "short.yaml"
        preset.write_text(text)
        for command in ("reproduce", "learn-reward"):
            subprocess.run(
                [
                    *(sys.executable, "-m", "alignpro", command, "--preset", str(preset)),
                    *("--runs", str(folder / "runs"), "--results", str(folder / "results")),
                    *("--threads", "1"),
                ],
                check=True,
                capture_output=True,
                # Sets are then in another order, as in two sessions of a user.
                env=os.environ | {"PYTHONHASHSEED": str(len(folders) + 1)},
            )
        folders.append(folder)
    return load_preset(preset), *folders


def untimed(value):
    """`value` without what the clock gives, and without the commit, made while a test may run."""
    if isinstance(value, dict):
        clock = ("date", "commit", "training_seconds", "session_seconds", "seconds")
        return {k: untimed(v) for k, v in value.items() if k not in clock and "time/" not in k}
    return [untimed(x) for x in value] if isinstance(value, list) else value


def content(path):
    """The bytes of a file; for cards and metrics, what is in it, without what the clock gives."""
    if path.name == "metrics.jsonl":
        return untimed(verify._rows(path))
    if path.name == "README.md":  # the model card of a prompter
        return [line for line in path.read_text().split("\n") if not line.startswith("| date ")]
    return untimed(verify._json(path)) if path.name == "card.json" else path.read_bytes()


@pytest.mark.slow
def test_the_same_config_and_seed_give_the_same_bytes_in_every_stage(twice):
    _, first, second = twice
    names = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in (first, second)]
    assert names[0] == names[1]
    stages = {"warm_start", "prompter", "policy", "checkpoints", "reward_learning"}
    assert stages <= {part for name in names[0] for part in name.parts}
    tables = {name.name for name in names[0] if name.suffix == ".parquet"}
    assert tables >= {"suffixes.parquet", "evaluation.parquet", "best_of.parquet", "train.parquet"}
    differ = [str(n) for n in names[0] if content(first / n) != content(second / n)]
    assert differ == []


@pytest.fixture(scope="module")
def numbers(twice):
    """The book's numbers of the first of them."""
    preset, first, _ = twice
    return verify.book_numbers(preset, first / "results")


@pytest.fixture
def kept(twice, numbers, tmp_path):
    """A copy of the first, with its numbers and its manifest."""
    preset, first, _ = twice
    shutil.copytree(first / "results", tmp_path / "results")
    (tmp_path / "results" / "verify").mkdir()
    verify.write_json(tmp_path / "results" / verify.NUMBERS, numbers)
    verify.write_manifest(tmp_path / "results")
    return preset, tmp_path / "results"


@pytest.mark.slow
def test_a_whole_folder_has_no_problems(kept):
    preset, results = kept
    assert verify.check_files(results) == []
    assert verify.check_configs(preset, results) == []
    assert verify.check_rewards(preset, results, None) == []
    assert verify.check_numbers(preset, results) == []


@pytest.mark.slow
def test_a_flipped_bit_a_missing_and_a_new_file_are_named(kept):
    _, results = kept
    altered, missing = results / CELL / "evaluation.parquet", results / CELL / "metrics.jsonl"
    whole = bytearray(altered.read_bytes())
    whole[len(whole) // 2] ^= 1
    altered.write_bytes(whole)
    missing.unlink()
    (results / CELL / "new.csv").write_text("1")
    assert verify.check_files(results) == [
        f"{CELL}/metrics.jsonl is missing",
        f"{CELL}/new.csv is not in the manifest",
        f"{CELL}/evaluation.parquet is altered",
    ]


@pytest.mark.slow
def test_a_number_changed_in_a_table_is_found_by_its_reward_and_by_what_follows_from_it(kept):
    preset, results = kept
    path = results / CELL / "evaluation.parquet"
    table = pd.read_parquet(path)
    table.loc[3, "reward"] += 0.01
    table.to_parquet(path, index=False)
    (problem,) = verify.check_rewards(preset, results, None)
    assert "evaluation.parquet: 1 of " in problem and problem.endswith("in row 3")
    name = f"reward | P1F1, help, {table.loc[3, 'configuration']} | mean"
    assert any(x.startswith(f"{name} was ") for x in verify.check_numbers(preset, results))


@pytest.mark.slow
def test_a_run_of_another_recipe_or_another_cell_is_named(kept):
    preset, results = kept
    today = dataclasses.replace(preset, ppo=dataclasses.replace(preset.ppo, clip=0.3))
    problems = verify.check_configs(today, results)
    assert len(problems) == 3, "the prompter, the oracle and the study"
    assert all("ppo.clip was 0.2, is 0.3" in x for x in problems)
    card = results / CELL / "card.json"
    facts = json.loads(card.read_text())
    card.write_text(json.dumps({**facts, "seed": 1, "training_seconds": 1e4}))
    (results / CELL / "metrics.jsonl").write_text("")
    problems = verify.check_configs(preset, results)
    assert [x.removeprefix(f"{CELL}: ") for x in problems] == [
        "the card is that of another cell",
        "the metrics do not have the steps 1 to 4, once each",
        "the steps took 0.0 s, the card has 10000.0 s",
    ]


@pytest.mark.slow
def test_a_cell_trained_again_must_agree_byte_for_byte_or_closely_elsewhere(kept, twice):
    _, results = kept
    again, ours = twice[2] / "results" / CELL, results / CELL
    assert verify.compare_cells(ours, again, random_models=True) == []
    path, card = ours / "evaluation.parquet", ours / "card.json"
    table = pd.read_parquet(path)
    table["response"] = table["response"].where(table.index != 0, "x")
    table.to_parquet(path, index=False)
    assert verify.compare_cells(ours, again, True) == ["P1F1/evaluation.parquet differs"]
    facts = json.loads(card.read_text())
    card.write_text(json.dumps({**facts, "hardware": {**facts["hardware"], "cpu": "another"}}))
    assert verify.compare_cells(ours, again, True) == [], "one answer of a hundred may differ"
    table["response"] = table["response"].where(table.index % 3 != 0, "x")
    table.to_parquet(path, index=False)
    (problem,) = verify.compare_cells(ours, again, True)
    assert "of the answers are the same" in problem
    table.assign(reward=table["reward"] + 0.05).to_parquet(path, index=False)
    assert len(verify.compare_cells(ours, again, True)) == 1 + table["configuration"].nunique()
    assert verify.compare_cells(ours, again, False) == []
    table.assign(reward=table["reward"] + 0.2).to_parquet(path, index=False)
    assert len(verify.compare_cells(ours, again, False)) == table["configuration"].nunique()


def test_verify_is_a_command_that_fails_where_nothing_is_kept(tmp_path, monkeypatch, capsys):
    from alignpro.commands.main import main

    (tmp_path / "smoke").mkdir()
    monkeypatch.setattr(verify, "check_numbers", lambda preset, results: [])
    command = ["alignpro", "verify", "--preset", "smoke", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 1
    printed = capsys.readouterr().out
    assert (
        "there is no SHA256SUMS" in printed
        and "verify/smoke/help/P1F1/seed0 is not kept" in printed
    )
