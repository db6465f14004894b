"""Figures of all runs of a preset: counterparts of the paper's Figures 2 and 3, and more."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from alignpro.figures.style import COLORS, KIND_LABELS, verbatim


def paper_figure(cells: pd.DataFrame, column: str, label: str, title: str) -> Figure:
    """Bars by dataset and configuration as in the paper's Figures 2 and 3, by architecture.

    `cells` has the columns architecture, dataset, configuration, and `column` with its 95 %
    interval in `<column>_low` and `<column>_high`.
    """
    architectures = list(cells["architecture"].unique())
    figure, grid = plt.subplots(
        len(architectures), 1, figsize=(10, 3.9 * len(architectures)), squeeze=False, sharex=True
    )
    for axes, architecture in zip(grid.flat, architectures):
        _grouped_bars(axes, cells[cells["architecture"] == architecture], column)
        beside = f", {architecture}" if len(architectures) > 1 else ""
        axes.set(ylabel=label, title=title + beside)
    grid[-1, 0].legend(ncols=3, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return figure


def _grouped_bars(axes, cells: pd.DataFrame, column: str) -> None:
    datasets = list(cells["dataset"].unique())
    names = [n for n in COLORS if n in set(cells["configuration"])]
    width = 0.84 / len(names)
    for place, name in enumerate(names):
        rows = cells[cells["configuration"] == name].set_index("dataset").reindex(datasets)
        x = np.arange(len(datasets)) + (place - (len(names) - 1) / 2) * width
        value = rows[column].to_numpy()
        errors = [value - rows[f"{column}_low"], rows[f"{column}_high"] - value]
        axes.bar(x, value, width * 0.94, color=COLORS[name], label=name)
        axes.errorbar(x, value, errors, color="#222222", fmt="none", capsize=2.5, lw=1.1)
    axes.set_xticks(range(len(datasets)), datasets)
    axes.grid(axis="x", visible=False)


def reward_distributions(table: pd.DataFrame, configurations: Sequence[str]) -> Figure:
    """Rewards of single answers by configuration: density, quartiles, and one dot per prompt.

    If a dataset has no answers of a configuration, the row is empty there.
    """
    datasets = list(table["dataset"].unique())
    figure, grid = plt.subplots(
        1, len(datasets), figsize=(4.6 * len(datasets) + 1.5, 0.8 * len(configurations) + 1.2),
        squeeze=False, sharey=True, sharex=True,
    )  # fmt: skip
    for axes, dataset in zip(grid.flat, datasets):
        part = table[table["dataset"] == dataset]
        for row, name in enumerate(configurations):
            if name in set(part["configuration"]):
                _raincloud(axes, part[part["configuration"] == name], row, COLORS[name])
        axes.set(xlabel="reward r*", title=dataset, xlim=(-0.02, 1.02))
    grid[0, 0].set_yticks(range(len(configurations)), configurations)
    grid[0, 0].invert_yaxis()
    return figure


def _raincloud(axes, part: pd.DataFrame, row: int, color: str) -> None:
    rewards = part["reward"].to_numpy()
    parts = axes.violinplot(
        rewards, [row], orientation="horizontal", widths=0.9, showextrema=False, side="low"
    )
    parts["bodies"][0].set(facecolor=color, alpha=0.75)
    low, middle, high = np.quantile(rewards, [0.25, 0.5, 0.75])
    axes.hlines(row, low, high, color="#222222", lw=3)
    axes.plot(middle, row, "o", color="white", ms=4, zorder=3)
    dots = part.groupby("id")["reward"].mean().to_numpy()
    shaken = row + 0.18 + np.random.default_rng(0).uniform(0, 0.2, len(dots))
    axes.scatter(dots, shaken, s=7, color=color, alpha=0.6)


def learning_bands(metrics: pd.DataFrame) -> Figure:
    """Reward and KL of training batches, one colour per dataset: mean and range over the runs.

    `metrics` has one row per step and run: dataset, seed, step and TRL's metric names.
    """
    panels = {
        "objective/scores": "mean reward of the batch",
        "objective/kl": "KL(ρ‖ρ_sft), nats per rewrite",
    }
    figure, grid = plt.subplots(1, 2, figsize=(10, 3.8))
    for axes, (name, label) in zip(grid, panels.items()):
        for (dataset, part), color in zip(
            metrics.groupby("dataset", sort=False), sns.color_palette("colorblind")
        ):
            wide = part.pivot_table(index="step", columns="seed", values=name)
            wide = wide.rolling(5, center=True, min_periods=1).mean()
            axes.plot(wide.index, wide.mean(axis=1), color=color, lw=2, label=dataset)
            axes.fill_between(
                wide.index, wide.min(axis=1), wide.max(axis=1), color=color, alpha=0.2
            )
        axes.set(title=label, xlabel="PPO step")
    grid[0].legend(fontsize=9, loc="lower right")
    return figure


def suffix_shares(table: pd.DataFrame, configurations: Sequence[str], top: int = 12) -> Figure:
    """What the prompter writes: the share of each frequent suffix within a kind of question.

    There is one panel for each of `configurations`. The suffixes are the `top` most frequent ones
    of all panels together.
    """
    part = table[table["configuration"].isin(configurations)]
    suffix = [r.removeprefix(p).strip() or "(nothing)" for r, p in zip(part.rewrite, part.prompt)]
    part = part.assign(suffix=[verbatim(s) for s in suffix])
    frequent = part["suffix"].value_counts().index[:top]
    kinds = [k for k in KIND_LABELS if k in set(part["kind"])]
    figure, grid = plt.subplots(
        1, len(configurations), figsize=(5.2 * len(configurations) + 1, 0.36 * top + 1.4),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axes, name in zip(grid.flat, configurations):
        one = part[part["configuration"] == name]
        shares = pd.crosstab(one["suffix"], one["kind"], normalize="columns")
        shares = shares.reindex(index=frequent, columns=kinds, fill_value=0.0)
        sns.heatmap(
            shares.rename(columns=KIND_LABELS), annot=True, fmt=".0%", cmap="cividis",
            vmin=0, vmax=1, ax=axes, cbar=False, annot_kws={"fontsize": 9},
        )  # fmt: skip
        axes.set(title=name, xlabel="", ylabel="")
    return figure
