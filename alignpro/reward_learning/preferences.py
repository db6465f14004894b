"""Preference pairs: sampled from the frozen LLM and labelled by Bradley–Terry, or read from a file.

Eq. 1 of the paper takes pairs of responses whose labels follow a true reward r*. Here r* is the
rubric, so the probability behind each label is known. A learner sees only the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from alignpro.config import ConfigError
from alignpro.sources.prompt_files import read_jsonl
from alignpro.texts import NEUTRAL_MENU, Prompt

COLUMNS = ("prompt", "chosen", "rejected")


class PreferenceError(ValueError):
    """Preferences that cannot be used. The message names the row or column and the reason."""


def menu_suffixes(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """Each prompt with a random entry of the neutral menu, or with nothing.

    A reward model should see answers like those that a prompter causes. And two answers to
    different instructions differ in more than their noise.
    """
    menu = ("", *NEUTRAL_MENU)
    drawn = np.random.default_rng(seed).integers(len(menu), size=len(prompts))
    return [f"{x} {menu[i]}".strip() for x, i in zip(prompts, drawn)]


def bradley_terry(margin: np.ndarray, scale: float) -> np.ndarray:
    """P(first preferred) = σ((r₁ − r₂) / scale), for margins r₁ − r₂ of any shape."""
    return expit(np.asarray(margin) / scale)


def label_pairs(responses: pd.DataFrame, scale: float, seed: int) -> pd.DataFrame:
    """Disjoint pairs of responses to the same prompt, labelled with noise from their rewards.

    `responses` is a table of `evaluate`: id, kind, prompt, response and the gold `reward`. Columns
    of the result: id, kind, prompt, first, second, first_row and second_row (the rows of
    `responses` that they come from), p_first (the Bradley–Terry probability) and first_won (the
    label drawn from it). The order within a pair is random. A pair of equal texts teaches nothing
    and is left out.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for _, group in responses.groupby("id", sort=False):
        order = rng.permutation(group.index.to_numpy())
        rows += list(zip(order[0::2], order[1::2]))
    first, second = (responses.loc[list(side)].reset_index(drop=True) for side in zip(*rows))
    pairs = first[["id", "kind", "prompt"]].assign(first=first["response"])
    pairs["second"] = second["response"]
    pairs["first_row"], pairs["second_row"] = zip(*rows)
    pairs["p_first"] = bradley_terry(first["reward"] - second["reward"], scale)
    pairs["first_won"] = rng.random(len(pairs)) < pairs["p_first"]
    return pairs[pairs["first"] != pairs["second"]].reset_index(drop=True)


def noise_ceiling(p_first: np.ndarray) -> np.ndarray:
    """max(p, 1 − p) of each pair: how often r* agrees with its label. No reward can do better."""
    return np.maximum(p_first, 1 - np.asarray(p_first))


def as_preferences(pairs: pd.DataFrame) -> pd.DataFrame:
    """The columns prompt, chosen and rejected of labelled pairs: all that a learner sees."""
    won = pairs["first_won"]
    chosen = pairs["first"].where(won, pairs["second"])
    rejected = pairs["second"].where(won, pairs["first"])
    return pd.DataFrame({"prompt": pairs["prompt"], "chosen": chosen, "rejected": rejected})


def read_preferences(source) -> tuple[pd.DataFrame, dict[str, int]]:
    """Read preferences as text, and count the rows dropped as `empty` or `identical`.

    `source` is a JSONL or Parquet file, a `datasets.Dataset` or a DataFrame with the columns
    prompt, chosen and rejected. Each cell is plain text or the Hub's messages, a list of {role,
    content}. The answer is then the last message, and the turns before it replace the prompt.
    Raises PreferenceError for a missing column, an unreadable row, or if no row is left.
    """
    table = _table(source)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise PreferenceError(f"no column {', '.join(missing)} among {found}")
    rows = [_row(i, *values) for i, values in enumerate(zip(*(table[c] for c in COLUMNS)), 1)]
    texts = pd.DataFrame(rows, columns=list(COLUMNS))
    empty = (texts == "").any(axis=1)
    identical = ~empty & (texts["chosen"] == texts["rejected"])
    kept = texts[~empty & ~identical].reset_index(drop=True)
    dropped = {"empty": int(empty.sum()), "identical": int(identical.sum())}
    if kept.empty:
        raise PreferenceError(f"no preference is left of {len(texts)} rows: {dropped}")
    return kept, dropped


def _table(source) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    if not isinstance(source, (str, Path)):
        return pd.DataFrame({name: list(source[name]) for name in source.column_names})
    path = Path(source)
    if not path.is_file():
        raise PreferenceError(f"{path}: no such file")
    if path.suffix == ".parquet":
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise PreferenceError(f"{path}: not Parquet: {error}") from None
    if path.suffix not in (".jsonl", ".json"):
        raise PreferenceError(f"{path}: must be a .jsonl or .parquet file")
    rows = []
    try:
        for number, row in read_jsonl(path):
            if not isinstance(row, dict):
                raise PreferenceError(f"{path}:{number}: must be an object, got {row!r:.40}")
            rows.append(row)
    except ConfigError as error:
        raise PreferenceError(str(error)) from None
    return pd.DataFrame(rows)


def _row(number: int, prompt, chosen, rejected) -> tuple[str, str, str]:
    """One preference as stripped texts."""
    *before, (role, good) = _turns(f"row {number}: chosen", chosen)
    *others, (other_role, bad) = _turns(f"row {number}: rejected", rejected)
    if {role, other_role} - {"", "assistant"}:
        raise PreferenceError(f"row {number}: the last message must be the assistant's")
    if before != others:
        raise PreferenceError(f"row {number}: chosen and rejected continue different conversations")
    conversation = before or _turns(f"row {number}: prompt", prompt)
    return "\n\n".join(text for _, text in conversation), good, bad


def _turns(where: str, value) -> list[tuple[str, str]]:
    """(role, text) of each message. Plain text or a missing value is one turn without a role."""
    if value is None or isinstance(value, float) and np.isnan(value):
        return [("", "")]
    if isinstance(value, str):
        return [("", value.strip())]
    try:
        return [(m["role"], m["content"].strip()) for m in value] or [("", "")]
    except (TypeError, KeyError, AttributeError):
        raise PreferenceError(f"{where} must be text, or messages with role and content") from None
