"""The file that keeps every reply of a judge: one process writes, and each reply is saved at once.

No reply in the file is paid for again. What can be lost when a process dies is the replies to the
calls under way at that moment.
"""

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
    """Replies by key, in one SQLite file that any SQLite tool can read.

    The key of a reply is the hash of everything that determines it: model, system prompt, prompt,
    both responses and their order, and parameters. The address of the server is not part of it: use
    two files for two servers that give one name to different models.

    While a store is open, no other process (or store) can open the same file. The operating
    system releases the lock when the process ends, also when it is killed, and SQLite undoes a
    half-written reply. Use the store as a context manager; threads may share it.
    Raises StoreError where the file is in use, cannot be opened, or is not a store.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.Lock()
        connection = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite's own check of threads is off: the lock lets in one at a time.
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False
            )
            # The lock that the first write takes is then kept until the store is closed.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS replies"
                " (key TEXT PRIMARY KEY, date TEXT, request TEXT, reply TEXT)"
            )
            connection.execute("SELECT key, date, request, reply FROM replies LIMIT 0")
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            if connection:
                connection.close()
            raise StoreError(f"cannot open {self.path}: {_reason(error)}") from None
        self._connection = connection

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def get(self, key: str) -> dict | None:
        """The reply kept under `key`, or None. Raises StoreError for a row that is damaged."""
        try:
            with self._lock:
                row = self._connection.execute(
                    "SELECT reply FROM replies WHERE key = ?", (key,)
                ).fetchone()
            reply = None if row is None else json.loads(row[0])
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise self._damaged(key, error) from None
        texts = ("content", "refusal", "reasoning", "finish_reason")
        if row is not None and not (
            isinstance(reply, dict)
            and "content" in reply
            and all(isinstance(reply.get(name), str | None) for name in texts)
        ):
            raise self._damaged(key, "it is not a reply")
        return reply

    def put(self, key: str, request: dict, reply: dict) -> None:
        """Keep `reply` under `key`, with the `request` that was sent; saved when this returns.

        Raises StoreError where it cannot be written, as on a full disk.
        """
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = (key, date, json.dumps(request), json.dumps(reply))
        try:
            with self._lock:
                self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write to {self.path}: {error}. Is the disk full? All replies before this "
                "one are kept. Make room, then repeat the same call: it asks only for the rest"
            ) from None

    def __len__(self) -> int:
        with self._lock:
            return self._connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0]

    def _damaged(self, key: str, why: object) -> StoreError:
        return StoreError(
            f"{self.path} is damaged: the reply with the key {key} cannot be read ({why}). Delete "
            f"its row (sqlite3 {self.path} \"DELETE FROM replies WHERE key = '{key}'\") to ask for "
            "it again, or name another file"
        )


def _reason(error: Exception) -> str:
    """Why a file cannot be opened as a store, and what to do."""
    if "locked" in str(error):
        return "it is in use by another process: wait until that ends, or name another file"
    name = getattr(error, "sqlite_errorname", "SQLITE_CANTOPEN")  # an OSError has none
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR")):
        return f"{error}: check the folder, its permissions, and that the disk has room"
    return f"it is no store of verdicts ({error}): name another file"
