"""Prompts in one schema, with fixed and disjoint splits.

The project's own sets lie in `alignpro/prompts/*.jsonl`, a line a prompt. Each mixes five kinds of
question; the kind is read by the rubric reward alone, the prompter never sees it.
"""

from __future__ import annotations

import hashlib
import json
from itertools import chain, zip_longest
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"
KINDS = ("howto", "definition", "choice", "reason", "yesno")
SPLITS = ("train", "validation", "test")


class Prompt(str):
    """A user's prompt x: its text, and with it the row that it came from.

    Being a string, it can be passed to any function of strings, such as a reward of your own.
    `options` names the two keywords of a choice.
    """

    def __new__(cls, text: str, dataset: str, split: str, kind: str | None = None, options=()):
        self = super().__new__(cls, text)
        self.id = hashlib.sha256(" ".join(text.split()).lower().encode()).hexdigest()[:12]
        self.dataset, self.split, self.kind, self.options = dataset, split, kind, tuple(options)
        return self


def datasets() -> list[str]:
    """Names of the sets that the project brings."""
    return sorted(p.stem for p in PROMPTS.glob("*.jsonl"))


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


def load_prompts(dataset: str, split: str, limit: int | None = None) -> list[Prompt]:
    """Prompts of one split of `dataset`, the first `limit` of them in turns over the kinds.

    Raises ValueError for an unknown dataset or split, or where fewer than `limit` exist.
    """
    if dataset not in datasets():
        raise ValueError(f"no dataset {dataset!r}: use one of {', '.join(datasets())}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: use one of {', '.join(SPLITS)}")
    prompts = [p for p in read_prompts(PROMPTS / f"{dataset}.jsonl") if p.split == split]
    by_kind = [[p for p in prompts if p.kind == kind] for kind in (*KINDS, None)]
    in_turns = [p for p in chain.from_iterable(zip_longest(*by_kind)) if p is not None]
    if limit is not None and limit > len(in_turns):
        raise ValueError(f"{dataset}/{split} has {len(in_turns)} prompts, {limit} are asked for")
    return in_turns[:limit]
