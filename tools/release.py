"""Prepare a release: python tools/release.py 0.2.0

The version goes into the package, the citation and the Zenodo record. The book's badges, and the
set-up cell of every notebook behind them, then fetch the tag of that version instead of `main`.
Commit the result and tag it `v0.2.0`. `python tools/release.py main` turns back to `main`.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

import book

ROOT = Path(__file__).resolve().parent.parent


def replaced(path: Path, pattern: str, new: str) -> None:
    """Replace the one match of `pattern` in a file. Raises SystemExit for none and for several."""
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{path}: {count} places match {pattern!r}, one was expected")
    path.write_text(text, encoding="utf-8")


def prepare(version: str, root: Path = ROOT) -> None:
    """Write `version`, such as "0.2.0", and its tag into every file that names them."""
    branch = "main" if version == "main" else f"v{version}"
    if version != "main":
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            raise SystemExit(f"not a version: {version!r}. Use three numbers, such as 0.2.0")
        replaced(root / "pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
        replaced(
            root / "alignpro" / "__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"'
        )
        replaced(root / "CITATION.cff", r"^version: .*$", f"version: {version}")
        replaced(root / "CITATION.cff", r"^date-released: .*$", f"date-released: {date.today()}")
        replaced(root / ".zenodo.json", r'"version": ".*"', f'"version": "{version}"')
    replaced(root / "_config.yml", r"^  branch: .*$", f"  branch: {branch}")
    for source in sorted((root / "notebooks").glob("*.py")):
        replaced(source, r'^    release = ".*"$', f'    release = "{branch}"')


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    prepare(sys.argv[1])
    book.pair()
