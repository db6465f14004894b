"""Win rates from pairwise preferences: intervals, a sign test, and the rate at equal length.

A preference is a number in [0, 1] for one prompt: 1 where A is better, 0 where B is, ½ for a tie,
None or NaN where there is no verdict. Missing verdicts are counted, never dropped in silence and
never replaced by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest

from alignpro.statistics import bootstrap

# The normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class WinRate:
    """A's win rate over B, with what is needed to judge it.

    - rate: the mean preference, in [0, 1].
    - standard_error: the standard error of `rate` over prompts.
    - low, high: the 95 % bootstrap interval of `rate` over prompts.
    - wins, ties, losses: how many preferences are above, at and below ½.
    - n: the number of preferences, wins + ties + losses.
    - unparsed: how many verdicts are missing; they are not part of `n`.

    A number that does not exist is NaN.
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
        """The exact two-sided sign test of wins against losses, without ties; 1 without either."""
        decided = self.wins + self.losses
        return float(binomtest(self.wins, decided).pvalue) if decided else 1.0


def win_rate(preferences: Iterable, resamples: int = 10_000, seed: int = 0) -> WinRate:
    """The win rate of A from `preferences`, one per prompt.

    The standard error is the sample standard deviation (n − 1) over √n. The interval is that of
    :func:`alignpro.statistics.bootstrap` with `resamples` draws, seeded by `seed`, cut to [0, 1];
    the order of the preferences does not matter. One preference has no error and no interval, and
    none has no rate. Where all preferences are equal, the interval has no width although the rate
    is not certain: read the sign test instead. Raises ValueError naming the index of a value that
    is not in [0, 1].
    """
    values = _floats(preferences)
    for index in np.flatnonzero((values < 0) | (values > 1)):
        raise ValueError(f"preference {index} is {values[index]}: it must be in [0, 1]")
    parsed = np.sort(values[~np.isnan(values)])
    n = len(parsed)
    rate = min(1.0, math.fsum(parsed) / n) if n else math.nan
    error, low, high = math.nan, math.nan, math.nan
    if n > 1:
        error = float(parsed.std(ddof=1) / math.sqrt(n))
        # Deviations from the rate keep equal preferences free of rounding.
        low, high = rate + bootstrap((parsed - rate)[None], resamples=resamples, seed=seed)
        low, high = float(max(0.0, min(low, rate))), float(min(1.0, max(high, rate)))
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


@dataclass(frozen=True)
class AdjustedRate:
    """A's win rate at equal length.

    - rate: in [0, 1], with its 95 % interval `low`, `high` (NaN where there is none).
    - slope: the change of the log-odds per typical difference in length.
    - n: the number of pairs.
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

    `preferences`, `lengths_a` and `lengths_b` have one value per pair; the unit of the lengths does
    not matter.

    preference ~ sigmoid(intercept + slope · d), where d = (length A − length B) is divided by its
    root mean square and *not* centred: d = 0 is equal length, and sigmoid(intercept) is the rate
    there. A standard normal prior on the slope (the ridge) keeps it finite where length separates
    wins from losses. The interval is ±1.96 robust (sandwich) standard errors of the intercept,
    mapped through the sigmoid. Without differences in length this is the raw rate.
    Raises ValueError for preferences outside [0, 1], or lists of different lengths.
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
        beta += step / max(1.0, np.abs(step).max())  # Newton overshoots far from the optimum
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
        if isinstance(value, Real | np.bool_):
            out[index] = value
        elif value is not None and value is not pd.NA:
            raise ValueError(f"preference {index} is {value!r}: it must be a number or None")
    return out
