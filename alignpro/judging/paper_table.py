"""The paper's Table 1, and our own in the same form, from the files in `results/`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from alignpro.judging.protocol import Pair
from alignpro.judging.report import report, reward_judge
from alignpro.runs import RESULTS

# The paper's own figures: percent won by A (Align-Pro) and by B (No Fine-Tuning). The text that we
# work from has lost the labels of rows and columns; the order is the one that suggests itself.
PAPER = {
    ("P1", "F1"): {"UltraFeedback": (60, 24), "HelpSteer": (46, 37), "Orca": (63, 26)},
    ("P1", "F2"): {"UltraFeedback": (65, 23), "HelpSteer": (67, 23), "Orca": (63, 30)},
    ("P2", "F1"): {"UltraFeedback": (59, 27), "HelpSteer": (58, 27), "Orca": (46, 46)},
    ("P2", "F2"): {"UltraFeedback": (56, 30), "HelpSteer": (59, 25), "Orca": (59, 27)},
}
PERCENT = ["A", "tie", "B"]
MARGIN = 0.05  # the margin used where one has to be chosen: closer rewards are a tie


def paper_cells() -> pd.DataFrame:
    """The paper's cells, one per row: A, tie and B in percent. The ties are 100 − A − B."""
    rows = {
        (", ".join(pair), dataset): {"A": a, "tie": 100 - a - b, "B": b}
        for pair, cells in PAPER.items()
        for dataset, (a, b) in cells.items()
    }
    return _indexed(rows)


def our_cells(
    preset: str, margin: float, base: str = "No Fine-Tuning", results: Path = RESULTS
) -> pd.DataFrame:
    """Our cells by the reward judge, one per row: `report`, its shares in percent, and the seeds.

    Every evaluation of an Align-Pro run of `preset` in the folder `results` counts, and the seeds
    of a cell are pooled by prompt. A is Align-Pro and B the configuration `base`. Rewards within
    `margin` of each other are a tie.
    """
    found: dict[tuple, list[pd.DataFrame]] = {}
    for path in sorted((results / preset).glob("*/*/seed*/evaluation.parquet")):
        card = json.loads((path.parent / "card.json").read_text(encoding="utf-8"))
        if card["configuration"] != "align-pro":
            continue
        cell = ", ".join(card["architecture"]), card["dataset"]
        table = judged(pd.read_parquet(path), "Align-Pro", base, margin)
        found.setdefault(cell, []).append(table)
    rows = {}
    for cell, tables in found.items():
        line = report(pd.concat(tables))
        rows[cell] = {**line, **{k: 100 * line[k] for k in PERCENT}, "seeds": len(tables)}
    return _indexed(rows)


def judged(table: pd.DataFrame, a: str, b: str, margin: float) -> pd.DataFrame:
    """The table of verdicts of the reward judge on two configurations of an evaluation `table`.

    `a` and `b` are their names; they are compared prompt by prompt and sample by sample. Rewards
    within `margin` of each other are a tie. Raises ValueError where the two have not answered the
    same prompts equally often.
    """
    sides = [table[table["configuration"] == name] for name in (a, b)]
    both = sides[0].merge(sides[1], on=["id", "sample"], suffixes=("_a", "_b"), validate="1:1")
    if not len(both) == len(sides[0]) == len(sides[1]):
        raise ValueError(f"{a!r} and {b!r} have not answered the same prompts equally often")
    pairs = [Pair(*row) for row in zip(both["prompt_a"], both["response_a"], both["response_b"])]
    return reward_judge(pairs, both["reward_a"], both["reward_b"], margin)


def arrange(cells: pd.DataFrame) -> pd.DataFrame:
    """`cells` as the paper arranges them: architectures down, datasets across, in percent."""
    wide = cells[PERCENT].unstack("dataset").swaplevel(axis=1)
    datasets = cells.index.unique("dataset")
    return wide.reindex(columns=pd.MultiIndex.from_product([datasets, PERCENT]))


def _indexed(rows: dict) -> pd.DataFrame:
    cells = pd.DataFrame.from_dict(rows, orient="index")
    cells.index = pd.MultiIndex.from_tuples(rows, names=["architecture", "dataset"])
    return cells
