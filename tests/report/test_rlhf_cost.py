"""Costs of runs and samples for the free oracles, on cases computed by hand."""

import numpy as np
import pandas as pd
import pytest

from alignpro.figures import rlhf
from alignpro.figures.style import COLORS
from alignpro.report import rlhf_cost
from alignpro.runs import STEP_PARTS
from alignpro.theory.from_samples import prompter_front

SCORES, KL = "objective/scores", "objective/kl"


def steps(architecture, seed, seconds, tokens, scores, kl):
    """Metrics of one run; a step's `seconds` are spread over its parts."""
    rows = [
        {
            **dict.fromkeys(STEP_PARTS, s / len(STEP_PARTS)),
            "time/frozen": s / 2,  # a part of time/score: must not count twice
            "val/generated_tokens": t,
            SCORES: r,
            KL: k,
            "step": i,
        }
        for i, (s, t, r, k) in enumerate(zip(seconds, tokens, scores, kl), 1)
    ]
    configuration = "RLHF" if architecture == "F1" else "Align-Pro"
    return pd.DataFrame(rows).assign(
        architecture=architecture, dataset="help", seed=seed, configuration=configuration
    )


@pytest.fixture
def runs():
    metrics = [
        steps("P1F1", 0, [10, 10, 20], [5, 5, 5], [0.1, 0.2, 0.6], [0.0, 1.0, 2.0]),
        steps("P1F1", 1, [10, 10, 10], [6, 6, 6], [0.2, 0.3, 0.4], [0.0, 0.0, 0.5]),
        steps("F1", 0, [5, 5, 5], [9, 9, 9], [0.0, 0.5, 0.7], [0.0, 3.0, 5.0]),
    ]
    return rlhf_cost.spent(pd.concat(metrics, ignore_index=True))


def test_costs_add_up_within_each_run(runs):
    prompter = runs[(runs["configuration"] == "Align-Pro") & (runs["seed"] == 0)]
    assert prompter["seconds"].tolist() == pytest.approx([10, 20, 40])
    assert prompter["tokens"].tolist() == [5, 10, 15]
    assert runs.loc[runs["configuration"] == "RLHF", "architecture"].unique().tolist() == ["F1"]


def test_rewards_at_the_cost_of_the_cheapest_run(runs):
    by_time = rlhf_cost.at_equal_cost(runs, "seconds", window=1)
    assert by_time["after 15 seconds"].tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert by_time["seconds in all"].tolist() == pytest.approx([40, 30, 15])
    by_tokens = rlhf_cost.at_equal_cost(runs, "tokens", window=2)
    assert by_tokens["after 15 tokens"].tolist() == pytest.approx([0.4, 0.25, 0.0])
    assert by_tokens["start"].tolist() == pytest.approx([0.15, 0.25, 0.25])
    assert by_tokens["end"].tolist() == pytest.approx([0.4, 0.35, 0.6])


def test_the_end_of_a_run_against_the_fronts(runs):
    ends = rlhf_cost.last_steps(runs, steps=2)
    assert ends["kl"].tolist() == pytest.approx([1.5, 0.25, 4.0])
    assert ends["reward"].tolist() == pytest.approx([0.4, 0.35, 0.6])
    front = pd.DataFrame(
        {
            "configuration": ["Align-Pro"] * 2 + ["RLHF"] * 2,
            "front": ["a", "a", "b", "b"],
            "kl": [2.0, 0.0, 0.0, 3.0],
            "reward": [0.8, 0.4, 0.0, 1.0],
        }
    )
    beside = rlhf_cost.against_fronts(ends, front)
    assert beside["a"].tolist()[:2] == pytest.approx([0.7, 0.45])
    # The RLHF front ends before the run does: nothing can be said, so the column goes.
    assert np.isnan(beside["a"].iloc[2]) and "b" not in beside


def suffix_table():
    """Four prompts of two kinds, three suffixes, two runs of two answers, all rewards distinct."""
    rows = [
        {
            "configuration": suffix, "id": f"x{x}", "kind": "ab"[x // 2], "seed": seed,
            "sample": sample, "reward": 1000 * x + 100 * n + 10 * seed + sample,
        }
        for seed in (0, 1) for n, suffix in enumerate(("u", "v", "w"))
        for x in range(4) for sample in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_rewards_of_rewrites_stand_where_they_belong():
    by_prompt = rlhf_cost.rewrite_rewards(suffix_table(), ["u", "w"])
    assert by_prompt.shape == (4, 2, 4)
    assert sorted(by_prompt[3, 1]) == [3200, 3201, 3210, 3211]
    by_kind = rlhf_cost.rewrite_rewards(suffix_table(), ["u", "v", "w"], by="kind")
    assert by_kind.shape == (2, 3, 8)
    assert set(by_kind[1, 2, ::2] // 1000) == {2} and set(by_kind[1, 2, 1::2] // 1000) == {3}


def test_every_row_has_the_answers_that_all_have_and_a_missing_suffix_is_refused():
    table = suffix_table()
    short = table.drop(table.index[(table["id"] == "x0") & (table["sample"] == 1)])
    assert rlhf_cost.rewrite_rewards(short, ["u", "v", "w"]).shape == (4, 3, 2)
    gone = table[(table["id"] != "x0") | (table["configuration"] != "v")]
    with pytest.raises(ValueError, match="not every id was answered with each of the 3 suffixes"):
        rlhf_cost.rewrite_rewards(gone, ["u", "v", "w"])


def test_answers_of_all_runs_are_pooled_by_prompt():
    table = suffix_table()
    rewards = rlhf_cost.answer_rewards(table, "v")
    assert rewards.shape == (4, 4)
    assert sorted(rewards[2]) == [2100, 2101, 2110, 2111]
    with pytest.raises(ValueError, match="'v' have not answered the same prompts"):
        rlhf_cost.answer_rewards(table[(table["id"] != "x0") | (table["seed"] == 0)], "v")


def test_a_front_of_kinds_is_the_optimum_of_a_prompter_that_reads_the_kind():
    """Kind a is served by u, kind b by w: with a loose leash each gets its own, at log 3 nats."""
    table = suffix_table()
    served = (table["kind"] + table["configuration"]).isin(["au", "bw"])
    table["reward"] = served.astype(float)
    rewards = rlhf_cost.rewrite_rewards(table, ["u", "v", "w"], by="kind")
    front = rlhf_cost.front_table(prompter_front(rewards, [1e-3, 1e3]), "Align-Pro", "a front")
    assert front["reward"].tolist() == pytest.approx([1, 1 / 3], abs=1e-3)
    assert front["kl"].tolist() == pytest.approx([np.log(3), 0], abs=1e-5)
    assert front["ess"].tolist() == pytest.approx([1, 3], abs=1e-3)


def test_a_star_stands_where_a_run_ends(runs):
    front = pd.DataFrame({"kl": [0.0, 4.0], "reward": [0.0, 1.0]})
    fronts = pd.concat(
        [
            front.assign(configuration="Align-Pro", front="reads the prompt, split answers"),
            front.assign(configuration="RLHF", front="π*, all answers"),
        ]
    )
    figure = rlhf.on_gibbs_fronts(fronts, runs)
    left, right = figure.axes
    star = right.collections[-1]
    assert star.get_offsets()[0].tolist() == pytest.approx([np.sqrt(8 / 3), 0.4])
    assert right.lines[0].get_xdata().tolist() == [0, 2]
    assert left.lines[1].get_color() == COLORS["Align-Pro"]
    without = rlhf.on_gibbs_fronts(fronts, runs[runs["configuration"] != "RLHF"])
    assert len(without.axes[1].collections) == 0 and len(without.axes[1].lines) == 1
