"""Figures of the benchmarks: a PPO step by part, each optimisation's worth, and learning curves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from alignpro.figures.style import STEP_LABELS

OUTCOMES = {"faster": "#0072B2", "no difference seen": "#7f7f7f", "slower": "#D55E00"}


def step_parts(table: pd.DataFrame) -> Figure:
    """Seconds of a PPO step by part: one bar per contender, labelled with its ratio to ours."""
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(table) + 1.6))
    left = pd.Series(0.0, index=table.index)
    colors = sns.color_palette("colorblind", len(STEP_LABELS))
    for (part, label), color in zip(STEP_LABELS.items(), colors):
        axes.barh(table.index, table[part], left=left, color=color, label=label)
        left += table[part]
    for name, row in table.iterrows():
        label = f" {row['total']:.1f} s, ×{row['ratio']:.1f}"
        axes.annotate(label, (row["total"], name), va="center")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="seconds of a step", title="The same step, four ways")
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.25), fontsize=9)
    return figure


def trials(table: pd.DataFrame) -> Figure:
    """Time without over time with each optimisation: the median, and the range over rounds."""
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


def learning(points: pd.DataFrame) -> Figure:
    """Held-out reward against frozen-LLM tokens and against seconds: one line per learner and seed.

    `points` has the columns learner, seed, tokens, seconds and reward; a thick line is the mean
    over seeds at the same step.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axes, cost, unit in zip(panels, ("tokens", "seconds"), ("1,000 tokens", "minutes")):
        scale = 1000 if cost == "tokens" else 60
        colors = sns.color_palette("colorblind")
        for (learner, part), color in zip(points.groupby("learner", sort=False), colors):
            for _, run in part.groupby("seed"):
                axes.plot(run[cost] / scale, run["reward"], color=color, lw=0.9, alpha=0.45)
            mean = part.groupby("step")[[cost, "reward"]].mean()
            axes.plot(mean[cost] / scale, mean["reward"], color=color, lw=2.4, label=learner)
        axes.set(xlabel=f"{unit} of the frozen LLM" if cost == "tokens" else f"{unit} of training")
    panels[0].set(ylabel="held-out reward")
    panels[0].legend()
    return figure
