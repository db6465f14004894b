"""Prompts in one schema, with fixed and disjoint splits. This is where you add your own.

A dataset is a name or the path of a file. The project's own sets are in `alignpro/prompts/*.jsonl`,
one prompt per line. Each mixes five kinds of question. Only the rubric reward reads the kind; the
prompter never sees it. The paper's sets come from the Hub (`sources.hub_prompts`), without kinds.
Your own file has a column `prompt`; `sources.prompt_files` lists the formats and columns.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

from alignpro.config import ConfigError, HubConfig
from alignpro.sources import hub_prompts
from alignpro.sources.prompt_files import SPLITS, is_file, name_of, read_prompts
from alignpro.texts import PROMPTS, Prompt

KINDS = ("howto", "definition", "choice", "reason", "yesno")


def datasets() -> list[str]:
    """Return the names of the sets that the project brings."""
    return sorted(p.stem for p in PROMPTS.glob("*.jsonl"))


def check_dataset(dataset: str, hub: HubConfig | None = None) -> None:
    """Raise ConfigError for an unknown dataset, and for one of the Hub without its options."""
    known = (*datasets(), *hub_prompts.SOURCES)
    if is_file(dataset):
        name_of(Path(dataset))
    elif dataset not in known:
        raise ConfigError(
            f"no dataset {dataset!r}: use one of {', '.join(known)}, or the path of a .jsonl, "
            ".json, .csv or .parquet file"
        )
    if dataset in hub_prompts.SOURCES and hub is None:
        raise ConfigError(
            f"the dataset {dataset!r} comes from the Hub: a preset that names it needs "
            "`data.hub` with `seed` and `max_characters`"
        )


def dataset_name(dataset: str) -> str:
    """Return the name that the runs on a dataset are kept under. Raises as `check_dataset`."""
    return name_of(Path(dataset)) if is_file(dataset) else dataset


def load_prompts(
    dataset: str,
    split: str,
    limit: int | None = None,
    hub: HubConfig | None = None,
    column: str = "prompt",
) -> list[Prompt]:
    """Return prompts of one split of a dataset, taking the kinds of question in turns.

    dataset: a name of `datasets()`, one of the Hub's in `hub_prompts.SOURCES`, or the path of a
        file.
    split: "train", "validation" or "test".
    limit: how many prompts; by default all.
    hub: the options of the Hub's datasets, which the others do not need.
    column: the column of a file that holds the prompts.

    Raises ConfigError for an unknown dataset, a file that cannot be used, and if there are fewer
    than `limit` prompts; ValueError for an unknown split.
    Raises DataError if a dataset of the Hub is unavailable.
    """
    check_dataset(dataset, hub)
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: use one of {', '.join(SPLITS)}")
    if dataset in hub_prompts.SOURCES:
        everything = _hub_prompts(dataset, hub, os.environ.get(hub_prompts.FOLDER))
    elif is_file(dataset):
        everything = read_prompts(Path(dataset), dataset_name(dataset), column)
    else:
        everything = read_prompts(PROMPTS / f"{dataset}.jsonl")
    prompts = [p for p in everything if p.split == split]
    others = sorted({p.kind for p in prompts if p.kind is not None} - {*KINDS})
    by_kind = [[p for p in prompts if p.kind == kind] for kind in (*KINDS, *others, None)]
    in_turns = [p for p in chain.from_iterable(zip_longest(*by_kind)) if p is not None]
    if limit is not None and limit > len(in_turns):
        found = f"{dataset}/{split} has {len(in_turns)} prompts"
        raise ConfigError(f"{found}, {limit} are asked for: see `data.{split}` in the preset")
    return in_turns[:limit]


_hub_prompts = cache(hub_prompts.hub_prompts)  # a dataset is read and counted once per process
