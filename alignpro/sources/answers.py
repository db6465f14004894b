"""The answers of an endpoint, kept one by one as they come.

Only the answers to the calls under way when a process dies are paid for twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from pathlib import Path

from alignpro.config import SamplingConfig
from alignpro.sources.files import RunError
from alignpro.texts import Response


def answer_key(model: str, messages: list[dict], seed: int, sampling: SamplingConfig) -> str:
    """The SHA-256 of all that determines an answer, as hexadecimal digits."""
    parts = [model, messages, seed, dataclasses.asdict(sampling)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class KeptAnswers:
    """Answers by key, in a JSONL file with one line per answer; threads may share it.

    A line that a kill has cut short is passed over, and its answer is asked for again.
    Raises RunError where the file cannot be written, as on a full disk.
    """

    def __init__(self, path: Path):
        self.path, self._lock, self._found = path, threading.Lock(), {}
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                row = json.loads(line)
                key = row.pop("key")
                self._found[key] = Response(**row)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue

    def get(self, key: str) -> Response | None:
        """The answer kept under `key`, or None."""
        return self._found.get(key)

    def put(self, key: str, answer: Response) -> None:
        """Keep `answer` under `key`; it is in the file when this returns."""
        facts = {name: getattr(answer, name) for name in ("ended", "tokens", "filtered")}
        row = json.dumps({"key": key, "text": str(answer), **facts})
        try:
            # The line break comes first: it ends a line that was cut short.
            with self._lock, open(self.path, "ab", buffering=0) as file:
                file.write(f"\n{row}".encode())
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path}: {error}. All answers before this one are kept. Make "
                "room, then the same command asks for the rest"
            ) from None
        self._found[key] = answer
