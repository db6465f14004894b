"""Statistics against hand computation, and the baselines against what they claim to do."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alignpro.data import Prompt
from alignpro.evaluation import (
    best_of,
    best_suffixes,
    constant,
    evaluate,
    paired_gain,
    per_kind,
    prompt_means,
    summary,
    unchanged,
)


def table_of(rewards):
    """A tidy table from {configuration: [prompts, samples] rewards}."""
    return pd.DataFrame(
        [
            {"configuration": name, "id": f"p{i}", "kind": "howto", "sample": j, "reward": r}
            for name, rows in rewards.items()
            for i, row in enumerate(rows)
            for j, r in enumerate(row)
        ]
    )


def runs_of(rewards):
    """The same from {configuration: [runs, prompts, samples] rewards}."""
    runs = len(next(iter(rewards.values())))
    return pd.concat(
        [table_of({name: r[i] for name, r in rewards.items()}).assign(seed=i) for i in range(runs)]
    )


def test_mean_and_variances_by_hand():
    result = summary(table_of({"A": [[0.0, 1.0], [1.0, 1.0]]}), resamples=200).loc["A"]
    assert result["mean"] == 0.75
    assert result["variance"] == pytest.approx(0.1875)
    assert result["within"] == pytest.approx((0.25 + 0) / 2)
    assert result["across"] == pytest.approx(0.0625)
    assert (result["prompts"], result["samples"]) == (2, 2)


@pytest.mark.parametrize("runs", [1, 3])
def test_the_variance_is_the_sum_of_its_sources(runs):
    rewards = np.random.default_rng(0).random((runs, 30, 5)) + np.arange(runs)[:, None, None] / 4
    result = summary(runs_of({"A": rewards}), resamples=200).loc["A"]
    assert result["variance"] == pytest.approx(rewards.var())
    assert result["variance"] == pytest.approx(
        result["within"] + result["across"] + result["runs_apart"]
    )
    assert (result["runs_apart"] > 0) == (runs > 1)


def test_the_paired_gain_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(1)
    base, better = rng.random((40, 3)), rng.random((40, 3)) + 0.2
    gain = paired_gain(table_of({"base": base, "better": better}), "better", "base", 2000)
    difference = better.mean(1) - base.mean(1)
    reference = stats.ttest_rel(better.mean(1), base.mean(1)).confidence_interval(0.95)
    assert gain["gain"] == pytest.approx(difference.mean())
    assert gain["standard_error"] == pytest.approx(stats.sem(difference))
    assert gain["low"] == pytest.approx(reference.low, abs=0.02)
    assert gain["high"] == pytest.approx(reference.high, abs=0.02)
    assert gain["prompts"] == 40


def test_pairing_is_by_prompt_and_not_by_row_order():
    rng = np.random.default_rng(2)
    table = table_of({"A": rng.random((12, 2)), "B": rng.random((12, 2))})
    shuffled = table.sample(frac=1, random_state=0)
    assert paired_gain(table, "A", "B", 300)["standard_error"] == pytest.approx(
        paired_gain(shuffled, "A", "B", 300)["standard_error"]
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(3), 0
    for seed in range(200):
        rewards = rng.normal(0.5, 0.1, (40, 1)) + rng.normal(0, 0.1, (40, 4))
        result = summary(table_of({"A": rewards}), resamples=400, seed=seed).loc["A"]
        covered += result["mean_low"] <= 0.5 <= result["mean_high"]
    assert 180 <= covered <= 198


def test_the_gain_over_several_runs_by_hand():
    """Two runs of two prompts: differences 0.1, 0.3 and 0.3, 0.5."""
    base = np.zeros((2, 2, 1))
    better = np.array([[[0.1], [0.3]], [[0.3], [0.5]]])
    gain = paired_gain(runs_of({"A": better, "B": base}), "A", "B", 500)
    assert gain["gain"] == pytest.approx(0.3)
    # Prompt means 0.2, 0.4 and run means 0.2, 0.4: a sample variance of 0.02 over 2, twice.
    assert gain["standard_error"] == pytest.approx(np.sqrt(0.01 + 0.01))
    assert gain["effect_size"] == pytest.approx(0.3 / np.sqrt(0.02))
    assert gain["detectable"] == pytest.approx(2.8 * np.sqrt(0.02))
    assert (gain["runs"], gain["prompts"]) == (2, 2)
    assert (gain["low"], gain["high"]) == (pytest.approx(0.1), pytest.approx(0.5))


def test_a_detectable_difference_is_found_four_times_in_five():
    rng, found = np.random.default_rng(4), 0
    for _ in range(300):
        noise = rng.normal(0, 0.2, (40, 1))
        gain = paired_gain(
            table_of({"A": noise + 2.8 * 0.2 / np.sqrt(40), "B": np.zeros((40, 1))}), "A", "B", 100
        )
        found += gain["gain"] > 1.96 * gain["standard_error"]
    assert 0.72 < found / 300 < 0.88


def test_intervals_over_runs_and_prompts_cover_the_truth():
    rng, covered = np.random.default_rng(5), 0
    for seed in range(200):
        prompts, runs = rng.normal(0, 0.1, (1, 40, 1)), rng.normal(0, 0.03, (12, 1, 1))
        better = 0.2 + prompts + runs + rng.normal(0, 0.1, (12, 40, 2))
        table = runs_of({"A": better, "B": np.zeros_like(better)})
        gain = paired_gain(table, "A", "B", 300, seed)
        covered += gain["low"] <= 0.2 <= gain["high"]
    assert 178 <= covered <= 198


def test_runs_that_answered_other_prompts_are_refused():
    table = runs_of({"A": np.zeros((2, 3, 2)), "B": np.zeros((2, 3, 2))})
    lacking = table[~((table["configuration"] == "B") & (table["seed"] == 1))]
    with pytest.raises(ValueError, match="'A' and 'B' have not answered the same prompts in each"):
        paired_gain(lacking, "A", "B", 100)
    short = table[~((table["seed"] == 1) & (table["id"] == "p2"))]
    with pytest.raises(ValueError, match="runs of 'A' have not answered the same prompts"):
        paired_gain(short, "A", "B", 100)


def prompts_of(*kinds):
    return [Prompt(f"Question {i}?", "help", "test", kind) for i, kind in enumerate(kinds)]


def test_what_each_baseline_sends_to_the_frozen_llm():
    howto, reason = prompts_of("howto", "reason")
    assert unchanged([howto], 0) == ["Question 0?"]
    assert constant("Be brief.")([howto], 0) == ["Question 0? Be brief."]
    assert constant("")([howto], 0) == ["Question 0?"]
    suffixes = {"howto": "List steps.", "reason": ""}
    assert per_kind(suffixes)([howto, reason], 0) == ["Question 0? List steps.", "Question 1?"]


def test_the_best_suffixes_weigh_every_kind_alike():
    rows = [("a", "howto", 0.9)] * 9 + [("a", "reason", 0.0)] + [("(nothing)", "howto", 0.5)] * 9
    rows += [("(nothing)", "reason", 0.6)]
    table = pd.DataFrame(rows, columns=["configuration", "kind", "reward"])
    assert best_suffixes(table) == ("", {"howto": "a", "reason": ""})


def test_prompts_without_a_kind_have_one_best_suffix():
    rows = [("(nothing)", 0.1), ("a", 0.2), ("b", 0.9), ("b", -0.8)]
    table = pd.DataFrame(rows, columns=["configuration", "reward"]).assign(kind=None)
    assert best_suffixes(table) == ("a", {})


def test_evaluate_scores_the_original_prompt_and_keeps_every_text(load_tiny, greedy):
    from alignpro.generation import Policy

    frozen = Policy(*load_tiny("llama"), greedy)
    prompts, seen = prompts_of("howto", "reason"), []

    def reward(asked, responses):
        seen.extend(asked)
        return [len(r) for r in responses]

    rewriters = {"No Fine-Tuning": unchanged, "Suffix": constant("Now.")}
    table = evaluate(rewriters, frozen, reward, prompts, samples=3, seed=0, progress=False)
    assert len(table) == 2 * 2 * 3
    assert {str(x) for x in seen} == {"Question 0?", "Question 1?"}
    assert set(table.loc[table["configuration"] == "Suffix", "rewrite"]) == {
        "Question 0? Now.",
        "Question 1? Now.",
    }
    assert (table["reward"] == table["response"].str.len()).all()
    assert prompt_means(table).shape == (2, 2)


def test_best_of_keeps_the_rewrite_whose_answer_scored_best():
    """A frozen LLM that repeats what it is asked, and a reward that reads a number in it."""

    class Echo:
        def __init__(self):
            self.seeds = []

        def generate(self, prompts, seed):
            self.seeds.append(seed)
            return [f"{p}!" for p in prompts]

    def numbered(prompts, seed):
        order = np.random.default_rng(seed).permutation(len(prompts))
        return [f"{x} {n}" for x, n in zip(prompts, order)]

    def reward(prompts, responses):
        return [int(y.rstrip("!").rsplit(" ", 1)[1]) for y in responses]

    frozen, prompts = Echo(), prompts_of("howto", "reason", "choice")
    chosen = best_of(4, numbered, frozen, reward)(prompts, 7)
    drawn = np.random.default_rng(7).permutation(12).reshape(3, 4)
    assert chosen == [f"Question {i}? {row.max()}" for i, row in enumerate(drawn)]
    assert frozen.seeds == [9], "one pass over all rewrites, with noise of its own"
    assert best_of(1, numbered, frozen, reward)(prompts, 7) == numbered(prompts, 7)
