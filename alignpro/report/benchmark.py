"""Tables of what `make bench` and `bench/learning.py` measured.

A file of `results/bench/` holds rounds, and in a round every contender had its turn. Ratios are
therefore taken within a round, and the tables show their median. Times are those of the fastest
round. A file of `results/learning/` holds one curve per learner and seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

OURS = "alignpro"


def benches(folder: Path) -> list[dict]:
    """The results in `folder`, newest first; empty if there are none."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda bench: bench["date"], reverse=True)


def _over_rounds(ratios: pd.DataFrame) -> pd.DataFrame:
    """Median, smallest and largest over rounds of `ratios`, which has one column per round."""
    return pd.DataFrame(
        {"ratio": ratios.median(axis=1), "low": ratios.min(axis=1), "high": ratios.max(axis=1)}
    )


def step_table(bench: dict) -> pd.DataFrame:
    """One row per contender: seconds of a PPO step, in parts and in all, and peak memory in GB.

    `ratio` is the time over ours.
    """
    rows = pd.DataFrame(bench["steps"])
    parts = [c for c in rows if c not in ("contender", "round")]
    rows["total"] = rows[parts].sum(axis=1)
    fastest = rows.loc[rows.groupby("contender")["total"].idxmin()].set_index("contender")
    totals = rows.pivot(index="contender", columns="round", values="total")
    table = fastest[[*parts, "total"]].join(_over_rounds(totals / totals.loc[OURS]))
    memory = {row["contender"]: row["gb"] for row in bench.get("memory", [])}
    return table.assign(peak_gb=pd.Series(memory, dtype=float)).loc[rows["contender"].unique()]


def sampling_table(bench: dict) -> pd.DataFrame:
    """One row per sampler: tokens per second, and their ratio to the sampler in `beside`."""
    rows = pd.DataFrame(bench["sampling"])
    rows["rate"] = rows["tokens"] / rows["seconds"]
    rates = rows.pivot(index="sampler", columns="round", values="rate")
    beside = rows.drop_duplicates("sampler").set_index("sampler")["beside"]
    table = _over_rounds(rates.loc[beside.index] / rates.loc[beside].to_numpy())
    return table.assign(tokens_per_second=rates.max(axis=1), beside=beside)


def trial_table(bench: dict) -> pd.DataFrame:
    """One row per optimisation, the best first: the time without it over the time with it."""
    rows = pd.DataFrame(bench["trials"])
    rows["ratio"] = rows["without"] / rows["with"]
    ratios = rows.pivot(index=["trial", "part"], columns="round", values="ratio")
    table = _over_rounds(ratios).reset_index("part").sort_values("ratio", ascending=False)
    # If the rounds are on both sides of 1, the ratio has not been told apart from 1.
    sides = (table["low"] > 1) * 1 - (table["high"] < 1) * 1
    return table.assign(outcome=sides.map({1: "faster", 0: "no difference seen", -1: "slower"}))


def limit_table(bench: dict) -> pd.DataFrame:
    """One row per part of our float32 step: its work, the least time possible, the time taken.

    A part takes at least its FLOPs at the measured peak of a matrix product, and at least the time
    to read its weights at the measured bandwidth. `reached` is the larger of the two, divided by
    the time of the fastest round.
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


def learning_points(result: dict) -> pd.DataFrame:
    """One row per learner, seed and evaluation: step, frozen-LLM tokens, seconds, reward."""
    rows = [
        {"learner": run["learner"], "seed": run["seed"], **point}
        for run in result["runs"]
        for point in run["points"]
    ]
    return pd.DataFrame(rows)


def learning_table(result: dict) -> pd.DataFrame:
    """One row per learner: held-out reward before and after training, over seeds, and its cost.

    `low` and `high` are the worst and the best seed after training; `tokens` (the frozen LLM's) and
    `seconds` are means over seeds.
    """
    points = learning_points(result)
    runs = points.sort_values("step").groupby(["learner", "seed"])
    before = runs["reward"].first().groupby("learner").mean()
    last = runs[["reward", "tokens", "seconds"]].last().groupby("learner")
    table = pd.DataFrame(
        {
            "seeds": last.size(),
            "before": before,
            "after": last["reward"].mean(),
            "low": last["reward"].min(),
            "high": last["reward"].max(),
            "tokens": last["tokens"].mean(),
            "seconds": last["seconds"].mean(),
        }
    )
    return table.loc[points["learner"].unique()]
