"""Prompts in one schema, with fixed and disjoint splits.

The project's own sets lie in `alignpro/prompts/*.jsonl`, a line a prompt. Each mixes five kinds of
question; the kind is read by the rubric reward alone, the prompter never sees it. The paper's sets
come from the Hub (`hub_data`): sorted out and split here, and without kinds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

from alignpro.config import ConfigError, HubConfig
from alignpro.sources import hub_prompts
from alignpro.texts import PROMPTS, Prompt, text_id

KINDS = ("howto", "definition", "choice", "reason", "yesno")
SPLITS = ("train", "validation", "test")
HELD_OUT = 0.1  # the share of a Hub dataset that is kept for validation, and again for the test
LATIN = re.compile("[A-Za-zªº\u00c0-\u024f\u1e00-\u1eff]")

FOUND = (
    "rows read",
    "empty",
    "too long",
    "not in Latin script",
    "repeated",
    "repeated in another split of the Hub",
    "kept",
    *SPLITS,
)


def datasets() -> list[str]:
    """Names of the sets that the project brings."""
    return sorted(p.stem for p in PROMPTS.glob("*.jsonl"))


def check_dataset(dataset: str, hub: HubConfig | None = None) -> None:
    """Raise ConfigError for an unknown dataset, and for one of the Hub without its options."""
    known = (*datasets(), *hub_prompts.SOURCES)
    if dataset not in known:
        raise ConfigError(f"no dataset {dataset!r}: use one of {', '.join(known)}")
    if dataset in hub_prompts.SOURCES and hub is None:
        raise ConfigError(
            f"the dataset {dataset!r} comes from the Hub: a preset that names it needs "
            "`data.hub` with `seed` and `max_characters`"
        )


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a JSONL file with the fields prompt, split, and optionally kind, options.

    Raises ValueError naming the file, the line and the reason for a row that cannot be used.
    """
    prompts, seen = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON: {error}") from None
        text, split, kind = (row.get(k) for k in ("prompt", "split", "kind"))
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: `prompt` must be a non-empty text")
        if split not in SPLITS:
            raise ValueError(f"{where}: `split` must be one of {', '.join(SPLITS)}, got {split!r}")
        if kind not in (None, *KINDS):
            raise ValueError(f"{where}: `kind` must be one of {', '.join(KINDS)}, got {kind!r}")
        prompt = Prompt(text.strip(), path.stem, split, kind, row.get("options", ()))
        if prompt.id in seen:
            raise ValueError(f"{where}: the same prompt stands on line {seen[prompt.id]}")
        seen[prompt.id] = number
        prompts.append(prompt)
    return prompts


def load_prompts(
    dataset: str, split: str, limit: int | None = None, hub: HubConfig | None = None
) -> list[Prompt]:
    """Prompts of one split of `dataset`, the first `limit` of them in turns over the kinds.

    `hub` is needed for the datasets of the Hub alone. Raises ValueError for an unknown dataset or
    split, or where fewer than `limit` exist, and DataError where the Hub's cannot be had.
    """
    check_dataset(dataset, hub)
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: use one of {', '.join(SPLITS)}")
    if dataset in hub_prompts.SOURCES:
        everything = _hub_prompts(dataset, hub, os.environ.get(hub_prompts.FOLDER))
    else:
        everything = read_prompts(PROMPTS / f"{dataset}.jsonl")
    prompts = [p for p in everything if p.split == split]
    by_kind = [[p for p in prompts if p.kind == kind] for kind in (*KINDS, None)]
    in_turns = [p for p in chain.from_iterable(zip_longest(*by_kind)) if p is not None]
    if limit is not None and limit > len(in_turns):
        raise ValueError(f"{dataset}/{split} has {len(in_turns)} prompts, {limit} are asked for")
    return in_turns[:limit]


@cache
def _hub_prompts(dataset: str, hub: HubConfig, folder: str | None) -> list[Prompt]:
    """All prompts of a Hub dataset; read once in a process, with the counts printed."""
    prompts, counts = sort_out(hub_prompts.rows(dataset, folder), dataset, hub)
    found = ", ".join(f"{number} {what}" for what, number in counts.items())
    source = hub_prompts.SOURCES[dataset]
    print(f"{dataset} ({source if folder is None else f'{source.hub_id} in {folder}'}): {found}")
    return prompts


def sort_out(
    rows: Iterable[tuple[str, str | None]], dataset: str, hub: HubConfig
) -> tuple[list[Prompt], Counter]:
    """The prompts worth keeping among (Hub split, text) rows, with our splits, and what was found.

    Dropped and counted, in this order: empty texts, those of more than `hub.max_characters`, those
    mostly in another script than Latin, and repetitions by `text_id`. The Hub's own splits are
    pooled: most have no validation split, or one split only.
    """
    counts = Counter(dict.fromkeys(FOUND, 0))
    prompts, seen = [], {}
    for hub_split, text in rows:
        text = (text or "").strip()
        key = text_id(text)
        found = _found(text, hub_split, seen.get(key), hub.max_characters)
        counts.update(("rows read", found))
        if found == "kept":
            seen[key] = hub_split
            prompts.append(Prompt(text, dataset, split_of(key, hub.seed)))
            counts[prompts[-1].split] += 1
    return sorted(prompts, key=lambda p: place(p.id, hub.seed)), counts


def _found(text: str, hub_split: str, first_in: str | None, max_characters: int) -> str:
    """What a row is; `first_in` is the Hub split where its text has been kept already, if any."""
    if not text:
        return "empty"
    if len(text) > max_characters:
        return "too long"
    if not mostly_latin(text):
        return "not in Latin script"
    if first_in is None:
        return "kept"
    return "repeated" if first_in == hub_split else "repeated in another split of the Hub"


def mostly_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin; true of a text without letters.

    This tells scripts apart, not languages: Spanish passes, and so does Vietnamese.
    """
    letters = sum(map(str.isalpha, text))
    return text.isascii() or 2 * len(LATIN.findall(text)) >= letters


def place(prompt_id: str, seed: int) -> float:
    """A number in [0, 1) made of a text's id and `seed` alone: its place in a shuffled order."""
    return int(hashlib.sha256(f"{seed} {prompt_id}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(prompt_id: str, seed: int) -> str:
    """The split of a text, the same in every dataset, revision and order of the rows."""
    where = place(prompt_id, seed)
    if where < HELD_OUT:
        return "test"
    return "validation" if where < 2 * HELD_OUT else "train"
