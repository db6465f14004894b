"""Evaluation: configurations → rewritten prompts → responses → rewards.

A configuration is a function of prompts and a seed that returns the texts sent to the frozen LLM:
the prompts themselves, the prompts with a suffix, or a prompter's rewrites. All tables are tidy
DataFrames with one row per response. Every reward enters the project through `checked_rewards`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from alignpro.runs import RunError
from alignpro.sources.files import locked, read_table, write_table
from alignpro.texts import Prompt, Response, Reward

if TYPE_CHECKING:
    from alignpro.generation import Policy
    from alignpro.sources.endpoint import Endpoint

Rewriter = Callable[[Sequence[Prompt], int], list[str]]
TOLD_THE_KIND = "Best suffix, told the kind"


class RewardError(RunError):
    """A reward that cannot be used; the message names it, the row and the row's prompt."""


def rewards_of(
    reward: Reward, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> np.ndarray:
    """What `reward` gives to each of B pairs of an original prompt and a response: floats [B].

    Raises RewardError as `checked_rewards` does.
    """
    name = getattr(reward, "name", None) or getattr(reward, "__qualname__", repr(reward))
    return checked_rewards(reward(prompts, responses), prompts, f"the reward {name}")


def checked_rewards(values: object, prompts: Sequence[str], name: str) -> np.ndarray:
    """`values` as floats [B], one finite number for each of the B `prompts`.

    `values` is a list, a tuple, a NumPy array or a tensor on any device, of floats, integers or
    booleans; `name` is what an error calls them. A value of one element, whatever its shape, is
    the reward of one prompt and never that of several. Raises RewardError for another number of
    values, and for one that is not a finite number.
    """
    rows = _plain(values)
    rows = [_plain(row) for row in rows] if isinstance(rows, (list, tuple)) else [rows]
    while len(prompts) == len(rows) == 1 and isinstance(rows[0], list):
        rows = rows[0]
    if len(rows) != len(prompts):
        raise RewardError(f"{name} returned {len(rows)} values for {len(prompts)} responses")
    for row, (value, prompt) in enumerate(zip(rows, prompts)):
        if not isinstance(value, Real) or not math.isfinite(value):
            raise RewardError(
                f"{name} is {value!r} in row {row}, which is not a finite number; the prompt of "
                f"this row is {str(prompt)!r}"
            )
    return np.array(rows, dtype=float)


def _plain(value: object) -> object:
    """Plain Python numbers, in lists, from what NumPy, pandas or torch hold them in."""
    return value.tolist() if hasattr(value, "tolist") else value


def unchanged(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """No Fine-Tuning: the frozen LLM gets x itself."""
    return [str(x) for x in prompts]


def constant(suffix: str) -> Rewriter:
    """The same suffix for every prompt."""
    return lambda prompts, seed: [f"{x} {suffix}".strip() for x in prompts]


def per_kind(suffixes: dict[str, str], other: str = "") -> Rewriter:
    """One suffix for each kind of question, and `other` for a kind that has none.

    It is told the kind, which no prompter is.
    """
    return lambda prompts, _: [f"{x} {suffixes.get(x.kind or '', other)}".strip() for x in prompts]


def best_of(count: int, rewrite: Rewriter, frozen: Policy | Endpoint, reward: Reward) -> Rewriter:
    """Best of `count` rewrites (C12): draw them, let π_F answer each once, keep the best-scored.

    `evaluate` has the kept rewrite answered again, so that a lucky answer is not counted twice.
    """

    def chosen(prompts: Sequence[Prompt], seed: int) -> list[str]:
        asked = [x for x in prompts for _ in range(count)]
        rewrites = rewrite(asked, seed)
        # `evaluate` answers with seed + 1: choosing needs noise of its own.
        scores = rewards_of(reward, asked, frozen.generate(rewrites, seed + 2))
        best = scores.reshape(len(prompts), count).argmax(axis=1)
        return [rewrites[row * count + int(pick)] for row, pick in enumerate(best)]

    return chosen


def evaluate(
    rewriters: dict[str, Rewriter],
    frozen: Policy | Endpoint,
    reward: Reward,
    prompts: Sequence[Prompt],
    samples: int,
    seed: int,
    progress: bool = True,
) -> pd.DataFrame:
    """`samples` responses to each prompt under each configuration, each to a rewrite of its own.

    `rewriters` maps a configuration's name to it; all draw with the same seeds. `progress` shows a
    bar. Columns: configuration, id, dataset, kind, sample, prompt, rewrite, response, ended,
    tokens, filtered, reward. A response that a server's content filter withheld is empty, and has
    the reward that `reward` gives to an empty one (the rubric: 0). Raises RewardError for a reward
    that is not one finite number per response.
    """
    tables = []
    repeated = [x for x in prompts for _ in range(samples)]
    for name, rewrite in tqdm(rewriters.items(), desc="evaluate", disable=not progress):
        rewrites = rewrite(repeated, seed)
        responses = frozen.generate(rewrites, seed + 1)
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
                    "filtered": [y.filtered for y in responses],
                    "reward": rewards_of(reward, repeated, responses),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def kept(path: Path, make: Callable[..., pd.DataFrame], *arguments: object) -> pd.DataFrame:
    """The table at `path`; where there is none, `make(*arguments)` makes it and it is kept."""
    if not path.exists():
        with locked(path.parent):
            write_table(path, make(*arguments))
    return read_table(path)


def best_suffixes(table: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """From the suffix table: the best suffix over all kinds (each kind counts alike), and by kind.

    "(nothing)" is among the candidates, so that the best suffix may be none. Prompts without a
    kind, such as the Hub's, count as one kind, which has no entry in the second value. Raises
    RewardError where a reward is not a finite number, which a mean would hide.
    """
    checked_rewards(table["reward"], [*table["configuration"]], "the reward in a table of suffixes")
    table = table.assign(kind=table["kind"].fillna(""))
    means = table.pivot_table(index="configuration", columns="kind", values="reward", sort=False)
    text = {name: "" if name == "(nothing)" else name for name in means.index}
    by_kind = {kind: text[means[kind].idxmax()] for kind in means.columns if kind}
    return text[means.mean(axis=1).idxmax()], by_kind
