"""Statistics against hand computation, and the baselines against what they claim to do."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alignpro.evaluation import best_of, best_suffixes, constant, evaluate, per_kind, unchanged
from alignpro.report.examples import LARGEST_GAIN, LARGEST_LOSS, RANDOM, choose_examples
from alignpro.statistics import paired_gain, prompt_means, summary, variance_change
from alignpro.texts import Prompt


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


def test_the_change_of_the_variance_by_hand():
    """From answers 0 and 1 to answers ½ and 1: 1/4 -> 1/16, all of it within the prompts."""
    table = table_of({"A": [[0.5, 1.0]] * 4, "B": [[0.0, 1.0]] * 4})
    changes = variance_change(table, "A", "B", 200)
    assert changes.loc["variance"].tolist() == pytest.approx([1 / 16 - 1 / 4] * 3)
    assert changes.loc["within"].tolist() == pytest.approx([1 / 16 - 1 / 4] * 3)
    across = table_of({"A": [[0.0, 0.0], [1.0, 1.0]], "B": [[0.0, 1.0], [0.0, 1.0]]})
    changes = variance_change(across, "A", "B", 200)
    assert changes["change"].tolist() == pytest.approx([0, -1 / 4])


def test_the_change_of_the_variance_is_the_difference_of_two_summaries():
    rng = np.random.default_rng(6)
    table = runs_of({"A": rng.random((2, 20, 4)), "B": rng.random((2, 20, 4)) ** 2})
    parts = summary(table, 100).loc[["A", "B"], ["variance", "within"]]
    changes = variance_change(table, "A", "B", 2000)
    assert changes["change"].tolist() == pytest.approx((parts.loc["A"] - parts.loc["B"]).tolist())
    assert (changes["low"] < changes["change"]).all() and (
        changes["change"] < changes["high"]
    ).all()


def test_what_both_sides_share_does_not_widen_the_interval_of_the_variance():
    """Prompts differ a lot, and both configurations alike: only a paired interval is narrow."""
    rng = np.random.default_rng(7)
    easy = rng.choice([0.0, 1.0], size=(60, 1))
    noise = rng.normal(0, 0.01, (60, 4))
    table = table_of({"A": easy + noise, "B": easy - noise})
    paired = variance_change(table, "A", "B", 500).loc["variance"]
    alone = summary(table, 500).loc["A"]
    width = paired["high"] - paired["low"]
    assert width < (alone["variance_high"] - alone["variance_low"]) / 4


def test_the_variance_of_runs_that_do_not_pair_is_refused():
    table = table_of({"A": [[0.0], [1.0]], "B": [[0.0]]})
    with pytest.raises(ValueError, match="not answered the same prompts"):
        variance_change(table, "A", "B", 10)


def example_table(before, after):
    """Two runs as `matrix_table` has them, from rewards [runs, prompts, samples] of both sides."""
    table = runs_of({"No Fine-Tuning": np.array(before), "Align-Pro": np.array(after)})
    place = table["id"] + "/" + table["seed"].astype(str) + "/" + table["sample"].astype(str)
    texts = {"dataset": "help", "prompt": table["id"], "ended": True}
    return table.assign(
        **texts, rewrite=table["configuration"] + " of " + place, response="answer to " + place
    )


def test_examples_are_chosen_by_the_rules():
    """Mean changes by prompt: p0 +0.1, p1 +0.3, p2 -0.2; two runs of two samples."""
    before = [[[0.5, 0.5], [0.1, 0.1], [0.6, 0.6]]] * 2
    after = [[[0.6, 0.6], [0.1, 0.3], [0.6, 0.6]], [[0.6, 0.6], [0.5, 0.7], [0.2, 0.2]]]
    table = example_table(before, after)
    chosen = choose_examples(table.sample(frac=1, random_state=0), seed=0, drawn=1)
    assert chosen["rule"].tolist() == [RANDOM, LARGEST_GAIN, LARGEST_LOSS]
    drawn, gain, loss = (row for _, row in chosen.iterrows())
    assert (drawn["seed"], drawn["sample"]) == (0, 0)
    assert (gain["id"], loss["id"]) == ("p1", "p2")
    assert gain["change"] == pytest.approx(0.3) and loss["change"] == pytest.approx(-0.2)
    # Changes of p1 are 0, 0.2, 0.4 and 0.6.
    assert (gain["seed"], gain["sample"], gain["pairs"], gain["own"]) == (1, 1, 4, 0.6)
    assert gain["rewrite"] == "Align-Pro of p1/1/1"
    assert (gain["reward_before"], gain["reward_after"]) == (0.1, 0.7)
    # Those of p2 are 0, 0, -0.4 and -0.4: the first of the two that fell most.
    assert (loss["seed"], loss["sample"], loss["own"]) == (1, 0, -0.4)


def test_equal_changes_go_to_the_first_prompt_whatever_their_last_bit():
    """0.3 - 0.1 and 0.8 - 0.6 differ in floating point."""
    before, after = [[[0.6], [0.1], [0.0]]], [[[0.8], [0.3], [0.0]]]
    table = example_table(before, after)
    assert choose_examples(table, seed=0, drawn=1)["id"].iloc[1] == "p0"
    assert choose_examples(table.iloc[::-1], seed=0, drawn=1)["id"].iloc[1] == "p0"
    assert (0.8 - 0.6) != (0.3 - 0.1)


def test_random_examples_follow_the_seed_and_not_the_rewards():
    rng = np.random.default_rng(8)
    one, other = (example_table(*rng.random((2, 1, 40, 2))) for _ in range(2))
    ids = [choose_examples(t, seed=3, drawn=3)["id"][:3].tolist() for t in (one, other)]
    assert ids[0] == ids[1] and len(set(ids[0])) == 3
    assert ids[0] != choose_examples(one, seed=4, drawn=3)["id"][:3].tolist()


def test_examples_of_answers_that_do_not_pair_are_refused():
    table = example_table(np.zeros((1, 2, 2)), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="equally often"):
        choose_examples(table.iloc[:-1], seed=0, drawn=1)
