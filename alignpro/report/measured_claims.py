"""The paper's experiment, claim by claim: a difference, its interval, and what they rest on.

Each measure in `MEASURES` maps kept results and a number of bootstrap resamples to a `Found`, or to
None where the results lack what it needs. `claims.yaml` names the results that it reads and the
sign that the claim gives the difference. Rewards are in the reward's unit. Intervals are 95 %, over
prompts and runs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from alignpro.judging.paper_table import MARGIN, judged
from alignpro.reward_learning.study import Study
from alignpro.statistics import bootstrap, paired_gain, variance_change

ALIGN_PRO, BASE, RLHF = "Align-Pro", "No Fine-Tuning", "RLHF"
CONSTANT = "Best constant suffix"


class Found(NamedTuple):
    """A difference, its 95 % interval, the prompts behind it, and in words what it rests on.

    `low` and `high` are NaN where there is nothing to compare with. `note` says in other units how
    large the difference is.
    """

    value: float
    low: float
    high: float
    prompts: int
    basis: str
    note: str = ""


def percent(share: float) -> str:
    """A share as the book writes it: "61 %", on one line."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def gain(answers: pd.DataFrame, resamples: int, base: str = BASE) -> Found:
    """Mean reward of Align-Pro minus that of `base`, paired by prompt and run."""
    paired = paired_gain(answers, ALIGN_PRO, base, resamples)
    basis = f"{paired['runs']} runs × {paired['prompts']} prompts"
    return Found(paired["gain"], paired["low"], paired["high"], paired["prompts"], basis)


def gain_over_constant(answers: pd.DataFrame, resamples: int) -> Found | None:
    """Mean reward of Align-Pro minus that of the best constant suffix, paired likewise."""
    if CONSTANT not in set(answers["configuration"]):
        return None
    return gain(answers, resamples, CONSTANT)


def near_rlhf(answers: pd.DataFrame, resamples: int) -> Found | None:
    """Align-Pro minus the middle between No Fine-Tuning and RLHF: above 0 it is nearer to RLHF.

    There is no interval where RLHF itself is not told apart from No Fine-Tuning: there is then
    nothing to be near to.
    """
    answers = answers[answers["seed"].isin(answers.loc[answers["configuration"] == RLHF, "seed"])]
    if answers.empty:
        return None
    ends = answers[answers["configuration"].isin([BASE, RLHF])]
    middle = ends.groupby(["seed", "id", "sample"], as_index=False)["reward"].mean()
    both = pd.concat([answers, middle.assign(configuration="middle")])
    above_middle = gain(both, resamples, "middle")
    rlhf = paired_gain(answers, RLHF, BASE, resamples)
    if rlhf["low"] <= 0:
        basis = f"{above_middle.basis}; RLHF gained {rlhf['gain']:+.3f}, not told apart from 0"
        return above_middle._replace(low=np.nan, high=np.nan, basis=basis)
    share = gain(answers, resamples).value / rlhf["gain"]
    return above_middle._replace(note=f"{percent(share)} of RLHF's gain")


def gain_per_token(answers: pd.DataFrame, resamples: int) -> Found | None:
    """Held-out gain per 100,000 tokens that training generated: Align-Pro minus RLHF.

    `answers` has the column `training_tokens` of `rlhf_cost.with_tokens`. Paired by prompt and run,
    over the runs that both sides have; None where there are none.
    """
    tokens = answers.groupby(["seed", "configuration"])["training_tokens"].first().unstack()
    tokens = tokens.reindex(columns=[ALIGN_PRO, RLHF]).dropna() / 1e5
    answers = answers[answers["seed"].isin(tokens.index)]
    if answers.empty:
        return None
    means = answers.pivot_table(index=["seed", "id"], columns="configuration", values="reward")
    gains = means[[ALIGN_PRO, RLHF]].sub(means[BASE], axis=0)
    gains /= tokens.loc[gains.index.get_level_values("seed")].to_numpy()
    rows = gains.melt(ignore_index=False, value_name="reward").reset_index().assign(sample=0)
    if "kind" in answers:
        rows["kind"] = rows["id"].map(answers.drop_duplicates("id").set_index("id")["kind"])
    ours, theirs = gains.mean()
    return gain(rows, resamples, RLHF)._replace(note=f"{ours:.2f} against {theirs:.2f}")


def variance(answers: pd.DataFrame, resamples: int, part: str = "variance") -> Found:
    """Change of the variance of the reward from No Fine-Tuning to Align-Pro."""
    change = variance_change(answers, ALIGN_PRO, BASE, resamples).loc[part]
    return Found(*change, *gain(answers, resamples)[3:])


def variance_within(answers: pd.DataFrame, resamples: int) -> Found:
    """The same change of the variance over the answers to one prompt."""
    return variance(answers, resamples, "within")


def preferred(answers: pd.DataFrame, resamples: int) -> Found:
    """Win rate of Align-Pro over No Fine-Tuning by the reward judge, minus ½."""
    runs = [judged(run, ALIGN_PRO, BASE, MARGIN) for _, run in answers.groupby("seed")]
    by_prompt = [run.groupby("prompt")["preference"].mean() for run in runs]
    rates = pd.DataFrame(by_prompt).to_numpy()  # [runs, prompts]
    low, high = bootstrap(rates - 0.5, resamples=resamples)
    outcomes = pd.concat(runs)["preference"]
    a, b = (outcomes == 1).mean(), (outcomes == 0).mean()
    basis = f"A {percent(a)}, B {percent(b)} of {len(outcomes)} pairs"
    return Found(rates.mean() - 0.5, low, high, rates.shape[1], basis)


def sensitivity(suffixes: pd.DataFrame, resamples: int) -> Found | None:
    """Reward under each prompt's best suffix minus that under its worst.

    Half of the answers choose the two, and the other half measures them: the best of many noisy
    means would look good by chance alone. None where each prompt has only one answer per suffix.
    """
    halves = suffixes.assign(half=suffixes["sample"] % 2).pivot_table(
        index="id", columns=["half", "configuration"], values="reward"
    )
    if 1 not in halves:
        return None
    choose, measure = halves[0].to_numpy(), halves[1].to_numpy()
    prompts = np.arange(len(halves))
    spread = measure[prompts, choose.argmax(axis=1)] - measure[prompts, choose.argmin(axis=1)]
    low, high = bootstrap(spread[None], resamples=resamples)
    count = suffixes["configuration"].nunique()
    basis = f"{count} suffixes × {len(halves)} prompts"
    return Found(spread.mean(), low, high, len(halves), basis)


def learned_reward(study: Study, resamples: int) -> Found:
    """Held-out accuracy of the reward learned from all pairs, over all labels, minus ½."""
    accuracy = study.accuracy()
    pairs = accuracy["pairs"].max()
    rows = accuracy[accuracy["pairs"] == pairs].set_index("measure")[["value", "low", "high"]] - 0.5
    ceiling = rows.loc["noise ceiling", "value"]
    basis = f"{pairs} pairs; the noise ceiling is {ceiling:+.3f}"
    return Found(*rows.loc["expected accuracy"], study.test_pairs["id"].nunique(), basis)


MEASURES = {
    measure.__name__: measure
    for measure in (
        gain, gain_over_constant, near_rlhf, gain_per_token, variance, variance_within, preferred,
        sensitivity, learned_reward,
    )
}  # fmt: skip
