"""Terms of the glossary are linked where a page first uses them, and only there."""

import io
import re
from pathlib import Path

import pytest
import yaml
from glossary_links import pattern
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
GLOSSARY = """# Terms

```{glossary}
prompter
  The model that rewrites.

untrained prompter
  The prompter before PPO.

suffix
  A short instruction.

run
  One training.
```
"""
PAGE = """# The prompter

Run `prompter` and [the prompter](terms.md). An **untrained prompter** is a *Prompter*.
A prompter writes

```
suffix
```

| suffix |
|---|
| suffix |

two suffixes and one suffix, in the run and in each run.

```{note}
The suffix, once more, and the untrained
prompter.
```
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The pages of a small book with a glossary, by name."""
    source = tmp_path_factory.mktemp("source")
    (source / "terms.md").write_text(GLOSSARY)
    (source / "index.md").write_text(PAGE + "\n```{toctree}\nterms\n```\n")
    (source / "conf.py").write_text("extensions = ['myst_parser', 'glossary_links']\n")
    out, warnings = source / "html", io.StringIO()
    Sphinx(source, source, out, source / "trees", "html", status=None, warning=warnings).build()
    assert not warnings.getvalue()
    return {page.stem: page.read_text("utf-8") for page in out.glob("*.html")}


def links(page: str) -> list[tuple[str, str]]:
    """The terms that a page links: the anchor in the glossary, and the text of the link."""
    found = re.findall(
        r'href="terms.html#(term-[^"]*)"[^>]*>\s*<span class="xref std std-term">(.*?)</span>', page
    )
    return [(anchor, " ".join(text.split())) for anchor, text in found]


def test_the_first_use_in_prose_is_linked_once(built):
    assert links(built["index"]) == [
        ("term-untrained-prompter", "untrained prompter"),
        ("term-prompter", "Prompter"),
        ("term-suffix", "suffixes"),
        ("term-run", "run"),
    ]


def test_the_glossary_does_not_link_its_own_terms(built):
    assert links(built["terms"]) == []


@pytest.mark.parametrize(
    "text, terms",
    [
        ("Run the cells; a kind of error; to rewrite it; to fill gaps; its configuration", []),
        ("the kind, each run, all\nrewrites, the gap", ["kind", "run", "rewrite", "gap"]),
        ("The frozen\nLLM and PROMPTERS", ["frozen\nLLM", "PROMPTER"]),
        ("a kept run and the best suffixes", ["kept run", "suffix"]),
        ("overrun, prompter-like, nats", ["nat"]),
    ],
)
def test_everyday_words_and_parts_of_words_are_no_terms(text, terms):
    known = ["run", "kept run", "kind", "rewrite", "frozen LLM", "prompter", "suffix", "nat"]
    known += ["gap", "configuration"]
    assert [found["term"] for found in pattern(known).finditer(text)] == terms


def test_the_book_is_built_with_these_links():
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    folder = config["sphinx"]["local_extensions"]["glossary_links"]
    assert (ROOT / "_build" / "src" / folder).resolve() == ROOT / "tools"
