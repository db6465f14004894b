"""The figures of the chapter on judging, from the rows that `judging.report.report` makes."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from alignpro.figures.style import COLORS

SHARES = {"A": COLORS["Align-Pro"], "tie": "#d9d9d9", "B": COLORS["No Fine-Tuning"]}
TEXT = {"A": "white", "tie": "#222222", "B": "white"}


def verdict_shares(reports: pd.DataFrame, names: tuple[str, str], title: str) -> Figure:
    """One bar per row of `reports`: the shares of all pairs that A wins, ties and loses.

    Pairs without a preference are hatched. `names` are those of A and B.
    """
    figure, axes = plt.subplots(figsize=(8.5, 0.55 * len(reports) + 1.9))
    labels = {"A": f"{names[0]} wins", "tie": "tie", "B": f"{names[1]} wins"}
    known = 1 - reports["unknown"] / reports["pairs"]
    left = pd.Series(0.0, reports.index)
    rows = range(len(reports))
    for share, color in SHARES.items():
        width = (reports[share] * known).fillna(0.0)
        bars = axes.barh(rows, width, left=left, color=color, label=labels[share])
        texts = [f"{w:.0%}" if w > 0.04 else "" for w in width]
        axes.bar_label(bars, texts, label_type="center", color=TEXT[share], fontsize=9)
        left = left + width
    if (known < 1).any():
        axes.barh(rows, 1 - left, left=left, color="white", edgecolor="#777777", hatch="///",
                  linewidth=0.5, label="unknown")  # fmt: skip
    axes.set_yticks(rows, [textwrap.fill(str(n), 26) for n in reports.index], fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of pairs", title=title)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y", visible=False)
    figure.legend(ncols=4, fontsize=9, loc="outside lower center")
    return figure


def win_rates(reports: pd.DataFrame, title: str) -> Figure:
    """One dot per row of `reports`: A's win rate with its 95 % interval over prompts.

    A diamond shows the rate at equal length. The rows name what A is compared with.
    """
    figure, axes = plt.subplots(figsize=(8.5, 0.55 * len(reports) + 1.7))
    for y, (_, row) in enumerate(reports.iterrows()):
        spread = [[row["win rate"] - row["low"]], [row["high"] - row["win rate"]]]
        color = COLORS["Align-Pro"]
        axes.errorbar(row["win rate"], y, xerr=spread, fmt="o", color=color, capsize=4,
                      label="raw, 95 % over prompts" if y == 0 else None)  # fmt: skip
        axes.plot(row["at equal length"], y, "D", mfc="none", mec=color,
                  label="at equal length" if y == 0 else None)  # fmt: skip
    axes.axvline(0.5, color="#777777", lw=1)
    axes.set_yticks(
        range(len(reports)), [textwrap.fill(str(n), 26) for n in reports.index], fontsize=9
    )
    axes.invert_yaxis()
    axes.margins(y=0.2)
    axes.set(xlim=(0, 1), xlabel="win rate of Align-Pro", title=title)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.legend(fontsize=9, loc="best")
    return figure
