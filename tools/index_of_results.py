"""The page that lists what this book adds to the theory, C1 to C19, written from the chapters.

python tools/index_of_results.py      book/index_of_results.md

A result is a theorem whose title names it, such as `{prf:theorem} Ours, C2: what training gains`.
The page takes the statement from there, the code from docstrings and comments of `alignpro.theory`
that name the result, and the checked proofs from `proofs/Statements.v`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import proofs

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "index_of_results.md"
RESULT = re.compile(
    r"^(?P<fence>`{3,})\{prf:theorem\} Ours[^,\n]*, (?P<name>C\d+)(?:: (?P<title>[^\n]+))?\n"
    r":label: (?P<label>[\w-]+)\n(?P<body>.*?)^(?P=fence)\n",
    re.DOTALL | re.MULTILINE,
)
HEAD = """(ch-index)=
# The results C1 to C19

**What you will find here.** Everything that this book adds to the paper's theory, in order: the
statement, the chapter that proves it, the code that computes it, and the parts whose proof a
machine has checked ({ref}`ch-proofs`). This page is written from the chapters. The numbers are
labels only: the chapters do not meet them in order.
"""


def results(chapter: str) -> list[dict]:
    """The results that a chapter states. An untitled one takes the title of its section."""
    found = []
    for match in RESULT.finditer(chapter):
        sections = re.findall(r"^## (.+)$", chapter[: match.start()], re.MULTILINE)
        title = match["title"] or re.sub(r" \(C[^)]*\)$", "", sections[-1])
        body = re.sub(r"^\$\$ \(eq-[\w-]+\)$", "$$", match["body"].strip(), flags=re.MULTILINE)
        found.append({**match.groupdict(), "title": title, "body": body})
    return found


def names_in(module: str, source: str) -> dict[str, list[str]]:
    """By result, the functions, classes and fields whose docstring or comment names it."""
    tree, found = ast.parse(source), {}

    def note(text: str | None, name: str) -> None:
        for result in dict.fromkeys(re.findall(r"\bC\d+\b", text or "")):
            found.setdefault(result, []).append(name)

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                note(ast.get_docstring(child), f"{prefix}{child.name}")
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.AnnAssign):
                line = source.splitlines()[child.end_lineno - 1]
                note(line.partition("#")[2], f"{prefix}{ast.unparse(child.target)}")

    visit(tree, f"{module}.")
    note(ast.get_docstring(tree), module)
    return found


def capital(title: str) -> str:
    """The title with a capital first letter, unless it starts with a symbol."""
    return title[0].upper() + title[1:] if title[0].isascii() else title


def page() -> str:
    """The whole page."""
    chapters = [path for path in sorted((ROOT / "book").glob("*.md")) if path != PAGE]
    stated: dict[str, list] = {}
    for path in chapters:
        for result in results(path.read_text(encoding="utf-8")):
            stated.setdefault(result["name"], []).append((path.stem, result))
    code: dict[str, list[str]] = {}
    for path in sorted((ROOT / "alignpro" / "theory").glob("*.py")):
        for name, places in names_in(path.stem, path.read_text(encoding="utf-8")).items():
            code.setdefault(name, []).extend(places)
    notebooks = {
        path.stem: set(re.findall(r"\bC\d+\b", path.read_text(encoding="utf-8")))
        for path in sorted((ROOT / "notebooks").glob("*.py"))
    }
    checked = proofs.theorems((ROOT / "proofs" / "Statements.v").read_text(encoding="utf-8"))
    blocks = [HEAD]
    for name in sorted(stated, key=lambda name: int(name[1:])):
        title = stated[name][0][1]["title"]
        blocks.append(f"## {name}: {capital(title)}\n")
        for chapter, result in stated[name]:
            blocks.append(f"> {result['body']}".replace("\n", "\n> ") + "\n")
            marks = [
                f"[{t.part or 'the theorem'}](#{t.target})"
                for t in checked
                if t.label == result["label"]
            ]
            proved = ", ".join(marks) if marks else "none, proved in prose only"
            place = f"{{prf:ref}}`{result['label']}` in {{doc}}`{chapter}`"
            blocks.append(f"{place}. *Machine-checked:* {proved}.\n")
        places = ", ".join(f"`{place}`" for place in code.get(name, []))
        shown = ", ".join(
            f"{{doc}}`/notebooks/{stem}`" for stem, named in notebooks.items() if name in named
        )
        blocks.append(
            f"*Code in* `alignpro.theory`: {places or 'none of its own'}. "
            f"*Computed in* {shown or 'no notebook'}.\n"
        )
    return "\n".join(blocks)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
