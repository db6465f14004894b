"""The scoreboard: every claim of the paper, what this book found, and a verdict given by rule.

`claims.yaml` lists the claims. Theory is checked live (`theory_claims`), measured claims from what
lies in `results/` (`measured_claims`); what has not been run says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from alignpro.config import Preset, distinct_pairs
from alignpro.report.html import text_table
from alignpro.report.kept_runs import matrix_table
from alignpro.report.measured_claims import MEASURES, Found
from alignpro.report.theory_claims import violations
from alignpro.reward_learning.study import read_study, study_folder
from alignpro.runs import RESULTS

CLAIMS = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))
# Rewards have a range of 1. A generic optimiser comes this near, everything else to rounding.
TOLERANCE = 1e-6
SCALES = {"cpu": "CPU", "h100": "H100"}
NOT_RUN, UNDECIDED = "not run", "cannot be told apart"


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


def theory_rows(instances: int, seed: int = 0) -> pd.DataFrame:
    """A row a theoretical claim: its fields, how the statement and its correction fare, a verdict.

    `as stated` and `corrected` say in how many random instances each holds, and the largest
    violation; `correction` and `corrected` are empty where there is none to correct.
    """

    def fares(violation: np.ndarray) -> str:
        # Minus signs and no-break spaces, unlike hyphens and spaces, keep a number on one line.
        largest = f"{violation.max():+.1e}".replace("-", "−")
        count = f"{(violation <= TOLERANCE).sum()} of {instances}".replace(
            " ", "\N{NO-BREAK SPACE}"
        )
        return f"{count}\n{largest}"

    rows, found = [], violations(instances, seed)
    for claim in CLAIMS["theory"]:
        stated, corrected = found[claim["key"]]
        fields = {"correction": "", **claim, "as stated": fares(stated)}
        fields["corrected"] = fares(corrected) if fields["correction"] else ""
        rows.append({**fields, "verdict": theory_verdict(stated, corrected)})
    return pd.DataFrame(rows)


def measured_rows(preset: Preset, results: Path = RESULTS) -> pd.DataFrame:
    """A row a measured claim, architecture that is run and dataset, as far as `results` goes.

    value, low and high are numbers, NaN where there are none; `found` has them as text, with what
    they rest on. Raises FileNotFoundError where nothing of the preset has been run.
    """
    pairs = dict.fromkeys(distinct_pairs(preset).values())
    cells = [(pair, dataset) for pair in pairs for dataset in preset.datasets]
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
