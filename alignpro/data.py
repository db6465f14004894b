"""Prompts in one schema, with fixed and disjoint splits. This is where you add your own.

The project's own sets are in `alignpro/prompts/*.jsonl`, one prompt per line. Each mixes five kinds
of question. Only the rubric reward reads the kind; the prompter never sees it. The paper's sets
come from the Hub (`sources.hub_prompts`), without kinds.
"""

from __future__ import annotations

import json
import os
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

from alignpro.config import ConfigError, HubConfig
from alignpro.sources import hub_prompts
from alignpro.texts import PROMPTS, Prompt

KINDS = ("howto", "definition", "choice", "reason", "yesno")
SPLITS = ("train", "validation", "test")


def datasets() -> list[str]:
    """Return the names of the sets that the project brings."""
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
    """Read all prompts of a JSONL file with the fields prompt, split, and optionally kind, options.

    `options` are the two keywords of a choice.
    Raises ValueError naming the file, the line and the reason for a row that cannot be used.
    """
    prompts, seen = [], {}
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:  # not JSON, or not UTF-8
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
            raise ValueError(f"{where}: the same prompt is on line {seen[prompt.id]}")
        seen[prompt.id] = number
        prompts.append(prompt)
    return prompts


def load_prompts(
    dataset: str, split: str, limit: int | None = None, hub: HubConfig | None = None
) -> list[Prompt]:
    """Return prompts of one split of a dataset, taking the kinds of question in turns.

    dataset: a name of `datasets()`, or one of the Hub's in `hub_prompts.SOURCES`.
    split: "train", "validation" or "test".
    limit: how many prompts; by default all.
    hub: the options of the Hub's datasets, which the others do not need.

    Raises ValueError for an unknown dataset or split, and if there are fewer than `limit` prompts.
    Raises DataError if a dataset of the Hub is unavailable.
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


_hub_prompts = cache(hub_prompts.hub_prompts)  # a dataset is read and counted once per process
