"""The study of the recipe: its statistics by hand, and its kept files recomputed."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import recipe_study
import torch
from recipe_study import MENU, gain_over, mutual_information
from sklearn.metrics import mutual_info_score

from alignpro.data import KINDS, load_prompts
from alignpro.report.reading import suffix_of
from alignpro.rewards import rubric
from alignpro.runs import RESULTS
from alignpro.texts import Response

FOLDER = RESULTS / "recipe"
SUFFIXES = pd.read_parquet(FOLDER / "suffixes.parquet")
TRIALS = [json.loads(line) for line in (FOLDER / "trials.jsonl").read_text().splitlines()]
DONE = [row for row in TRIALS if row["error"] is None]


def named(row):
    return f"{row['trial']}, seed {row['seed']}"


def rewrites_of(row):
    return pd.read_parquet(recipe_study.rewrites_path(row["trial"], row["seed"], FOLDER))


def test_mutual_information_is_0_without_reading_and_log_5_with_perfect_reading():
    blind = pd.DataFrame([{"kind": k, "suffix": s} for k in KINDS for s in MENU])
    assert mutual_information(blind) == pytest.approx(0, abs=1e-12)
    perfect = pd.DataFrame([{"kind": k, "suffix": MENU[i]} for i, k in enumerate(KINDS)])
    assert mutual_information(perfect) == pytest.approx(math.log(5))
    off = pd.DataFrame([{"kind": k, "suffix": f"made up {i}"} for i, k in enumerate(KINDS)])
    assert mutual_information(off) == pytest.approx(0, abs=1e-12)


def test_a_gain_is_paired_by_prompt_and_its_error_stratified_by_kind():
    answers = [("a", "howto", 0.5), ("a", "howto", 0.7), ("b", "howto", 0.2), ("b", "howto", 0.2)]
    answers += [("c", "choice", 0.9), ("d", "choice", 0.3)]
    table = pd.DataFrame(answers, columns=["id", "kind", "reward"])
    base = pd.Series({"a": 0.5, "b": 0.0, "c": 0.8, "d": 0.4})
    gain, error = gain_over(table, base)
    # Differences 0.1 and 0.2 in one kind, 0.1 and -0.1 in the other.
    assert gain == pytest.approx((0.1 + 0.2 + 0.1 - 0.1) / 4)
    assert error == pytest.approx(math.sqrt(2 * 0.005 + 2 * 0.02) / 4)


def test_a_suffix_is_what_a_rewrite_adds():
    table = pd.DataFrame({"prompt": "Why?", "rewrite": ["Why? Be brief.", "Why?"]})
    assert suffix_of(table).tolist() == ["Be brief.", "(nothing)"]


def test_the_next_trial_is_the_first_without_a_line(tmp_path):
    first = next(trial for trial in recipe_study.TRIALS if not trial.drawn)
    assert recipe_study.missing_trials(tmp_path)[0] == (first, first.seeds[0])
    (tmp_path / "trials.jsonl").write_text(
        json.dumps({"trial": first.name, "seed": first.seeds[0]})
    )
    assert (first, first.seeds[0]) not in recipe_study.missing_trials(tmp_path)


def test_the_suffix_table_is_of_validation_prompts_and_follows_from_its_texts():
    by_id = {p.id: p for p in load_prompts("help", "validation")}
    counts = SUFFIXES.groupby("configuration")["id"].value_counts()
    assert set(counts.index) == {(s, i) for s in ("(nothing)", *MENU) for i in by_id}
    assert set(counts) == {recipe_study.SUFFIX_SAMPLES}
    sample = SUFFIXES.sample(200, random_state=0)
    answers = [Response(y, ended) for y, ended in zip(sample["response"], sample["ended"])]
    rewards = rubric([by_id[i] for i in sample["id"]], answers)
    expected = torch.tensor(sample["reward"].to_numpy(), dtype=rewards.dtype)
    torch.testing.assert_close(rewards, expected, atol=1e-4, rtol=0)


def test_every_kept_trial_is_named_in_the_script_and_says_where_it_comes_from():
    known = {(trial.name, seed): trial for trial in recipe_study.TRIALS for seed in trial.seeds}
    for row in TRIALS:
        trial = known[row["trial"], row["seed"]]
        assert trial.ppo.items() <= row["ppo"].items()
        examples = "drawn" if trial.drawn else "balanced"
        assert (trial.warm_start | {"examples": examples}).items() <= row["warm_start"].items()
        assert {"date", "commit", "versions", "hardware"} <= row.keys()
        assert "dirty" not in row["commit"]


@pytest.mark.parametrize("row", DONE, ids=named)
def test_the_line_of_a_trial_follows_from_its_rewrites(row):
    table = rewrites_of(row)
    kinds = {p.id: p.kind for p in load_prompts("help", "validation")}
    assert table["id"].map(kinds).equals(table["kind"]) and set(table["id"]) == set(kinds)
    assert table["id"].value_counts().unique().tolist() == [recipe_study.SAMPLES]
    assert row["reward"] == pytest.approx(
        np.mean([table[table["id"] == i]["reward"].mean() for i in kinds])
    )
    known = [s if s in MENU else "off" for s in table["suffix"]]
    assert row["on_menu"] == pytest.approx(1 - known.count("off") / len(known))
    assert row["mutual_information"] == pytest.approx(mutual_info_score(table["kind"], known))
    earned = {
        s: part.groupby("kind")["reward"].mean() for s, part in SUFFIXES.groupby("configuration")
    }
    means = {s: by_kind.mean() for s, by_kind in earned.items()}
    assert row["best_constant"] == pytest.approx(max(means.values()))
    assert row["gain_over_constant"] == pytest.approx(row["reward"] - max(means.values()))
    assert row["best_per_kind"] == pytest.approx(
        np.mean([max(by_kind[k] for by_kind in earned.values()) for k in KINDS])
    )
    top = {k: sorted(earned, key=lambda s: earned[s][k])[-2:] for k in KINDS}
    read = [s in top[k] for s, k in zip(table["suffix"], table["kind"])]
    assert row["reading_accuracy"] == pytest.approx(sum(read) / len(read))
    assert row["frozen_calls"] == row["ppo"]["steps"] * row["ppo"]["batch_size"]
    assert len(row["curve"]["reward"]) == row["ppo"]["steps"]
    assert row["training_reward"] == pytest.approx(np.mean(row["curve"]["reward"][-5:]), abs=1e-4)


def test_the_kept_comparisons_follow_from_the_rewrites():
    kept = pd.read_csv(FOLDER / "comparisons.csv")
    seeds = {name: {r["seed"] for r in DONE if r["trial"] == name} for name in kept["trial"]}
    for name, against, count, difference, _ in kept.itertuples(index=False):
        common = seeds[name] & {r["seed"] for r in DONE if r["trial"] == against}
        assert len(common) == count
        rows = [r for r in DONE if r["seed"] in common]
        means = {
            n: np.mean([r["reward"] for r in rows if r["trial"] == n]) for n in (name, against)
        }
        assert difference == pytest.approx(means[name] - means[against], abs=1e-4)
    expected = recipe_study.comparisons(FOLDER)
    pd.testing.assert_frame_equal(kept, expected, atol=1e-4)
