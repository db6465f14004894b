"""Judging by reward, win rates of a table of verdicts, and how far a judge can be believed.

:class:`alignpro.judging.llm_judge.Judge` asks a language model and :func:`reward_judge` compares
rewards; both return a *table of verdicts*, one row per pair, whose columns
:func:`alignpro.judging.protocol.table_row` lists. Importing this module loads no model.

    pairs = read_pairs("ours.jsonl", "theirs.jsonl")
    table = Judge("gpt-4", prices=(30, 60)).compare(pairs, "verdicts.sqlite", max_cost=20)
    report(table)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from alignpro.evaluation import checked_rewards
from alignpro.judging.protocol import Outcome, Pair, table_row
from alignpro.judging.win_rates import WinRate, length_adjusted, win_rate
from alignpro.statistics import bootstrap

OTHER = {"1": "2", "2": "1", "tie": "tie"}  # a winner's place in the other order


def reward_judge(
    pairs: Iterable[Sequence[str]],
    rewards_a: Sequence[float],
    rewards_b: Sequence[float],
    margin: float = 0.0,
) -> pd.DataFrame:
    """The table of verdicts from rewards alone: the response with the higher reward wins.

    `pairs` holds (prompt, a, b) each; `rewards_a` and `rewards_b` have one finite number per pair.
    A difference of at most `margin`, in the unit of the rewards, is a tie. This judge needs no
    model and both orders agree. Raises RewardError where a reward is missing or not a finite
    number, and ValueError for a negative margin.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    pairs = [Pair(*pair) for pair in pairs]
    prompts = [pair.prompt for pair in pairs]
    rewards_a = checked_rewards(rewards_a, prompts, "the reward of A")
    rewards_b = checked_rewards(rewards_b, prompts, "the reward of B")
    rows = []
    for pair, a, b in zip(pairs, rewards_a, rewards_b):
        winner = "1" if a - b > margin else "2" if b - a > margin else "tie"
        both = (Outcome(w, "", "") for w in (winner, OTHER[winner]))
        rows.append(table_row(pair, *both))
    return pd.DataFrame(rows)


def by_prompt(table: pd.DataFrame) -> pd.Series:
    """The mean preference of each prompt, NaN where none of its pairs has one.

    The pairs of one prompt are not independent, and the intervals of `win_rate` are over prompts:
    it takes these means.
    """
    preferences = table["preference"].astype(float)  # a file of nothing but null reads as objects
    return preferences.groupby(table["prompt"], sort=False).mean()


def flip_rate(table: pd.DataFrame) -> float:
    """Share of the pairs with a preference on which the two orders differ; NaN without any.

    Pairs of identical responses do not count: no judge was asked about them.
    """
    known = table[table["preference"].notna() & (table["a"] != table["b"])]
    return float((known["a_first"] != known["b_first"]).mean())


def first_shown_rate(table: pd.DataFrame) -> float:
    """Of the verdicts that name a winner, the share that name the response shown first.

    ½ is unbiased; NaN where no verdict names a winner.
    """
    first = (table["a_first"] == "A").sum() + (table["b_first"] == "B").sum()
    decided = table[["a_first", "b_first"]].isin(["A", "B"]).to_numpy().sum()
    return float(first / decided) if decided else math.nan


def report(table: pd.DataFrame, resamples: int = 10_000) -> dict[str, float]:
    """Sum up a table of verdicts: what a reader needs before believing a win rate.

    - A, tie, B: shares of the pairs with a preference, as in the paper's Table 1.
    - win rate, low, high: a tie counts half; the 95 % interval is over prompts, by bootstrap with
      `resamples` draws.
    - at equal length: the win rate adjusted to equal length in characters, over pairs.
    - sign test: its p-value, over prompts.
    - flips, first shown: see :func:`flip_rate` and :func:`first_shown_rate`.
    - pairs, unknown, prompts: the number of pairs, of those without a preference (a verdict is
      missing in one order or both), and of prompts with a preference.
    """
    known = table["preference"].dropna()
    overall = win_rate(by_prompt(table), resamples)
    adjusted = length_adjusted(table["preference"], table["a"].str.len(), table["b"].str.len())
    return {
        "A": float((known == 1).mean()),
        "tie": float((known == 0.5).mean()),
        "B": float((known == 0).mean()),
        "win rate": overall.rate,
        "low": overall.low,
        "high": overall.high,
        "at equal length": adjusted.rate,
        "sign test": overall.p_value,
        "flips": flip_rate(table),
        "first shown": first_shown_rate(table),
        "pairs": len(table),
        "unknown": len(table) - len(known),
        "prompts": overall.n,
    }


@dataclass(frozen=True)
class Validation:
    """How far a judge can be believed, measured against labels that are taken to be right.

    - agreement: the share of pairs with the label's outcome out of three (A, tie, B).
    - decided: the same, over the pairs where neither judge nor label is a tie.
    - flips, first_shown: see :func:`flip_rate` and :func:`first_shown_rate`.

    Both shares are a `WinRate`, with an interval and counts; a "win" is a pair agreed on.
    """

    agreement: WinRate
    decided: WinRate
    flips: float
    first_shown: float


def validate(table: pd.DataFrame, labels: Sequence[float], resamples: int = 10_000) -> Validation:
    """Compare the judge that made `table` with `labels`, one preference (1, 0 or ½) per row.

    `resamples` is the number of bootstrap draws for the intervals.
    Raises ValueError where there are not as many labels as rows.
    """
    verdict, label = _sides(table, labels)
    same = pd.Series(verdict == label, dtype=float).mask(pd.isna(verdict))
    decided = (verdict != 0.5) & (label != 0.5)
    return Validation(
        win_rate(same, resamples),
        win_rate(same[decided], resamples),
        flip_rate(table),
        first_shown_rate(table),
    )


def self_preference(
    table: pd.DataFrame,
    labels: Sequence[float],
    own: Literal["a", "b"],
    resamples: int = 10_000,
) -> dict[str, float]:
    """How much a judge favours its own responses, those of side `own`, over what `labels` say.

    - own found: the judge's mean preference for its own response, where the labels prefer it too.
    - other found: its mean preference for the other response, where the labels prefer that one.
    - self-preference: their difference. 0 is unbiased, also for a judge that guesses; 1 is a judge
      that always takes its own; below 0 it favours the other.
    - low, high: the 95 % bootstrap interval over prompts, from `resamples` draws.
    - pairs: the number of pairs that count: the judge has a preference, and the label is no tie.

    Without pairs of both kinds the shares are NaN, and without two prompts of each kind so is the
    interval. Draws that lack one kind are left out.
    The measure follows Wataoka et al., "Self-Preference Bias in LLM-as-a-Judge" (2024).
    Raises ValueError where there are not as many labels as rows, or for another `own`.
    """
    if own not in ("a", "b"):
        raise ValueError(f"own must be 'a' or 'b', got {own!r}")
    verdict, label = _sides(table, labels)
    if own == "b":
        verdict, label = 1 - verdict, 1 - label
    rows = pd.DataFrame(
        {
            "own": (label > 0.5) * verdict,
            "own_pairs": label > 0.5,
            "other": (label < 0.5) * (1 - verdict),
            "other_pairs": label < 0.5,
        },
        dtype=float,
    )[~pd.isna(verdict) & ((label > 0.5) | (label < 0.5))]
    sums = rows.groupby(table["prompt"].to_numpy()[rows.index], sort=True).sum().to_numpy()

    def found(means: np.ndarray) -> np.ndarray:
        """Both shares [..., 2] from mean sums by prompt [..., 4], where they exist."""
        means = means[(means[..., [1, 3]] > 0).all(axis=-1)]
        return means[..., [0, 2]] / means[..., [1, 3]]

    own_found = other_found = low = high = math.nan
    prompts = (sums[:, [1, 3]] > 0).sum(axis=0).min()  # of the rarer kind
    if prompts > 0:
        own_found, other_found = found(sums.mean(axis=0, keepdims=True))[0]
    if prompts > 1:
        interval = bootstrap(
            sums[None], statistic=lambda means: -np.diff(found(means))[:, 0], resamples=resamples
        )
        low, high = np.clip(interval, -1, 1)
    return {
        "own found": float(own_found),
        "other found": float(other_found),
        "self-preference": float(own_found - other_found),
        "low": float(low),
        "high": float(high),
        "pairs": len(rows),
    }


def _sides(table: pd.DataFrame, labels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The judge's preferences [n] (NaN where missing) and the labels [n]."""
    if len(table) != len(labels):
        raise ValueError(f"{len(table)} pairs were judged, but there are {len(labels)} labels")
    preferences = table["preference"].to_numpy(dtype=float)
    return preferences, pd.Series(list(labels), dtype=float).to_numpy()
