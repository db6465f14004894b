"""Figures of the reading experiment: learning against searching, and who gets which suffix."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from alignpro.figures.style import COLORS, KIND_LABELS, verbatim

SEARCH_COLORS = {"Search for a constant": "#E69F00", "Classifier of kinds": "#D55E00"}


def held_out_curves(
    learned: dict[str, pd.DataFrame],
    searched: dict[str, dict[str, pd.DataFrame]],
    levels: dict[str, dict[str, float]],
) -> Figure:
    """Held-out reward against frozen calls, one panel per dataset.

    learned: by dataset, one row per run and number of calls (seed, calls, reward). searched: by
    dataset and search, its curve (calls, reward, low, high). levels: by dataset and configuration,
    a mean reward that needs no calls of its own, drawn as a dashed line.
    """
    figure, grid = plt.subplots(
        1, len(learned), figsize=(4.2 * len(learned), 3.9), squeeze=False, sharey=True
    )
    for axes, (dataset, runs) in zip(grid.flat, learned.items()):
        for name, level in levels[dataset].items():
            axes.axhline(level, color=COLORS[name], ls="--", lw=1.4, label=name)
        for name, curve in searched[dataset].items():
            color = SEARCH_COLORS[name]
            axes.plot(curve["calls"], curve["reward"], "s-", color=color, ms=4, label=name)
            axes.fill_between(curve["calls"], curve["low"], curve["high"], color=color, alpha=0.15)
        for _, run in runs.groupby("seed"):
            axes.plot(run["calls"], run["reward"], color=COLORS["Align-Pro"], lw=0.8, alpha=0.6)
        mean = runs.groupby("calls")["reward"].mean()
        axes.plot(mean.index, mean, "o-", color=COLORS["Align-Pro"], lw=2.4, label="Align-Pro")
        axes.set(title=dataset, xlabel="calls of the frozen LLM")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    grid[0, 0].set_ylabel("mean held-out reward r*")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0))
    return figure


def kind_by_suffix(shares: dict[str, pd.DataFrame], value: pd.DataFrame) -> Figure:
    """What each suffix earns by kind of question, and how often each prompter writes it.

    value: mean held-out reward [suffixes, kinds]. shares: by configuration, the share of each
    suffix within a kind [suffixes, kinds]; a share below one per cent is left blank.
    """
    kinds = [k for k in KIND_LABELS if k in value.columns]
    panels = {"what it earns": (value, ".2f", "viridis")}
    panels |= {name: (share, ".0%", "Blues") for name, share in shares.items()}
    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.9 * len(panels) + 1.5, 0.36 * len(value) + 1.4), sharey=True
    )
    for axes, (name, (numbers, form, colors)) in zip(grid, panels.items()):
        numbers = numbers.reindex(index=value.index, columns=kinds, fill_value=0.0)
        labels = np.vectorize(lambda v, form=form: format(v, form) if v >= 0.01 else "")(numbers)
        shown = numbers.rename(columns=KIND_LABELS, index=verbatim)
        sns.heatmap(
            shown, annot=labels, fmt="", cmap=colors, vmin=0, vmax=1, ax=axes, cbar=False,
            annot_kws={"fontsize": 9},
        )  # fmt: skip
        axes.set(title=name, xlabel="", ylabel="")
    return figure
