"""Evaluation: responses of the configurations → rewards, mean, variance, intervals.

A configuration is a function of prompts and a seed that returns the texts sent to the frozen LLM:
the prompts themselves, the prompts with a suffix, or a prompter's rewrites. All tables are tidy
DataFrames, one row a response.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from alignpro.data import Prompt
from alignpro.generation import Policy

Rewriter = Callable[[Sequence[Prompt], int], list[str]]


def unchanged(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """No Fine-Tuning: the frozen LLM gets x itself."""
    return [str(x) for x in prompts]


def constant(suffix: str) -> Rewriter:
    """The same suffix for every prompt."""
    return lambda prompts, seed: [f"{x} {suffix}".strip() for x in prompts]


def per_kind(suffixes: dict[str, str]) -> Rewriter:
    """A suffix for each kind of question: an oracle, since it is told the kind."""
    return lambda prompts, seed: [f"{x} {suffixes[x.kind]}".strip() for x in prompts]


def best_of(count: int, rewrite: Rewriter, frozen: Policy, reward: Callable) -> Rewriter:
    """Best of `count` rewrites (C12): draw them, let π_F answer each once, keep the best-scored.

    The kept rewrite is answered afresh in evaluation, so that a lucky answer is not counted twice.
    """

    def chosen(prompts: Sequence[Prompt], seed: int) -> list[str]:
        asked = [x for x in prompts for _ in range(count)]
        rewrites = rewrite(asked, seed)
        # `evaluate` answers with seed + 1: choosing needs noise of its own.
        scores = np.asarray(reward(asked, frozen.generate(rewrites, seed + 2)), dtype=float)
        best = scores.reshape(len(prompts), count).argmax(axis=1)
        return [rewrites[row * count + int(pick)] for row, pick in enumerate(best)]

    return chosen


def evaluate(
    rewriters: dict[str, Rewriter],
    frozen: Policy,
    reward: Callable,
    prompts: Sequence[Prompt],
    samples: int,
    seed: int,
    progress: bool = True,
) -> pd.DataFrame:
    """`samples` responses a prompt for each configuration, with a fresh rewrite for each.

    Every configuration draws with the same seeds. Columns: configuration, id, dataset, kind,
    sample, prompt, rewrite, response, ended, tokens, reward.
    """
    tables = []
    repeated = [x for x in prompts for _ in range(samples)]
    for name, rewrite in tqdm(rewriters.items(), desc="evaluate", disable=not progress):
        rewrites = rewrite(repeated, seed)
        responses = frozen.generate(rewrites, seed + 1)
        rewards = reward(repeated, responses)
        tables.append(
            pd.DataFrame(
                {
                    "configuration": name,
                    "id": [x.id for x in repeated],
                    "dataset": [x.dataset for x in repeated],
                    "kind": [x.kind for x in repeated],
                    "sample": [i % samples for i in range(len(repeated))],
                    "prompt": [str(x) for x in repeated],
                    "rewrite": rewrites,
                    "response": [str(y) for y in responses],
                    "ended": [y.ended for y in responses],
                    "tokens": [y.tokens for y in responses],
                    "reward": [float(r) for r in rewards],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def best_suffixes(table: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """From the suffix table: the best suffix over all kinds (each kind counts alike), and by kind.

    "(nothing)" is among the candidates, so that the best suffix may be none. Prompts without a
    kind, such as the Hub's, count as one kind, which has no entry in the second value.
    """
    table = table.assign(kind=table["kind"].fillna(""))
    means = table.pivot_table(index="configuration", columns="kind", values="reward", sort=False)
    text = {name: "" if name == "(nothing)" else name for name in means.index}
    by_kind = {kind: text[means[kind].idxmax()] for kind in means.columns if kind}
    return text[means.mean(axis=1).idxmax()], by_kind


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


RANDOM, LARGEST_GAIN, LARGEST_LOSS = "drawn at random", "the largest gain", "the largest loss"


def choose_examples(table: pd.DataFrame, seed: int, drawn: int = 2) -> pd.DataFrame:
    """Pairs of answers to show from the runs of one dataset, a row each, chosen by rules alone.

    A pair is an answer under No Fine-Tuning and the one under Align-Pro of the same run and sample.
    `drawn` prompts at random by `seed`, each with its first pair; the prompt whose mean reward over
    all pairs rose most, with the pair that rose most; the one whose mean fell most (or rose least,
    where none fell), with the pair that fell most. Ties go to the first id, run and sample.

    Columns: rule, id, dataset, kind, seed, sample, prompt, rewrite, change (of the mean), pairs
    (behind it), own (change of the pair shown), and response, reward and ended, each with `_before`
    and `_after`. Raises ValueError where the two have not answered the same prompts equally often.
    """
    keys, told = ["id", "seed", "sample"], ["response", "reward", "ended"]
    names = ("No Fine-Tuning", "Align-Pro")
    before, after = (table[table["configuration"] == name] for name in names)
    before = before[[*keys, "dataset", "kind", "prompt", *told]]
    after = after[[*keys, "rewrite", *told]]
    pairs = before.merge(after, on=keys, suffixes=("_before", "_after"), validate="1:1")
    if not len(pairs) == len(before) == len(after):
        raise ValueError(f"{' and '.join(names)} have not answered the same prompts equally often")
    pairs = pairs.sort_values(keys, ignore_index=True)
    # Rounded, so that what is equal ties whatever its last bit says.
    pairs["own"] = (pairs["reward_after"] - pairs["reward_before"]).round(9)
    by_prompt = pairs.groupby("id")["own"]
    pairs["change"] = by_prompt.transform("mean").round(9)
    pairs["pairs"] = by_prompt.transform("size")
    first = pairs.drop_duplicates("id")
    picks = random.Random(seed).sample(list(first.index), drawn)
    for end in (pd.Series.idxmax, pd.Series.idxmin):
        extreme = first.loc[end(first["change"]), "id"]
        picks.append(end(pairs.loc[pairs["id"] == extreme, "own"]))
    rules = [RANDOM] * drawn + [LARGEST_GAIN, LARGEST_LOSS]
    return pairs.loc[picks].assign(rule=rules).reset_index(drop=True)
