"""Table 1: the paper's numbers where they are typed, ours recomputed from the files."""

import json
import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from alignpro.judging.paper_table import PAPER, arrange, judged, our_cells, paper_cells
from alignpro.judging.report import report
from alignpro.runs import RESULTS

BOOK = Path(__file__).parents[2] / "book"


def test_the_papers_table_is_the_one_that_the_introduction_shows():
    text = (BOOK / "intro.md").read_text()
    block = text[text.index(":name: paper-table-1") :]
    rows = re.findall(r"\* - (P\d), (F\d)\n((?:  - \d+\n)+)", block)
    shown = {(p, f): [int(n) for n in re.findall(r"\d+", cells)] for p, f, cells in rows}
    assert shown == {
        pair: [n for ab in cells.values() for n in ab] for pair, cells in PAPER.items()
    }


def test_the_papers_ties_are_what_is_missing_to_100():
    cells = paper_cells()
    assert len(cells) == 12 and (cells.sum(axis=1) == 100).all()
    assert cells.loc[("P1, F1", "UltraFeedback")].tolist() == [60, 16, 24]
    assert cells.loc[("P2, F1", "Orca")].tolist() == [46, 8, 46]


def test_cells_are_arranged_as_in_the_paper():
    wide = arrange(paper_cells())
    assert list(wide.index) == ["P1, F1", "P1, F2", "P2, F1", "P2, F2"]
    assert [d for d, _ in wide.columns[::3]] == ["UltraFeedback", "HelpSteer", "Orca"]
    assert wide.loc["P1, F2", ("HelpSteer", "B")] == 23


def answers(name, rewards):
    """Rows of an evaluation table: `rewards` by prompt and sample."""
    return [
        {"configuration": name, "id": p, "sample": i, "prompt": p, "response": f"{name} {p}{i}",
         "reward": r}
        for p, row in rewards.items() for i, r in enumerate(row)
    ]  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """Two seeds of one cell, and one of another, by hand."""
    runs = {
        ("help", 0): ({"p": [0.9, 0.5], "q": [0.1, 0.4]}, {"p": [0.1, 0.45], "q": [0.8, 0.8]}),
        ("help", 1): ({"p": [0.9, 0.9], "q": [0.9, 0.9]}, {"p": [0.1, 0.1], "q": [0.1, 0.1]}),
        ("chat", 0): ({"p": [0.1, 0.1]}, {"p": [0.9, 0.9]}),
    }
    for (dataset, seed), (a, b) in runs.items():
        folder = tmp_path / "cpu" / dataset / "P1F1" / f"seed{seed}"
        folder.mkdir(parents=True)
        rows = answers("Align-Pro", a) + answers("No Fine-Tuning", b)
        # The two sides need not stand in the same order.
        pd.DataFrame(rows[::-1]).to_parquet(folder / "evaluation.parquet")
        card = {"architecture": ["P1", "F1"], "dataset": dataset, "configuration": "align-pro"}
        (folder / "card.json").write_text(json.dumps(card))
    return tmp_path


def test_our_cells_pool_the_seeds_by_hand(results):
    """help: of 8 pairs seed 0 gives win, tie, loss, loss and seed 1 four wins."""
    cells = our_cells("cpu", 0.1, results=results)
    cell = cells.loc[("P1, F1", "help")]
    assert (cell["A"], cell["tie"], cell["B"]) == (62.5, 12.5, 25.0)
    # By prompt: p has 1, ½, 1, 1 and q has 0, 0, 1, 1.
    assert cell["win rate"] == (3.5 / 4 + 2 / 4) / 2
    assert (cell["pairs"], cell["prompts"], cell["seeds"]) == (8, 2, 2)
    assert arrange(cells).loc["P1, F1", ("chat", "B")] == 100
    assert our_cells("cpu", 0.0, results=results).loc[("P1, F1", "help"), "tie"] == 0


def test_sides_that_do_not_match_are_refused(results):
    table = pd.read_parquet(results / "cpu" / "help" / "P1F1" / "seed0" / "evaluation.parquet")
    with pytest.raises(ValueError, match="equally often"):
        judged(table.iloc[1:], "Align-Pro", "No Fine-Tuning", 0.1)


def test_every_run_in_results_is_in_our_table():
    cells = our_cells("cpu", 0.05)
    runs = list((RESULTS / "cpu").glob("*/P1F1/seed*/evaluation.parquet"))
    assert cells["seeds"].sum() == len(runs) > 0
    assert cells[["A", "tie", "B"]].sum(axis=1).tolist() == pytest.approx([100] * len(cells))
    for (_, dataset), cell in cells.iterrows():
        tables = [pd.read_parquet(p) for p in runs if p.parts[-4] == dataset]
        wins = sum(
            (t.loc[t["configuration"] == "Align-Pro", "reward"].to_numpy()
             > t.loc[t["configuration"] == "No Fine-Tuning", "reward"].to_numpy() + 0.05).sum()
            for t in (t.sort_values(["id", "sample"]) for t in tables)
        )  # fmt: skip
        assert cell["A"] == pytest.approx(100 * wins / cell["pairs"])


def test_the_figures_draw_reports_with_and_without_unknown_pairs(results):
    matplotlib.use("agg")
    from alignpro.figures import judging

    table = pd.read_parquet(results / "cpu" / "help" / "P1F1" / "seed0" / "evaluation.parquet")
    known = judged(table, "Align-Pro", "No Fine-Tuning", 0.1)
    unknown = known.assign(preference=float("nan"))
    reports = pd.DataFrame({"known": report(known), "none known": report(unknown)}).T
    figure = judging.verdict_shares(reports, ("Align-Pro", "No Fine-Tuning"), "title")
    widths = [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers]
    assert [sum(row) for row in zip(*widths)] == pytest.approx([1, 1])
    assert widths[-1] == pytest.approx([0, 1])
    assert judging.win_rates(reports[:1], "title").axes[0].get_title() == "title"
