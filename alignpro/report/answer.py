"""The book's answer on one screen: one row per claim, from the rows of `scoreboard`."""

from __future__ import annotations

import pandas as pd
from pandas.io.formats.style import Styler

from alignpro.report.html import text_table
from alignpro.report.scoreboard import NOT_RUN, effect, page_links

EFFECT = "effect, 95 % interval"


def answer_rows(
    theory: pd.DataFrame, remarks: pd.DataFrame, measured: pd.DataFrame, elsewhere: pd.DataFrame
) -> pd.DataFrame:
    """One row per claim: claim, verdict, effect with its interval, caveat, and `link`.

    The arguments come from `theory_rows`, `measured_rows` and `elsewhere_rows`. The theory is one
    row that counts its verdicts. A measured claim has one line per dataset that was run.
    """
    counts = theory["verdict"].value_counts()
    errors = theory["correction"].str.contains("(E", regex=False)
    needed = remarks["kind"].str.endswith("to read in")
    rows = [
        {
            "claim": "The theory: the optimal prompter, the bound on the gap to RLHF, and what "
            "follows from them.",
            "verdict": "\n".join(
                f"{verdict}: {n} of {len(theory)}" for verdict, n in counts.items()
            ),
            EFFECT: "exact, nothing is estimated",
            "caveat": "The formulas are reconstructed: our source of the paper has lost them. "
            f"Its text has {errors.sum()} errors. {needed.sum()} hypotheses must be read in, and "
            f"{(~needed).sum()} limits of use are named.",
            "link": "notebooks/15_scoreboard#the-theory",
        }
    ]
    for claim, part in by_dataset(measured).groupby("claim", sort=False):
        rows.append({"claim": claim, **_measured(part)})
    rows += elsewhere.assign(**{EFFECT: "none measured"}).to_dict("records")
    return pd.DataFrame(rows)[["claim", "verdict", EFFECT, "caveat", "link"]]


def by_dataset(measured: pd.DataFrame) -> pd.DataFrame:
    """`measured_rows` with `where` naming the dataset alone, if there is only one architecture."""
    places = measured["where"].str.split(", ", expand=True)
    return measured.assign(where=places[0]) if places[1].nunique() == 1 else measured


def _measured(part: pd.DataFrame) -> dict:
    """The fields of one measured claim from its rows, one per dataset."""
    ran = part[part["verdict"] != NOT_RUN]
    first = part.iloc[0]
    by_verdict = part.groupby("verdict", sort=False)["where"].agg(", ".join)
    verdict = "\n".join(f"{name}: {where}" for name, where in by_verdict.items())
    if len(by_verdict) == 1 and len(part) > 1:
        verdict = f"{first['verdict']}, on each of {len(part)} datasets"
    lines = [
        "; ".join(filter(None, (f"{row['where']}: {effect(row)}", row["note"])))
        for _, row in ran.iterrows()
    ]
    return {
        "verdict": verdict,
        EFFECT: "\n".join([first["measure"], *lines]) if lines else "none measured",
        "caveat": first["caveat"],
        "link": first["link"],
    }


def answer_table(rows: pd.DataFrame) -> Styler:
    """Show `answer_rows`, each verdict as a link to the section that treats the claim."""
    shown = rows[["claim", EFFECT, "caveat", "verdict"]]
    widths = {"claim": "21%", EFFECT: "39%", "caveat": "23%", "verdict": "17%"}
    return text_table(shown, links=page_links(rows), columns=widths).hide(axis="index")
