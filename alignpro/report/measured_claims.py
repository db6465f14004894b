"""The paper's experiment, claim by claim: a difference, its interval, and what they rest on.

Each measure in `MEASURES` maps kept results and a number of bootstrap resamples to what was found;
`claims.yaml` says which results it reads and which sign the claim gives the difference. Rewards are
in the reward's unit, intervals are 95 %, over prompts and runs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from alignpro.judging.paper_table import MARGIN, judged
from alignpro.judging.report import report
from alignpro.reward_learning.study import Study
from alignpro.statistics import bootstrap, paired_gain, variance_change

ALIGN_PRO, BASE, ORACLE = "Align-Pro", "No Fine-Tuning", "RLHF"

Found = tuple[float, float, float, str]  # value, low, high, and what they rest on


def gain(answers: pd.DataFrame, resamples: int, base: str = BASE) -> Found:
    """Mean reward of Align-Pro minus that of `base`, paired by prompt and run."""
    found = paired_gain(answers, ALIGN_PRO, base, resamples)
    basis = f"{found['runs']} runs × {found['prompts']} prompts"
    return found["gain"], found["low"], found["high"], basis


def near_oracle(answers: pd.DataFrame, resamples: int) -> Found | None:
    """Align-Pro minus the middle between No Fine-Tuning and RLHF: above 0 it is nearer to RLHF.

    No interval where RLHF itself did not surely gain, since there is then nothing to be near to.
    """
    answers = answers[answers["seed"].isin(answers.loc[answers["configuration"] == ORACLE, "seed"])]
    if answers.empty:
        return None
    ends = answers[answers["configuration"].isin([BASE, ORACLE])]
    middle = ends.groupby(["seed", "id", "sample"], as_index=False)["reward"].mean()
    both = pd.concat([answers, middle.assign(configuration="middle")])
    value, low, high, basis = gain(both, resamples, "middle")
    oracle = paired_gain(answers, ORACLE, BASE, resamples)
    if oracle["low"] <= 0:
        return value, np.nan, np.nan, f"{basis}; RLHF gained {oracle['gain']:+.3f}, not surely"
    share = gain(answers, resamples)[0] / oracle["gain"]
    return value, low, high, f"{basis}; {share:.0%} of the gain of RLHF"


def variance(answers: pd.DataFrame, resamples: int, part: str = "variance") -> Found:
    """Change of the variance of the reward from No Fine-Tuning to Align-Pro."""
    change = variance_change(answers, ALIGN_PRO, BASE, resamples).loc[part]
    return *change, gain(answers, resamples)[3]


def variance_within(answers: pd.DataFrame, resamples: int) -> Found:
    """The same of the variance over the answers to one prompt."""
    return variance(answers, resamples, "within")


def win_rate(answers: pd.DataFrame, resamples: int) -> Found:
    """Win rate of Align-Pro by the reward judge, minus ½."""
    runs = [judged(run, ALIGN_PRO, BASE, MARGIN) for _, run in answers.groupby("seed")]
    found = report(pd.concat(runs), resamples)
    value, low, high = (found[name] - 0.5 for name in ("win rate", "low", "high"))
    return value, low, high, f"A {found['A']:.0%}, B {found['B']:.0%} of {found['pairs']} pairs"


def sensitivity(suffixes: pd.DataFrame, resamples: int) -> Found | None:
    """Reward under each prompt's best suffix minus that under its worst.

    Half of the answers choose the two and the other half measures them: the best of many noisy
    means would look good by chance alone. None where there is only one answer to each.
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
    return spread.mean(), low, high, f"{count} suffixes × {len(halves)} prompts"


def learned_reward(study: Study, resamples: int) -> Found:
    """Held-out accuracy of the reward learned from all pairs, over all labels, minus ½."""
    accuracy = study.accuracy()
    pairs = accuracy["pairs"].max()
    rows = accuracy[accuracy["pairs"] == pairs].set_index("measure")[["value", "low", "high"]] - 0.5
    ceiling = rows.loc["noise ceiling", "value"]
    return *rows.loc["expected accuracy"], f"{pairs} pairs; the noise ceiling is {ceiling:+.3f}"


MEASURES = {
    measure.__name__: measure
    for measure in (
        gain, near_oracle, variance, variance_within, win_rate, sensitivity, learned_reward
    )
}  # fmt: skip
