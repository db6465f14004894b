"""The book's answer as one figure: every measured claim, its effects and their intervals."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# By the first two words of a verdict. Shapes repeat what the colours tell.
SIDES = {
    "same sign": ("#0072B2", "o"),
    "opposite sign": ("#D55E00", "s"),
    "not told": ("#7f7f7f", "D"),
    "too few": ("#bbbbbb", "x"),
}


def effects(rows: pd.DataFrame) -> Figure:
    """One line per claim and dataset: the difference and its 95 % interval, coloured by verdict.

    `rows` has the columns claim, where, value, low, high and verdict. Rows without a value are
    left out. An interval that is not finite is not drawn.
    """
    rows = rows[rows["value"].notna()]
    claims = list(rows["claim"].unique())
    figure, axes = plt.subplots(figsize=(10, 0.8 * len(claims) + 1.1))
    for place, claim in enumerate(claims):
        part = rows[rows["claim"] == claim]
        for line, (_, row) in enumerate(part.iterrows()):
            y = place + (line - (len(part) - 1) / 2) * 0.24
            color, marker = SIDES[_side(row["verdict"])]
            axes.hlines(y, row["low"], row["high"], color=color, lw=2)
            axes.plot(row["value"], y, marker, color=color, ms=5)
            right = np.nanmax([row["value"], row["high"]])
            axes.annotate(row["where"], (right, y), (5, 0), textcoords="offset points",
                          va="center", fontsize=9, color="#444444")  # fmt: skip
    axes.axvline(0, color="#222222", lw=1)
    axes.set_yticks(range(len(claims)), [textwrap.fill(c, 46) for c in claims], fontsize=10.5)
    axes.set(xlabel="difference, in the unit of each claim", ylim=(len(claims) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=SIDES[side][0], marker=SIDES[side][1], lw=2, label=verdict)
        for side, verdict in {_side(verdict): verdict for verdict in rows["verdict"]}.items()
    ]
    axes.legend(handles=handles, ncols=4, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _side(verdict: str) -> str:
    return " ".join(verdict.split()[:2])
