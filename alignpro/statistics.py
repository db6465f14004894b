"""Means, variances and paired gains of rewards, with bootstrap intervals over prompts and runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def prompt_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean reward by prompt (rows, ids) and configuration (columns), over all runs."""
    return table.pivot_table(index="id", columns="configuration", values="reward", sort=False)


def _rewards(table: pd.DataFrame, configuration: str) -> pd.DataFrame:
    """Rewards of one configuration by run and prompt (rows, complete and in order) and sample.

    A table without `seed` is one run.

    Raises ValueError where a run has not answered the prompts that the others have.
    """
    part = table[table["configuration"] == configuration]
    part = part if "seed" in part else part.assign(seed=0)
    wide = part.pivot_table(index=["seed", "id"], columns="sample", values="reward", sort=True)
    runs, prompts = wide.index.get_level_values(0).unique(), part["id"].nunique()
    if len(wide) != len(runs) * prompts or wide.isna().any(axis=None):
        raise ValueError(f"the runs of {configuration!r} have not answered the same prompts")
    return wide


def reward_array(table: pd.DataFrame, configuration: str) -> np.ndarray:
    """Rewards [runs, prompts, samples] of one configuration, runs by seed and prompts by id.

    A table without `seed` is one run. Raises ValueError where a run has not answered the prompts
    that the others have, or some prompt has fewer answers.
    """
    return _array(_rewards(table, configuration))


def _array(wide: pd.DataFrame) -> np.ndarray:
    """What `_rewards` returns, as [runs, prompts, samples]."""
    return wide.to_numpy().reshape(*wide.index.levshape, -1)


def _resampled(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap means [resamples, ...] of `values` [runs, prompts, ...], over runs and prompts.

    The two are drawn apart, since all runs answer the same prompts. Over a few runs a bootstrap is
    too sure of itself: its variance is that of the runs times (runs − 1) / runs.
    """
    rng, (runs, prompts) = np.random.default_rng(seed), values.shape[:2]
    by_run = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
    by_prompt = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    return np.einsum("br,bp,rp...->b...", by_run, by_prompt, values, optimize=True)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def summary(table: pd.DataFrame, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Mean and variance of the reward by configuration, with 95 % bootstrap intervals.

    Intervals are over prompts, and over runs where the column `seed` tells several. The variance is
    that of all responses, split by the law of total variance into `within` (over the responses to
    one prompt), `across` (of the prompt means of one run) and `runs_apart` (of the runs' means).
    """
    rows = []
    for name in table["configuration"].unique():
        rewards = reward_array(table, name)
        moments = np.stack([rewards.mean(axis=2), (rewards**2).mean(axis=2)], axis=-1)
        first, second = _resampled(moments, resamples, seed).T
        mean_low, mean_high = _interval(first)
        variance_low, variance_high = _interval(second - first**2)
        means = moments[..., 0]
        rows.append(
            {
                "configuration": name,
                "mean": rewards.mean(),
                "mean_low": mean_low,
                "mean_high": mean_high,
                "variance": rewards.var(),
                "variance_low": variance_low,
                "variance_high": variance_high,
                "within": rewards.var(axis=2).mean(),
                "across": means.var(axis=1).mean(),
                "runs_apart": means.mean(axis=1).var(),
                "runs": rewards.shape[0],
                "prompts": rewards.shape[1],
                "samples": rewards.shape[2],
            }
        )
    return pd.DataFrame(rows).set_index("configuration")


def _pair(table: pd.DataFrame, better: str, base: str) -> list[np.ndarray]:
    """Rewards [runs, prompts, samples] of both configurations, in the same order."""
    sides = [_rewards(table, name) for name in (better, base)]
    if not sides[0].index.equals(sides[1].index):
        raise ValueError(f"{better!r} and {base!r} have not answered the same prompts in each run")
    return [_array(side) for side in sides]


# A difference of this many standard errors is found in four tests of five at the 5 % level.
DETECTABLE = 1.96 + 0.84


def paired_gain(
    table: pd.DataFrame, better: str, base: str, resamples: int, seed: int = 0
) -> dict[str, float]:
    """Mean difference of rewards, `better` − `base`, paired by prompt and run.

    Returns gain; standard_error, from the spread over prompts and, where there are several, over
    runs; low, high (95 % bootstrap over both); effect_size (Cohen's d of the prompts' differences);
    detectable (the least true difference that a test of this size finds with a power of 80 % at the
    5 % level); and the numbers of runs and prompts. Raises ValueError where the runs do not pair.
    """
    ours, theirs = _pair(table, better, base)
    difference = ours.mean(axis=2) - theirs.mean(axis=2)
    runs, prompts = difference.shape
    by_prompt, by_run = difference.mean(axis=0), difference.mean(axis=1)
    error = by_prompt.var(ddof=1) / prompts + (by_run.var(ddof=1) / runs if runs > 1 else 0.0)
    low, high = _interval(_resampled(difference, resamples, seed))
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
    values = []
    for rewards in _pair(table, better, base):
        parts = rewards.mean(axis=2), (rewards**2).mean(axis=2), rewards.var(axis=2)
        parts = np.stack(parts, axis=-1)  # [runs, prompts, 3]
        draws = _resampled(parts, resamples, seed)
        first, second, within = np.vstack([parts.mean(axis=(0, 1)), draws]).T
        values.append(np.stack([second - first**2, within]))
    changes = values[0] - values[1]
    rows = [(change[0], *_interval(change[1:])) for change in changes]
    return pd.DataFrame(rows, index=["variance", "within"], columns=["change", "low", "high"])


def compare_runs(tables: dict[str, pd.DataFrame], resamples: int) -> pd.DataFrame:
    """A row a run: mean reward of each configuration, and Align-Pro's gain over No Fine-Tuning.

    `tables` maps a run's name to its evaluation table; the gain is paired by prompt, with its
    standard error and 95 % interval.
    """
    rows = {}
    for name, table in tables.items():
        means = table.groupby("configuration", sort=False)["reward"].mean()
        gain = paired_gain(table, "Align-Pro", "No Fine-Tuning", resamples)
        rows[name] = {**means, **gain}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def bootstrap_interval(
    values_x: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> np.ndarray:
    """Percentile interval [..., 2] of the mean over prompts of ``values_x`` [X, ...].

    Prompts are resampled, since responses to one prompt are not independent evidence about
    another; all trailing entries see the same resamples, so pass a difference for a paired
    comparison. ``level`` in (0, 1). One prompt gives an interval of width 0: it says nothing.
    """
    values = np.asarray(values_x, dtype=float)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"values_x: shape {list(values.shape)}, expected [X >= 1, ...]")
    if not 0 < level < 1:
        raise ValueError(f"level: must lie between 0 and 1, got {level!r}")
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    means = counts @ values.reshape(n, -1) / n
    ends = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.moveaxis(ends.reshape(2, *values.shape[1:]), 0, -1)
