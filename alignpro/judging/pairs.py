"""Pairs of responses to judge, from files, with or without human labels.

Files are .jsonl, .json (a list of objects), .csv or .parquet, in UTF-8. A text is read as it is:
"NA", "null" and "2024-01-01" stay texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from alignpro.judging.protocol import Pair

TEXTS = ("instruction", "response1", "response2")
LABELS = {"1": 1.0, "2": 0.0, "tie": 0.5}


def read_pairs(file_a: str | Path, file_b: str | Path) -> list[Pair]:
    """Pairs from two files of responses, each with the columns prompt and response.

    Where a prompt occurs several times, its first response in A meets its first in B, and so on.
    The pairs are in the order of `file_a`. Raises ValueError naming the file and a missing column,
    the row of a value that is not a text, or the first prompt that does not have the same number of
    responses in both files.
    """
    tables = []
    for path in (file_a, file_b):
        table = _read_table(Path(path), ("prompt", "response"))
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
    # A merge does not keep the order of the first file.
    both = tables[0][["prompt", "turn"]].merge(both, on=["prompt", "turn"], how="left")
    return [Pair(*row) for row in zip(both["prompt"], both["response_a"], both["response_b"])]


def read_human_preferences(path: str | Path) -> tuple[list[Pair], list[float]]:
    """Pairs and human preferences, from a file with instruction, response1, response2 and label.

    A label is 1 (response1 is better: preference 1), 2 (response2 is: 0) or tie (½); case does not
    matter. Raises ValueError naming the file and a missing column, the row of a value that is not a
    text, or the row of any other label. Rows count from 0.
    """
    table = _read_table(Path(path), TEXTS, "label")
    labels = [_label(value) for value in table["label"]]
    for row, label in enumerate(labels):
        if not label:
            raise ValueError(f"{path}: row {row} has no label")
        if label not in LABELS:
            known = ", ".join(LABELS)
            raise ValueError(f"{path}: row {row}: the label {label!r} is none of {known}")
    pairs = [Pair(*row) for row in zip(*(table[name] for name in TEXTS))]
    return pairs, [LABELS[label] for label in labels]


def _label(value: object) -> str:
    """A label as text, "" where it is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    # A gap in a column of integers makes all of them floats.
    return str(value).strip().lower().removesuffix(".0")


def _read_table(path: Path, texts: Sequence[str], *others: str) -> pd.DataFrame:
    """The table in `path`; raises ValueError where a column is missing or `texts` are no texts."""
    if path.suffix not in (".jsonl", ".json", ".csv", ".parquet"):
        raise ValueError(f"{path}: must end in one of .jsonl, .json, .csv, .parquet")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            # Not by pandas, which turns integers beside a gap into floats.
            table = pd.DataFrame(_read_json(path), dtype=object)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8: save it in that encoding") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    missing = [name for name in (*texts, *others) if name not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"{path}: no column {', '.join(missing)}; it has {found or 'none'}")
    for name in texts:
        for row, value in enumerate(table[name]):
            if not isinstance(value, str):
                raise ValueError(f"{path}: row {row}: `{name}` must be a text, got {value!r}")
    return table


def _read_json(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        rows = json.loads(text)
    else:
        # Only "\n" ends a line: a text may contain U+2028, which `splitlines` takes for an end.
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("must be a list of objects, one per row")
    return rows
