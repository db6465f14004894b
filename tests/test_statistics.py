"""Statistics against hand computation, SciPy, and how often their intervals cover the truth."""

import numpy as np
import pytest
from helpers.tables import runs_of, table_of
from scipy import stats

from alignpro.statistics import (
    _variance_parts,
    bootstrap,
    paired_gain,
    reward_summary,
    variance_change,
)


def test_the_bootstrap_is_that_of_scipy_over_the_prompts_of_one_run():
    values = np.random.default_rng(0).exponential(size=80)
    for statistic in (np.mean, lambda x, axis: np.log(np.mean(x, axis=axis))):
        theirs = stats.bootstrap(
            (values,), statistic, method="percentile", n_resamples=20_000, rng=1
        ).confidence_interval
        transform = np.log if statistic is not np.mean else None
        ours = bootstrap(values[None], statistic=transform, resamples=20_000)
        # Ours is as much wider as Student's t, and the error with n − 1, ask for.
        middle = statistic(values, axis=0)
        wider = stats.t.ppf(0.975, 79) / stats.norm.ppf(0.975) * np.sqrt(80 / 79)
        ends = middle + wider * (np.array([theirs.low, theirs.high]) - middle)
        assert ours == pytest.approx(ends, abs=0.01)


@pytest.mark.parametrize("prompts", [2, 3, 5, 10])
def test_the_interval_of_few_prompts_is_that_of_student(prompts):
    rng, covered = np.random.default_rng(prompts), 0
    for seed in range(400):
        values = rng.normal(size=(1, prompts))
        low, high = bootstrap(values, resamples=400, seed=seed)
        covered += low <= 0 <= high
    assert 0.92 < covered / 400 < 0.985
    theirs = stats.t.interval(0.95, prompts - 1, values.mean(), stats.sem(values[0]))
    assert high - low == pytest.approx(theirs[1] - theirs[0])


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_the_interval_of_few_runs_covers_the_truth_where_runs_differ(runs):
    rng, covered = np.random.default_rng(runs), 0
    for seed in range(400):
        values = rng.normal(0, 0.3, (runs, 1)) + rng.normal(0, 1, 40) + rng.normal(0, 1, (runs, 40))
        low, high = bootstrap(values, resamples=400, seed=seed)
        covered += low <= 0 <= high
    assert covered / 400 > 0.91


def test_one_prompt_tells_nothing_about_others():
    assert bootstrap([[0.3], [0.4]]).tolist() == [-np.inf, np.inf]


def test_the_bootstrap_draws_runs_and_prompts_apart():
    """Run effects and prompt effects: the variances of their two means add up."""
    runs, prompts = np.array([0.0, 1.0, 2.0]), np.linspace(0, 1, 25)
    moments = []
    bootstrap(
        runs[:, None] + prompts,
        statistic=lambda means: moments.append(means.var()) or means,
        resamples=40_000,
    )
    assert moments[0] == pytest.approx(runs.var() / 3 + prompts.var() / 25, rel=0.03)


def test_a_bootstrap_in_several_blocks_has_the_normal_interval():
    """3,000 prompts are 1,666 resamples a block."""
    values = np.random.default_rng(2).random(3000)
    theirs = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert bootstrap(values[None], resamples=4000) == pytest.approx(theirs, abs=0.002)


def test_bootstrap_intervals_cover_the_truth_and_pair():
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        low, high = bootstrap(rng.normal(size=(1, 60)), resamples=300, seed=seed)
        hits += low <= 0 <= high
    assert 175 <= hits <= 199
    values = rng.normal(size=(1, 30, 4, 2))
    ends = bootstrap(values)
    assert ends.shape == (4, 2, 2)
    assert ends[1, 1] == pytest.approx(bootstrap(values[:, :, 1, 1]))
    assert np.ptp(bootstrap(values, level=0.5)) < np.ptp(ends)
    shift = bootstrap(values[..., 0, 0] + 1 - values[..., 0, 0])
    assert shift == pytest.approx([1, 1])


@pytest.mark.parametrize("values", [[], [1.0, 2.0], np.zeros((2, 0)), [[1.0, np.nan]], [[np.inf]]])
def test_the_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="^values: "):
        bootstrap(values)


def test_the_bootstrap_refuses_a_level_in_per_cent():
    with pytest.raises(ValueError, match="^level: "):
        bootstrap([[1, 2]], level=95)


def test_mean_and_variances_by_hand():
    result = reward_summary(table_of({"A": [[0.0, 1.0], [1.0, 1.0]]}), resamples=200).loc["A"]
    assert result["mean"] == 0.75
    # Sample variances 1/2 and 0; that of the means, 1/8, is what the noise of two answers makes.
    assert result["within"] == pytest.approx((0.5 + 0) / 2)
    assert result["across"] == pytest.approx(0.125 - 0.25 / 2)
    assert result["variance"] == pytest.approx(0.25)
    assert (result["prompts"], result["samples"]) == (2, 2)


@pytest.mark.parametrize("runs", [1, 3])
def test_the_variance_is_the_sum_of_its_sources(runs):
    rewards = np.random.default_rng(0).random((runs, 30, 5)) + np.arange(runs)[:, None, None] / 4
    result = reward_summary(runs_of({"A": rewards}), resamples=200).loc["A"]
    assert result["variance"] == pytest.approx(rewards.var(), rel=0.2)
    assert result["variance"] == pytest.approx(
        result["within"] + result["across"] + result["runs_apart"]
    )
    assert (result["runs_apart"] > 0) == (runs > 1)


def test_the_variances_of_few_answers_are_unbiased():
    """Components 1, 4 and 9 from two runs of three prompts with two answers each."""
    rng, found = np.random.default_rng(8), []
    for _ in range(4000):
        prompts = rng.normal(0, 2, (1, 3, 1)), rng.normal(0, 3, (2, 1, 1))
        rewards = sum(prompts) + rng.normal(0, 1, (2, 3, 2))
        found.append(_variance_parts(rewards))
    within, across, runs_apart = np.mean(found, axis=0)
    assert within == pytest.approx(1, rel=0.05)
    assert across == pytest.approx(4, rel=0.1)
    assert runs_apart == pytest.approx(9, rel=0.1)


def test_one_answer_per_prompt_leaves_the_variance_whole():
    rewards = np.random.default_rng(9).random((30, 1))
    result = reward_summary(table_of({"A": rewards}), 100).loc["A"]
    assert np.isnan(result["within"])
    assert result["variance"] == result["across"] == pytest.approx(rewards.var(ddof=1))
    assert result["variance_low"] < result["variance"] < result["variance_high"]


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
        result = reward_summary(table_of({"A": rewards}), resamples=400, seed=seed).loc["A"]
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
    # Two degrees of freedom, by Satterthwaite.
    half = stats.t.ppf(0.975, 2) * np.sqrt(0.02)
    assert (gain["high"] - gain["low"]) / 2 == pytest.approx(half)


def test_the_error_of_a_sample_stratified_by_kind_is_the_textbook_one():
    """sum over kinds of n_k s_k², over n²: what sets the kinds apart is no error."""
    rng, kinds = np.random.default_rng(6), np.array(["a"] * 4 + ["b"] * 6)
    better = rng.normal(0, 0.1, (10, 1)) + np.where(kinds == "a", 0.0, 5.0)[:, None]
    table = table_of({"A": better, "B": np.zeros((10, 1))})
    kind_of = dict(zip(table["id"].unique(), kinds, strict=True))
    gain = paired_gain(table.assign(kind=table["id"].map(kind_of)), "A", "B", 500)
    parts = [better[kinds == kind, 0] for kind in ("a", "b")]
    error = np.sqrt(sum(len(part) * part.var(ddof=1) for part in parts)) / 10
    assert gain["standard_error"] == pytest.approx(error)
    assert gain["gain"] == pytest.approx(better.mean())
    assert gain["high"] - gain["low"] == pytest.approx(2 * stats.t.ppf(0.975, 9) * error)
    plain = paired_gain(table, "A", "B", 500)
    assert plain["standard_error"] > 5 * gain["standard_error"]
    each_its_own = paired_gain(table.assign(kind=table["id"]), "A", "B", 500)
    assert each_its_own == plain, "kinds of one prompt tell nothing about the spread within them"


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


def test_the_change_of_the_variance_by_hand():
    """From answers 0 and 1 to answers ½ and 1: a sample variance of 1/2 -> 1/8 within prompts.

    The prompts' means are all alike, where the noise of two answers would set them apart: so the
    variance across prompts is estimated as −1/4 -> −1/16.
    """
    table = table_of({"A": [[0.5, 1.0]] * 4, "B": [[0.0, 1.0]] * 4})
    changes = variance_change(table, "A", "B", 200)
    assert changes.loc["within"].tolist() == pytest.approx([1 / 8 - 1 / 2] * 3)
    assert changes.loc["variance"].tolist() == pytest.approx([1 / 16 - 1 / 4] * 3)
    across = table_of({"A": [[0.0, 0.0], [1.0, 1.0]], "B": [[0.0, 1.0], [0.0, 1.0]]})
    changes = variance_change(across, "A", "B", 200)
    # A: 0 within, 1/2 across. B: 1/2 within, −1/4 across.
    assert changes["change"].tolist() == pytest.approx([1 / 2 - 1 / 4, -1 / 2])


def test_the_change_of_the_variance_is_the_difference_of_two_summaries():
    rng = np.random.default_rng(6)
    table = runs_of({"A": rng.random((2, 20, 4)), "B": rng.random((2, 20, 4)) ** 2})
    parts = reward_summary(table, 100).loc[["A", "B"], ["variance", "within"]]
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
    alone = reward_summary(table, 500).loc["A"]
    width = paired["high"] - paired["low"]
    assert width < (alone["variance_high"] - alone["variance_low"]) / 4


def test_the_variance_of_runs_that_do_not_pair_is_refused():
    table = table_of({"A": [[0.0], [1.0]], "B": [[0.0]]})
    with pytest.raises(ValueError, match="not answered the same prompts"):
        variance_change(table, "A", "B", 10)
