"""Run notebooks as a stranger's machine would: set up by their own first cell, and nothing else.

python tools/try_setup.py 01_setting             this notebook; without a name, all of them
python tools/try_setup.py --local 01_setting     with this checkout's last commit as the repository

Each notebook gets a new virtual environment with no more than a kernel in it, in a folder outside
this checkout, where it clones the project, installs it and runs to its end. Needs the environment
that `make` makes, and about 3 GB of disk for a notebook at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

import book

CELL = book.NOTEBOOKS / "01_setting.py"


def named_in_cell(name: str) -> str:
    """The text that the set-up cell assigns to `name`."""
    return re.search(rf'{name} = "(.*)"', CELL.read_text()).group(1)


def stand_in(folder: Path) -> dict[str, str]:
    """An environment in which git takes this checkout's last commit for the published release.

    The cell itself stays as it is: git rewrites the address.
    """
    bare, settings = folder / "published.git", folder / "gitconfig"
    subprocess.run(["git", "init", "--quiet", "--bare", bare], check=True)
    branch = f"HEAD:refs/heads/{named_in_cell('release')}"
    subprocess.run(["git", "push", "--quiet", bare, branch], cwd=book.ROOT, check=True)
    settings.write_text(f'[url "{bare.as_uri()}"]\n\tinsteadOf = {named_in_cell("repository")}\n')
    return {"GIT_CONFIG_GLOBAL": str(settings)}


def bare_kernel(folder: Path, python: str) -> dict[str, str]:
    """A virtual environment with ipykernel alone, and what lets Jupyter find it as `stranger`."""
    own = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "venv", folder / "env"], check=True)
    kernel = ["--constraint", book.ROOT / "constraints.txt", "ipykernel"]
    subprocess.run([own, "-m", "pip", "install", "--quiet", *kernel], check=True)
    spec = folder / "jupyter" / "kernels" / "stranger" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(own), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "stranger", "language": "python"}))
    return {"JUPYTER_PATH": str(folder / "jupyter")}


def try_one(source: Path, python: str, preset: str, local: bool) -> tuple[float, float]:
    """Seconds of the set-up cell and of all cells together.

    Raises papermill's error for a failing cell, RuntimeError for one that did not complete.
    """
    with tempfile.TemporaryDirectory(prefix="stranger-") as name:
        folder = Path(name)
        os.environ.update(bare_kernel(folder, python))
        os.environ.update(stand_in(folder) if local else {})
        # Models converted and modules found elsewhere on this machine are none of the stranger's.
        os.environ.pop("PYTHONPATH", None)
        os.environ["ALIGNPRO_CACHE"] = str(folder / "cache")
        done = folder / source.name
        papermill.execute_notebook(
            source,
            done,
            parameters={"preset": preset},
            kernel_name="stranger",
            cwd=folder,
            progress_bar=False,
        )
        book.check_completed(done)
        cells = [c for c in nbformat.read(done, 4).cells if c.cell_type == "code"]
    spent = {"setup": 0.0, "all": 0.0}
    for cell in cells:
        seconds = cell.metadata.papermill.duration
        spent["all"] += seconds
        spent["setup"] += seconds if "setup" in cell.metadata.get("tags", []) else 0
    return spent["setup"], spent["all"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="notebooks, such as 01_setting (default: all)")
    parser.add_argument("--python", default=sys.executable, help="what the environment is made by")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--local", action="store_true", help="this checkout's last commit")
    arguments = parser.parse_args()
    known = {p.stem: p for p in sorted(book.NOTEBOOKS.glob("*.ipynb"))}
    if unknown := set(arguments.names) - known.keys():
        parser.error(f"no notebook {', '.join(sorted(unknown))}: use {', '.join(known)}")
    failed = []
    for name in arguments.names or known:
        try:
            chosen = arguments.python, arguments.preset, arguments.local
            setup, whole = try_one(known[name], *chosen)
            print(f"{name}: set-up {setup:.0f} s, all cells {whole:.0f} s", flush=True)
        except Exception as error:
            print(f"{name}: FAILED\n{error}", file=sys.stderr, flush=True)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
