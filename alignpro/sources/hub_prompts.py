"""Prompts on the Hugging Face Hub: which datasets, and where in a row the prompt stands.

The prompt x is the user's question alone. The system prompts of the Orca sets ("think step by
step ...") tell the model how to answer, which is what a prompter learns to do: with them in x,
its gain would be measured on top of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A folder laid out as the Hub is, OWNER/NAME/its files: where it is set, nothing else is read.
FOLDER = "ALIGNPRO_DATA"


class DataError(RuntimeError):
    """A dataset that cannot be had or read; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """A dataset of the Hub: the splits that are read, and the column that holds the prompt.

    With `first`, only so many rows of each split are read, as a stream and without a copy on the
    disk; without, the dataset is downloaded whole, once, into the cache of `datasets`.
    """

    hub_id: str
    revision: str | None
    splits: tuple[str, ...]
    column: str
    first: int | None = None

    def __str__(self) -> str:
        return f"{self.hub_id}@{(self.revision or 'main')[:7]}"


# Revisions are those that public code pins. None could be found for HuggingFaceH4/orca_dpo_pairs:
# its main branch is read, whatever it holds that day.
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
    "ultrafeedback-openbmb": Source(
        "openbmb/UltraFeedback",
        "40b436560ca83a8dba36114c22ab3c66e43f6d5e",
        ("train",),
        "instruction",
    ),
    "openorca": Source(
        "Open-Orca/OpenOrca",
        "e9c87b4abb2609913751f9b26553fdb9c061796c",
        ("train",),
        "question",
        first=100_000,  # of 4.2 million
    ),
    "orca-h4": Source(
        "HuggingFaceH4/orca_dpo_pairs",
        None,
        ("train_prefs", "test_prefs"),
        "prompt",
    ),
}


def rows(name: str, folder: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Rows of the dataset `name` as (split on the Hub, text of the prompt), in the Hub's order.

    `folder` stands in for the Hub: it holds the files of `Source.hub_id` under that very name.
    Raises DataError where the dataset cannot be had, lacks a split or its column, or where the
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
        for row in _read(source, data.select_columns([source.column]), folder):
            text = row[source.column]
            if not isinstance(text, str | None):
                kind = type(text).__name__
                raise DataError(f"{source}, split {split}: {source.column!r} is no text but {kind}")
            yield split, text


def _load(source: Source, split: str, folder: str | None):
    """The split as a `datasets` object, from the Hub or from its copy in `folder`."""
    import datasets

    copy = None if folder is None else Path(folder) / source.hub_id
    if copy is not None and not copy.is_dir():
        raise DataError(f"{FOLDER} is set, and there is no folder {copy}: {_remedy(source)}")
    path, revision = (source.hub_id, source.revision) if copy is None else (str(copy), None)
    try:
        data = datasets.load_dataset(
            path, split=split, revision=revision, streaming=source.first is not None
        )
    except ValueError as error:  # a split that is not there, or a file that cannot be read
        raise DataError(f"cannot read {source} from {path}: {error}") from error
    except _failures() as error:
        raise _unreachable(source, folder, error) from error
    return data if source.first is None else data.take(source.first)


def _read(source: Source, data, folder: str | None) -> Iterator[dict]:
    """The rows of `data`; a stream can still break off while it is read."""
    try:
        yield from data
    except _failures() as error:
        raise _unreachable(source, folder, error) from error


def _failures() -> tuple[type[Exception], ...]:
    """What `datasets` raises for a gated, missing or unreachable dataset, and for broken files."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.utils import httpx

    return OSError, DatasetsError, httpx.HTTPError


def _unreachable(source: Source, folder: str | None, error: Exception) -> DataError:
    where = "the Hub" if folder is None else f"{Path(folder) / source.hub_id}"
    causes = [e for e in (error, error.__cause__) if e is not None]
    said = "; ".join(f"{type(e).__name__}: {str(e).partition(chr(10))[0]}" for e in causes)
    return DataError(f"cannot load {source} from {where} ({said}). {_remedy(source)}")


def _remedy(source: Source) -> str:
    revision = f" --revision {source.revision}" if source.revision else ""
    return (
        "Where there is a network: `hf auth login`, and for a gated dataset accept its licence on "
        f"https://huggingface.co/datasets/{source.hub_id}. For a machine without one, fetch it "
        f"elsewhere by `hf download {source.hub_id} --repo-type dataset{revision} --local-dir "
        f"DIR/{source.hub_id}` and set {FOLDER}=DIR"
    )
