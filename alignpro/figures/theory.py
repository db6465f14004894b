"""Figures of the theory chapters: one function each, from a tidy DataFrame to matplotlib Axes.

Each docstring names the columns that the function reads. The two instances that the chapters
share, the coin and a random one, stand at the end.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.spatial import ConvexHull

from alignpro.figures.style import COLORS

# Okabe and Ito's colour-blind safe palette, for what is not one of the three configurations.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, BLACK, GREY = "#56B4E9", "#D55E00", "#000000", "#8C8C8C"

LAMBDA = r"$\lambda$  (loose leash $\leftarrow$  $\rightarrow$ stiff leash)"


def _axes(ax: Axes | None, width: float = 6.4, height: float = 3.8) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=(width, height))[1]


def _finish(ax: Axes, title: str, xlabel: str, ylabel: str, legend: bool = True) -> Axes:
    ax.set_title(title, loc="left", fontsize=11)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if legend:
        ax.legend(frameon=False, fontsize=9)
    return ax


def _lines(ax: Axes, frame: pd.DataFrame, x: str, y: str, by: str, styles: dict) -> None:
    for name, style in styles.items():
        part = frame[frame[by] == name]
        if len(part):
            ax.plot(part[x], part[y], label=name, **style)


# --- chapter 1 --------------------------------------------------------------------------------


def response_bars(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: policy (a key of COLORS), response, probability."""
    ax = _axes(ax)
    table = frame.pivot(index="response", columns="policy", values="probability")
    table = table[[name for name in COLORS if name in table]]
    table.plot.bar(ax=ax, rot=0, width=0.75, color=[COLORS[name] for name in table])
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    ax.margins(y=0.12)
    return _finish(ax, "What each policy answers", "", "probability")


def values_against_leash(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: leash, policy (a key of COLORS), J."""
    ax = _axes(ax)
    _lines(ax, frame, "leash", "J", "policy", {k: {"color": c, "lw": 2} for k, c in COLORS.items()})
    ax.set_xscale("log")
    label = r"leash: $\lambda$ of the prompter, $\beta$ of RLHF"
    title = "A looser leash earns more, up to a ceiling of its own"
    return _finish(ax, title, label, "mean reward J")


def simplex(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: kind, y1, y2, y3 (three responses, from the worst to the best).

    Kinds: "rewrite" (points and their hull), "frozen model", "RLHF" and "Align-Pro" (curves).
    """
    ax = _axes(ax, 5.6, 5.0)
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    flat = {k: part[["y1", "y2", "y3"]].to_numpy() @ corners for k, part in frame.groupby("kind")}
    ax.fill(*corners.T, fill=False, ec=GREY, lw=1)
    for (x, y), name, side in zip(corners, ["worst", "middling", "best answer"], [-1, -1, 1]):
        ax.annotate(
            name,
            (x, y),
            (0, 9 * side),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
        )
    points = flat["rewrite"]
    ax.fill(
        *points[ConvexHull(points).vertices].T,
        color=SKY,
        alpha=0.25,
        lw=0,
        label="what prompting can reach",
    )
    ax.plot(*points.T, "o", color=BLUE, ms=5, label=r"rewrites $\pi_F(\cdot|x')$")
    for name in ("RLHF", "Align-Pro"):
        ax.plot(*flat[name].T, color=COLORS[name], lw=2.5, label=f"{name}, every leash")
    star = {"color": BLACK, "ms": 13, "label": r"frozen model $\pi_F(\cdot|x)$"}
    ax.plot(*flat["frozen model"].T, "*", **star)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.axis("off")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(-0.12, 1.0))
    ax.set_title("A hull and a curve", loc="left", fontsize=11)
    return ax


# --- chapter 2 --------------------------------------------------------------------------------


def tilt_shares(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: lam, rewrite (ordered from the worst), g, probability."""
    ax = _axes(ax, 8.2)
    table = frame.pivot(index="lam", columns="rewrite", values="probability")
    shades = plt.get_cmap("cividis")(np.linspace(0, 1, len(table.columns)))
    g = frame.groupby("rewrite")["g"].first()
    labels = [f"g = {g[name]:.2f}" for name in table.columns]
    ax.stackplot(table.index, table.T, colors=shades, labels=labels, ec="white", lw=0.4)
    ax.set(xscale="log", ylim=(0, 1), xlim=(table.index.min(), table.index.max()))
    _finish(
        ax,
        "From the best rewrite to the untrained prompter",
        LAMBDA,
        r"share of each rewrite in $\rho^*$",
        legend=False,
    )
    handles, names = ax.get_legend_handles_labels()
    ax.legend(
        handles[::-1],
        names[::-1],
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return ax


def reward_and_kl(frame: pd.DataFrame) -> np.ndarray:
    """Columns: lam, J, kl, lam_kl. Three panels: reward, KL, and their product lam KL."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
    panels = [
        ("J", COLORS["Align-Pro"], r"reward $J_\lambda$"),
        ("kl", BLACK, r"KL$(\rho^*\|\rho_{sft})$, nats"),
        ("lam_kl", VERMILION, r"$\lambda\,$KL, in units of reward"),
    ]
    for ax, (name, color, title) in zip(axes, panels):
        ax.plot(frame["lam"], frame[name], color=color, lw=2)
        ax.set_xscale("log")
        _finish(ax, title, r"$\lambda$", "", legend=False)
    return axes


def training_regret(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: step, regret, lam_kl (= lam KL(rho || rho*)), of a prompter in training."""
    ax = _axes(ax)
    ax.plot(frame["step"], frame["regret"], color=SKY, lw=5, label=r"regret $F(\rho^*)-F(\rho)$")
    ax.plot(
        frame["step"],
        frame["lam_kl"],
        color=BLACK,
        lw=1.2,
        ls="--",
        label=r"$\lambda\,$KL$(\rho\,\|\,\rho^*)$",
    )
    ax.set_yscale("log")
    return _finish(ax, "The regret is a KL, at every step", "step of gradient ascent", "reward")


# --- chapter 3 --------------------------------------------------------------------------------

TERM_STYLES = {
    "term 1": {"color": ORANGE, "lw": 1.6, "ls": "--"},
    "term 2": {"color": PINK, "lw": 1.6, "ls": "--"},
    "term 3 (subtracted)": {"color": VERMILION, "lw": 1.6, "ls": ":"},
    "bound of Theorem 6.1": {"color": BLUE, "lw": 2.4},
    "gap": {"color": BLACK, "lw": 2.4},
}


def terms_against_lambda(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: lam, term (a key of TERM_STYLES), value."""
    ax = _axes(ax, 8.2)
    _lines(ax, frame, "lam", "value", "term", TERM_STYLES)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xscale("log")
    _finish(ax, "The bound turns back up where the gap is smallest", LAMBDA, "reward", legend=False)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def two_humps(frame: pd.DataFrame, level: float, ax: Axes | None = None) -> Axes:
    """Columns: lam, lam_kl. ``level`` is the sum of terms 1 and 2, drawn as a dashed line."""
    ax = _axes(ax, 6.4, 3.2)
    ax.plot(frame["lam"], frame["lam_kl"], color=VERMILION, lw=2, label=r"term 3, $\lambda\,$KL")
    ax.axhline(level, color=BLACK, lw=1.2, ls="--", label="terms 1 and 2")
    ax.set(xscale="log", yscale="log", ylim=(level / 20, None))
    return _finish(ax, "The third term can have two maxima", LAMBDA, r"$\lambda\,$KL")


# --- chapter 4 --------------------------------------------------------------------------------

FRONT_STYLES = {
    "fine-tuning from the mixture": {"color": VERMILION, "lw": 2, "ls": "--"},
    "fine-tuning from the frozen model": {"color": COLORS["RLHF"], "lw": 2},
    "optimal prompter (Gibbs front)": {"color": COLORS["Align-Pro"], "lw": 2.4},
    "best-of-n rewrites": {"color": BLACK, "marker": "o", "ms": 5, "ls": "none"},
}


def pareto_front(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: strategy (a key of FRONT_STYLES), kl (to its own reference), reward."""
    ax = _axes(ax)
    _lines(ax, frame, "kl", "reward", "strategy", FRONT_STYLES)
    label = "KL to its own reference, nats per prompt"
    return _finish(ax, "Reward that a nat of KL buys", label, "mean reward J")


def stacked_gap(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: lam, gap, fine_tuning (beta Jeff), rewriting (J(pi_F) - J_0), learning (lam Jeff)"""
    ax = _axes(ax, 8.2)
    lam, low = frame["lam"], np.minimum(frame["rewriting"], 0)
    high = np.maximum(frame["rewriting"], 0)
    ax.fill_between(
        lam,
        0,
        frame["fine_tuning"],
        color=ORANGE,
        alpha=0.55,
        lw=0,
        label=r"+ fine-tuning gains, $\beta$ Jeff",
    )
    ax.fill_between(
        lam,
        frame["fine_tuning"],
        frame["fine_tuning"] + high,
        color=PINK,
        alpha=0.55,
        lw=0,
        label=r"+ blind rewriting, $J(\pi_F)-J_0$",
    )
    ax.fill_between(lam, low, 0, color=PINK, alpha=0.55, lw=0)
    ax.fill_between(
        lam,
        low - frame["learning"],
        low,
        color=SKY,
        alpha=0.55,
        lw=0,
        label=r"$-$ the prompter learns, $\lambda$ Jeff",
    )
    ax.plot(lam, frame["gap"], color=BLACK, lw=2.4, label=r"the gap $\Delta$, their sum")
    ax.set_xscale("log")
    _finish(ax, "The gap, exactly: three parts", LAMBDA, "reward", legend=False)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


BOUND_STYLES = {
    "Theorem 6.1 (paper)": {"color": BLUE, "lw": 2},
    "Jeffreys bound": {"color": ORANGE, "lw": 2, "ls": "--"},
    "mixture bound": {"color": GREEN, "lw": 2, "ls": "-."},
    "gap": {"color": BLACK, "lw": 2.4},
    "floor (no leash)": {"color": GREY, "lw": 1.4, "ls": ":"},
}


def bounds_against_lambda(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: lam, bound (a key of BOUND_STYLES), value."""
    ax = _axes(ax, 8.2)
    _lines(ax, frame, "lam", "value", "bound", BOUND_STYLES)
    ax.set_xscale("log")
    _finish(ax, "Three upper bounds, each sharper than the last", LAMBDA, "reward", legend=False)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def bound_scatter(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: bound (a key of BOUND_STYLES), gap, value, for rewards of range 1."""
    ax = _axes(ax, 7.4, 5.0)
    low, high = frame["gap"].min() - 0.05, max(1.1, frame["value"].max()) + 0.05
    ax.axhspan(1, high, color=GREY, alpha=0.18, lw=0)
    ax.text(low + 0.03, high - 0.05, "vacuous: above the reward's range", fontsize=9, va="top")
    for name, marker in (("Theorem 6.1 (paper)", "o"), ("mixture bound", "^")):
        part, color = frame[frame["bound"] == name], BOUND_STYLES[name]["color"]
        ax.plot(part["gap"], part["value"], marker, color=color, ms=3.5, alpha=0.6, label=name)
    ax.plot([low, 1], [low, 1], color=BLACK, lw=1, label="bound = gap")
    ax.set(xlim=(low, frame["gap"].max() + 0.05), ylim=(low, high))
    _finish(ax, "Bound against gap on random instances", r"gap $\Delta$", "bound", legend=False)
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1), markerscale=1.8)
    return ax


def phase_diagram(frame: pd.DataFrame, border: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """``frame``: beta, lam, delta on a grid. ``border``: beta, lam_c."""
    ax = _axes(ax)
    table = frame.pivot(index="lam", columns="beta", values="delta")
    size = float(np.quantile(np.abs(table.to_numpy()), 0.8))
    mesh = ax.pcolormesh(
        table.columns,
        table.index,
        table,
        cmap="PuOr_r",
        shading="nearest",
        vmin=-size,
        vmax=size,
        rasterized=True,
    )
    ax.plot(border["beta"], border["lam_c"], color=BLACK, lw=2.2, label=r"$\lambda_c(\beta)$")
    ax.set(
        xscale="log",
        yscale="log",
        xlim=(table.columns.min(), table.columns.max()),
        ylim=(table.index.min(), table.index.max()),
    )
    ax.figure.colorbar(mesh, ax=ax, extend="both", label=r"gap $\Delta$: RLHF minus prompter")
    box = {"boxstyle": "round", "fc": "white", "ec": "none", "alpha": 0.75}
    ax.text(0.03, 0.93, "RLHF ahead", transform=ax.transAxes, bbox=box)
    ax.text(0.97, 0.05, "prompting ahead", ha="right", transform=ax.transAxes, bbox=box)
    title, label = "When does prompting beat RLHF?", r"$\lambda$  (leash of the prompter)"
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    return _finish(ax, title, r"$\beta$  (leash of RLHF)", label, legend=False)


def sandwich(frame: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """Columns: lam, floor, exact, ceiling."""
    ax = _axes(ax, 6.4, 3.4)
    ax.fill_between(
        frame["lam"],
        frame["floor"],
        frame["ceiling"],
        color=SKY,
        alpha=0.35,
        lw=0,
        label="between floor and ceiling",
    )
    ax.plot(frame["lam"], frame["exact"], color=BLACK, lw=2, label="exact")
    ax.set_xscale("log")
    return _finish(ax, title, LAMBDA, "reward")


# --- two instances ----------------------------------------------------------------------------


# --- chapter 5 --------------------------------------------------------------------------------

NOISE_STYLES = {
    "loss in the objective": {"color": BLUE, "lw": 2.2},
    "its ceiling": {"color": BLUE, "lw": 1.4, "ls": "--"},
    "loss of reward": {"color": VERMILION, "lw": 2.2},
    "ceiling on the reward": {"color": VERMILION, "lw": 1.4, "ls": "--"},
}


def noise_cost(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: lam, what (a key of NOISE_STYLES), value > 0."""
    ax = _axes(ax, 8.2)
    _lines(ax, frame, "lam", "value", "what", NOISE_STYLES)
    ax.set(xscale="log", yscale="log")
    _finish(ax, "What noise in the frozen model costs", LAMBDA, "reward", legend=False)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def fragility(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: eta, policy (RLHF or Align-Pro), what (moved or ceiling), tv."""
    ax = _axes(ax)
    for name in ("RLHF", "Align-Pro"):
        for what, style in (("moved", "-"), ("ceiling", "--")):
            part = frame[(frame["policy"] == name) & (frame["what"] == what)]
            label = f"{name}, {'moved' if what == 'moved' else 'ceiling of C17'}"
            ax.plot(part["eta"], part["tv"], style, color=COLORS[name], lw=2, label=label)
    ax.set(xscale="log", yscale="log")
    label = r"$\eta$: how far the frozen model moved, TV"
    return _finish(ax, "How far the same noise moves each optimum", label, "TV of the answers")


PART_STYLES = {
    "within rewrites": ORANGE,
    "between rewrites": SKY,
    "across prompts": PINK,
}


def variance_parts(frame: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """Columns: lam, and one for each part of the variance (the keys of PART_STYLES)."""
    ax = _axes(ax)
    parts = list(PART_STYLES)
    colors = list(PART_STYLES.values())
    ax.stackplot(frame["lam"], frame[parts].T, colors=colors, labels=parts, alpha=0.7, lw=0)
    ax.plot(frame["lam"], frame[parts].sum(axis=1), color=BLACK, lw=2, label="all answers")
    ax.set_xscale("log")
    _finish(ax, title, LAMBDA, "variance of the reward", legend=False)
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax


def drift_terms(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Columns: dataset, term, value, low, high. One group of points per dataset, with intervals."""
    ax = _axes(ax, 7.4)
    terms, datasets = list(frame["term"].unique()), list(frame["dataset"].unique())
    colors = [*PART_STYLES.values(), BLACK]
    for i, term in enumerate(terms):
        part = frame[frame["term"] == term].set_index("dataset").loc[datasets]
        x = np.arange(len(datasets)) + (i - (len(terms) - 1) / 2) * 0.17
        bars = np.abs(part[["low", "high"]].T.to_numpy() - part["value"].to_numpy())
        ax.errorbar(x, part["value"], bars, fmt="o", ms=5, capsize=3, color=colors[i], label=term)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xticks(range(len(datasets)), datasets)
    _finish(
        ax,
        "Which way the variance moves, before any training",
        "",
        r"slope of the variance in $1/\lambda$",
        legend=False,
    )
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
