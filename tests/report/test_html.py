"""What a model wrote reaches a page as text: no table, link or figure obeys it."""

import ast
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alignpro.figures.matrix import suffix_shares
from alignpro.report.examples import example_table
from alignpro.report.html import text_table

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NASTY = '1. a | b\n\n# <script>alert(1)</script> & "q" *x* $y$ {{ z }} &lt;'


class Cells(HTMLParser):
    """The text of each body cell, the tags met inside cells, and the attributes of links."""

    def __init__(self, html: str):
        super().__init__()
        self.texts, self.tags, self.links, self.inside, self.caption = [], [], [], False, ""
        self.tag = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        if self.inside:
            self.tags.append(tag)
        if tag == "td":
            self.inside = True
            self.texts.append("")
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"
        self.tag = ""

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data
        if self.tag == "caption":
            self.caption += data


def test_texts_are_shown_as_they_are():
    shown = Cells(text_table(pd.DataFrame({"a": [NASTY], "b": ["x"]}), caption=NASTY).to_html())
    assert shown.texts == [NASTY, "x"]
    assert shown.tags == []
    assert shown.caption == NASTY


LIVE = """<img src=x onerror="document.body.className='hacked'">"""


def hostile_frame():
    """The live element in every place of a table that can hold a text, a list cell among them."""
    rows = pd.MultiIndex.from_tuples([(LIVE, 1), (LIVE, 2)], names=[LIVE, "n"])
    return pd.DataFrame({LIVE: [[LIVE], {"a": LIVE}], "b": [LIVE, 0.12345]}, index=rows)


def test_no_place_of_a_table_holds_a_live_element():
    for frame in (hostile_frame(), hostile_frame().reset_index(drop=True), hostile_frame().T):
        html = text_table(frame, LIVE).to_html()
        assert "<img" not in html
        assert html.count("&lt;img") >= 5


def test_numbers_are_shown_short():
    frame = pd.DataFrame({"a": [0.12345, 2], "b": [np.float32(1.5), 7]}, dtype=object)
    assert Cells(text_table(frame).to_html()).texts == ["0.123", "1.500", "2", "7"]
    assert Cells(text_table(frame, decimals=1).to_html()).texts == ["0.1", "1.5", "2", "7"]


def test_a_missing_number_leaves_its_cell_empty():
    frame = pd.DataFrame({"a": [0.5, float("nan")], "b": ["nan", "x"]})
    assert Cells(text_table(frame).to_html()).texts == ["0.500", "nan", "", "x"]


def test_numbers_alone_are_aligned_on_the_right():
    frame = pd.DataFrame({"text": ["a"], "count": [1], "fits": [True], "share": [0.5]})
    style = text_table(frame).to_html().split("</style>")[0]
    right = re.findall(r"\.col(\d) \{\s*text-align: right", style)
    assert right == ["1", "3"]


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", " javascript:alert(1)", "java\nscript:x.html", "data:text/html,x.html",
     "JavaScript://x.html", "vbscript:x", "//evil.example"],
)  # fmt: skip
def test_an_address_that_runs_code_is_refused(address):
    with pytest.raises(ValueError, match="not an address of a page"):
        text_table(pd.DataFrame({"a": ["x"]}), links=[address])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_a_real_browser_runs_nothing_of_a_table(tmp_path):
    def body_after_loading(html):
        page = tmp_path / "page.html"
        page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body class=calm>{html}</body>")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                   "--virtual-time-budget=2000", f"--user-data-dir={tmp_path}/profile"]  # fmt: skip
        done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120)
        return done.stdout.decode()

    assert 'class="hacked"' in body_after_loading(LIVE), "the attack itself must work"
    page = body_after_loading(text_table(hostile_frame(), LIVE).to_html())
    assert 'class="calm"' in page and "hacked" in page


@pytest.mark.parametrize("suffix", ["$x^$", "$a$ and $b$", r"\frac{$", "$\\alpha$", "a" * 300])
def test_a_suffix_is_drawn_as_it_was_written(suffix):
    table = pd.DataFrame(
        {"configuration": "Align-Pro", "kind": "howto", "prompt": "How?",
         "rewrite": [f"How? {suffix}", "How?"]}
    )  # fmt: skip
    figure = suffix_shares(table, ["Align-Pro"])
    figure.canvas.draw()
    labels = [label for label in figure.axes[0].get_yticklabels()]
    drawn = [label._preprocess_math(label.get_text()) for label in labels]
    assert not any(is_math for _, is_math in drawn)
    shown = {text for text, _ in drawn}
    assert "(nothing)" in shown
    assert suffix in shown or any(len(text) < 80 and text.endswith("…") for text in shown)


@pytest.mark.parametrize("source", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_no_notebook_styles_a_table_by_itself(source):
    """A plain Styler escapes nothing: `text_table` is the one way to style what a model wrote."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not used & {"style", "to_html"}


def test_line_breaks_are_kept_and_the_theme_colours_the_table():
    html = text_table(pd.DataFrame({"a": [NASTY]})).to_html()
    assert "white-space: pre-wrap" in html
    assert 'class="dataframe tex2jax_ignore mathjax_ignore"' in html


def test_the_last_column_links_and_is_escaped():
    frame = pd.DataFrame({"a": ["x"], "b": ["<b>"]})
    shown = Cells(text_table(frame, links=['p.html#"']).to_html())
    assert shown.texts == ["x", "<b>"]
    assert (shown.tags, shown.links) == (["a"], ['p.html#"'])


def test_an_example_has_both_prompts_answers_and_scores():
    example = pd.Series(
        {
            "dataset": "help", "rule": "the largest loss", "change": -0.2, "pairs": 12,
            "own": -0.25, "seed": 2, "sample": 3, "prompt": "Why?", "rewrite": "Why? " + NASTY,
            "response_before": "So.", "response_after": NASTY, "ended_before": True,
            "ended_after": False, "reward_before": 0.5, "reward_after": 0.25,
        }
    )  # fmt: skip
    shown = Cells(example_table(example).to_html())
    assert shown.texts == [
        *("Why?", "Why? " + NASTY, "So.", NASTY),
        *("by itself", "cut at the limit", "0.50", "0.25"),
    ]
    assert all(part in shown.caption for part in ("the largest loss", "-0.25", "-0.20 over 12"))
