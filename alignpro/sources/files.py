"""How files are written: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


class RunError(RuntimeError):
    """Raised when a run cannot start or go on. The message says why and what to do."""


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder to, and move it to `target` when it is complete.

    No reader, and no later run, ever sees a part. An existing file is replaced. An existing folder
    is kept: another process has finished the same work first. When the block raises, `target` is
    left alone and what was written is deleted. Two processes never share the path.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        partial = Path(beside) / target.name
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not (partial.is_dir() and target.is_dir()):
                raise


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
