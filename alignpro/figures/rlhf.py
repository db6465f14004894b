"""Figures of RLHF beside the prompter: reward against cost, and runs beside the Gibbs fronts."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from alignpro.figures.style import COLORS

# A darker line is a better estimate of the same optimum. A dashed one is too high.
FRONTS = {
    "reads the prompt, split answers": ("#222222", "-"),
    "reads the prompt, same answers": ("#222222", "--"),
    "reads the kind alone, split answers": ("#8a8a8a", "-"),
    "reads the kind alone, same answers": ("#8a8a8a", "--"),
    "ceiling: fine-tuned from the mixture": ("#222222", ":"),
    "π*, all answers": ("#222222", "-"),
    "π*, half of the answers": ("#8a8a8a", "-"),
}
NATS = {"Align-Pro": "per rewrite", "RLHF": "per answer"}


def training_cost(runs: pd.DataFrame, untuned: float) -> Figure:
    """Reward of the training batches against minutes and generated tokens, one line per run.

    `runs` comes from `rlhf_cost.spent`. `untuned` is the held-out reward of No Fine-Tuning.
    """
    scales = {"seconds": (60, "minutes of training"), "tokens": (1000, "thousand tokens generated")}
    figure, grid = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axes, (unit, (size, label)) in zip(grid, scales.items()):
        for (name, _), run in runs.groupby(["configuration", "seed"]):
            smooth = run["objective/scores"].rolling(5, center=True, min_periods=1).mean()
            first = name not in axes.get_legend_handles_labels()[1]
            axes.plot(run[unit] / size, smooth, color=COLORS[name], label=name if first else None)
        axes.axhline(untuned, color=COLORS["No Fine-Tuning"], ls="--", label="No Fine-Tuning")
        axes.set(xlabel=label, xlim=(0, None))
    grid[0].set(ylabel="mean reward of the batch", title="Against time")
    grid[1].set_title("Against tokens")
    grid[1].legend(fontsize=9, loc="lower right")
    return figure


def on_gibbs_fronts(fronts: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Trained runs beside the estimated fronts, reward against √KL, one panel per configuration.

    `fronts` are tables of `rlhf_cost.front_table`, `runs` comes from `rlhf_cost.spent`. Dots are
    batches, lines are running means of 15, and a star is the mean of a run's last ten steps.
    """
    names = list(fronts["configuration"].unique())
    figure, grid = plt.subplots(1, len(names), figsize=(5.6 * len(names), 4.8), sharey=True)
    for axes, name in zip(np.atleast_1d(grid), names):
        for label, front in fronts[fronts["configuration"] == name].groupby("front", sort=False):
            color, dashes = FRONTS[label]
            axes.plot(np.sqrt(front["kl"]), front["reward"], color=color, ls=dashes, label=label)
        for _, run in runs[runs["configuration"] == name].groupby("seed"):
            _trajectory(axes, run, COLORS[name])
        axes.set(title=name, xlabel=f"√KL from its reference, √nats {NATS[name]}", xlim=(0, None))
        axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.17))
    np.atleast_1d(grid)[0].set_ylabel("mean reward r*")
    return figure


def _trajectory(axes, run: pd.DataFrame, color: str) -> None:
    kl, reward = run["objective/kl"].clip(lower=0), run["objective/scores"]
    axes.scatter(np.sqrt(kl), reward, s=8, color=color, alpha=0.25)
    kl_mean, reward_mean = (x.rolling(15, center=True, min_periods=8).mean() for x in (kl, reward))
    axes.plot(np.sqrt(kl_mean), reward_mean, color=color, lw=1.6)
    end = np.sqrt(kl.tail(10).mean()), reward.tail(10).mean()
    axes.scatter(*end, marker="*", s=190, color=color, edgecolor="white", zorder=4)
