"""The scoreboard: every claim of the paper, what this book found, and a verdict given by rule.

`claims.yaml` lists the claims. Theory is checked live (`theory_claims`), measured claims are read
from `results/`; what has not been run says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from alignpro.config import Preset
from alignpro.estimators import bootstrap_interval
from alignpro.evaluation import paired_gain, variance_change
from alignpro.experiments import RESULTS
from alignpro.judging import report
from alignpro.matrix import matrix_table
from alignpro.reward_study import Study, read_study, study_folder
from alignpro.table1 import judged
from alignpro.tables import text_table
from alignpro.theory_claims import violations

CLAIMS = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))
# Rewards have a range of 1. A generic optimiser comes this near, everything else to rounding.
TOLERANCE = 1e-6
MARGIN = 0.05  # within which the reward judge calls a tie, as in the chapter on judging
SCALES = {"cpu": "CPU", "h100": "H100"}
NOT_RUN, UNDECIDED = "not run", "cannot be told apart"
ALIGN_PRO, BASE, ORACLE = "Align-Pro", "No Fine-Tuning", "RLHF"

Found = tuple[float, float, float, str]  # value, its 95 % interval, and what it rests on


def theory_verdict(stated: np.ndarray, corrected: np.ndarray) -> str:
    """From the violations [N] of a statement and of its corrected version."""
    if (corrected > TOLERANCE).any():
        return "not verified"
    return "verified exactly" if (stated <= TOLERANCE).all() else "verified with a correction"


def measured_verdict(low: float, high: float, wanted: int, scale: str) -> str:
    """From the 95 % interval of a difference to which the claim gives the sign `wanted`."""
    low, high = sorted((wanted * low, wanted * high))
    if low > 0:
        return f"reproduced at {scale} scale"
    return f"not reproduced at {scale} scale" if high < 0 else UNDECIDED


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
    low, high = bootstrap_interval(spread, resamples=resamples)
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


def theory_rows(instances: int, seed: int = 0) -> pd.DataFrame:
    """A row a theoretical claim: the claim's fields, what was found, and the verdict."""
    found, rows = violations(instances, seed), []
    for claim in CLAIMS["theory"]:
        stated, corrected = found[claim["key"]]
        holds = f"holds in {(stated <= TOLERANCE).sum()} of {instances} random instances"
        text = f"{holds}, largest violation {stated.max():+.1e}"
        if "correction" in claim:
            text = (
                f"as stated it {text}; corrected: in {(corrected <= TOLERANCE).sum()}, "
                f"{corrected.max():+.1e}"
            )
        verdict = theory_verdict(stated, corrected)
        rows.append({"correction": "", **claim, "found": text, "verdict": verdict})
    return pd.DataFrame(rows)


def measured_rows(preset: Preset, results: Path = RESULTS) -> pd.DataFrame:
    """A row a measured claim, architecture and dataset of `preset`, as far as `results` goes.

    value, low and high are numbers, NaN where there are none; `found` has them as text, with what
    they rest on. Raises FileNotFoundError where nothing of the preset has been run.
    """
    cells = [(pair, dataset) for pair in preset.architectures for dataset in preset.datasets]
    tables = {
        reads: matrix_table(preset.name, results, [name])
        for reads, name in (("answers", "evaluation"), ("suffixes", "suffixes"))
    }
    kept = {cell: _sources(tables, preset, *cell, results) for cell in cells}
    rows = []
    for claim in CLAIMS["measured"]:
        for (pair, dataset), sources in kept.items():
            source, found = sources.get(claim["reads"]), None
            if source is not None:
                found = MEASURES[claim["key"]](source, preset.evaluation.resamples)
            where = f"{dataset}, {''.join(pair)}"
            rows.append({**claim, "where": where, **_result(claim, found, preset.name)})
    return pd.DataFrame(rows)


def _sources(tables: dict, preset: Preset, pair: tuple, dataset: str, results: Path) -> dict:
    """What is kept of one architecture and dataset, by what a claim `reads`."""
    sources = {}
    for reads, table in tables.items():
        part = table[table["dataset"] == dataset]
        runs = part.loc[part["architecture"] == "".join(pair), "seed"]
        # The oracle's architecture is the frozen LLM alone.
        own = part["architecture"].isin(["".join(pair), pair[1]])
        if len(runs):
            sources[reads] = part[own & part["seed"].isin(runs)]
    folder = study_folder(preset.name, dataset, preset.seeds[0], results)
    if folder.exists():
        sources["study"] = read_study(folder)
    return sources


def _result(claim: dict, found: Found | None, preset_name: str) -> dict:
    if found is None:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "found": "", "verdict": NOT_RUN}
    value, low, high, basis = found
    interval = f"[{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else "(no interval)"
    return {
        "value": value,
        "low": low,
        "high": high,
        "found": f"{claim['measure']}: {value:+.3f} {interval}\n{basis}",
        "verdict": measured_verdict(
            low, high, claim["wanted"], SCALES.get(preset_name, preset_name)
        ),
    }


def elsewhere_rows() -> pd.DataFrame:
    """The claims that nothing here can settle, a row each, with what they need as the verdict."""
    return pd.DataFrame(CLAIMS["elsewhere"])


def board(rows: pd.DataFrame, columns: list[str]) -> Styler:
    """`columns` of `rows` and the verdict, which links to the section that treats the claim.

    The links are those of the built book, seen from a notebook's page.
    """
    links = ["../" + link.replace("#", ".html#") for link in rows["link"]]
    return text_table(rows[[*columns, "verdict"]], links=links).hide(axis="index")
