"""RLHF beside the prompter: what each run cost, and the samples that estimate both optima.

Everything is computed from the tables and metrics in `results/`. Nothing is generated or trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from alignpro.runs import STEP_PARTS
from alignpro.statistics import reward_array
from alignpro.theory.from_samples import Front
from alignpro.theory.gibbs import Array

RUN = ["configuration", "dataset", "architecture", "seed"]


def spent(metrics: pd.DataFrame) -> pd.DataFrame:
    """`metrics` (of `matrix_metrics`) with what each run had cost after each of its steps.

    Adds cumulative `seconds` (of training itself, as the cards count them) and `tokens` (generated,
    by the policy and by the frozen LLM that answers it).
    """
    step = metrics.assign(
        seconds=metrics[list(STEP_PARTS)].sum(axis=1), tokens=metrics["val/generated_tokens"]
    )
    return metrics.join(step.groupby(RUN)[["seconds", "tokens"]].cumsum())


def with_tokens(table: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """`table`, the answers of all runs, with the `training_tokens` that each of them generated.

    `metrics` are those of `matrix_metrics`. NaN for a configuration that is not trained, and where
    no metrics are kept.
    """
    if metrics.empty:
        return table.assign(training_tokens=np.nan)
    tokens = metrics.groupby(RUN)["val/generated_tokens"].sum()
    return table.join(tokens.rename("training_tokens"), on=RUN)


def at_equal_cost(runs: pd.DataFrame, unit: str, window: int = 5) -> pd.DataFrame:
    """Training reward of each run at its start, at the total cost of the cheapest, and at its end.

    `runs` comes from `spent`. `unit` is "seconds" or "tokens". Each reward is a mean over `window`
    batches.
    """
    groups = runs.groupby(RUN)
    budget = groups[unit].max().min()
    rows = {}
    for name, run in groups:
        score, within = run["objective/scores"], run[unit] <= budget
        rows[name] = {
            f"{unit} in all": run[unit].iloc[-1],
            "start": score.head(window).mean(),
            f"after {budget:,.0f} {unit}": score[within].tail(window).mean(),
            "end": score.tail(window).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(RUN)


def last_steps(runs: pd.DataFrame, steps: int = 10) -> pd.DataFrame:
    """Mean reward and mean KL (nats per completion) of each run's last `steps` batches."""
    last = runs.groupby(RUN).tail(steps)
    means = last.groupby(RUN)[["objective/scores", "objective/kl"]].mean()
    return means.set_axis(["reward", "kl"], axis=1)


def answer_rewards(table: pd.DataFrame, configuration: str) -> Array:
    """Rewards [X, M] of the M answers to each prompt under one configuration, all runs pooled.

    Raises ValueError if some prompt has fewer answers than others.
    """
    return np.concatenate(list(reward_array(table, configuration)), axis=1)


def rewrite_rewards(table: pd.DataFrame, suffixes: Sequence[str], by: str = "id") -> Array:
    """Rewards [X, N, M] of M answers to X prompts with each of N suffixes, all runs pooled.

    `table` holds the suffix tables of several runs, which ask the same frozen LLM. With `by` "kind"
    the X rows are kinds of question, for a prompter that reads only the kind. If each kind has an
    even number of prompts, the two halves that `prompter_front` makes of the answers come from
    different prompts. M is the number of answers that every row has. Raises ValueError if a row
    lacks a suffix.
    """
    part = table[table["configuration"].isin(suffixes)]
    part = part.sort_values(["seed", "sample", "id"], kind="stable")
    answer = part.groupby([by, "configuration"]).cumcount()
    wide = part.assign(answer=answer).pivot(
        index=[by, "configuration"], columns="answer", values="reward"
    )
    rows = part[by].nunique()
    if len(wide) != rows * len(suffixes):
        raise ValueError(f"not every {by} was answered with each of the {len(suffixes)} suffixes")
    return wide.dropna(axis="columns").to_numpy().reshape(rows, len(suffixes), -1)


def front_table(front: Front, configuration: str, name: str) -> pd.DataFrame:
    """`front` as a table with one row per temperature, for `figures.rlhf.on_gibbs_fronts`."""
    return pd.DataFrame(
        {
            "configuration": configuration,
            "front": name,
            "temperature": front.temperature,
            "kl": front.kl,
            "reward": front.reward,
            "low": front.reward_interval[:, 0],
            "high": front.reward_interval[:, 1],
            "ess": front.ess,
        }
    )


def against_fronts(ends: pd.DataFrame, fronts: pd.DataFrame) -> pd.DataFrame:
    """`ends` (of `last_steps`) with the reward that each front of its configuration has at its KL.

    `fronts` are tables of `front_table`. The reward is NaN if the front's samples do not reach the
    KL.
    """
    columns = {}
    for (configuration, name), front in fronts.groupby(["configuration", "front"], sort=False):
        front = front.sort_values("kl")
        mine = ends.index.get_level_values("configuration") == configuration
        at = np.interp(ends["kl"].clip(lower=0), front["kl"], front["reward"], right=np.nan)
        columns[name] = np.where(mine, at, np.nan)
    return ends.assign(**columns).dropna(axis="columns", how="all")
