"""Build the book: pair the notebooks, execute them with papermill, render with Jupyter Book.

python tools/book.py --pair            notebooks/*.ipynb from their .py sources
python tools/book.py --preset cpu      execute what changed, then build _build/html
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "_build"


def paired(source: Path) -> nbformat.NotebookNode:
    """The output-free notebook of a percent-format `.py`, its cell ids made from name and place.

    The same source gives the same bytes, on any machine.
    """
    notebook = jupytext.read(source)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for index, cell in enumerate(notebook.cells):
        cell["id"] = hashlib.sha256(f"{source.stem}/{index}".encode()).hexdigest()[:8]
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
    return notebook


def pair() -> None:
    """Write every `.ipynb` anew from its `.py`."""
    for source in sorted(NOTEBOOKS.glob("*.py")):
        target = source.with_suffix(".ipynb")
        nbformat.write(paired(source), target)
        print(f"paired {target.relative_to(ROOT)}")


def freshness(source: Path, parameters: dict) -> str:
    """A hash of all that an executed notebook depends on: cells, parameters, package, results."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    depends = [source, ROOT / "constraints.txt"]
    for folder in ("alignpro", "results"):
        depends += sorted(p for p in (ROOT / folder).rglob("*") if p.is_file())
    for path in depends:
        if "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def execute(preset: str) -> dict[str, float | None]:
    """Execute each notebook that is not current; seconds by name, None where it was skipped.

    Exits with status 1 at the first failing cell, leaving the partial notebook to look at.
    """
    import papermill

    parameters = {"preset": preset}
    executed = BUILD / "executed" / preset
    executed.mkdir(parents=True, exist_ok=True)
    spent: dict[str, float | None] = {}
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        target, partial = executed / source.name, executed / f"{source.stem}.partial.ipynb"
        key = freshness(source, parameters)
        if target.exists() and nbformat.read(target, 4).metadata.get("alignpro_key") == key:
            print(f"skipped  {source.name}: cells, preset, package and results are unchanged")
            spent[source.name] = None
            continue
        print(f"executing {source.name} ...", flush=True)
        start = time.perf_counter()
        try:
            papermill.execute_notebook(
                source,
                partial,
                parameters=parameters,
                kernel_name="python3",
                cwd=ROOT,
                progress_bar=sys.stderr.isatty(),
            )
            check_completed(partial)
        except Exception as error:
            print(f"\n{error}\n\nFAILED {source.name}: look at {partial}", file=sys.stderr)
            raise SystemExit(1) from None
        done = nbformat.read(partial, 4)
        done.metadata["alignpro_key"] = key
        nbformat.write(done, partial)
        partial.rename(target)
        spent[source.name] = time.perf_counter() - start
        print(f"executed {source.name} in {spent[source.name]:.0f} s", flush=True)
    return spent


def check_completed(path: Path) -> None:
    """Raise RuntimeError for a notebook with a code cell that did not complete or lost its figure.

    Rendering happens with execution off, so a failed cell would be published under a green build.
    A cell that ends in `;` draws: under the wrong backend it would complete and show nothing.
    """
    for index, cell in enumerate(nbformat.read(path, 4).cells):
        status = cell.metadata.get("papermill", {}).get("status")
        if cell.cell_type == "code" and status != "completed":
            raise RuntimeError(f"{path.name}: code cell {index} has status {status!r}")
        if cell.cell_type == "code" and cell.source.rstrip().endswith(";"):
            shown = [name for o in cell.outputs for name in o.get("data", {})]
            if "image/png" not in shown:
                raise RuntimeError(f"{path.name}: code cell {index} shows no figure")


def describe_figures(notebook) -> None:
    """Give each figure the caption below it as its text for readers who do not see it."""
    for cell, below in zip(notebook.cells, notebook.cells[1:]):
        text = caption(below)
        if text and any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
            cell.metadata["mystnb"] = {"image": {"alt": text}}


def caption(cell) -> str | None:
    """The italic sentence that a markdown cell opens with, where it does."""
    found = re.match(r"\*([^*].*?)\*", cell.source, re.DOTALL)
    return " ".join(found[1].split()) if found and cell.cell_type == "markdown" else None


def stage(preset: str) -> Path:
    """Collect config, table of contents, prose and executed notebooks in `_build/src`.

    Files that did not change keep their time, so that Sphinx renders only what did.
    """
    target = BUILD / "src"
    wanted: dict[Path, bytes] = {}
    for name in ("_config.yml", "_toc.yml"):
        wanted[Path(name)] = (ROOT / name).read_bytes()
    for path in sorted((ROOT / "book").rglob("*")):
        if path.is_file():
            wanted[path.relative_to(ROOT)] = path.read_bytes()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(BUILD / "executed" / preset / path.name, 4)
        describe_figures(notebook)
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.metadata.tags.append("remove-cell")
        wanted[Path("notebooks") / path.name] = nbformat.writes(notebook).encode()
    for path in [p for p in target.rglob("*") if p.is_file()]:
        if path.relative_to(target) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = target / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return target


def render(source: Path) -> Path:
    """Render the staged tree with warnings as errors; the path of the page to open."""
    page = BUILD / "html" / "index.html"
    page.unlink(missing_ok=True)
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(source)]
    command += ["--path-output", str(ROOT), "-W", "-n", "--keep-going", "-q"]
    if subprocess.run(command, cwd=ROOT).returncode or not page.exists():
        raise SystemExit("the book did not build: the warnings above say where")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--pair", action="store_true", help="regenerate notebooks/*.ipynb")
    action.add_argument("--preset", help="execute under this preset and build the book")
    arguments = parser.parse_args()
    if arguments.pair:
        return pair()
    start = time.perf_counter()
    spent = execute(arguments.preset)
    executed = time.perf_counter()
    page = render(stage(arguments.preset))
    skipped = sum(seconds is None for seconds in spent.values())
    print(
        f"\nnotebooks {executed - start:.0f} s ({len(spent) - skipped} executed, {skipped} skipped)"
        f", book {time.perf_counter() - executed:.0f} s\nopen {page}"
    )
    return None


if __name__ == "__main__":
    # A build left by a crash between two renders is taken for current by Sphinx.
    shutil.rmtree(BUILD / "src" / "_build", ignore_errors=True)
    main()
