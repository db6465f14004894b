"""Kept runs are told apart by their cards, whatever the roles of their preset are called."""

import json

import pandas as pd
import pytest

from alignpro.config import described, load_preset
from alignpro.evaluation import TOLD_THE_KIND
from alignpro.judging.paper_table import our_cells
from alignpro.report.kept_runs import (
    matrix_metrics,
    matrix_rewards,
    matrix_table,
    recipe_changes,
    reference_tables,
)
from alignpro.report.rlhf_cost import spent
from alignpro.runs import RESULTS, STEP_PARTS


@pytest.fixture
def results(tmp_path):
    """A prompter W with frozen LLMs XP and P, and RLHF of each: "P" also ends "XP"."""
    runs = {("W", "XP"): 0.5, ("W", "P"): 0.3, ("XP",): 0.9, ("P",): 0.7}
    for roles, reward in runs.items():
        folder = tmp_path / "mine" / "help" / "".join(roles) / "seed0"
        folder.mkdir(parents=True)
        trained = ("align-pro", "Align-Pro") if len(roles) == 2 else ("rlhf", "RLHF")
        card = {"architecture": roles, "dataset": "help", "configuration": trained[0]}
        (folder / "card.json").write_text(json.dumps(card))
        names = (trained[1], "No Fine-Tuning") if len(roles) == 2 else (trained[1],)
        rows = [
            {"configuration": name, "id": f"p{i}", "dataset": "help", "sample": j, "seed": 0,
             "prompt": f"q{i}", "response": name, "reward": reward + 0.01 * i}
            for name in names for i in range(3) for j in range(2)
        ]  # fmt: skip
        pd.DataFrame(rows).to_parquet(folder / "evaluation.parquet", index=False)
        step = {"step": 1, "val/generated_tokens": 5, **dict.fromkeys(STEP_PARTS, 1.0)}
        (folder / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    return tmp_path


def test_an_oracle_is_beside_the_pairs_of_its_own_frozen_llm(results):
    cells = matrix_rewards(matrix_table("mine", results), resamples=100)
    rlhf = cells[cells["configuration"] == "RLHF"].set_index("architecture")["mean"]
    assert rlhf.to_dict() == pytest.approx({"WXP": 0.91, "WP": 0.71})


def test_the_card_says_what_a_run_trained(results):
    trained = spent(matrix_metrics("mine", results)).groupby("configuration")["architecture"]
    assert trained.apply(set).to_dict() == {"Align-Pro": {"WXP", "WP"}, "RLHF": {"XP", "P"}}


def test_the_table_of_win_rates_takes_prompters_alone(results):
    cells = our_cells("mine", 0.0, results=results)
    assert set(cells.index.get_level_values("architecture")) == {"W, XP", "W, P"}


def test_kept_tables_have_todays_names_of_configurations():
    """The runs in `results/` were kept when "oracle" also meant a suffix that is told the kind."""
    old, new = "Best suffix per kind (oracle)", TOLD_THE_KIND
    path = next((RESULTS / "cpu").glob("*/P1F1/seed*/evaluation.parquet"))
    assert old in set(pd.read_parquet(path)["configuration"])
    tables = reference_tables("cpu", path.parts[-4]).values()
    for table in (matrix_table("cpu"), *tables):
        assert old not in set(table["configuration"]) and new in set(table["configuration"])


@pytest.mark.parametrize(
    ("configuration", "section", "name", "found"),
    [
        ("align-pro", "ppo", "learning_rate", "ppo.learning_rate"),
        ("align-pro", "rlhf", "lam", None),
        ("rlhf", "ppo", "learning_rate", None),  # `rlhf` has a learning rate of its own
        ("rlhf", "ppo", "clip", "ppo.clip"),
        ("rlhf", "rlhf", "lam", "ppo.lam"),
        ("rlhf", "prompter", "lora_rank", "prompter.lora_rank"),
        ("rlhf", "prompter", "max_new_tokens", None),
    ],
)
def test_a_run_is_of_another_recipe_where_it_was_trained_with_other_settings(
    tmp_path, configuration, section, name, found
):
    settings = described(load_preset("cpu"))
    settings[section][name] = 77
    folder = tmp_path / "cpu" / "help" / "X" / "seed2"
    folder.mkdir(parents=True)
    config = {"preset": settings, "cell": {"configuration": configuration}}
    (folder / "config.json").write_text(json.dumps(config))
    changes = recipe_changes(load_preset("cpu"), tmp_path)
    assert changes["setting"].tolist() == ([found] if found else [])
    if found:
        assert changes.iloc[0][["dataset", "seed", "kept"]].tolist() == ["help", 2, 77]
