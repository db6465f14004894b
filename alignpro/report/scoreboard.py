"""The scoreboard: every claim of the paper, what this book found, and a verdict given by rule.

`claims.yaml` lists the claims. Theory is checked on random instances (`theory_claims`). Measured
claims are computed from `results/` (`measured_claims`). A claim that has not been run gets the
verdict "not run".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from alignpro.config import Preset, distinct_pairs
from alignpro.report.html import text_table
from alignpro.report.kept_runs import matrix_metrics, matrix_table, recipe_changes
from alignpro.report.measured_claims import MEASURES, Found
from alignpro.report.reading import with_pooled_choices
from alignpro.report.rlhf_cost import with_tokens
from alignpro.report.theory_claims import violations
from alignpro.reward_learning.study import read_study, study_folder
from alignpro.runs import RESULTS

CLAIMS = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))
# Rewards have a range of 1. A generic optimiser comes this close, everything else to rounding.
TOLERANCE = 1e-6
# A violation this small is an error of floating-point numbers.
ROUNDING = 1e-12
# Below six prompts not even a unanimous result is significant at 5 %: the sign test's p is 2 / 2^n.
FEWEST_PROMPTS = 6
# The h100 preset has the paper's models and datasets; all others are smaller stand-ins.
SCALES = {"h100": "with the paper's models"}
SMALL_SCALE = "at small scale"
OLDER = " (older recipe)"
NOT_RUN, NOT_TOLD_APART, TOO_FEW = "not run", "not told apart", "too few prompts"


def theory_verdict(stated: np.ndarray, corrected: np.ndarray) -> str:
    """From the violations [N] of a statement and of its corrected version."""
    if (corrected > TOLERANCE).any():
        return "not verified"
    return "verified exactly" if (stated <= TOLERANCE).all() else "verified with a correction"


def remark_verdict(without: np.ndarray, with_it: np.ndarray) -> str:
    """From the violations [N] of a statement without and with what must be read in."""
    shown = (without > TOLERANCE).any() and (with_it <= TOLERANCE).all()
    return "confirmed" if shown else "not confirmed"


def measured_verdict(found: Found, wanted: int, scale: str = SMALL_SCALE) -> str:
    """From the 95 % interval of a difference to which the claim gives the sign `wanted`.

    The sign is all that is compared: other models, data and judges cannot reproduce a size.
    """
    if found.prompts < FEWEST_PROMPTS:
        return TOO_FEW
    low, high = sorted((wanted * found.low, wanted * found.high))
    if low > 0:
        return f"same sign {scale}"
    return f"opposite sign {scale}" if high < 0 else NOT_TOLD_APART


def theory_rows(instances: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The paper's theoretical claims, and the book's remarks on them: one row each, with a verdict.

    Each is checked on `instances` random instances. `as stated` and `corrected` (of a claim), and
    `holds without` and `holds with` (of a remark), tell in how many of them it holds, and the
    largest violation. `correction` and `corrected` are empty where there is nothing to correct.
    """

    def holds(violation: np.ndarray) -> str:
        # Minus signs and no-break spaces, unlike hyphens and spaces, keep a number on one line.
        size = violation.max()
        largest = "0" if abs(size) < ROUNDING else f"{size:+.1e}".replace("-", "−")
        count = f"{(violation <= TOLERANCE).sum()} of {instances}".replace(
            " ", "\N{NO-BREAK SPACE}"
        )
        return f"{count}\n{largest}"

    claims, remarks, found = [], [], violations(instances, seed)
    for claim in CLAIMS["theory"]:
        stated, corrected = found[claim["key"]]
        fields = {"correction": "", **claim, "as stated": holds(stated)}
        fields["corrected"] = holds(corrected) if fields["correction"] else ""
        claims.append({**fields, "verdict": theory_verdict(stated, corrected)})
    for remark in CLAIMS["remarks"]:
        without, with_it = found[remark["key"]]
        fields = {**remark, "holds without": holds(without), "holds with": holds(with_it)}
        remarks.append({**fields, "verdict": remark_verdict(without, with_it)})
    return pd.DataFrame(claims), pd.DataFrame(remarks)


def measured_rows(preset: Preset, results: Path = RESULTS) -> pd.DataFrame:
    """One row per measured claim, architecture and dataset, computed from `results`.

    `value`, `low` and `high` are numbers, NaN where there are none. `found` has them as text, with
    what they rest on; `note` has the size in other units. `where` marks prompters that were trained
    with other settings than the preset has today. Raises FileNotFoundError where nothing of the
    preset has been run.
    """
    pairs = dict.fromkeys(distinct_pairs(preset).values())
    cells = [(pair, dataset) for pair in pairs for dataset in preset.datasets]
    tables = {
        reads: matrix_table(preset.name, results, [name])
        for reads, name in (("answers", "evaluation"), ("suffixes", "suffixes"))
    }
    tables["answers"] = with_pooled_choices(tables["answers"], preset.name, results)
    tables["costs"] = with_tokens(tables["answers"], matrix_metrics(preset.name, results))
    kept = {cell: _sources(tables, preset, *cell, results) for cell in cells}
    changes = recipe_changes(preset, results)
    older, rows = set(zip(changes["dataset"], changes["architecture"])), []
    for claim in CLAIMS["measured"]:
        for (pair, dataset), sources in kept.items():
            source, found = sources.get(claim["reads"]), None
            if source is not None:
                found = MEASURES[claim["key"]](source, preset.evaluation.resamples)
            place = (dataset, "".join(pair))
            old = OLDER if claim["reads"] in ("answers", "costs") and place in older else ""
            where = f"{dataset}{old}, {place[1]}"
            rows.append({**claim, "where": where, **_result(claim, found, preset.name)})
    return pd.DataFrame(rows)


def _sources(tables: dict, preset: Preset, pair: tuple, dataset: str, results: Path) -> dict:
    """The kept results of one architecture and dataset, by what a claim `reads`."""
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
        nothing = {"value": np.nan, "low": np.nan, "high": np.nan, "found": "", "note": ""}
        return nothing | {"verdict": NOT_RUN}
    basis = "; ".join(filter(None, (found.basis, found.note)))
    scale = SCALES.get(preset_name, SMALL_SCALE)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "found": f"{claim['measure']}: {effect(found)}\n{basis}",
        "note": found.note,
        "verdict": measured_verdict(found, claim["wanted"], scale),
    }


def effect(found: Found) -> str:
    """A difference and its interval as text that stays on one line."""
    interval = "no interval"
    if np.isfinite(found.low):
        interval = f"[{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.value:+.3f} {interval}".replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def elsewhere_rows() -> pd.DataFrame:
    """The claims that nothing here can settle, one row each. The verdict is what they need."""
    return pd.DataFrame(CLAIMS["elsewhere"])


def board(rows: pd.DataFrame, columns: list[str]) -> Styler:
    """Show `columns` of `rows`, and the verdict as a link to the section that treats the claim.

    The links work in the built book, from the page of a notebook.
    """
    return text_table(rows[[*columns, "verdict"]], links=page_links(rows)).hide(axis="index")


def page_links(rows: pd.DataFrame) -> list[str]:
    """The address of each row's `link` in the built book, from a page of `notebooks` or `book`."""
    return ["../" + link.replace("#", ".html#") for link in rows["link"]]
