"""Win rates against hand computation, closed forms and other people's estimators."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from alignpro.evaluation import RewardError
from alignpro.judging.report import (
    by_prompt,
    first_shown_rate,
    flip_rate,
    report,
    reward_judge,
    self_preference,
    validate,
)
from alignpro.judging.win_rates import length_adjusted, win_rate

PREFERENCE = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)
FIXED = settings(max_examples=60, deadline=None, derandomize=True)
ENOUGH = 400  # bootstrap resamples where the interval's third digit does not matter


# Win rates


def test_a_win_rate_by_hand():
    """Three wins, a tie, a loss, one unparsed: mean 0.7, squares about it 0.8, over 5 · 4."""
    result = win_rate([1, 0.75, None, 0.5, 1, 0.25])
    assert result.rate == pytest.approx(0.7)
    assert result.standard_error == pytest.approx(math.sqrt(0.425 / 4 / 5))
    assert (result.wins, result.ties, result.losses) == (3, 1, 1)
    assert (result.n, result.unparsed) == (5, 1)
    assert 0.25 <= result.low < 0.7 < result.high <= 1


@FIXED
@given(st.lists(PREFERENCE | st.none(), max_size=40))
def test_what_holds_for_any_preferences(preferences):
    result = win_rate(preferences, resamples=50)
    parsed = [p for p in preferences if p is not None]
    assert result.n == result.wins + result.ties + result.losses == len(parsed)
    assert result.unparsed == len(preferences) - len(parsed)
    if parsed:
        assert result.rate == pytest.approx(np.mean(parsed))
    if len(parsed) > 1:
        assert result.standard_error == pytest.approx(stats.sem(parsed), abs=1e-12)
        assert 0 <= result.low <= result.rate <= result.high <= 1
        swapped = win_rate([None if p is None else 1 - p for p in preferences], resamples=50)
        assert swapped.rate == pytest.approx(1 - result.rate)
        assert swapped.wins == sum(1 - p > 0.5 for p in parsed)
        assert swapped.standard_error == pytest.approx(result.standard_error, abs=1e-9)
        turned = win_rate(preferences[::-1], resamples=50)
        assert (turned.rate, turned.low, turned.high) == (result.rate, result.low, result.high)
    else:
        assert all(map(math.isnan, (result.standard_error, result.low, result.high)))


def test_too_few_preferences_have_no_error_and_none_have_no_rate():
    assert math.isnan(win_rate([]).rate) and win_rate([None]).unparsed == 1
    single = win_rate([1.0])
    assert single.rate == 1 and math.isnan(single.standard_error) and math.isnan(single.low)
    assert win_rate([]).p_value == win_rate([0.5, 0.5]).p_value == 1


@pytest.mark.parametrize("value", [-0.01, 1.01, 2, math.inf, -math.inf])
def test_a_preference_outside_0_1_is_refused_by_its_index(value):
    with pytest.raises(ValueError, match="preference 2 is"):
        win_rate([0, None, value, 1])


@pytest.mark.parametrize("value", ["1", "A", [1], {}])
def test_what_is_no_number_is_refused_by_its_index(value):
    with pytest.raises(ValueError, match="preference 1 is"):
        win_rate([0, value])


def test_every_way_to_say_unparsed_and_every_container():
    expected = win_rate([1.0, 0.0, 0.5, None], ENOUGH)
    values = [1.0, 0.0, 0.5, float("nan")]
    for container in (np.array(values), pd.Series(values), tuple(values), iter(values)):
        assert win_rate(container, ENOUGH) == expected
    assert win_rate([1.0, 0.0, 0.5, pd.NA], ENOUGH) == expected
    assert win_rate(pd.array([1, 0, None], "Int64"), ENOUGH).unparsed == 1
    assert win_rate([True, False], ENOUGH) == win_rate([np.True_, np.False_], ENOUGH)
    assert win_rate(pd.Series([True, False, True]), ENOUGH).wins == 2


def test_the_bootstrap_interval_is_that_of_scipy():
    preferences = np.random.default_rng(0).choice([0, 0.5, 1], size=60, p=[0.3, 0.2, 0.5])
    ours = win_rate(preferences)
    theirs = stats.bootstrap((preferences,), np.mean, method="percentile", random_state=1)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)


def test_the_bootstrap_of_two_preferences_is_known_exactly():
    """Means of two draws from {0, 1}: 0, ½, 1 with probabilities ¼, ½, ¼."""
    assert (win_rate([0, 1]).low, win_rate([0, 1]).high) == (0, 1)
    assert (win_rate([0.3, 0.3, 0.3]).low, win_rate([0.3] * 3).high) == pytest.approx((0.3, 0.3))


def test_a_large_bootstrap_goes_by_blocks_to_the_same_interval():
    preferences = np.random.default_rng(2).random(3000)
    ours = win_rate(preferences, 4000)
    theirs = stats.norm.interval(0.95, preferences.mean(), stats.sem(preferences))
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=0.002)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(3), 0
    for seed in range(300):
        result = win_rate(rng.choice([0, 0.5, 1], size=60, p=[0.3, 0.2, 0.5]), ENOUGH, seed)
        covered += result.low <= 0.6 <= result.high
    assert 273 <= covered <= 297


@FIXED
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_exact_binomial_one(wins, losses):
    result = win_rate([1.0] * wins + [0.0] * losses + [0.5, None], resamples=1)
    decided, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(decided, k) for k in range(fewer + 1)) / 2**decided
    expected = min(1, 2 * tail)
    assert result.p_value == pytest.approx(expected)


def test_the_sign_test_by_hand():
    assert win_rate([1] * 5, resamples=1).p_value == pytest.approx(2 / 2**5)
    assert win_rate([1] * 5 + [0], resamples=1).p_value == pytest.approx(2 * 7 / 2**6)


# At equal length


def simulated(n, advantage, bias, seed=0):
    """Preferences of a judge who likes `advantage` and, by `bias`, length; and the lengths."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(50, 800, size=(2, n))
    difference = (a - b) / np.sqrt(((a - b) ** 2).mean())
    chance = 1 / (1 + np.exp(-(advantage + bias * difference)))
    return (rng.random(n) < chance).astype(float), a, b


def test_the_adjusted_rate_is_the_maximum_of_its_likelihood():
    preferences, a, b = simulated(300, 0.4, 1.5)
    d = (a - b) / np.sqrt(((a - b) ** 2).mean())

    def loss(beta):
        eta = beta[0] + beta[1] * d
        return (np.logaddexp(0, eta) - preferences * eta).sum() + beta[1] ** 2 / 2

    best = optimize.minimize(loss, [0.0, 0.0]).x
    result = length_adjusted(preferences, a, b)
    assert result.rate == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-5)
    assert result.slope == pytest.approx(best[1], abs=1e-4)


def test_a_judge_who_only_likes_length_is_found_out():
    """B's responses are longer throughout: the raw rate says B, at equal length it is even."""
    preferences, a, b = simulated(4000, 0.0, 1.5, seed=1)
    longer = a + 250
    chance = 1 / (1 + np.exp(-1.5 * (longer - b) / np.sqrt(((a - b) ** 2.0).mean())))
    preferences = (np.random.default_rng(2).random(4000) < chance).astype(float)
    assert win_rate(preferences, resamples=1).rate > 0.6
    result = length_adjusted(preferences, longer, b)
    assert result.low < 0.5 < result.high and result.high - result.low < 0.06


def test_the_adjusted_interval_covers_the_truth():
    truth, covered = 1 / (1 + math.exp(-0.4)), 0
    for seed in range(200):
        result = length_adjusted(*simulated(150, 0.4, 1.0, seed))
        covered += result.low <= truth <= result.high
    assert 182 <= covered <= 198


@FIXED
@given(st.lists(PREFERENCE, min_size=3, max_size=30), st.integers(0, 500))
def test_without_length_differences_the_adjusted_rate_is_the_raw_one(preferences, length):
    raw = win_rate(preferences, resamples=1)
    result = length_adjusted(preferences, [length] * len(preferences), [length] * len(preferences))
    assert result.rate == pytest.approx(raw.rate, abs=1e-6) and result.n == raw.n
    if 0.01 < raw.rate < 0.99:
        logit_error = raw.standard_error / (raw.rate * (1 - raw.rate))
        ends = np.array([-1, 1]) * 1.959964 * logit_error + math.log(raw.rate / (1 - raw.rate))
        assert (result.low, result.high) == pytest.approx(tuple(1 / (1 + np.exp(-ends))), abs=1e-5)


@FIXED
@given(st.lists(st.tuples(PREFERENCE, st.integers(0, 9999), st.integers(0, 9999)), min_size=2))
def test_swapping_the_two_sides_mirrors_the_adjusted_rate(rows):
    preferences, a, b = zip(*rows)
    result = length_adjusted(preferences, a, b)
    swapped = length_adjusted([1 - p for p in preferences], b, a)
    assert 0 <= result.rate <= 1 and math.isfinite(result.slope)
    assert swapped.rate == pytest.approx(1 - result.rate, abs=1e-6)


def test_length_that_separates_wins_from_losses_stays_finite():
    result = length_adjusted([1, 1, 0, 0], [9, 8, 1, 2], [1, 2, 9, 8])
    assert result.rate == pytest.approx(0.5) and 0 < result.slope < 10


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 preferences"):
        length_adjusted([1, 0], [5, 5, 5], [4, 4, 4])


# Tables


def table_of(rows):
    """A table of verdicts from (prompt, a, b, a_first, b_first)."""
    codes = {("A", "A"): 1.0, ("B", "B"): 0.0}
    table = pd.DataFrame(rows, columns=["prompt", "a", "b", "a_first", "b_first"])
    table["preference"] = [
        math.nan if None in (x, y) else codes.get((x, y), 0.5) for *_, x, y in rows
    ]
    return table


MIXED = table_of(
    [
        ("p", "x", "y", "A", "A"),
        ("p", "x", "y", "A", "B"),
        ("q", "x", "y", "B", "B"),
        ("q", "x", "y", "A", None),
        ("r", "x", "x", "tie", "tie"),
        ("s", "x", "y", None, None),
    ]
)


def test_flips_and_places_by_hand():
    assert flip_rate(MIXED) == 1 / 3  # of AA, AB, BB; the identical pair was never asked
    # Shown first and named: A A, A of AB and its B, A of A-; seven verdicts name a winner.
    assert first_shown_rate(MIXED) == (3 + 2) / 7
    assert list(by_prompt(MIXED).dropna()) == [0.75, 0.0, 0.5]


def test_a_report_by_hand():
    line = report(MIXED, ENOUGH)
    assert (line["A"], line["tie"], line["B"]) == (1 / 4, 2 / 4, 1 / 4)
    assert line["win rate"] == pytest.approx(1.25 / 3)
    assert (line["pairs"], line["unknown"], line["prompts"]) == (6, 2, 3)


def test_a_table_without_any_verdict_has_a_report_too(tmp_path):
    table = table_of([("p", "x", "y", None, None), ("q", "x", "yy", "A", None)])
    table.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for known in (table, pd.read_json(tmp_path / "t.jsonl", lines=True)):
        line = report(known, ENOUGH)
        assert line["unknown"] == 2 and line["prompts"] == 0 and line["sign test"] == 1
        assert all(
            math.isnan(line[k]) for k in ("A", "win rate", "low", "at equal length", "flips")
        )
        assert validate(known, [1, 0], ENOUGH).agreement.unparsed == 2


def test_the_reward_judge_follows_the_sign_beyond_its_margin():
    pairs = [("p", "x", "y")] * 5
    table = reward_judge(pairs, [0.5, 0.5, 0.5, 0.5, 0], [0.4, 0.6, 0.25, 0.5, 1], 0.2)
    assert table["preference"].tolist() == [0.5, 0.5, 1.0, 0.5, 0.0]
    assert reward_judge(pairs[:1], [0.25], [0.5], 0.25)["preference"].tolist() == [0.5]
    assert reward_judge(pairs[:1], [0.25], [0.5], 0.2)["preference"].tolist() == [0.0]
    with pytest.raises(ValueError, match="margin"):
        reward_judge(pairs, [1] * 5, [0] * 5, -0.1)


def test_the_reward_judge_refuses_a_reward_that_is_not_a_number():
    pairs = [("p", "x", "y"), ("q", "x", "y")]
    with pytest.raises(RewardError, match="reward of B is nan in row 1, .* prompt of .* is 'q'"):
        reward_judge(pairs, [0.5, 0.5], [0.4, math.nan])
    with pytest.raises(RewardError, match="reward of A returned 1 values for 2"):
        reward_judge(pairs, [0.5], [0.4, 0.5])


@FIXED
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1), st.floats(0, 2))
def test_the_reward_judge_has_no_favourite_place(rewards, margin):
    pairs = [("p", "x", "y")] * len(rewards)
    table = reward_judge(pairs, *zip(*rewards), margin)
    back = reward_judge(pairs, *list(zip(*rewards))[::-1], margin)
    assert (table["preference"] + back["preference"] == 1).all()
    assert flip_rate(table) == 0
    assert first_shown_rate(table) == 0.5 or (table["preference"] == 0.5).all()
    columns = ["prompt", "a", "b", "a_first", "b_first", "preference"]
    assert list(table.columns[:6]) == columns


# How far a judge can be believed


def test_a_judge_measured_against_labels_by_hand():
    """Said 1, ½, 0, unknown, ½, unknown; labels 1, 1, 1, 0, ½, ½."""
    result = validate(MIXED, [1, 1, 1, 0, 0.5, 0.5], ENOUGH)
    assert (result.agreement.wins, result.agreement.losses, result.agreement.unparsed) == (2, 2, 2)
    assert result.agreement.rate == 0.5
    # Neither says tie: rows 0 (agree) and 2 (not); row 3 is unknown.
    assert (result.decided.wins, result.decided.losses, result.decided.unparsed) == (1, 1, 1)
    assert result.flips == flip_rate(MIXED) and result.first_shown == first_shown_rate(MIXED)
    with pytest.raises(ValueError, match="6 pairs were judged, but there are 2 labels"):
        validate(MIXED, [1, 0])


def judged(rows):
    """A table of verdicts, by prompts and preferences."""
    table = pd.DataFrame(rows, columns=["prompt", "preference"])
    return table.assign(a="x", b="y", a_first=None, b_first=None)


def test_self_preference_by_hand():
    """Own: ½, 1 and 0 of three the labels prefer; other: 1 of one; a tie and an unknown are out."""
    rows = [("p", 0.5), ("p", 1.0), ("q", 0.0), ("q", 0.0), ("r", 1.0), ("r", math.nan)]
    table = judged(rows)
    found = self_preference(table, [1, 1, 1, 0, 0.5, 1], "a", ENOUGH)
    assert (found["own found"], found["other found"], found["pairs"]) == (0.5, 1.0, 4)
    assert found["self-preference"] == -0.5
    assert math.isnan(found["low"]), "only one prompt has a pair where the other is preferred"
    mirrored = table.assign(preference=1 - table["preference"])
    assert self_preference(mirrored, [0, 0, 0, 1, 0.5, 0], "b", ENOUGH) == pytest.approx(
        found, nan_ok=True
    )
    with pytest.raises(ValueError, match="own must be 'a' or 'b'"):
        self_preference(table, [1] * 6, "A")
    with pytest.raises(ValueError, match="6 pairs were judged, but there are 2 labels"):
        self_preference(table, [1, 0], "a")


@pytest.mark.parametrize(
    ("bias", "noise", "expected"),
    [(0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.3, 0.2, 0.3)],
)
def test_self_preference_is_that_of_a_simulated_judge(bias, noise, expected):
    """A judge takes its own with chance `bias`, guesses with `noise`, else follows the label.

    It takes its own in bias + noise / 2 + rest of the pairs where that is right, and the other in
    noise / 2 + rest where that is right: they differ by `bias`, whatever the noise, and although
    its own responses are the worse ones.
    """
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.3).astype(float)
    chance = rng.random(4000)
    said = np.where(chance < bias, 1.0, labels)
    said = np.where(chance > 1 - noise, rng.integers(0, 2, 4000), said)
    table = judged(zip((f"prompt {i // 2}" for i in range(4000)), said))
    found = self_preference(table, labels, "a", ENOUGH)
    assert found["self-preference"] == pytest.approx(expected, abs=0.04)
    assert found["low"] <= expected <= found["high"]
    assert found["high"] - found["low"] < 0.1


def test_self_preference_without_pairs_of_both_kinds_does_not_exist():
    for preferences, labels in (([1.0, 0.0], [1, 1]), ([math.nan], [1]), ([1.0], [1])):
        found = self_preference(judged([("p", x) for x in preferences]), labels, "a", ENOUGH)
        assert math.isnan(found["self-preference"]) and math.isnan(found["low"])
