"""Which of two responses is better? Pairs from files, judges, win rates, and how good a judge is.

A pair is asked in both orders and won only where they agree. :class:`Judge` asks a language model
behind any OpenAI-compatible endpoint, :func:`reward_judge` needs rewards alone; both return the
table that :func:`alignpro.judging.protocol.table_row` describes, one row per pair. Importing
this module loads neither torch nor a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from alignpro.judging.protocol import Outcome, Pair, table_row
from alignpro.judging.win_rates import (
    WinRate,
    length_adjusted,
    win_rate,
)

HUMAN_COLUMNS = ("instruction", "response1", "response2", "label")
LABELS = {"1": 1.0, "2": 0.0, "tie": 0.5}
UNKNOWN = Outcome(None, "unparsed: a reward is not a number", "")


def reward_judge(
    pairs: Iterable[Sequence[str]],
    rewards_a: Sequence[float],
    rewards_b: Sequence[float],
    margin: float = 0.0,
) -> pd.DataFrame:
    """The same table from rewards alone: the sign of their difference, a tie within `margin`.

    It needs no model and has no order to depend on. `margin` is at least 0, in the rewards' unit.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    rows = []
    for pair, a, b in zip(pairs, rewards_a, rewards_b, strict=True):
        if math.isnan(a - b):
            both = UNKNOWN, UNKNOWN
        else:
            sign = (a - b > margin) - (b - a > margin)
            winners = {1: ("1", "2"), -1: ("2", "1"), 0: ("tie", "tie")}[sign]
            both = (Outcome(winner, "", "") for winner in winners)
        rows.append(table_row(Pair(*pair), *both))
    return pd.DataFrame(rows)


def by_prompt(table: pd.DataFrame) -> pd.Series:
    """The mean preference of each prompt, whose pairs are not independent; NaN where none is known.

    This is what `win_rate` takes: its intervals are over prompts.
    """
    preferences = table["preference"].astype(float)  # a file of nothing but null reads as objects
    return preferences.groupby(table["prompt"], sort=False).mean()


def flip_rate(table: pd.DataFrame) -> float:
    """Share of pairs, known in both orders, on which the two orders differ; NaN without any.

    Identical responses, which no judge was asked about, do not count.
    """
    known = table[table["preference"].notna() & (table["a"] != table["b"])]
    return float((known["a_first"] != known["b_first"]).mean())


def first_shown_rate(table: pd.DataFrame) -> float:
    """Share of the verdicts naming a winner that name the response shown first; ½ is unbiased."""
    first = (table["a_first"] == "A").sum() + (table["b_first"] == "B").sum()
    decided = table[["a_first", "b_first"]].isin(["A", "B"]).to_numpy().sum()
    return float(first / decided) if decided else math.nan


def report(table: pd.DataFrame, resamples: int = 10_000) -> dict[str, float]:
    """One line on a table of verdicts: what a reader needs before believing a win rate.

    A, tie and B are shares of the pairs known in both orders, as in the paper's Table 1; the win
    rate counts a tie as half and stands with its interval over prompts and, beside it, adjusted to
    equal length (in characters, over pairs). `sign test` is the p-value over prompts. `unknown`
    counts pairs without a verdict in one order or both.
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


def read_pairs(file_a: str | Path, file_b: str | Path) -> list[Pair]:
    """Pairs of two files of responses with the columns prompt and response.

    The files are .jsonl, .json, .csv or .parquet. Where a prompt stands several times, its first
    response in A meets its first in B, and so on. Raises ValueError naming missing columns, or the
    first prompt that has not the same number of responses in both.
    """
    tables = []
    for path in (file_a, file_b):
        table = _read_table(path, ("prompt", "response"))
        tables.append(table.assign(turn=table.groupby("prompt").cumcount()))
    both = tables[0].merge(
        tables[1], how="outer", on=["prompt", "turn"], suffixes=("_a", "_b"), indicator=True
    )
    alone = both.loc[both["_merge"] != "both", "prompt"]
    if len(alone):
        raise ValueError(
            f"{len(alone)} responses of {file_a} and {file_b} have no partner in the other; the "
            f"first is to the prompt {alone.iloc[0]!r}"
        )
    # In the order of the first file, which a merge does not keep.
    both = tables[0][["prompt", "turn"]].merge(both, on=["prompt", "turn"], how="left")
    return [Pair(*row) for row in zip(both["prompt"], both["response_a"], both["response_b"])]


def read_human_preferences(path: str | Path) -> tuple[list[Pair], list[float]]:
    """Pairs and human preferences from a file with instruction, response1, response2 and label.

    A label is 1 (response1 is better, preference 1), 2 (response2, 0) or tie (½). Raises ValueError
    naming missing columns, or the row of any other label.
    """
    table = _read_table(path, HUMAN_COLUMNS)
    labels = [str(label).strip().lower() for label in table["label"]]
    for row, label in enumerate(labels):
        if label not in LABELS:
            known = ", ".join(LABELS)
            raise ValueError(f"{path}: row {row}: the label {label!r} is none of {known}")
    texts = zip(*(table[name].astype(str) for name in HUMAN_COLUMNS[:3]))
    return [Pair(*row) for row in texts], [LABELS[label] for label in labels]


@dataclass(frozen=True)
class Validation:
    """How far a judge can be believed, against labels that are held to be right.

    `agreement` is the share of pairs with the same outcome of three (A, tie, B), `decided` that
    of the pairs where neither side says tie, both as a `WinRate` for interval and counts (a "win"
    is a pair agreed on). `flips` and `first_shown` are those of the judge, see `flip_rate`.
    """

    agreement: WinRate
    decided: WinRate
    flips: float
    first_shown: float


def validate(table: pd.DataFrame, labels: Sequence[float], resamples: int = 10_000) -> Validation:
    """Measure the judge that made `table` against one preference (1, 0 or ½) for each of its rows.

    Raises ValueError where there are not as many labels as rows.
    """
    if len(table) != len(labels):
        raise ValueError(f"{len(table)} pairs were judged, but there are {len(labels)} labels")
    said = table["preference"].to_numpy(dtype=float)
    right = pd.Series(labels, dtype=float).to_numpy()
    same = pd.Series(said == right, dtype=float).mask(pd.isna(said))
    firm = (said != 0.5) & (right != 0.5)
    return Validation(
        win_rate(same, resamples),
        win_rate(same[firm], resamples),
        flip_rate(table),
        first_shown_rate(table),
    )


def _read_table(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    path = Path(path)
    readers = {
        ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False),
        ".json": lambda p: pd.read_json(p, dtype=False),
        # A response may well read "NA" or "null".
        ".csv": lambda p: pd.read_csv(p, dtype=str, keep_default_na=False),
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: must end in one of {', '.join(readers)}")
    table = readers[path.suffix](path)
    missing = [name for name in columns if name not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"{path}: no column {', '.join(missing)}; it has {found or 'none'}")
    return table
