"""Tables of what `make bench` measured, from the files that it writes to `results/bench/`.

A file holds rounds. Within a round every contender had its turn, so that ratios are taken round by
round and their median is shown; a time is that of the fastest round.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

OURS = "alignpro"


def benches(folder: Path) -> list[dict]:
    """The benchmark results in `folder`, newest first; none is no error."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda bench: bench["date"], reverse=True)


def _over_rounds(ratios: pd.DataFrame) -> pd.DataFrame:
    """Median, least and largest of ratios [what, round], a row each."""
    return pd.DataFrame(
        {"ratio": ratios.median(axis=1), "low": ratios.min(axis=1), "high": ratios.max(axis=1)}
    )


def step_table(bench: dict) -> pd.DataFrame:
    """A row a contender: seconds of a PPO step by part, in all, and over those of ours; peak GB."""
    rows = pd.DataFrame(bench["steps"])
    parts = [c for c in rows if c not in ("contender", "round")]
    rows["total"] = rows[parts].sum(axis=1)
    fastest = rows.loc[rows.groupby("contender")["total"].idxmin()].set_index("contender")
    totals = rows.pivot(index="contender", columns="round", values="total")
    table = fastest[[*parts, "total"]].join(_over_rounds(totals / totals.loc[OURS]))
    memory = {row["contender"]: row["gb"] for row in bench.get("memory", [])}
    return table.assign(peak_gb=pd.Series(memory, dtype=float)).loc[rows["contender"].unique()]


def sampling_table(bench: dict) -> pd.DataFrame:
    """A row a sampler: tokens a second, and over those of the one that it stands `beside`."""
    rows = pd.DataFrame(bench["sampling"])
    rows["rate"] = rows["tokens"] / rows["seconds"]
    rates = rows.pivot(index="sampler", columns="round", values="rate")
    beside = rows.drop_duplicates("sampler").set_index("sampler")["beside"]
    table = _over_rounds(rates.loc[beside.index] / rates.loc[beside].to_numpy())
    return table.assign(tokens_per_second=rates.max(axis=1), beside=beside)


def trial_table(bench: dict) -> pd.DataFrame:
    """A row an optimisation tried, the best first: time without it over time with it."""
    rows = pd.DataFrame(bench["trials"])
    rows["ratio"] = rows["without"] / rows["with"]
    ratios = rows.pivot(index=["trial", "part"], columns="round", values="ratio")
    table = _over_rounds(ratios).reset_index("part").sort_values("ratio", ascending=False)
    # A ratio whose rounds lie on both sides of 1 has not been told apart from it.
    sides = (table["low"] > 1) * 1 - (table["high"] < 1) * 1
    return table.assign(outcome=sides.map({1: "faster", 0: "no difference seen", -1: "slower"}))


def limit_table(bench: dict) -> pd.DataFrame:
    """A row a part of our fp32 step: its work, the least seconds it can take, and those it took.

    A part takes at least its FLOPs at the measured peak of a matrix product, and at least the
    reading of its weights at the measured bandwidth; `reached` is the larger of the two over the
    seconds of the fastest round.
    """
    limits = bench["limits"]
    table = pd.DataFrame(limits["work"]).set_index("part")
    computing = table["gflop"] / limits["fp32_gflops"]
    reading = table["gb"] / limits["gb_per_second"]
    seconds = step_table(bench).loc["alignpro, fp32"]
    took = {part: seconds[part] for part in table.index if part != "score"}
    took["score"] = seconds["frozen"] + seconds["reward"]
    table = table.assign(
        bound=(computing > reading).map({True: "computing", False: "reading"}),
        least=pd.concat([computing, reading], axis=1).max(axis=1),
        took=pd.Series(took),
    )
    total = table[["gflop", "gb", "least", "took"]].sum()
    table.loc["whole step", total.index] = total
    return table.assign(reached=table["least"] / table["took"])
