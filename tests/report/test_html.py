"""Tables of texts: a reader sees what the model wrote, and the browser obeys none of it."""

from html.parser import HTMLParser

import pandas as pd

from alignpro.report.examples import example_table
from alignpro.report.html import text_table

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
