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

from alignpro.generation import Policy
from alignpro.texts import Prompt

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
