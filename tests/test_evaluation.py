"""The baselines against what they claim to do, and the table that evaluation makes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import runs_of, table_of

from alignpro.evaluation import (
    RewardError,
    best_of,
    best_suffixes,
    checked_rewards,
    constant,
    evaluate,
    kept,
    per_kind,
    unchanged,
)
from alignpro.report.examples import LARGEST_GAIN, LARGEST_LOSS, RANDOM, choose_examples
from alignpro.report.kept_runs import prompt_means
from alignpro.statistics import paired_gain, reward_summary, variance_change
from alignpro.texts import Prompt, Response


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


ONE_AND_A_HALF_AND_NONE = [
    [1, 0.5, False],
    (1.0, 0.5, 0),
    np.array([1, 0.5, 0]),
    np.array([1, 0.5, 0], dtype=np.float16),
    pd.Series([1, 0.5, 0], index=[7, 8, 9]),
    torch.tensor([1, 0.5, 0]),
    torch.tensor([1, 0.5, 0], dtype=torch.bfloat16, requires_grad=True),
    [torch.tensor(1), np.float32(0.5), np.bool_(False)],
]


@pytest.mark.parametrize("values", ONE_AND_A_HALF_AND_NONE, ids=lambda v: type(v).__name__)
def test_rewards_of_every_kind_are_taken(values):
    taken = checked_rewards(values, ["p", "q", "r"], "it")
    assert taken.tolist() == [1.0, 0.5, 0.0] and taken.dtype == float


def test_whole_numbers_and_booleans_are_rewards():
    for ones in ([1, 1], [True, True], np.ones(2, int), np.ones(2, bool), torch.ones(2).bool()):
        assert checked_rewards(ones, ["p", "q"], "it").tolist() == [1.0, 1.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_rewards_on_another_device_are_taken():
    assert checked_rewards(torch.ones(2, device="cuda"), ["p", "q"], "it").tolist() == [1.0, 1.0]


@pytest.mark.parametrize("one", [0.5, [0.5], [[0.5]], torch.tensor(0.5), np.full((1, 1, 1), 0.5)])
def test_one_element_is_the_reward_of_one_prompt_alone(one):
    assert checked_rewards(one, ["p"], "it").tolist() == [0.5]
    with pytest.raises(RewardError, match="^it returned 1 values for 2 responses$"):
        checked_rewards(one, ["p", "q"], "it")


@pytest.mark.parametrize("values", [[], [0.5] * 3, torch.zeros(1, 2), torch.zeros(4), None, "ab"])
def test_rewards_of_another_number_are_refused(values):
    with pytest.raises(RewardError, match=r"^it returned \d values for 2 responses$"):
        checked_rewards(values, ["p", "q"], "it")


@pytest.mark.parametrize(
    "bad",
    [math.nan, math.inf, -math.inf, None, "0.5", 1j, [0.5], torch.zeros(1), [0.5, 0.5], pd.NA],
)
def test_a_reward_that_is_no_finite_number_is_named_with_its_row_and_prompt(bad):
    with pytest.raises(RewardError, match="^it is .* in row 1, .* not a finite .* row is 'Why q'"):
        checked_rewards([0.5, bad], ["Why p", "Why q"], "it")


def test_a_matrix_of_rewards_is_refused():
    with pytest.raises(RewardError, match="^it is \\[0.0\\] in row 0, .* not a finite number"):
        checked_rewards(torch.zeros(2, 1), ["p", "q"], "it")


class Repeats:
    """A frozen LLM that repeats what it is asked."""

    def generate(self, prompts, seed):
        return [Response(p) for p in prompts]


def not_a_number_for_reasons(prompts, responses):
    return [math.nan if x.kind == "reason" else 0.5 for x in prompts]


def test_evaluation_stops_at_a_reward_that_is_not_a_number():
    prompts = prompts_of("howto", "reason")
    wanted = "the reward not_a_number_for_reasons is nan in row 2, .* row is 'Question 1\\?'"
    with pytest.raises(RewardError, match=wanted):
        evaluate({"A": unchanged}, Repeats(), not_a_number_for_reasons, prompts, 2, 0, False)


def test_the_best_of_n_stops_at_a_reward_that_is_not_a_number():
    chosen = best_of(2, unchanged, Repeats(), not_a_number_for_reasons)
    with pytest.raises(RewardError, match="is nan in row 2"):
        chosen(prompts_of("howto", "reason"), 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_table_with_a_reward_that_is_not_finite_has_no_means(bad):
    """As a table kept by an older version: a pivot table would leave the row out."""
    table = table_of({"A": [[0.5, bad], [1, 0]], "B": [[0.5, 0], [1, 0]]})
    for reads in (
        best_suffixes,
        prompt_means,
        lambda t: reward_summary(t, 100),
        lambda t: paired_gain(t, "A", "B", 100),
        lambda t: variance_change(t, "A", "B", 100),
    ):
        with pytest.raises(RewardError, match="reward .* is (nan|inf) in row 1"):
            reads(table)


def test_a_kept_table_is_made_once(tmp_path):
    asked = []

    def make(*arguments):
        asked.append(arguments)
        return pd.DataFrame({"reward": [0.5]})

    for _ in range(2):
        table = kept(tmp_path / "table.parquet", make, "help", 3)
        pd.testing.assert_frame_equal(table, pd.DataFrame({"reward": [0.5]}))
    assert asked == [("help", 3)]
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]
