"""The numbers behind the book's tables and figures of kept runs, computed from `results/` alone.

`book_numbers` computes them with the functions that the pages call. `python -m alignpro verify`
keeps them beside the results and compares them again on another machine or with other libraries.
Numbers that a build itself produces, such as those of its own training run, are not among them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from alignpro.config import Preset
from alignpro.judging.paper_table import MARGIN, our_cells
from alignpro.judging.report import report
from alignpro.report import benchmark, reading, rlhf_cost
from alignpro.report.kept_runs import (
    compare_runs,
    matrix_metrics,
    matrix_rewards,
    matrix_table,
    reference_tables,
)
from alignpro.report.scoreboard import measured_rows
from alignpro.reward_learning.study import read_study, study_folder
from alignpro.statistics import bootstrap, paired_gain
from alignpro.theory.from_samples import rlhf_front
from alignpro.theory.variance import variance_drift_from_samples

CELL = ["architecture", "dataset"]
# What the page on the oracle and the page on learned rewards draw their fronts over.
BETAS, LAMS = np.geomspace(0.02, 100, 61), np.geomspace(1, 0.003, 12)


def book_numbers(preset: Preset, results: Path) -> dict[str, float | str | None]:
    """Every number by its name, "table | row | column"; None where a table has no number.

    Raises FileNotFoundError where nothing of `preset` has been run.
    """
    tables = {
        **_matrix(preset, results),
        **_reading(preset, results),
        **_cost(preset, results),
        **_scoreboard(preset, results),
        **_studies(preset, results),
        **_judges(results),
        **_benchmark(results),
    }
    return {
        f"{name} | {_text(row)} | {_text(column)}": _plain(value)
        for name, table in tables.items()
        for row, values in zip(table.index, table.to_numpy(dtype=object))
        for column, value in zip(table.columns, values)
    }


def _matrix(preset: Preset, results: Path) -> dict[str, pd.DataFrame]:
    """The pages on all runs and on held-out prompts, and the reward judge's table."""
    resamples = preset.evaluation.resamples
    table = reading.with_pooled_choices(matrix_table(preset.name, results), preset.name, results)
    cells = matrix_rewards(table, resamples).set_index([*CELL, "configuration"])
    prompted = table[table["configuration"] != "RLHF"]
    gains = {
        (*cell, base): _gain(part, base, resamples)
        for cell, part in prompted.groupby(CELL)
        for base in part["configuration"].unique()
        if base != "Align-Pro"
    }
    runs = {
        dataset: compare_runs(reference_tables(preset.name, dataset, results), resamples)
        for dataset in preset.datasets
    }
    rates = our_cells(preset.name, MARGIN, results=results)
    return {
        "reward": cells,
        "Align-Pro minus": pd.DataFrame(gains).T,
        "runs": pd.concat(runs),
        "win rates by the reward": rates,
    }


def _gain(part: pd.DataFrame, base: str, resamples: int) -> dict[str, float]:
    """The gain of Align-Pro over `base` in the runs that have answers of `base`."""
    runs = part.loc[part["configuration"] == base, "seed"]
    return paired_gain(part[part["seed"].isin(runs)], "Align-Pro", base, resamples)


def _cost(preset: Preset, results: Path) -> dict[str, pd.DataFrame]:
    """The pages on the oracle and on the variance."""
    runs = rlhf_cost.spent(matrix_metrics(preset.name, results))
    answers = matrix_table(preset.name, results, ["evaluation"])
    suffixes = matrix_table(preset.name, results, ["suffixes"])
    found = {"end of training": rlhf_cost.last_steps(runs)}
    for dataset, part in runs.groupby("dataset"):
        for unit in ("seconds", "tokens"):
            found[f"equal {unit}, {dataset}"] = rlhf_cost.at_equal_cost(part, unit)
    for dataset, part in answers.groupby("dataset"):
        front = rlhf_front(rlhf_cost.answer_rewards(part, "No Fine-Tuning"), BETAS)
        front = rlhf_cost.front_table(front, "RLHF", "π*").set_index("temperature")
        found[f"front of π*, {dataset}"] = front[["kl", "reward", "low", "high", "ess"]]
    for dataset, part in suffixes.groupby("dataset"):
        rewards = rlhf_cost.rewrite_rewards(part, sorted(part["configuration"].unique()))
        if rewards.shape[2] < 3:  # the third moment needs three answers
            continue
        drift = variance_drift_from_samples(rewards)
        terms = {name: getattr(drift, name) for name in ("within", "skew", "across", "total")}
        rows = {name: [x.mean(), *bootstrap(x[None])] for name, x in terms.items()}
        columns = ["value", "low", "high"]
        found[f"drift of the variance, {dataset}"] = pd.DataFrame(rows, index=columns).T
    return found


def _reading(preset: Preset, results: Path) -> dict[str, pd.DataFrame]:
    """The page on reading, but for its searches of random calls."""
    found, table = {}, matrix_table(preset.name, results)
    for dataset in reading.studied(preset.name, results):
        part, answers = table[table["dataset"] == dataset], reading.every_suffix(dataset, results)
        rows = {
            name: reading.reading(part[part["configuration"] == name], answers)
            for name in ("Untrained prompter", "Align-Pro")
        }
        found[f"reading, {dataset}"] = pd.DataFrame(rows).T
        curve = reading.learning_curve(dataset, table, results)
        found[f"learning curve, {dataset}"] = curve.set_index(["seed", "calls"])
        value = answers.pivot_table(index="configuration", columns="kind", values="reward")
        found[f"value of suffixes, {dataset}"] = value
    return found


def _scoreboard(preset: Preset, results: Path) -> dict[str, pd.DataFrame]:
    rows = measured_rows(preset, results).set_index(["claim", "where"])
    return {"scoreboard": rows[["value", "low", "high", "found", "verdict"]]}


def _studies(preset: Preset, results: Path) -> dict[str, pd.DataFrame]:
    """The page on learned rewards."""
    found = {}
    for dataset in preset.datasets:
        for seed in preset.seeds:
            folder = study_folder(preset.name, dataset, seed, results)
            if folder.exists():
                study, name = read_study(folder), f"learned reward, {dataset}, seed {seed}"
                accuracy = study.accuracy().set_index(["measure", "pairs"])
                found[f"{name}: accuracy"] = accuracy
                found[f"{name}: selection"] = study.selection_curve().set_index("n")
                found[f"{name}: leash"] = study.leash_curve(LAMS).set_index("lam")
                means = study.prompters.groupby("configuration")[["reward", "proxy"]].mean()
                found[f"{name}: prompters"] = means
    return found


def _judges(results: Path) -> dict[str, pd.DataFrame]:
    """The kept replies of language models as judges."""
    paths = sorted((results / "judge").glob("*/*.jsonl"))
    rows = {
        (path.parent.name, path.stem): report(pd.read_json(path, lines=True, dtype=False))
        for path in paths
    }
    return {"judges": pd.DataFrame(rows).T} if rows else {}


def _benchmark(results: Path) -> dict[str, pd.DataFrame]:
    """The page on speed: the newest finished benchmark, and the newest comparison with GRPO."""
    found = {}
    if whole := [b for b in benchmark.benches(results / "bench") if b["finished"]]:
        for part in ("step", "sampling", "limit"):
            found[f"speed: {part}"] = getattr(benchmark, f"{part}_table")(whole[0])
        trials = benchmark.trial_table(whole[0])
        found["speed: trials"] = trials.set_index("part", append=True)
    if learned := benchmark.benches(results / "learning"):
        found["speed: learning"] = benchmark.learning_table(learned[0])
    return found


def _text(name: object) -> str:
    """A row's or a column's name as text; numbers with six digits, so that rounding is no name."""
    parts = name if isinstance(name, tuple) else (name,)
    return ", ".join(f"{x:.6g}" if isinstance(x, float) else str(x) for x in parts)


def _plain(value: object) -> float | str | None:
    """A cell of a table as JSON has it."""
    if isinstance(value, str):
        return value
    number = float(value)
    return number if np.isfinite(number) else None
