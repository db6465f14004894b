"""Figures of reward learning: how good the learned reward is, and what optimising it does."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

PROXY, GOLD, CEILING = "#D55E00", "#009E73", "#777777"


def accuracy_curve(accuracy: pd.DataFrame) -> Figure:
    """Held-out accuracy by number of training pairs, below the noise ceiling."""
    figure, axes = plt.subplots(figsize=(7.5, 4))
    marks = {"accuracy": ("#56B4E9", "s"), "expected accuracy": ("#0072B2", "o")}
    for shift, (measure, (color, mark)) in zip((0.97, 1.03), marks.items()):
        part = accuracy[accuracy["measure"] == measure]
        errors = [part["value"] - part["low"], part["high"] - part["value"]]
        axes.errorbar(
            part["pairs"] * shift, part["value"], errors, color=color, marker=mark, capsize=3,
            label=f"{measure}, learned reward",
        )  # fmt: skip
    ceiling = accuracy[accuracy["measure"] == "noise ceiling"].iloc[0]
    axes.axhline(ceiling["value"], color=CEILING, ls="--", label="noise ceiling: r* itself")
    axes.axhspan(ceiling["low"], ceiling["high"], color=CEILING, alpha=0.15, lw=0)
    axes.axhline(0.5, color="#222222", lw=0.8)
    axes.set_xscale("log")
    ticks = sorted(accuracy["pairs"].unique())
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training pairs", ylabel="held-out accuracy")
    axes.set_title("Accuracy by number of pairs, and its ceiling")
    axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, 0.86))
    return figure


def reliability_diagram(table: pd.DataFrame) -> Figure:
    """Predicted against observed preference, with 95 % Wilson intervals. A dot's area is n."""
    figure, axes = plt.subplots(figsize=(5, 4.6))
    axes.plot([0, 1], [0, 1], color=CEILING, ls="--", lw=1.2)
    axes.vlines(table["predicted"], table["low"], table["high"], color=PROXY, lw=1.4)
    area = 20 + 180 * table["pairs"] / table["pairs"].max()
    axes.scatter(table["predicted"], table["observed"], s=area, color=PROXY, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(
        xlabel="predicted P(first preferred)", ylabel="share of pairs that the first answer won"
    )
    axes.set_title("Is a predicted 80 % right 80 times in 100?")
    return figure


def selection(curves: dict[str, pd.DataFrame]) -> Figure:
    """Gains of the best of n answers, by learned and gold reward, one panel per learned reward."""
    figure, grid = plt.subplots(
        1, len(curves), figsize=(4.6 * len(curves), 4), sharey=True, squeeze=False
    )
    for axes, (name, curve) in zip(grid[0], curves.items()):
        _proxy_and_gold(axes, curve, "sqrt_kl")
        axes.set(xlabel="√KL from the answers' distribution, √nats", title=name)
    grid[0, 0].set_ylabel("gain over a single answer, in units of r*")
    grid[0, 0].legend(fontsize=9)
    return figure


def leash(curve: pd.DataFrame) -> Figure:
    """What the estimated optimum of Eq. 4 gains at each β (column `lam`), by both rewards."""
    figure, axes = plt.subplots(figsize=(7.5, 4))
    _proxy_and_gold(axes, curve, "lam")
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set(xlabel="β (to the right, the leash is looser)", ylabel="gain, in units of r*")
    axes.set_title("The estimated optimum against the learned reward")
    axes.legend(fontsize=9)
    return figure


def _proxy_and_gold(axes, curve: pd.DataFrame, x: str) -> None:
    axes.plot(curve[x], curve["proxy"], color=PROXY, marker="s", label="learned reward")
    axes.plot(curve[x], curve["gold"], color=GOLD, marker="o", label="gold reward r*")
    axes.fill_between(curve[x], curve["gold_low"], curve["gold_high"], color=GOLD, alpha=0.2, lw=0)
    axes.axhline(0, color="#222222", lw=0.8)


def trained_prompters(metrics: pd.DataFrame) -> Figure:
    """PPO on the learned reward: both rewards of the batches against √KL, one panel per λ.

    Dots are batches. Lines are running means of nine, in the order of the steps. Both are gains
    over the mean of the first three batches, since a learned reward has no zero.
    """
    lams = list(metrics["lam"].unique())
    figure, grid = plt.subplots(
        1, len(lams), figsize=(4.6 * len(lams), 4), sharey=True, squeeze=False
    )
    rewards = {"objective/scores": (PROXY, "learned reward"), "objective/gold": (GOLD, "gold r*")}
    for axes, lam in zip(grid[0], lams):
        run = metrics[metrics["lam"] == lam].sort_values("step")
        root = np.sqrt(run["objective/kl"].clip(lower=0))
        for name, (color, label) in rewards.items():
            gain = run[name] - run[name].iloc[:3].mean()
            axes.scatter(root, gain, s=12, alpha=0.35, color=color)
            means = [v.rolling(9, center=True, min_periods=1).mean() for v in (root, gain)]
            axes.plot(*means, color=color, lw=2, label=label)
        axes.axhline(0, color="#222222", lw=0.8)
        axes.set(xlabel="√KL(ρ‖ρ_sft), √nats per sequence", title=f"λ = {lam:g}")
    grid[0, 0].set_ylabel("gain of a training batch, in units of r*")
    grid[0, 0].legend(fontsize=9)
    return figure
