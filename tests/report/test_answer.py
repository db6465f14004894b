"""The book's answer: every claim once, its verdicts and intervals as the scoreboard has them."""

import nbformat
import numpy as np
import pandas as pd
import pytest

import book
from alignpro.figures.answer import effects
from alignpro.report.answer import EFFECT, answer_rows, answer_table, by_dataset
from alignpro.report.scoreboard import effect

MEASURED = pd.DataFrame(
    [
        ("A earns more.", "help, P1F1", 0.1, 0.05, 0.15, "same sign at small scale"),
        ("A earns more.", "chat, P1F1", -0.02, -0.1, 0.06, "not told apart"),
        ("A varies less.", "help, P1F1", 0.2, 0.1, 0.3, "opposite sign at small scale"),
        ("A varies less.", "chat, P1F1", 0.3, 0.2, 0.4, "opposite sign at small scale"),
        ("A is liked.", "help, P1F1", 0.3, np.nan, np.nan, "not told apart"),
        ("A is liked.", "chat, P1F1", np.nan, np.nan, np.nan, "not run"),
    ],
    columns=["claim", "where", "value", "low", "high", "verdict"],
).assign(
    measure="difference",
    caveat="small",
    link="notebooks/11_matrix#x",
    note=["half of it", "", "", "", "", ""],
)
THEORY = pd.DataFrame(
    {
        "verdict": ["verified exactly"] * 2 + ["verified with a correction"],
        "correction": ["", "", "Z is a sum. (E1)"],
    }
)
REMARKS = pd.DataFrame({"kind": ["R1, to read in", "R2, to read in", "L1, limit of use"]})
ELSEWHERE = pd.DataFrame(
    [
        {
            "claim": "At scale.",
            "verdict": "not run: needs a large GPU",
            "caveat": "no",
            "link": "book/a#b",
        }
    ]
)


def rows():
    return answer_rows(THEORY, REMARKS, MEASURED, ELSEWHERE).set_index("claim")


def test_every_claim_has_one_row_with_its_own_verdicts_and_intervals():
    found = rows()
    assert found.index.is_unique and len(found) == 5
    assert found.iloc[0]["verdict"].splitlines() == [
        *("verified exactly: 2 of 3", "verified with a correction: 1 of 3"),
    ]
    assert "1 errors" in found.iloc[0]["caveat"]
    assert "2 hypotheses" in found.iloc[0]["caveat"] and "1 limits" in found.iloc[0]["caveat"]
    mixed = found.loc["A earns more."]
    assert mixed["verdict"] == "same sign at small scale: help\nnot told apart: chat"
    assert mixed[EFFECT].replace("\xa0", " ").splitlines() == [
        *(
            "difference",
            "help: +0.100 [+0.050, +0.150]; half of it",
            "chat: −0.020 [−0.100, +0.060]",
        ),
    ]
    assert found.loc["A varies less."]["verdict"] == (
        "opposite sign at small scale, on each of 2 datasets"
    )
    assert found.loc["A is liked."]["verdict"] == "not told apart: help\nnot run: chat"
    assert "no\xa0interval" in found.loc["A is liked."][EFFECT]
    assert found.loc["At scale."][EFFECT] == "none measured"


def test_a_dataset_is_named_alone_only_if_there_is_one_architecture():
    assert list(by_dataset(MEASURED)["where"].unique()) == ["help", "chat"]
    two = pd.concat([MEASURED, MEASURED.assign(where="help, P2F1")])
    assert "help, P2F1" in set(by_dataset(two)["where"])


def test_an_effect_stays_on_one_line():
    assert " " not in effect(pd.Series({"value": 0.1, "low": 0.0, "high": 0.2}))


def test_the_figure_draws_each_difference_and_leaves_out_what_was_not_run():
    axes = effects(by_dataset(MEASURED)).axes[0]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("None", "")]
    assert points == MEASURED["value"].dropna().tolist()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == list(MEASURED["verdict"].unique()[:3])


def test_the_introduction_shows_the_outputs_of_the_tagged_cells():
    table = answer_table(rows().reset_index()).to_html()
    shown = nbformat.v4.new_output("display_data", {"text/html": table})
    drawn = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cells = [
        nbformat.v4.new_code_cell("f();", outputs=[drawn], metadata={"tags": ["answer-figure"]}),
        nbformat.v4.new_markdown_cell("*What is drawn.* More."),
        nbformat.v4.new_code_cell("t", outputs=[shown], metadata={"tags": ["answer-table"]}),
    ]
    files = {
        path.name: text for path, text in book.answer(nbformat.v4.new_notebook(cells=cells)).items()
    }
    assert files["answer.png"].startswith(b"\x89PNG")
    assert (
        table in files["_answer.md"].decode()
        and ":alt: What is drawn." in files["_answer.md"].decode()
    )
    with pytest.raises(RuntimeError, match="answer-table"):
        book.answer(nbformat.v4.new_notebook(cells=cells[:2]))
