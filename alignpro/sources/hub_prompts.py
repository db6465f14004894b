"""Prompts of the Hugging Face Hub: which datasets, what is kept of them, and how they are split.

The prompt x is the user's question alone. The system prompts of the Orca set ("think step by
step ...") tell the model how to answer, which is what a prompter learns to do. If they were part of
x, the prompter's gain would come on top of theirs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alignpro.config import HubConfig
from alignpro.texts import Prompt, text_id

# A folder with the layout of the Hub, OWNER/NAME/files. If it is set, the Hub is not contacted.
FOLDER = "ALIGNPRO_DATA"
HELD_OUT = 0.1  # the share of a dataset kept for validation, and the same again for the test
LATIN = re.compile("[A-Za-zªº\u00c0-\u024f\u1e00-\u1eff]")
FOUND = (
    "rows read",
    "empty",
    "too long",
    "not in Latin script",
    "repeated",
    "repeated in another split of the Hub",
    "kept",
    "train",
    "validation",
    "test",
)


class DataError(RuntimeError):
    """Raised when a dataset is unavailable or unreadable. The message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """A dataset of the Hub: the splits that are read, and the column that holds the prompt.

    It is downloaded whole, once, into the cache of `datasets`.
    """

    hub_id: str
    revision: str
    splits: tuple[str, ...]
    column: str

    def __str__(self) -> str:
        return f"{self.hub_id}@{self.revision[:7]}"


# The revisions are those that public code pins.
SOURCES = {
    "ultrafeedback": Source(
        "HuggingFaceH4/ultrafeedback_binarized",
        "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
        ("train_prefs", "test_prefs"),  # the sft and gen splits hold the same prompts
        "prompt",
    ),
    "helpsteer": Source(
        "nvidia/HelpSteer",
        "3ca5d59c1bc1080af195b4254e7407db60b6f450",
        ("train", "validation"),
        "prompt",
    ),
    "orca": Source(
        "Intel/orca_dpo_pairs",
        "624952e3f420ae18d88b31977ee2ea436c833abb",
        ("train",),
        "question",
    ),
}


def hub_prompts(name: str, hub: HubConfig, folder: str | None = None) -> list[Prompt]:
    """Return all prompts of the dataset `name` that are worth keeping, in a shuffled order.

    hub: the seed of the order and the splits, and the longest prompt in characters.
    folder: a copy of the Hub to read instead, with the files of each dataset in OWNER/NAME.

    Prints one line of counts. Raises DataError if the dataset is unavailable or unreadable.
    """
    prompts, counts = sort_out(rows(name, folder), name, hub)
    found = ", ".join(f"{number} {what}" for what, number in counts.items())
    source = SOURCES[name]
    print(f"{name} ({source if folder is None else f'{source.hub_id} in {folder}'}): {found}")
    return prompts


def rows(name: str, folder: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield the rows of the dataset `name` as (split on the Hub, text of the prompt), in order.

    Raises DataError if the dataset is unavailable, if it lacks a split or its column, or if the
    column holds something other than text.
    """
    source = SOURCES[name]
    for split in source.splits:
        data = _load(source, split, folder)
        if source.column not in data.column_names:
            raise DataError(
                f"{source}, split {split}: no column {source.column!r}; it has "
                f"{', '.join(data.column_names)}. Use the revision in `hub_prompts.SOURCES`"
            )
        for row in data.select_columns([source.column]):
            text = row[source.column]
            if not isinstance(text, str | None):
                kind = type(text).__name__
                raise DataError(f"{source}, split {split}: {source.column!r} is no text but {kind}")
            yield split, text


def _load(source: Source, split: str, folder: str | None):
    """The split as a `datasets` object, from the Hub or from its copy in `folder`."""
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.utils import httpx

    copy = None if folder is None else Path(folder) / source.hub_id
    if copy is not None and not copy.is_dir():
        raise DataError(f"{FOLDER} is set, and there is no folder {copy}: {_remedy(source)}")
    path, revision = (source.hub_id, source.revision) if copy is None else (str(copy), None)
    try:
        data = datasets.load_dataset(path, split=split, revision=revision)
    except ValueError as error:  # a split that does not exist, or a file that cannot be read
        raise DataError(f"cannot read {source} from {path}: {error}") from error
    except (OSError, DatasetsError, httpx.HTTPError) as error:
        causes = [e for e in (error, error.__cause__) if e is not None]
        why = "; ".join(f"{type(e).__name__}: {str(e).partition(chr(10))[0]}" for e in causes)
        where = "the Hub" if copy is None else copy
        raise DataError(f"cannot load {source} from {where} ({why}). {_remedy(source)}") from error
    # Without a network, `datasets` takes from its cache whatever revision was read last. It keeps
    # each one in a folder of that name.
    files = [Path(file["filename"]) for file in data.cache_files] if copy is None else []
    if other := {file.parent.name for file in files} - {source.revision}:
        raise DataError(
            f"the Hub is out of reach, and the cache of `datasets` holds {source.hub_id} at "
            f"another revision, {min(other)}, than {source.revision}. {_remedy(source)}"
        )
    return data


def _remedy(source: Source) -> str:
    return (
        "Where there is a network: `hf auth login`, and for a gated dataset accept its licence on "
        f"https://huggingface.co/datasets/{source.hub_id}. For a machine without one, fetch it "
        f"elsewhere by `hf download {source.hub_id} --repo-type dataset --revision "
        f"{source.revision} --local-dir DIR/{source.hub_id}` and set {FOLDER}=DIR"
    )


def sort_out(
    rows: Iterable[tuple[str, str | None]], dataset: str, hub: HubConfig
) -> tuple[list[Prompt], Counter]:
    """Return the prompts worth keeping among (Hub split, text) rows, and the counts in `FOUND`.

    Dropped and counted, in this order: empty texts, texts of more than `hub.max_characters`, texts
    mostly in another script than Latin, and repetitions by `text_id`. The Hub's own splits are
    pooled, because most datasets there have no validation split, or one split only.
    """
    counts = Counter(dict.fromkeys(FOUND, 0))
    prompts = []
    seen: dict[str, str] = {}
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
    """What a row is; `first_in` is the Hub split that its text was first kept from, if any."""
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
    """Whether at least half of the letters are Latin; true for a text without letters.

    This tells scripts apart, not languages: Spanish passes, and so does Vietnamese.
    """
    letters = sum(map(str.isalpha, text))
    return text.isascii() or 2 * len(LATIN.findall(text)) >= letters


def place(prompt_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on a text's id and `seed` only: its place in the order."""
    return int(hashlib.sha256(f"{seed} {prompt_id}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(prompt_id: str, seed: int) -> str:
    """The split of a text: the same in every dataset, revision and order of the rows."""
    where = place(prompt_id, seed)
    if where < HELD_OUT:
        return "test"
    return "validation" if where < 2 * HELD_OUT else "train"
