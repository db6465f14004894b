"""Pages that are written from other files hold what those files hold."""

import re
from pathlib import Path

import index_of_results

ROOT = Path(__file__).parents[2]


def test_the_index_of_results_is_up_to_date():
    assert index_of_results.PAGE.read_text(encoding="utf-8") == index_of_results.page(), (
        "run `python tools/index_of_results.py`"
    )


def test_the_index_lists_every_result_once_in_order():
    names = re.findall(r"^## (C\d+): ", index_of_results.page(), re.MULTILINE)
    assert names == [f"C{i}" for i in range(1, 20)]


def test_every_result_that_is_named_anywhere_is_in_the_index():
    texts = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.py")]
    texts += [*(ROOT / "alignpro").rglob("*.py"), *(ROOT / "alignpro").rglob("*.yaml")]
    named = set()
    for path in texts:
        named |= set(re.findall(r"\bC(\d+)\b", path.read_text(encoding="utf-8")))
    assert {int(n) for n in named} <= set(range(1, 20))


def test_a_result_is_read_with_its_statement_and_without_the_labels_of_its_equations():
    theorem = "```{prf:theorem} Ours, C2\n:label: thm-a\n\nLet\n\n$$\nx\n$$ (eq-a)\n```\n"
    chapter = f"## A section (C2)\n\n{theorem}"
    (found,) = index_of_results.results(chapter)
    assert (found["name"], found["title"], found["label"]) == ("C2", "A section", "thm-a")
    assert found["body"] == "Let\n\n$$\nx\n$$"


def test_code_is_found_by_docstring_and_by_comment():
    source = (
        '"""M (C1)."""\nclass A:\n    """Of C2."""\n    x: int  # C3: the x\n'
        '    def f(self):\n        """C2 and C4."""\n'
    )
    found = index_of_results.names_in("m", source)
    assert found == {"C1": ["m"], "C2": ["m.A", "m.A.f"], "C3": ["m.A.x"], "C4": ["m.A.f"]}
