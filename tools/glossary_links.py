"""Link each term of the glossary where a page first uses it: a step of the Sphinx build.

The sources stay plain Markdown, so that a notebook reads the same in Jupyter and on Colab.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

# Headings, code, formulas, tables and text that is a link already are left as they are.
SKIPPED = (
    nodes.title,
    nodes.reference,
    addnodes.pending_xref,
    addnodes.glossary,
    nodes.table,
    nodes.citation,
    nodes.FixedTextElement,
    nodes.literal,
    nodes.math,
    nodes.raw,
)
# Everyday words are terms only as nouns. "Run the cells" and "its configuration" name no term.
EVERYDAY = {"configuration", "gap", "kind", "rewrite", "run"}
BEFORE = ("the", "each", "every", "one", "three", "five", "all", "another")
NOUN = "|".join(rf"(?<=\b{word}\s)" for word in BEFORE)


def pattern(terms) -> re.Pattern:
    """A pattern that finds each of `terms` (a list of str), in the singular or plural.

    The group `term` holds the text. A longer term comes before a shorter one that it contains.
    """
    choices = [
        (f"(?:{NOUN})" if term in EVERYDAY else "") + r"\s+".join(map(re.escape, term.split()))
        for term in sorted(terms, key=len, reverse=True)
    ]
    return re.compile(rf"(?<![\w-])(?P<term>{'|'.join(choices)})(?:s|es)?(?![\w-])", re.IGNORECASE)


class LinkTerms(SphinxPostTransform):
    """Replace the first use of each term by a cross-reference to the glossary."""

    default_priority = 5  # before Sphinx resolves cross-references

    def run(self, **_) -> None:
        domain = self.env.get_domain("std")
        terms = {name.lower(): name for name, _, kind, *_ in domain.get_objects() if kind == "term"}
        if not terms:
            return
        wanted = pattern(terms)
        for text in list(self.document.findall(nodes.Text)):
            if not _within_skipped(text):
                self._link(text, wanted, terms)

    def _link(self, text: nodes.Text, wanted: re.Pattern, unused: dict[str, str]) -> None:
        """Link in `text` each term of `unused` that it holds, and take it out of `unused`."""
        told, parts, end = str(text), [], 0
        for found in wanted.finditer(told):
            name = unused.pop(" ".join(found["term"].lower().split()), None)
            if name:
                parts += [nodes.Text(told[end : found.start()]), _reference(name, found[0])]
                end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(told[end:])])


def _within_skipped(node: nodes.Node) -> bool:
    while node := node.parent:
        if isinstance(node, SKIPPED):
            return True
    return False


def _reference(name: str, told: str) -> addnodes.pending_xref:
    """A cross-reference to the term `name` that reads `told`."""
    shown = nodes.inline(told, told, classes=["xref", "std", "std-term"])
    return addnodes.pending_xref(
        "", shown, refdomain="std", reftype="term", reftarget=name, refexplicit=True, refwarn=True
    )


def setup(app) -> dict:
    """Sphinx calls this."""
    app.add_post_transform(LinkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
