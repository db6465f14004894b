"""Prompts from a file: JSONL, JSON, CSV or Parquet, with a column `prompt`.

Each row is one prompt. `data.prompt_column` in a preset names another column for it. The other
columns are optional, and unknown ones are ignored:

- `split`: train, validation or test, in every row or in none. Without it, a hash of each text
  decides: about a tenth of the prompts are for validation and a tenth for the test. A prompt stays
  in its split when others are added.
- `kind`: any word, for your own reward and tables. Kinds are taken in turns. The rubric reward
  needs one of its own kinds.
- `options`: for the rubric's choices, a list of the two keywords.

Text is UTF-8, with or without a byte order mark, or UTF-16 with one. Empty lines are skipped.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from alignpro.config import ConfigError
from alignpro.sources.hub_prompts import place, split_of
from alignpro.texts import Prompt

SPLITS = ("train", "validation", "test")
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OTHER_COLUMN = "Another column is named by --prompt-column, or `data.prompt_column` in the preset"
GAP = re.compile(r"[\s,]*")
Rows = Iterator[tuple[int, object]]


def is_file(dataset: str | Path) -> bool:
    """Whether a dataset's name is the path of a file of prompts."""
    return Path(dataset).suffix.lower() in READERS


def name_of(path: Path) -> str:
    """Return the name that the runs on a file are kept under: its own, and a hash of its content.

    Raises ConfigError if there is no such file.
    """
    _require(path)
    stem = re.sub(r"[^\w.-]+", "-", path.stem)
    return f"{stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def read_prompts(path: Path, dataset: str | None = None, column: str = "prompt") -> list[Prompt]:
    """Read all prompts of a file. Where it has no splits, they are made, and the order is shuffled.

    dataset: the name that the prompts carry; by default the file's own, without its ending.
    column: the name of the column with the prompts.

    Raises ConfigError naming the file, the line (in Parquet the row) and the reason for a row that
    cannot be used, such as one that repeats another's prompt.
    """
    _require(path)
    unit = "row" if path.suffix.lower() == ".parquet" else "line"
    rows = list(READERS[path.suffix.lower()](path, column))
    splits = any(isinstance(row, dict) and row.get("split") for _, row in rows)
    prompts, seen = [], {}
    for number, row in rows:
        where = _place(path, number)
        try:
            prompt = _prompt(row, dataset or path.stem, splits, column)
            if prompt.id in seen:
                raise ValueError(f"the same prompt is on {unit} {seen[prompt.id]}: remove one")
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        seen[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise ConfigError(f"{path} holds no prompts")
    return prompts if splits else sorted(prompts, key=lambda p: place(p.id, seed=0))


def _require(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no file of prompts {path} (in the folder {Path.cwd()})")
    if not is_file(path):
        raise ConfigError(f"{path}: the name of a file of prompts ends in {', '.join(READERS)}")


def read_texts(path: Path, column: str = "prompt") -> list[str]:
    """Read the prompts of a file as they are: in their order, with those that occur twice.

    Raises ConfigError as `read_prompts` does, and for a file of another kind.
    """
    _require(path)
    texts = []
    for number, row in READERS[path.suffix.lower()](path, column):
        try:
            texts.append(_text_of(row, column))
        except ValueError as error:
            raise ConfigError(f"{_place(path, number)}: {error}") from None
    return texts


def _place(path: Path, number: int) -> str:
    return f"{path}, row {number}" if path.suffix.lower() == ".parquet" else f"{path}:{number}"


def _text_of(row: object, column: str) -> str:
    """The text of the prompt in one row. Raises ValueError with the reason if there is none."""
    if not isinstance(row, dict):
        raise ValueError(f"must be an object with a field `{column}`, got {row!r:.40}")
    if column not in row:
        there = ", ".join(map(str, row)) or "none"
        raise ValueError(f"no column `{column}`; there is {there}. {OTHER_COLUMN}")
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"`{column}` must be a non-empty text")
    return text.strip()


def _prompt(row: object, dataset: str, splits: bool, column: str) -> Prompt:
    """The prompt in one row. Raises ValueError with the reason if it cannot be used."""
    text = _text_of(row, column)
    # CSV has an empty text where another format has nothing.
    split, kind, options = (row.get(name) or None for name in ("split", "kind", "options"))
    if splits and split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}")
    if kind is not None and not (isinstance(kind, str) and kind.strip()):
        raise ValueError(f"`kind` must be a word, got {kind!r}")
    words = [] if options is None else options
    if not (isinstance(words, list) and all(isinstance(w, str) and w.strip() for w in words)):
        raise ValueError(f"`options` must be a list of two words, got {options!r}")
    if len(words) not in (0, 2):
        raise ValueError(f"`options` must be two words, got {len(words)}")
    prompt = Prompt(text, dataset, split, kind and kind.strip(), [w.lower() for w in words])
    if not splits:
        prompt.split = split_of(prompt.id, seed=0)
    return prompt


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises ConfigError naming the line of a byte that cannot be read.
    """
    raw = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "utf-8-sig")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: not {encoding.removesuffix('-sig').upper()}: byte "
            f"0x{raw[error.start]:02x} cannot be read. Save the file as UTF-8"
        ) from None


def read_jsonl(path: Path, column: str = "") -> Rows:
    """Read a JSONL file: the number and the value of each line that is not blank.

    Only a line feed ends a line. Raises ConfigError naming the line that is not JSON.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: not JSON: {error}") from None


def _json(path: Path, column: str) -> Rows:
    text = read_text(path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        hint = ". One object per line is JSONL: name it .jsonl" if error.msg == "Extra data" else ""
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}{hint}") from None
    if not isinstance(rows, list):
        raise ConfigError(f"{path}: must be a list of objects, each with a field `{column}`")
    end, number, decoder = text.index("[") + 1, 1, json.JSONDecoder()
    number += text.count("\n", 0, end)
    for _ in rows:
        start = GAP.match(text, end).end()
        number += text.count("\n", end, start)
        row, end = decoder.raw_decode(text, start)
        yield number, row
        number += text.count("\n", start, end)


def _csv(path: Path, column: str) -> Rows:
    text = read_text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    # A comma in English, a semicolon where a comma is in numbers, a tab from some programs.
    for delimiter in (",", ";", "\t"):
        file = io.StringIO(text, newline="")
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            if column not in (reader.fieldnames or ()):
                continue
            for row in reader:
                if None in row:
                    raise csv.Error("more fields than the first line names")
                inside = sum((value or "").count("\n") for value in row.values())
                yield reader.line_num - inside, row
        except csv.Error as error:
            raise ConfigError(f"{path}:{reader.line_num}: not CSV: {error}") from None
        return
    first = text.partition("\n")[0].strip()
    raise ConfigError(
        f"{path}:1: no column `{column}`; the first line is {first!r:.80}. {OTHER_COLUMN}"
    )


def _parquet(path: Path, column: str) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not Parquet: {error}") from None
    known = [n for n in table.column_names if n in (column, "split", "kind", "options")]
    if column not in known:
        there = ", ".join(table.column_names)
        raise ConfigError(f"{path}: no column `{column}`; there is {there}. {OTHER_COLUMN}")
    yield from enumerate(table.select(known).to_pylist(), 1)


READERS = {".jsonl": read_jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
