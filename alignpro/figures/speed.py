"""Figures of the benchmark: where a PPO step's time goes, and what each optimisation is worth."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from alignpro.figures.style import STEP_LABELS

OUTCOMES = {"faster": "#0072B2", "no difference seen": "#7f7f7f", "slower": "#D55E00"}


def step_parts(table: pd.DataFrame) -> Figure:
    """Seconds of a PPO step by part, a bar a contender, with its ratio to ours."""
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(table) + 1.6))
    left = pd.Series(0.0, index=table.index)
    colors = sns.color_palette("colorblind", len(STEP_LABELS))
    for (part, label), color in zip(STEP_LABELS.items(), colors):
        axes.barh(table.index, table[part], left=left, color=color, label=label)
        left += table[part]
    for name, row in table.iterrows():
        said = f" {row['total']:.1f} s, ×{row['ratio']:.1f}"
        axes.annotate(said, (row["total"], name), va="center")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="seconds of a step", title="The same step, four ways")
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.25), fontsize=9)
    return figure


def trials(table: pd.DataFrame) -> Figure:
    """Time without over time with each optimisation: median, and the range over rounds."""
    figure, axes = plt.subplots(figsize=(9, 0.38 * len(table) + 1.3))
    colors, y = table["outcome"].map(OUTCOMES), range(len(table))
    axes.hlines(y, table["low"], table["high"], color=colors, lw=3, alpha=0.5)
    axes.scatter(table["ratio"], y, color=colors, s=45, zorder=3)
    axes.set_yticks(y, [f"{trial} ({part})" for trial, part in zip(table.index, table["part"])])
    axes.tick_params(axis="y", labelsize=9)
    axes.axvline(1, color="#222222", lw=0.9)
    axes.set_xscale("log")
    low, high = table["low"].min() / 2, table["high"].max() * 2
    ticks = [t for t in (0.1, 0.25, 0.5, 1, 2, 4, 10, 25, 100, 250) if low < t < high]
    axes.set_xticks(ticks, [f"×{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.set(xlabel="time without it over time with it", title="What each optimisation is worth")
    return figure
