"""Win rates from pairwise preferences: intervals, a sign test, and a rate adjusted for length.

A preference is a number in [0, 1] for one prompt: 1 where A is better, 0 where B is, ½ for a tie,
None (or NaN) where the judge's reply could not be read. What could not be read is counted apart:
it is neither dropped in silence nor replaced by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from scipy.special import bdtr, expit

# The normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class WinRate:
    """A's win rate over B, with all that it takes to judge it.

    `rate` is the mean preference, `standard_error` its error over prompts and `low`, `high` the
    95 % bootstrap interval over prompts, all in [0, 1] (NaN where they do not exist). `wins`,
    `ties` and `losses` count preferences above, at and below ½; `n` is their sum, and `unparsed`
    is not part of it.
    """

    rate: float
    standard_error: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    n: int
    unparsed: int

    @property
    def p_value(self) -> float:
        """The exact two-sided sign test of wins against losses, ties left out; 1 without either."""
        decided = self.wins + self.losses
        return min(1.0, 2 * float(bdtr(min(self.wins, self.losses), decided, 0.5)))


def win_rate(preferences: Iterable, resamples: int = 10_000, seed: int = 0) -> WinRate:
    """The win rate of A from one preference in [0, 1] a prompt, None for what was not parsed.

    The standard error is the sample standard deviation (n − 1) over √n; low and high are the 2.5 %
    and 97.5 % quantiles of `resamples` bootstrap means. One preference has no error and no
    interval, none has no rate either: these are NaN. Where all preferences are equal the bootstrap
    sees no uncertainty and its interval has no width; the sign test is then what to read.
    Raises ValueError naming the index of a value outside [0, 1].
    """
    values = _floats(preferences)
    for index in np.flatnonzero((values < 0) | (values > 1)):
        raise ValueError(f"preference {index} is {values[index]}: it must lie in [0, 1]")
    parsed = values[~np.isnan(values)]
    n = len(parsed)
    rate = min(1.0, math.fsum(parsed) / n) if n else math.nan
    error, low, high = math.nan, math.nan, math.nan
    if n > 1:
        error = float(parsed.std(ddof=1) / math.sqrt(n))
        low, high = _bootstrap_interval(parsed, rate, resamples, seed)
    return WinRate(
        rate,
        error,
        low,
        high,
        wins=int((parsed > 0.5).sum()),
        ties=int((parsed == 0.5).sum()),
        losses=int((parsed < 0.5).sum()),
        n=n,
        unparsed=len(values) - n,
    )


def from_alpaca_eval(values: Iterable) -> list[float | None]:
    """AlpacaEval's preferences as ours, where A is the model and B the baseline.

    1 (the baseline wins) becomes 0, 2 (the model wins) becomes 1, values between go linearly;
    1.5 and 0 are draws, null and NaN are unparsed. Raises ValueError naming the index of any other.
    """
    preferences: list[float | None] = []
    for index, value in enumerate(_floats(values)):
        if math.isnan(value):
            preferences.append(None)
        elif value == 0:
            preferences.append(0.5)
        elif 1 <= value <= 2:
            preferences.append(float(value) - 1)
        else:
            raise ValueError(
                f"preference {index} is {value}: AlpacaEval's are 0 (draw), or from 1 (the "
                "baseline wins) to 2 (the model wins)"
            )
    return preferences


@dataclass(frozen=True)
class AdjustedRate:
    """A's win rate at equal length, in [0, 1], with its 95 % interval (NaN where there is none).

    `slope` is the change of the log-odds for one typical length difference; `n` counts pairs.
    """

    rate: float
    low: float
    high: float
    slope: float
    n: int


def length_adjusted(
    preferences: Iterable, lengths_a: Sequence[float], lengths_b: Sequence[float]
) -> AdjustedRate:
    """A's win rate at equal length, by fractional logistic regression with a ridge on the slope.

    preference ~ sigmoid(intercept + slope · d), where d = (length A − length B) divided by its
    root mean square and *not* centred, so that d = 0 is equal length and sigmoid(intercept) the
    rate there. A standard normal prior on the slope (the ridge) keeps it finite where length
    separates wins from losses. The interval is ±1.96 robust (sandwich) standard errors of the
    intercept, carried through the sigmoid. Without length differences this is the raw rate.
    Raises ValueError for preferences outside [0, 1] or lists of different lengths.
    """
    values = _floats(preferences)
    difference = np.asarray(lengths_a, dtype=float) - np.asarray(lengths_b, dtype=float)
    if difference.shape != values.shape:
        raise ValueError(f"{len(values)} preferences, but lengths of shape {difference.shape}")
    parsed = ~np.isnan(values)
    raw = win_rate(values, resamples=1)
    values, difference = values[parsed], difference[parsed]
    n = len(values)
    if n < 2 or raw.rate in (0.0, 1.0):  # no slope, and the intercept would be infinite
        return AdjustedRate(raw.rate, math.nan, math.nan, 0.0, n)
    scale = math.sqrt((difference**2).mean()) or 1.0
    design = np.column_stack([np.ones(n), difference / scale])
    ridge = np.diag([0.0, 1.0])
    beta = np.zeros(2)
    for _ in range(200):
        fitted = expit(design @ beta)
        gradient = design.T @ (values - fitted) - ridge @ beta
        curvature = (design.T * (fitted * (1 - fitted))) @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        beta += step / max(1.0, np.abs(step).max())  # far from the optimum Newton overshoots
        if np.abs(step).max() < 1e-10:
            break
    scores = design * (values - fitted)[:, None]
    inverse = np.linalg.inv(curvature)
    covariance = inverse @ (scores.T @ scores) @ inverse * n / (n - 1)
    low, rate, high = expit(beta[0] + Z95 * math.sqrt(covariance[0, 0]) * np.array([-1, 0, 1]))
    return AdjustedRate(float(rate), float(low), float(high), float(beta[1]), n)


def _floats(values: Iterable) -> np.ndarray:
    """`values` as a float array [n], NaN for None; raises ValueError naming what is no number."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    out = np.full(len(listed), math.nan)
    for index, value in enumerate(listed):
        if isinstance(value, Real):
            out[index] = value
        elif value is not None and value is not pd.NA:
            raise ValueError(f"preference {index} is {value!r}: it must be a number or None")
    return out


def _bootstrap_interval(
    values: np.ndarray, mean: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` [n] under resampling.

    Drawing how often each distinct value occurs is the same as drawing n values, costs little where
    there are few distinct ones (win, tie, loss), and does not depend on the order of the prompts.
    """
    distinct, counts = np.unique(values, return_counts=True)
    generator = np.random.default_rng(seed)
    block = max(1, 5_000_000 // len(distinct))  # at most 40 MB at a time
    means = [
        generator.multinomial(len(values), counts / len(values), size=min(block, resamples - done))
        @ (distinct - mean)
        / len(values)
        for done in range(0, resamples, block)
    ]
    low, high = mean + np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(max(0.0, min(low, mean))), float(min(1.0, max(high, mean)))
