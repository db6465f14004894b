"""Build the book: pair the notebooks, execute them with papermill, render with Jupyter Book.

python tools/book.py --pair            notebooks/*.ipynb from their .py sources
python tools/book.py --preset cpu      execute what changed, then build _build/html
python tools/book.py --pdf             print the book that was built last as _build/alignpro.pdf
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from pathlib import Path

import jupytext
import nbformat
import yaml
from filelock import FileLock, Timeout
from lighten import lighten
from nbformat.reader import NotJSONError

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


def content(notebook) -> list[tuple]:
    """What a reader can edit in a notebook: the type, source and tags of each cell."""
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


def pair() -> None:
    """Write every `.ipynb` from its `.py`.

    Exits with a message if an `.ipynb` holds other cells and is newer than its `.py`: then somebody
    edited it, and the edit would be lost.
    """
    for source in sorted(NOTEBOOKS.glob("*.py")):
        target, notebook = source.with_suffix(".ipynb"), paired(source)
        newer = target.exists() and target.stat().st_mtime > source.stat().st_mtime
        if newer and content(nbformat.read(target, 4)) != content(notebook):
            raise SystemExit(
                f"{target} was edited after {source.name}. To keep the edit, run "
                f"`jupytext --update --to py:percent {target}`; to drop it, delete {target.name}. "
                "Then run this command again"
            )
        nbformat.write(notebook, target)
        print(f"paired {target.relative_to(ROOT)}")


def freshness(source: Path, parameters: dict) -> str:
    """A hash of everything an executed notebook depends on: cells, parameters, package, results."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    depends = [source, ROOT / "constraints.txt"]
    for folder in ("alignpro", "results"):
        depends += sorted(p for p in (ROOT / folder).rglob("*") if p.is_file())
    for path in depends:
        if "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def fingerprint(notebook) -> str:
    """A hash of an executed notebook's cells with their outputs."""
    return hashlib.sha256(json.dumps(notebook.cells, sort_keys=True).encode()).hexdigest()


def is_current(target: Path, key: str) -> bool:
    """Whether `target` was executed under `key` and has not been altered since."""
    if not target.exists():
        return False
    try:
        notebook = nbformat.read(target, 4)
    except (ValueError, NotJSONError):  # it is damaged, and is executed again
        return False
    known = notebook.metadata.get("alignpro", {})
    return known == {"key": key, "fingerprint": fingerprint(notebook)}


def execute(preset: str) -> dict[str, float | None]:
    """Execute each notebook that is not current; the seconds by name, None for a skipped one.

    Exits with status 1 at the first failing cell, and keeps the partial notebook; before that, with
    a message, where a notebook is not the one that its `.py` gives.
    """
    import papermill

    for source in sorted(NOTEBOOKS.glob("*.py")):
        pair_of, wanted = source.with_suffix(".ipynb"), content(paired(source))
        if not pair_of.exists() or content(nbformat.read(pair_of, 4)) != wanted:
            raise SystemExit(
                f"{pair_of.name} is not the notebook that {source.name} gives: run `make notebooks`"
            )
    parameters = {"preset": preset}
    executed = BUILD / "executed" / preset
    executed.mkdir(parents=True, exist_ok=True)
    spent: dict[str, float | None] = {}
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        target, partial = executed / source.name, executed / f"{source.stem}.partial.ipynb"
        key = freshness(source, parameters)
        if is_current(target, key):
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
        done.metadata["alignpro"] = {"key": key, "fingerprint": fingerprint(done)}
        nbformat.write(done, partial)
        partial.replace(target)
        spent[source.name] = time.perf_counter() - start
        print(f"executed {source.name} in {spent[source.name]:.0f} s", flush=True)
    return spent


def check_completed(path: Path) -> None:
    """Raise RuntimeError if a code cell did not complete or lost its figure.

    The book is rendered with execution off, so it would show a failed cell without any warning. A
    cell that ends in `;` draws a figure; with the wrong backend it would complete and show nothing.
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
    """Use the caption below each figure as its text for readers who cannot see it."""
    for cell, below in zip(notebook.cells, notebook.cells[1:]):
        text = caption(below)
        if text and any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
            cell.metadata["mystnb"] = {"image": {"alt": text}}


def caption(cell) -> str | None:
    """The italic sentence at the start of a markdown cell, or None."""
    found = re.match(r"\*([^*].*?)\*", cell.source, re.DOTALL)
    return " ".join(found[1].split()) if found and cell.cell_type == "markdown" else None


def tagged_output(notebook, tag: str, kind: str) -> str:
    """The output of type `kind` of the cell with this tag, which another page shows.

    Raises RuntimeError if there is no such cell or output.
    """
    for cell in notebook.cells:
        if tag in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if kind in output.get("data", {}):
                    return output["data"][kind]
    raise RuntimeError(f"no cell with the tag {tag!r} has an output of type {kind}")


def tagged_figure(notebook, tag: str, name: str, note: str = "") -> tuple[str, bytes]:
    """The figure of the cell with this tag: a page part that shows it as `name`, and the image."""
    told = next(
        caption(below)
        for cell, below in zip(notebook.cells, notebook.cells[1:])
        if tag in cell.metadata.get("tags", [])
    )
    stem = Path(name).stem
    page = f"""```{{figure}} {name}
:name: fig-{stem}
:figclass: {stem}-figure
:alt: {told}
:width: 100%

{note}{told}
```
"""
    return page, base64.b64decode(tagged_output(notebook, tag, "image/png"))


def script(name: str, data) -> bytes:
    """A script that gives pages `data` under `name`: a page read from a disk can load no JSON."""
    return f"window.{name} = {json.dumps(data)};\n".encode()


def answer(scoreboard) -> dict[Path, bytes]:
    """The figure and the table of the book's answer, taken from the executed scoreboard."""
    page, image = tagged_figure(scoreboard, "answer-figure", "answer.png")
    page += f"""
```{{raw}} html
<div class="pst-scrollable-table-container" tabindex="0">
{tagged_output(scoreboard, "answer-table", "text/html")}
</div>
```
"""
    return {Path("book/_answer.md"): page.encode(), Path("book/answer.png"): image}


def explore(setting, real_model) -> dict[Path, bytes]:
    """What the interactive page needs: the coin, the real model's instance, and a static figure."""
    from alignpro.theory.instances import coin
    from alignpro.theory.reduced import LEASHES, reduced

    note = "Without scripts, one view of the coin. "
    page, image = tagged_figure(setting, "explore-figure", "explore.png", note)
    small = {"name": "the coin", "rewrites": ["harmful", "the prompt itself", "helpful"]}
    real = tagged_output(real_model, "explore-data", "application/json")
    data = [small | reduced(coin(), LEASHES), real]
    return {
        Path("book/_explore.md"): page.encode(),
        Path("book/explore.png"): image,
        Path("book/_static/explore-data.js"): script("EXPLORE", data),
    }


def prompt_counts() -> bytes:
    """A table of the project's own prompts: how many by dataset and split."""
    rows = []
    for path in sorted((ROOT / "alignpro" / "prompts").glob("*.jsonl")):
        prompts = [json.loads(row) for row in path.read_text(encoding="utf-8").split("\n") if row]
        splits = [sum(p["split"] == s for p in prompts) for s in ("train", "validation", "test")]
        kinds = len({p["kind"] for p in prompts})
        rows.append(f"| {path.stem} | {' | '.join(map(str, splits))} | {len(prompts)} | {kinds} |")
    head = "| dataset | train | validation | test | in all | kinds |\n|---|---|---|---|---|---|\n"
    return (head + "\n".join(rows) + "\n").encode()


def title(notebook) -> str:
    """The first heading of a notebook."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return next(found[1] for text in texts if (found := re.match(r"# (.+)", text)))


def run_times(executed: dict) -> bytes:
    """A table of how long each notebook ran in this build, and on what machine."""
    rows = [
        f"| {title(notebook)} | {notebook.metadata.get('papermill', {}).get('duration') or 0:.0f} |"
        for _, notebook in sorted(executed.items())
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    preset = next(iter(executed.values())).metadata["papermill"]["parameters"]["preset"]
    told = f"Seconds under the preset `{preset}`, on {machine}.\n\n"
    return (told + "| notebook | seconds |\n|---|---|\n" + "\n".join(rows) + "\n").encode()


def results_archive() -> bytes:
    """Everything in `results/` as one ZIP, the same bytes for the same files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in (ROOT / "results").rglob("*") if p.is_file()):
            name = path.relative_to(ROOT).as_posix()
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def edition() -> dict[Path, bytes]:
    """Who wrote the book, its version, when and from what it was built; and how to cite it."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = ", ".join(a.get("name") or a["family-names"] for a in cited["authors"])
    paper = cited["preferred-citation"]
    writers = ", ".join(a["family-names"] for a in paper["authors"])
    git = ["git", "log", "-1", "--format=%h", "--abbrev=7"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    today = date.today()
    byline = f"*{authors} · version {cited['version']} · built on {today:%-d %B %Y}"
    byline += f" from commit {commit}*" if commit else "*"
    cite = f"""*The paper:* {writers}. *{paper["title"]}.* {paper["collection-title"]},
{paper["year"]}.
[doi:{paper["doi"]}](https://doi.org/{paper["doi"]})

*This book:* {authors}. *{cited["title"]}*, version {cited["version"]}, {today.year}.
<{cited["repository-code"]}>
"""
    return {Path("book/_byline.md"): byline.encode(), Path("book/_cite.md"): cite.encode()}


def stage(preset: str) -> Path:
    """Collect config, table of contents, prose and executed notebooks in `_build/src`."""
    target = BUILD / "src"
    wanted: dict[Path, bytes] = {}
    for name in ("_config.yml", "_toc.yml"):
        wanted[Path(name)] = (ROOT / name).read_bytes()
    for path in sorted((ROOT / "book").rglob("*")):
        if path.is_file():
            wanted[path.relative_to(ROOT)] = path.read_bytes()
    executed = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(BUILD / "executed" / preset / path.name, 4)
        describe_figures(notebook)
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.metadata.tags.append("remove-cell")
        wanted[Path("notebooks") / path.name] = nbformat.writes(notebook).encode()
        executed[path.stem[:2]] = notebook
    wanted |= answer(executed["15"]) | explore(executed["01"], executed["05"]) | edition()
    kept = tagged_output(executed["14"], "answers-data", "application/json")
    wanted[Path("book/_static/answers-data.js")] = script("ANSWERS", kept)
    wanted[Path("book/_prompt_counts.md")] = prompt_counts()
    wanted[Path("book/_times.md")] = run_times(executed)
    wanted[Path("book/results.zip")] = results_archive()
    write_changed(target, wanted)
    return target


def write_changed(target: Path, wanted: Mapping[Path, bytes]) -> None:
    """Make the folder `target` hold the files of `wanted` alone, and leave equal ones untouched.

    What counts is the content: a source that is dated back is rendered again.
    """
    for path in [p for p in target.rglob("*") if p.is_file()]:
        if path.relative_to(target) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = target / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def render(source: Path) -> Path:
    """Render the staged tree with warnings as errors. Returns the page to open.

    Every page is made again: Sphinx takes one that a crash has cut for current, and repeats no
    warning about a page that it does not make.

    Exits with a message for another Jupyter Book than version 1, or if the book did not build.
    """
    try:
        version = metadata.version("jupyter-book")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    if not version.startswith("1."):
        lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
        pin = next(line for line in lines if line.startswith("jupyter-book=="))
        raise SystemExit(
            f"Jupyter Book {version} cannot build this book: it needs {pin}, which `./install.sh` "
            "installs"
        )
    page = BUILD / "html" / "index.html"
    for made in ("html", ".doctrees"):
        shutil.rmtree(BUILD / made, ignore_errors=True)
    _jupyter_book(source, "-W", "-n", "--keep-going")
    if not page.exists():
        raise SystemExit("the book did not build; see the warnings above")
    lighten(page.parent)
    return page


def _jupyter_book(source: Path, *arguments: str) -> None:
    """Run Jupyter Book on a staged tree. Exits with a message if it fails."""
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(source), "-q"]
    command += ["--path-output", str(ROOT), *arguments]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit("the book did not build; see the warnings above")


def print_pdf(source: Path) -> Path:
    """Print the staged tree as one PDF: Sphinx writes one HTML page, and chromium prints it.

    Exits with a message if there is no chromium, or if one of the two steps fails.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("--pdf needs chromium: install Debian's package of that name")
    _jupyter_book(source, "--builder", "custom", "--custom-builder", "singlehtml")
    folder, target = BUILD / "singlehtml", BUILD / "alignpro.pdf"
    # The addresses within the page start from the folder, whatever page is the root.
    page = shutil.copy(folder / "book" / "intro.html", folder / "alignpro.html")
    lighten(folder)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    with tempfile.TemporaryDirectory() as profile:
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=100000"]
        command += [f"--print-to-pdf={target}", Path(page).resolve().as_uri()]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode or not target.exists():
            raise SystemExit("chromium did not print the book")
    return target


def check_release(environment: Mapping[str, str]) -> None:
    """Exits with a message if public CI builds a tag whose badges would open something else."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    branch, tag = config["repository"]["branch"], environment.get("GITHUB_REF_NAME")
    if environment.get("GITHUB_REF_TYPE") == "tag" and tag != branch:
        raise SystemExit(
            f"the book of the tag {tag} would open {branch} on Colab: run "
            f"`python tools/release.py {tag.removeprefix('v')}`, commit, and tag again"
        )


@contextlib.contextmanager
def only_build():
    """Hold the build folder; exits with a message if another build holds it."""
    try:
        BUILD.mkdir(exist_ok=True)
        with FileLock(BUILD / "lock", timeout=0):
            yield
    except Timeout:
        raise SystemExit(f"another build is running in {BUILD}: wait until it has ended") from None
    except OSError as error:
        raise SystemExit(
            f"the build stops, and the same command goes on from there: {error}"
        ) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--pair", action="store_true", help="regenerate notebooks/*.ipynb")
    action.add_argument("--preset", help="execute under this preset and build the book")
    action.add_argument("--pdf", action="store_true", help="print the book that was built last")
    arguments = parser.parse_args()
    if arguments.pair:
        return pair()
    if arguments.pdf:
        with only_build():
            return print(f"open {print_pdf(BUILD / 'src')}")
    check_release(os.environ)
    start = time.perf_counter()
    with only_build():
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
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on after the last notebook") from None
