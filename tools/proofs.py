"""What the book shows of the checked proofs, written from `proofs/Statements.v`.

python tools/proofs.py        the audit, the page and the marks, from the statements

Each theorem there has a comment with the label of the book's theorem and the part that is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PROOFS = ROOT / "proofs"
PAGE = ROOT / "book" / "proofs.md"
BEGIN, END = "<!-- Written by tools/proofs.py, from here -->", "<!-- to here -->"
MARK = "*Checked by machine:*"

THEOREM = re.compile(
    r"\(\*\* (?P<label>[\w-]+)(?:, (?P<part>[^\n]+))?\n(?P<text>[^*]*?) \*\)\n"
    r"Theorem (?P<name>\w+)\b(?P<statement>.*?)\nProof\.\s+exact \(?.*?\)?\.\s+Qed\.",
    re.DOTALL,
)
SECTION = re.compile(r"(?P<intro>\(\*\* (?:(?!\*\)).)*\*\)\n)?Section (?P<name>\w+)\.\n", re.DOTALL)
DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,})\{prf:\w+\}[^\n]*\n:label: (?P<label>[\w-]+)\n.*?^(?P=fence)\n",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Theorem:
    """A checked theorem: the label in the book, which part of it, and its statement in Coq."""

    label: str
    part: str
    text: str
    name: str
    statement: str
    line: int

    @property
    def target(self) -> str:
        return "proof-" + self.name.lower().replace("_", "-")


def theorems(source: str) -> list[Theorem]:
    """The theorems of `Statements.v`, in order."""
    return [
        Theorem(
            label=found["label"],
            part=found["part"] or "",
            text=" ".join(found["text"].split()),
            name=found["name"],
            statement=f"Theorem {found['name']}{found['statement']}",
            line=source.count("\n", 0, found.start("name")) + 1,
        )
        for found in THEOREM.finditer(source)
    ]


def audit(checked: list[Theorem]) -> str:
    """The file that asks Coq which axioms the theorems rest on, all in one question."""
    names = ",\n   ".join(f"@{theorem.name}" for theorem in checked)
    return (
        "(** The axioms that the theorems rest on.  Written by tools/proofs.py. *)\n"
        "From AlignPro Require Import Statements.\n"
        f"Definition everything :=\n  ({names}).\nPrint Assumptions everything.\n"
    )


def reference(theorem: Theorem) -> str:
    """The place in the book, as a link; the part alone where it has no label of its own."""
    if theorem.label == "other":
        return theorem.part
    kind, name = theorem.label.split("-", 1)
    role = {"thm": "prf:ref", "lem": "prf:ref", "cor": "prf:ref", "eq": "eq"}.get(kind, "ref")
    title = f"R{name} <{theorem.label}>" if kind == "reading" else theorem.label
    return f"{{{role}}}`{title}`" + (f", {theorem.part}" if theorem.part else "")


def table(checked: list[Theorem], address: str) -> str:
    """One row per theorem: where the book has it, what is checked, and the line in Coq."""
    rows = [
        f"| {reference(t)} | {t.text.replace('|', '&#124;')} "
        f"| [statement](#{t.target}), [line {t.line}]({address}/proofs/Statements.v#L{t.line}) |"
        for t in checked
    ]
    return "\n".join(["| in the book | what is checked | in Coq |", "|---|---|---|", *rows])


def prose(comment: str) -> tuple[str, str]:
    """Title and text of a Coq comment; `[x]` becomes code."""
    words = re.sub(r"^\(\*\* |\*\)$", "", comment.strip()).strip()
    title = re.match(r"\* ([^\n]+)", words)
    rest = words[title.end() :] if title else words
    rest = re.sub(r"\[([^\]\[]+)\]", r"`\1`", " ".join(rest.split()))
    return (title[1] if title else ""), rest


def listing(source: str) -> str:
    """Every section of `Statements.v`: its setting, then each statement under its own target."""
    blocks = []
    for begin in SECTION.finditer(source):
        end = source.index(f"End {begin['name']}.", begin.end())
        body = source[begin.end() : end]
        title, text = prose(begin["intro"] or "")
        blocks += [f"### {title}"] if title else []
        blocks += [text] if text else []
        place = 0
        for found in THEOREM.finditer(body):
            blocks += code(body[place : found.start()])
            (theorem,) = theorems(found[0])
            blocks += [f"({theorem.target})=", *code(theorem.statement)]
            place = found.end()
        blocks += code(body[place:])
    return "\n\n".join(blocks)


def code(text: str) -> list[str]:
    """A block of Coq without the proofs; none where nothing is left."""
    text = re.sub(r"\nProof\..*?Qed\.", "", text, flags=re.DOTALL)
    return [f"```coq\n{text.strip()}\n```"] if text.strip() else []


def unchecked(checked: list[Theorem]) -> list[str]:
    """The theorems of the book of which no part has been checked, as links, in reading order."""
    toc = (ROOT / "_toc.yml").read_text()
    chapters = [ROOT / f"{name}.md" for name in re.findall(r"file: (book/\w+)", toc)]
    labels = [
        found["label"] for chapter in chapters for found in DIRECTIVE.finditer(chapter.read_text())
    ]
    covered = {theorem.label for theorem in checked}
    return [f"{{prf:ref}}`{label}`" for label in labels if label not in covered]


def generated(source: str) -> str:
    """The part of the page that follows from `Statements.v`."""
    checked = theorems(source)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    address = f"{config['url']}/blob/{config['branch']}"
    return (
        f"{BEGIN}\n\n## The {len(checked)} checked theorems\n\n{table(checked, address)}\n\n"
        f"No part of these is checked: {', '.join(unchecked(checked))}.\n\n"
        f"## The statements, in full\n\n{listing(source)}\n\n{END}\n"
    )


def with_marks(chapter: str, checked: list[Theorem]) -> str:
    """The chapter with one line below each theorem that has been checked, and no other marks."""
    chapter = re.sub(rf"\n{re.escape(MARK)}[^\n]*\n", "", chapter)

    def marked(found: re.Match) -> str:
        links = [
            f"[{t.part or 'the statement'}](#{t.target})"
            for t in checked
            if t.label == found["label"]
        ]
        return found[0] + (f"\n{MARK} {', '.join(links)}\n" if links else "")

    return DIRECTIVE.sub(marked, chapter)


def wanted() -> dict[Path, str]:
    """Every file that depends on `Statements.v`, with the text that it should have."""
    source = (PROOFS / "Statements.v").read_text()
    checked = theorems(source)
    page = PAGE.read_text()
    head, tail = page[: page.index(BEGIN)], page[page.index(END) + len(END) + 1 :]
    files = {PROOFS / "Audit.v": audit(checked), PAGE: head + generated(source) + tail}
    for chapter in sorted((ROOT / "book").glob("*.md")):
        if chapter != PAGE:
            files[chapter] = with_marks(chapter.read_text(), checked)
    return files


if __name__ == "__main__":
    for path, text in wanted().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
