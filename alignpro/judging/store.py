"""The file that keeps every reply of a judge: one writer, each reply on disk at once."""

from __future__ import annotations

import datetime
import hashlib
import json
import sqlite3
import threading
from pathlib import Path


class StoreError(RuntimeError):
    """A store that cannot be used; the message says why and what to do."""


def request_key(request: dict) -> str:
    """The SHA-256 of a request, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class VerdictStore:
    """Replies by request, in one SQLite file that any SQLite tool can read.

    A reply is kept under the hash of the whole request, so that everything that determines it
    counts: model, system prompt, prompt, both responses and their order, and parameters. The
    address does not: two servers that give one name to different models need two files.

    While a store is open, no other process (or store) can open the same file. The system
    drops the lock with the process, so that a killed run leaves none behind, and SQLite rolls a
    half-written reply back. Use it as a context manager; threads may share it.
    Raises StoreError where the file is in use or is no store.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        # SQLite's own check of threads is off: the lock lets in one at a time.
        self._connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            # The lock that the first write takes is then kept until the store is closed.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies"
                " (key TEXT PRIMARY KEY, date TEXT, request TEXT, reply TEXT)"
            )
            self._connection.execute("SELECT key, date, request, reply FROM replies LIMIT 0")
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            if "locked" in str(error):
                reason = "it is in use by another process: wait for its end, or name another file"
            else:
                reason = f"it is no store of verdicts ({error}): name another file"
            raise StoreError(f"cannot open {path}: {reason}") from None

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def get(self, key: str) -> dict | None:
        """The reply kept under `key`, or None."""
        with self._lock:
            row = self._connection.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, request: dict, reply: dict) -> None:
        """Keep `reply`; it is on disk when this returns."""
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = (key, date, json.dumps(request), json.dumps(reply))
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", row)

    def __len__(self) -> int:
        with self._lock:
            return self._connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0]
