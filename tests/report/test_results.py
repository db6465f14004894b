"""The committed results: made by a known preset, and recomputable from the texts they keep."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from alignpro.config import described, load_preset
from alignpro.data import load_prompts
from alignpro.figures.matrix import reward_distributions
from alignpro.report import reading
from alignpro.report.kept_runs import (
    compare_runs,
    matrix_table,
    recipe_changes,
    reference_tables,
)
from alignpro.report.rlhf_cost import answer_rewards, rewrite_rewards
from alignpro.reward_learning.config import load_reward_learning
from alignpro.reward_learning.study import column, read_study
from alignpro.rewards import rubric
from alignpro.runs import RESULTS
from alignpro.statistics import bootstrap
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU, Response
from alignpro.theory.variance import variance_drift_from_samples

FOLDERS = sorted(path.parent for path in RESULTS.glob("*/*/*/seed*/card.json"))


STUDIES = sorted(path.parent for path in RESULTS.glob("reward_learning/*/card.json"))


def named(folder: Path) -> str:
    return "/".join(folder.parts[-4:])


def test_the_whole_matrix_of_the_cpu_preset_is_kept():
    preset = load_preset("cpu")
    wanted = {
        f"cpu/{dataset}/{architecture}/seed{seed}"
        for dataset in preset.datasets
        for architecture in ("P1F1", "F1")
        for seed in preset.seeds
    }
    assert {named(f) for f in FOLDERS} >= wanted


# The datasets whose kept prompters were trained before the study of the recipe (results/recipe).
# Then what it has changed in the preset: field by field, what these were trained with.
OLDER = {"reasoning"}
BEFORE_THE_STUDY = {
    "prompter.warm_start.menu": "neutral",
    "prompter.warm_start.steps": 40,
    "prompter.warm_start.batch_size": 16,
    "ppo.learning_rate": 4e-4,
    "ppo.lr_scheduler_type": "linear",
    "rlhf.lr_scheduler_type": None,  # not a field then: that of `ppo`
}


def flat(values: dict, prefix: str = "") -> dict:
    """Nested `values` under dotted names."""
    out = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return out


def check_preset(kept: dict, today: dict) -> None:
    """`kept`, the preset of a result, is that of today but for BEFORE_THE_STUDY."""
    kept, today = flat(kept), flat(today)
    changed = {name for name in kept | today if kept.get(name) != today.get(name)}
    assert {name: kept.get(name) for name in changed} == BEFORE_THE_STUDY


def test_the_kept_runs_have_the_settings_of_today_but_for_the_recipe_of_the_older_ones():
    changes = recipe_changes(load_preset("cpu"))
    before = {k: v for k, v in BEFORE_THE_STUDY.items() if not k.startswith("rlhf.")}
    found = {
        cell: dict(zip(rows["setting"], rows["kept"]))
        for cell, rows in changes.groupby(["dataset", "architecture", "seed"])
    }
    seeds = load_preset("cpu").seeds
    assert found == {(dataset, "P1F1", seed): before for dataset in OLDER for seed in seeds}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_a_result_says_where_it_comes_from_and_has_all_its_steps(folder):
    config = json.loads((folder / "config.json").read_text())
    preset = load_preset(folder.parts[-4])
    assert config["cell"]["dataset"] == folder.parts[-3]
    card = json.loads((folder / "card.json").read_text())
    assert {"date", "commit", "versions", "hardware", "training_seconds"} <= card.keys()
    assert "dirty" not in card["commit"]
    steps = [json.loads(row)["step"] for row in (folder / "metrics.jsonl").open()]
    training = preset.rlhf if config["cell"]["configuration"] == "rlhf" else preset.ppo
    assert steps == list(range(1, training.steps + 1))


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_rewards_follow_from_the_kept_texts(folder):
    check_rewards(pd.read_parquet(folder / "evaluation.parquet"), folder.parts[-3], "test")


def check_rewards(table: pd.DataFrame, dataset: str, split: str) -> None:
    """Every stored reward is what the rubric says today of the stored answer."""
    by_id = {p.id: p for p in load_prompts(dataset, split)}
    assert set(table["id"]) <= set(by_id), f"a result must come from {split} prompts alone"
    sample = table.sample(min(200, len(table)), random_state=0)
    responses = [Response(y, ended) for y, ended in zip(sample["response"], sample["ended"])]
    rewards = rubric([by_id[i] for i in sample["id"]], responses)
    expected = torch.tensor(sample["reward"].to_numpy(), dtype=rewards.dtype)
    torch.testing.assert_close(rewards, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dataset", reading.studied())
def test_the_reading_study_has_every_answer_once_and_its_rewards_follow_from_the_texts(dataset):
    everything, calls = reading.every_suffix(dataset), reading.search_calls(dataset)
    for table, split, samples in ((everything, "test", 4), (calls, "train", 1)):
        asked = {
            p.id: p.kind for p in load_prompts(dataset, split, 150 if split == "train" else 70)
        }
        counts = table.groupby(["configuration", "id"]).size()
        suffixes = {"(nothing)", *NEUTRAL_MENU, *BEST_SUFFIXES}
        assert set(counts.index) == {(s, i) for s in suffixes for i in asked}
        assert set(counts) == {samples}
        assert table["id"].map(asked).equals(table["kind"])
        check_rewards(table, dataset, split)
    curves = sorted((RESULTS / "reading" / dataset).glob("curve-seed*.parquet"))
    assert len(curves) == len(load_preset("cpu").seeds)
    for path in curves:
        curve = pd.read_parquet(path)
        assert set(curve["configuration"]) == {"480 calls", "960 calls", "1440 calls"}
        check_rewards(curve, dataset, "test")


@pytest.mark.parametrize("dataset", sorted({f.parts[-3] for f in FOLDERS}))
def test_the_table_of_runs_is_plain_arithmetic_on_the_files(dataset):
    runs = compare_runs(reference_tables("cpu", dataset), resamples=500)
    for name, row in runs.iterrows():
        folder = RESULTS / "cpu" / dataset / "P1F1" / name.replace(" ", "")
        table = pd.read_parquet(folder / "evaluation.parquet")
        rewards = {c: part["reward"].to_numpy() for c, part in table.groupby("configuration")}
        gain = rewards["Align-Pro"].mean() - rewards["No Fine-Tuning"].mean()
        assert row["gain"] == pytest.approx(gain)
        assert row["Align-Pro"] == pytest.approx(rewards["Align-Pro"].mean())
        assert row["low"] < gain < row["high"]


def test_a_configuration_that_one_dataset_lacks_leaves_its_row_empty_there():
    """As the oracle does while it has run on some of the sets only."""
    table = pd.DataFrame(
        [
            {"dataset": d, "configuration": c, "id": f"{d}{i}", "reward": 0.1 * i}
            for d, c in (("help", "RLHF"), ("help", "Align-Pro"), ("chat", "Align-Pro"))
            for i in range(6)
        ]
    )
    figure = reward_distributions(table, ["Align-Pro", "RLHF"])
    rows = {axes.get_title(): len(axes.lines) for axes in figure.axes}
    assert rows == {"help": 2, "chat": 1}, "one median a cloud"


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_reward_study_was_made_by_the_preset_of_today_but_for_the_recipe(folder):
    config = json.loads((folder / "config.json").read_text())
    card = json.loads((folder / "card.json").read_text())
    preset, learning = load_preset(card["preset"]), load_reward_learning(card["preset"])
    check_preset(config["preset"], described(preset))
    assert config["learning"] == json.loads(json.dumps(dataclasses.asdict(learning)))
    assert {"date", "commit", "versions", "hardware", "seed"} <= card.keys()
    study = read_study(folder)
    steps = {lam: rows["step"].tolist() for lam, rows in study.metrics.groupby("lam")}
    assert steps == {lam: list(range(1, preset.ppo.steps + 1)) for lam in learning.lams}
    for table, split in ((study.train, "train"), (study.test, "test"), (study.prompters, "test")):
        check_rewards(table, card["dataset"], split)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_curves_of_a_reward_study_are_plain_arithmetic_on_its_files(folder):
    study = read_study(folder)
    table, pairs = study.test, study.test_pairs
    score = table[column(1.0)].to_dict()
    right = [
        (score[first] > score[second]) == won
        for first, second, won in zip(pairs["first_row"], pairs["second_row"], pairs["first_won"])
    ]
    accuracy = study.accuracy().set_index(["measure", "pairs"])["value"]
    everything = len(study.train_pairs)
    assert accuracy["accuracy", everything] == pytest.approx(sum(right) / len(right))
    sure = pairs["p_first"].clip(lower=1 - pairs["p_first"]).mean()
    assert accuracy["noise ceiling", everything] == pytest.approx(sure)
    chosen = table.loc[table.groupby("id")[column(1.0)].idxmax(), "reward"].mean()
    last = study.selection_curve().iloc[-1]
    assert last["n"] == table["sample"].nunique()
    assert last["gold"] == pytest.approx(chosen - table["reward"].mean())
    assert last["gold_low"] < last["gold"] < last["gold_high"]


@pytest.mark.parametrize("dataset", load_preset("cpu").datasets)
def test_the_kept_answers_have_the_sign_that_the_chapter_on_variance_names(dataset):
    """Both terms within a prompt are positive before training, and the variance rose (C19)."""
    suffixes, answers = (
        table[table["dataset"] == dataset]
        for table in (matrix_table("cpu", files=[name]) for name in ("suffixes", "evaluation"))
    )
    pool = sorted(suffixes["configuration"].unique())
    drift = variance_drift_from_samples(rewrite_rewards(suffixes, pool))
    for term in (drift.within, drift.skew, drift.total):
        assert bootstrap(term[None])[0] > 0
    before, after = (answer_rewards(answers, name) for name in ("Untrained prompter", "Align-Pro"))
    predicted = drift.total.mean() / drift.gain.mean() * (after.mean() - before.mean())
    assert 0 < after.var() - before.var() < 2 * predicted
