"""Figures of one run: the reward, the training, the evaluation, and the memory of a planned run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from alignpro.figures.style import COLORS, KIND_LABELS, STEP_LABELS


def suffix_heatmap(table: pd.DataFrame) -> Figure:
    """Mean reward by suffix (rows, best overall first) and kind of question (columns)."""
    means = table.pivot_table(index="configuration", columns="kind", values="reward")
    means = means[[k for k in KIND_LABELS if k in means]].rename(columns=KIND_LABELS)
    means["all"] = means.mean(axis=1)
    means = means.sort_values("all", ascending=False)
    figure, axes = plt.subplots(figsize=(7.5, 0.36 * len(means) + 1.2))
    sns.heatmap(
        means, annot=True, fmt=".2f", cmap="cividis", ax=axes, cbar_kws={"label": "mean reward r*"}
    )
    axes.set(xlabel="", ylabel="", title="No suffix is best for every kind of question")
    axes.tick_params(axis="x", labelsize=9)
    axes.axvline(len(means.columns) - 1, color="white", linewidth=4)
    return figure


def similarity_maps(maps: dict[str, np.ndarray], kinds: Sequence[str]) -> Figure:
    """How alike prompts look to an adapter: one map [N, N] per title, for `kinds` [N] in order."""
    figure, grid = plt.subplots(1, len(maps), figsize=(4.6 * len(maps) + 0.8, 4.6), squeeze=False)
    names = list(dict.fromkeys(kinds))
    ends = np.cumsum([list(kinds).count(name) for name in names])
    middles = ends - np.diff(ends, prepend=0) / 2
    for axes, (title, values) in zip(grid[0], maps.items()):
        image = axes.imshow(values, vmin=-1, vmax=1, cmap="PuOr", extent=(0, ends[-1], ends[-1], 0))
        for end in ends[:-1]:
            axes.axhline(end, color="black", lw=0.6)
            axes.axvline(end, color="black", lw=0.6)
        labels = [KIND_LABELS.get(name, name) for name in names]
        axes.set_xticks(middles, labels, rotation=40, ha="right", fontsize=9)
        axes.set_yticks(middles, labels, fontsize=9)
        axes.grid(False)
        axes.set_title(title, fontsize=11)
    figure.colorbar(image, ax=grid[0].tolist(), shrink=0.8, label="mean cosine of A h")
    return figure


def learning_curve(metrics: pd.DataFrame, baselines: dict[str, float] | None = None) -> Figure:
    """Reward, KL, entropy and output variety of training batches against the PPO step."""
    panels = {
        "objective/scores": "mean reward of the batch",
        "objective/kl": "KL(ρ‖ρ_sft), nats per sequence",
        "objective/entropy": "entropy, nats per sequence",
        "val/distinct_outputs": "share of distinct outputs",
    }
    figure, grid = plt.subplots(2, 2, figsize=(9, 5.6), sharex=True)
    for axes, (name, label) in zip(grid.flat, panels.items()):
        axes.plot(metrics["step"], metrics[name], color=COLORS["Align-Pro"], alpha=0.35, lw=1)
        smooth = metrics[name].rolling(5, center=True, min_periods=1).mean()
        axes.plot(metrics["step"], smooth, color=COLORS["Align-Pro"], lw=2.2)
        axes.set_title(label, fontsize=11)
    for axes in grid[1]:
        axes.set_xlabel("PPO step")
    for name, value in (baselines or {}).items():
        grid[0, 0].axhline(value, color=COLORS[name], ls="--", lw=1.4, label=name)
    if baselines:
        grid[0, 0].legend(fontsize=9, loc="lower right")
    grid[0, 1].axhline(0, color="#999999", lw=0.8)
    return figure


def step_times(metrics: pd.DataFrame) -> Figure:
    """Median seconds of each part of a PPO step, as one stacked bar."""
    seconds = metrics[[f"time/{part}" for part in STEP_LABELS]].median()
    figure, axes = plt.subplots(figsize=(9, 1.9))
    left = 0.0
    colors = sns.color_palette("colorblind", len(STEP_LABELS))
    for label, took, color in zip(STEP_LABELS.values(), seconds, colors):
        axes.barh(0, took, left=left, color=color, label=f"{label} {took:.1f} s")
        left += took
    axes.set(yticks=[], xlabel="median seconds of a step", title=f"One step takes {left:.1f} s")
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.7), fontsize=9)
    return figure


def recipe_trials(trials: pd.DataFrame) -> Figure:
    """Validation reward and reading of each trial of the recipe study, one dot per seed.

    Columns of `trials`: trial, reward, standard_error, best_constant, best_per_kind and
    mutual_information (nats). Error bars are one standard error over prompts.
    """
    names = list(dict.fromkeys(trials["trial"]))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.5 * len(names) + 1.6), sharey=True, width_ratios=(3, 2)
    )
    color = COLORS["Align-Pro"]
    for height, name in enumerate(names):
        rows = trials[trials["trial"] == name]
        spots = height + 0.16 * (np.arange(len(rows)) - (len(rows) - 1) / 2)
        error = rows["standard_error"]
        left.errorbar(rows["reward"], spots, xerr=error, fmt="o", color=color, capsize=3, lw=1.2)
        right.plot(rows["mutual_information"], spots, "o", color=color)
    lines = {
        "Best constant suffix": "best_constant",
        "Best suffix, told the kind": "best_per_kind",
    }
    for name, column in lines.items():
        left.axvline(trials[column].iloc[0], color=COLORS[name], ls="--", lw=1.6, label=name)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("mean reward on validation prompts")
    left.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    right.set_xlabel("information on the kind, nats")
    right.set_xlim(0, np.log(5))
    return figure


def _bars(axes, rewards: pd.DataFrame, column: str, label: str) -> None:
    names = list(rewards.index)
    for x, name in enumerate(names):
        row = rewards.loc[name]
        value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
        axes.bar(x, value, color=COLORS[name], width=0.7)
        axes.errorbar(x, value, [[value - low], [high - value]], color="#222222", capsize=4, lw=1.4)
        axes.annotate(f"{value:.3f}", (x, high), ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(names)), [textwrap.fill(n, 13) for n in names], fontsize=9)
    axes.set_ylabel(label)
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)


def mean_reward(rewards: pd.DataFrame, dataset: str) -> Figure:
    """Mean held-out reward with 95 % intervals, as in the paper's Figure 2, for one dataset.

    `rewards` is a table of `reward_summary`.
    """
    figure, axes = plt.subplots(figsize=(8, 4))
    _bars(axes, rewards, "mean", "mean reward r*")
    axes.set_title(f"Mean reward on held-out prompts, {dataset}")
    return figure


def reward_variance(rewards: pd.DataFrame, dataset: str) -> Figure:
    """Variance of the reward, as in the paper's Figure 3, and its two sources, for one dataset."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2))
    _bars(left, rewards, "variance", "variance of the reward")
    left.set_title(f"Variance on held-out prompts, {dataset}")
    names = list(rewards.index)
    right.barh(names, rewards["within"], color=[COLORS[n] for n in names], label="within a prompt")
    right.barh(
        names,
        rewards["across"],
        left=rewards["within"],
        color=[COLORS[n] for n in names],
        alpha=0.4,
        label="across prompts",
    )
    right.invert_yaxis()
    right.set(xlabel="variance", title="Within a prompt (solid), across (pale)")
    right.grid(axis="y", visible=False)
    return figure


def paired_change(means: pd.DataFrame, base: str, better: str, kinds: pd.Series) -> Figure:
    """Each held-out prompt's mean reward before and after, sorted by its change, by kind."""
    change = (means[better] - means[base]).rename("change").to_frame().assign(kind=kinds)
    order = [k for k in KIND_LABELS if k in set(change["kind"])]
    figure, axes = plt.subplots(figsize=(8, 3.8))
    rng = np.random.default_rng(0)
    for x, kind in enumerate(order):
        values = change.loc[change["kind"] == kind, "change"]
        axes.scatter(
            x + rng.uniform(-0.18, 0.18, len(values)), values, s=26, alpha=0.7, color=COLORS[better]
        )
        axes.hlines(values.mean(), x - 0.32, x + 0.32, color="#222222", lw=2.2)
    axes.axhline(0, color="#777777", lw=1)
    axes.set_xticks(range(len(order)), [KIND_LABELS[k] for k in order])
    axes.set_ylabel("change of mean reward")
    axes.set_title(f"{better} − {base}, one dot per prompt (line: mean of the kind)")
    return figure


def reward_by_kind(table: pd.DataFrame) -> Figure:
    """Mean reward by kind of question and configuration, with 95 % intervals over prompts."""
    means = table.groupby(["configuration", "kind", "id"], sort=False)["reward"].mean()
    figure, axes = plt.subplots(figsize=(10, 4))
    sns.barplot(
        means.reset_index(),
        x="kind",
        y="reward",
        hue="configuration",
        order=[k for k in KIND_LABELS if k in set(table["kind"])],
        palette=COLORS,
        errorbar=("ci", 95),
        seed=0,
        err_kws={"linewidth": 1.2},
        ax=axes,
    )
    axes.set_xticks(axes.get_xticks(), [KIND_LABELS[t.get_text()] for t in axes.get_xticklabels()])
    axes.set(xlabel="", ylabel="mean reward r*", title="Where the gain comes from")
    axes.legend(title="", fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return figure


def run_means(runs: pd.DataFrame, title: str) -> Figure:
    """Mean held-out reward by configuration: one dot per run, a bar for the mean over runs."""
    names = [name for name in COLORS if name in runs]
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for x, name in enumerate(names):
        values = runs[name]
        axes.hlines(values.mean(), x - 0.3, x + 0.3, color=COLORS[name], lw=4)
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axes.scatter(x + np.asarray(offsets), values, color=COLORS[name], s=42, zorder=3)
        axes.annotate(f"{values.mean():.3f}", (x + 0.33, values.mean()), va="center", fontsize=9)
    axes.set_xticks(range(len(names)), [textwrap.fill(n, 13) for n in names], fontsize=9)
    axes.set(ylabel="mean held-out reward r*", title=title)
    axes.grid(axis="x", visible=False)
    return figure


PART_COLORS = {
    "weights": "#0072B2",
    "adapter": "#56B4E9",
    "optimizer": "#CC79A7",
    "gradients": "#7f7f7f",
    "cache": "#009E73",
    "logits": "#F0E442",
    "activations": "#E69F00",
}


def memory_by_stage(stages: pd.DataFrame, memory: float, title: str) -> Figure:
    """Memory of each stage in GB by part, one panel per architecture, with the GPU's `memory`."""
    names = list(stages["architecture"].unique())
    figure, grid = plt.subplots(
        len(names), 1, figsize=(8, 0.6 + 1.55 * len(names)), sharex=True, squeeze=False
    )
    for axes, name in zip(grid.flat, names):
        rows = stages[stages["architecture"] == name].set_index("stage")
        parts = rows[list(PART_COLORS)].astype(float) / 1e9
        parts.plot.barh(stacked=True, ax=axes, width=0.8, color=PART_COLORS, legend=False)
        axes.axvline(memory / 1e9, color="#333333", linestyle="--", linewidth=1)
        axes.set_ylabel(f"{name}\n{rows['configuration'].iloc[0]}", fontsize=9)
        axes.tick_params(axis="y", labelsize=8)
        axes.invert_yaxis()
    grid[-1, 0].set_xlabel("GB, computed; dashed: the GPU's memory")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure
