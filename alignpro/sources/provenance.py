"""Where a result comes from: versions, commit, hardware and date."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from alignpro.sources.files import explained, read_json, write_json

REPOSITORY = Path(__file__).parents[2]
VERSIONS = ("torch", "transformers", "peft", "tokenizers", "numpy", "sentence-transformers")


def provenance() -> dict:
    """Return versions, commit, hardware and date: what makes a result checkable.

    A fact that this machine does not tell is None.
    """
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS},
        "hardware": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cpu": _cpu_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def note_session(folder: Path) -> list[str]:
    """Keep in `folder` which software a run began with; return what any later session had instead.

    Another version of a library, or other instructions of the CPU, may change the last bits of the
    numbers, and with them what is sampled: a run that is resumed so is no longer that of one
    machine, and its card says so.
    """
    now = provenance()
    mine = now["versions"] | {
        "python": now["python"],
        "instructions": now["hardware"]["instructions"],
        "gpu": now["hardware"]["gpu"],
    }
    path = folder / "software.json"
    kept = read_json(path) if path.exists() else {"changes": []}
    first = kept.setdefault("first", mine)
    changes = [f"{k} {first.get(k)} -> {mine[k]}" for k in mine if first.get(k) != mine[k]]
    kept["changes"] = sorted({*kept["changes"], *changes})
    with explained(path):
        write_json(path, kept)
    return kept["changes"]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        return None
    git = ["git", "-C", str(REPOSITORY)]
    asked = ["describe", "--always", "--exclude=*", "--abbrev=12"], ["status", "--porcelain"]
    # A study adds to its own results while it runs: what counts is whether the code was changed.
    asked[1].extend(["--untracked-files=no", "--", ".", ":!results"])
    try:
        commit, changed = (
            subprocess.run(git + words, capture_output=True, text=True).stdout.strip()
            for words in asked
        )
    except (OSError, ValueError):  # it cannot be run, or its words are not UTF-8
        return None
    return f"{commit}-dirty" if commit and changed else commit or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
