"""How files are written, held and checked: whole or not at all, by one process, and unchanged."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd
    import torch

SEAL = "sha256.json"
Row = dict[str, Any]  # of a JSONL file
Tensors = dict[str, "torch.Tensor"]


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


@contextlib.contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn a failed write of `target` into a RunError that says how to go on."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"cannot write {target}: {error}. What is done is kept: once there is room on this "
            "disk, and the folder can be written to, the same command goes on"
        ) from error


@contextlib.contextmanager
def locked(folder: Path, here: bool = True) -> Iterator[None]:
    """Keep other processes from working in `folder` during the block, if `here`.

    The block may lock the same folder again. The operating system releases the lock of a process
    that has died. Raises RunError with the id of the process that holds the folder.
    """
    if not here:
        yield
        return
    lock, holder = FileLock(folder / "lock", timeout=0, is_singleton=True), folder / "lock.json"
    try:
        with explained(folder / "lock"):
            lock.acquire()
    except RunError as error:
        if not isinstance(error.__cause__, Timeout):
            raise
        try:
            facts = json.loads(holder.read_text())
        except (OSError, ValueError):  # it has just begun, or just ended
            facts = {"process": "?", "since": "just now"}
        raise RunError(
            f"process {facts['process']} has worked on {folder} since {facts['since']}: wait until "
            "it ends, or stop it; then the same command goes on"
        ) from None
    try:
        if lock.lock_counter == 1:
            since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            with explained(holder):
                write_json(holder, {"process": os.getpid(), "since": since})
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):  # it is still held: the next one locks a new file
                holder.unlink(missing_ok=True)
                (folder / "lock").unlink()
        lock.release()


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> None:
    """Write `tensors` and `facts`, with a hash of both, to a safetensors file."""
    from safetensors.torch import save_file

    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    kept = {**facts, "sha256": _tensors_hash(flat, facts)}
    with atomic_write(path) as partial:
        # In one entry: safetensors writes several in random order, and the bytes would differ.
        save_file(flat, partial, metadata={"facts": json.dumps(kept, sort_keys=True)})


def load_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return the facts and tensors of a file of `save_tensors`.

    Raises OSError or SafetensorError where it cannot be read, or is not what was written.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        kept = (file.metadata() or {}).get("facts", "{}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    try:
        facts = json.loads(kept)
    except ValueError as error:
        raise OSError(f"its facts cannot be read: {error}") from error
    if facts.pop("sha256", None) != _tensors_hash(tensors, facts):
        raise OSError("its content is not what was written: the hash differs")
    return facts, tensors


def _tensors_hash(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    import torch

    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, which is read again only when its time or size has changed."""
    facts = path.stat()
    return _file_hash(path, facts.st_size, facts.st_mtime_ns)


@cache
def _file_hash(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the hashes of the weights in `folder` beside them."""
    write_json(folder / SEAL, {p.name: file_hash(p) for p in sorted(folder.glob("*.safetensors"))})


def try_out(write: Callable[[Path], None], folder: Path) -> None:
    """Let `write` write to a new place in `folder`, and delete what it wrote.

    Called before a long work, it shows what would fail at its end. Raises RunError where nothing
    can be written, and what `write` raises.
    """
    with explained(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as trial:
        write(Path(trial) / "written")


def require_place(path: Path) -> None:
    """Raise RunError where the file `path` could not be written. Called before a long work."""
    new = not path.exists()
    with explained(path):
        open(path, "a").close()
        if new:
            path.unlink()


def save_adapter(model, folder: Path) -> None:
    """Write the adapter of `model` (peft) to the new `folder`, whole and sealed."""
    with explained(folder), atomic_write(folder) as partial:
        model.save_pretrained(partial, safe_serialization=True)
        seal(partial)


def check_seal(folder: Path) -> None:
    """Raise RunError where weights in a sealed `folder` are not those that were written.

    A folder without a seal passes: it is not ours, or older than the seal.
    """
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        sealed = {SEAL: None}
    for name, expected in sealed.items():
        if not (folder / name).exists() or file_hash(folder / name) != expected:
            raise RunError(
                f"{folder / name} is damaged: its content is not what was written. Restore it from "
                f"a copy, or delete {folder} if the same command can make it again"
            )


def read_json(path: Path) -> dict:
    """Read a JSON file of a run. Raises RunError where it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}. Restore it from a copy") from None


def read_rows(path: Path) -> list[dict]:
    """Read the rows of a JSONL file; there are none if it does not exist.

    A last line without its end, which a kill has cut short, is left out. Raises RunError where
    another one is damaged.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}. Restore it from a copy") from None


def require_readable(path: Path) -> None:
    """Raise RunError where a JSON, JSONL or Parquet file of a run cannot be read to its end."""
    try:
        if path.suffix == ".parquet":
            read_table(path)
        else:
            lines = path.suffix == ".jsonl"
            text = path.read_bytes().decode()
            for part in text.split("\n")[:-1] if lines else [text]:
                json.loads(part)
    except ValueError as error:
        raise RunError(f"{path} is damaged and is not copied: {error}") from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write `table` to a Parquet file that notices a change of its bytes."""
    with explained(path), atomic_write(path) as partial:
        table.to_parquet(partial, index=False, write_page_checksum=True)


def read_table(path: Path) -> pd.DataFrame:
    """Read a file of `write_table`. Raises RunError where it is damaged."""
    import pandas as pd

    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error}): delete it, and the same command makes it again"
        ) from None
