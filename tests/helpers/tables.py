"""Tidy tables of rewards from arrays."""

import pandas as pd


def table_of(rewards):
    """A tidy table from {configuration: [prompts, samples] rewards}."""
    return pd.DataFrame(
        [
            {"configuration": name, "id": f"p{i}", "kind": "howto", "sample": j, "reward": r}
            for name, rows in rewards.items()
            for i, row in enumerate(rows)
            for j, r in enumerate(row)
        ]
    )


def runs_of(rewards):
    """The same from {configuration: [runs, prompts, samples] rewards}."""
    runs = len(next(iter(rewards.values())))
    return pd.concat(
        [table_of({name: r[i] for name, r in rewards.items()}).assign(seed=i) for i in range(runs)]
    )
