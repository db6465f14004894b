"""Evaluation: responses of the configurations → rewards, mean, variance, intervals.

A configuration is a function of prompts and a seed that returns the texts sent to the frozen LLM:
the prompts themselves, the prompts with a suffix, or a prompter's rewrites. All tables are tidy
DataFrames, one row a response.
"""

from __future__ import annotations

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

    "(nothing)" is among the candidates, so that the best suffix may be none.
    """
    means = table.pivot_table(index="configuration", columns="kind", values="reward", sort=False)
    text = {name: "" if name == "(nothing)" else name for name in means.index}
    return text[means.mean(axis=1).idxmax()], {k: text[means[k].idxmax()] for k in means.columns}


def prompt_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean reward by prompt (rows, ids) and configuration (columns)."""
    return table.pivot_table(index="id", columns="configuration", values="reward", sort=False)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _resampled(count: int, resamples: int, seed: int) -> np.ndarray:
    """Row indices [resamples, count] of bootstrap samples over prompts."""
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def summary(table: pd.DataFrame, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Mean and variance of the reward by configuration, with 95 % bootstrap intervals over prompts.

    The variance is that of all responses, and is split by the law of total variance into `within`
    (over the responses to one prompt, averaged over prompts) and `across` (of the prompt means).
    """
    rows = []
    for name, part in table.groupby("configuration", sort=False):
        rewards = part.pivot(index="id", columns="sample", values="reward").to_numpy()
        first, second = rewards.mean(axis=1), (rewards**2).mean(axis=1)
        drawn = _resampled(len(rewards), resamples, seed)
        means = first[drawn].mean(axis=1)
        mean_low, mean_high = _interval(means)
        variance_low, variance_high = _interval(second[drawn].mean(axis=1) - means**2)
        rows.append(
            {
                "configuration": name,
                "mean": rewards.mean(),
                "mean_low": mean_low,
                "mean_high": mean_high,
                "variance": rewards.var(),
                "variance_low": variance_low,
                "variance_high": variance_high,
                "within": rewards.var(axis=1).mean(),
                "across": rewards.mean(axis=1).var(),
                "prompts": rewards.shape[0],
                "samples": rewards.shape[1],
            }
        )
    return pd.DataFrame(rows).set_index("configuration")


def paired_gain(
    table: pd.DataFrame, better: str, base: str, resamples: int, seed: int = 0
) -> dict[str, float]:
    """Mean difference of prompt means, `better` − `base`, with its error over prompts.

    Returns gain, standard_error, low, high (95 % bootstrap over prompts) and the number of prompts.
    """
    means = prompt_means(table)
    difference = (means[better] - means[base]).to_numpy()
    drawn = _resampled(len(difference), resamples, seed)
    low, high = _interval(difference[drawn].mean(axis=1))
    return {
        "gain": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
        "low": low,
        "high": high,
        "prompts": len(difference),
    }


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
