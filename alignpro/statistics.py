"""Means, variances and paired gains of rewards, with bootstrap intervals over prompts and runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from alignpro.evaluation import checked_rewards


def _rewards(table: pd.DataFrame, configuration: str) -> tuple[pd.Index[Any], np.ndarray]:
    """The (seed, id) pairs, in order, and the rewards of `reward_array`."""
    part = table[table["configuration"] == configuration]
    part = part if "seed" in part else part.assign(seed=0)
    checked_rewards(part["reward"], part["id"].tolist(), f"the reward of {configuration!r}")
    wide = part.pivot_table(index=["seed", "id"], columns="sample", values="reward", sort=True)
    runs, prompts = part["seed"].nunique(), part["id"].nunique()
    if len(wide) != runs * prompts or wide.isna().any(axis=None):
        raise ValueError(f"the runs of {configuration!r} have not answered the same prompts")
    return wide.index, wide.to_numpy().reshape(runs, prompts, -1)


def reward_array(table: pd.DataFrame, configuration: str) -> np.ndarray:
    """Rewards [runs, prompts, samples] of one configuration, runs by seed and prompts by id.

    A table without `seed` is one run. Raises ValueError where a run has not answered the prompts
    that the others have, or some prompt has fewer answers; RewardError where a reward is not a
    finite number.
    """
    return _rewards(table, configuration)[1]


def bootstrap(
    values: ArrayLike,
    *,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """Interval [..., 2] of the mean of `values` [runs, prompts, ...], by bootstrap.

    Runs and prompts are resampled independently of each other, since all runs answer the same
    prompts. One run is `values[None]`. All trailing entries see the same resamples, so pass
    differences for a paired comparison. `statistic` maps the resampled means [resamples, ...] to
    what the interval is of; without it, that is the mean. `level` is in (0, 1).

    The percentiles of few resampled runs or prompts are too close together. They are stretched
    about the estimate to the width of a Student's t interval. One prompt tells nothing about
    others: its interval is infinite. Raises ValueError for an empty or a non-finite array.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim < 2 or 0 in values.shape[:2]:
        raise ValueError(f"values: shape {list(values.shape)}, expected [runs >= 1, prompts >= 1]")
    if not np.isfinite(values).all():
        raise ValueError("values: must be finite, some are NaN or infinite")
    if not 0 < level < 1:
        raise ValueError(f"level: must lie between 0 and 1, got {level!r}")
    rng, (runs, prompts) = np.random.default_rng(seed), values.shape[:2]
    by_run = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
    means, block = [], max(1, 5_000_000 // prompts)  # at most 40 MB at a time
    for start in range(0, resamples, block):
        part = by_run[start : start + block]
        by_prompt = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=len(part))
        means.append(
            np.einsum("br,bp,rp...->b...", part, by_prompt / prompts, values, optimize=True)
        )
    statistic = statistic or (lambda means: means)
    drawn = statistic(np.concatenate(means))
    estimate = statistic(values.mean(axis=(0, 1))[None])[0]
    if prompts == 1:
        return np.stack([np.full_like(estimate, -np.inf), np.full_like(estimate, np.inf)], axis=-1)
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    half = _t_half_width(values, statistic, level)
    drawn_half = (ends[1] - ends[0]) / 2
    stretch = np.divide(half, drawn_half, out=np.ones_like(half), where=drawn_half > 0)
    return np.moveaxis(estimate + stretch * (ends - estimate), 0, -1)


def _t_half_width(values: np.ndarray, statistic: Callable[..., Any], level: float) -> np.ndarray:
    """Half the width of Student's t interval of `statistic`, for each entry.

    Its variance is the jackknife's over prompts plus, with several runs, the jackknife's over runs
    (for a mean, s² / n of each). The degrees of freedom are Satterthwaite's. The sum counts the
    noise of single answers twice, which makes the interval slightly too wide.
    """
    variance, over_freedom = 0.0, 1e-300
    for axis in (axis for axis in (0, 1) if values.shape[axis] > 1):
        each, others = values.mean(axis=1 - axis), values.shape[axis] - 1
        part = others * statistic((each.sum(axis=0) - each) / others).var(axis=0)
        variance, over_freedom = variance + part, over_freedom + part**2 / others
    freedom = np.maximum(variance**2 / over_freedom, 1)  # at least 1, also where nothing varies
    return np.asarray(stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance))


def reward_summary(table: pd.DataFrame, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Mean and variance of the reward by configuration, with 95 % bootstrap intervals.

    Intervals are over prompts, and over runs where the column `seed` tells several. The variance is
    that of one answer to one prompt in one run. By the law of total variance it is the sum of
    `within` (over the answers to one prompt), `across` (of the prompts' means in one run) and
    `runs_apart` (of the runs' means), see `_variance_parts`.
    """
    columns = "mean_low mean_high variance_low variance_high within across runs_apart".split()
    columns, rows = [*columns, "runs", "prompts", "samples"], {}
    for name in table["configuration"].unique():
        rewards = reward_array(table, name)
        parts = _variance_parts(rewards)
        variance = np.nansum(parts)
        moments = _moments(rewards)
        ends = bootstrap(moments, statistic=_mean_and_variance, resamples=resamples, seed=seed)
        ends[1] += variance - rewards.var()  # what is resampled is biased as `var` is
        rows[name] = {"mean": rewards.mean(), "variance": variance}
        rows[name] |= dict(zip(columns, (*ends.flat, *parts, *rewards.shape)))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("configuration")


def _variance_parts(rewards: np.ndarray) -> tuple[float, float, float]:
    """Unbiased estimates of the variance of `rewards` [runs, prompts, samples], by its sources.

    Within a prompt; across prompts in one run, without the share of `within` that the noise of few
    answers adds to the prompts' means; between runs, likewise. A part may fall below 0. With one
    answer per prompt `within` is NaN and `across` holds both. What one run cannot show is 0.
    """
    runs, prompts, samples = rewards.shape
    means = rewards.mean(axis=2)
    within = rewards.var(axis=2, ddof=1).mean() if samples > 1 else np.nan
    noise = within / samples if samples > 1 else 0.0
    across = means.var(axis=1, ddof=1).mean() - noise if prompts > 1 else 0.0
    runs_apart = means.mean(axis=1).var(ddof=1) - noise / prompts if runs > 1 else 0.0
    return within, across, runs_apart


def _moments(rewards: np.ndarray) -> np.ndarray:
    """Mean, mean square and variance [runs, prompts, 3] of the answers to each prompt."""
    within = rewards.var(axis=2, ddof=min(1, rewards.shape[2] - 1))
    return np.stack([rewards.mean(axis=2), (rewards**2).mean(axis=2), within], axis=-1)


def _mean_and_variance(moments: np.ndarray) -> np.ndarray:
    """Mean and variance of all answers [..., 2] from averages of `_moments` [..., 3]."""
    first, second = moments[..., 0], moments[..., 1]
    return np.stack([first, second - first**2], axis=-1)


def _pair(table: pd.DataFrame, better: str, base: str) -> list[np.ndarray]:
    """Rewards [runs, prompts, samples] of both configurations, in the same order."""
    (index, ours), (other, theirs) = (_rewards(table, name) for name in (better, base))
    if not index.equals(other):
        raise ValueError(f"{better!r} and {base!r} have not answered the same prompts in each run")
    return [ours, theirs]


def _within_kinds(values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """`values` [runs, prompts] without what sets the kinds of prompts apart; same mean in each run.

    Residuals are stretched by what the means of the kinds cost in degrees of freedom.
    """
    kinds: ArrayLike = table.groupby("id")["kind"].first().fillna("") if "kind" in table else []
    names, rows, sizes = np.unique(kinds, return_inverse=True, return_counts=True)
    if len(names) < 2 or sizes.min() < 2:
        return values
    one_hot = np.eye(len(names))[rows]  # [prompts, kinds]
    residuals = values - (values @ one_hot / sizes) @ one_hot.T
    stretch = np.sqrt(sizes / (sizes - 1) * (len(rows) - 1) / len(rows))
    return np.asarray(values.mean(axis=1, keepdims=True) + residuals * stretch[rows])


# A difference of this many standard errors is found in four tests of five at the 5 % level.
DETECTABLE = 1.96 + 0.84


def paired_gain(
    table: pd.DataFrame, better: str, base: str, resamples: int, seed: int = 0
) -> dict[str, float]:
    """Mean difference of rewards, `better` − `base`, paired by prompt and run.

    Returns gain; standard_error, from the spread over prompts and, where there are several, over
    runs; low, high (95 % bootstrap over both); effect_size (Cohen's d of the prompts' differences);
    detectable (the least true difference that a test of this size finds with a power of 80 % at the
    5 % level); and the numbers of runs and prompts. Where `table` has kinds of two prompts or more,
    the prompts are a sample stratified by kind, and errors are from the spread within kinds. Raises
    ValueError where the runs do not pair.
    """
    ours, theirs = _pair(table, better, base)
    difference = ours.mean(axis=2) - theirs.mean(axis=2)
    runs, prompts = difference.shape
    by_prompt, by_run = difference.mean(axis=0), difference.mean(axis=1)
    spread = _within_kinds(difference, table)
    error = spread.mean(axis=0).var(ddof=1) / prompts
    error += by_run.var(ddof=1) / runs if runs > 1 else 0.0
    low, high = bootstrap(spread, resamples=resamples, seed=seed).tolist()
    return {
        "gain": float(difference.mean()),
        "standard_error": float(np.sqrt(error)),
        "low": low,
        "high": high,
        "effect_size": float(difference.mean() / by_prompt.std(ddof=1)),
        "detectable": float(DETECTABLE * np.sqrt(error)),
        "runs": runs,
        "prompts": prompts,
    }


def variance_change(
    table: pd.DataFrame, better: str, base: str, resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Variance of the reward under `better` minus that under `base`, with 95 % intervals.

    Rows: `variance`, that of all responses, and `within`, over the responses to one prompt. Columns
    change, low, high: both sides see the same resampled prompts and runs. Raises ValueError where
    the runs do not pair.
    """
    pair = _pair(table, better, base)

    def change(means: np.ndarray) -> np.ndarray:
        both = np.stack([_mean_and_variance(means)[..., 1], means[..., 2]], axis=-1)
        return np.asarray(both[..., 0, :] - both[..., 1, :])

    moments = np.stack([_moments(rewards) for rewards in pair], axis=2)  # [runs, prompts, 2, 3]
    ours, theirs = (np.array([np.nansum(p), p[0]]) for p in map(_variance_parts, pair))
    value, resampled = ours - theirs, change(moments.mean(axis=(0, 1)))
    ends = bootstrap(moments, statistic=change, resamples=resamples, seed=seed)
    low, high = ends.T + value - resampled  # what is resampled is biased as `var` is
    columns = {"change": value, "low": low, "high": high}
    return pd.DataFrame(columns, index=["variance", "within"])
