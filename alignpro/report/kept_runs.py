"""Reading the runs of a preset from `results/`: their cards, training steps and answers.

The folder of a run is `results/PRESET/DATASET/ARCHITECTURE/seedN`. `reproduce` in
`alignpro.experiments` fills it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from alignpro.config import Preset
from alignpro.evaluation import TOLD_THE_KIND, checked_rewards
from alignpro.runs import RESULTS
from alignpro.sources.kept_results import changed_settings
from alignpro.statistics import paired_gain, reward_summary

# What a run trains, by the name on its card: the prompter, or the frozen LLM itself.
TRAINED = {"align-pro": "Align-Pro", "rlhf": "RLHF"}
# Labels of configurations in kept tables that have another name today.
RENAMED = {"Best suffix per kind (oracle)": TOLD_THE_KIND}


def _read(path: Path) -> pd.DataFrame:
    """A kept table of responses, its configurations under today's names."""
    table = pd.read_parquet(path)
    return table.assign(configuration=table["configuration"].replace(RENAMED))


def _card(path: Path) -> dict:
    """The card of the run that the file `path` belongs to."""
    return json.loads((path.parent / "card.json").read_text(encoding="utf-8"))


def reference_tables(
    preset_name: str, dataset: str, results: Path = RESULTS, architecture: str = "P1F1"
) -> dict:
    """The evaluation tables of the runs in `results/`, by "seed 0", "seed 1" and so on.

    The result is empty if nothing is kept.
    """
    folder = results / preset_name / dataset / architecture
    found = sorted(folder.glob("seed*/evaluation.parquet"))
    return {f"seed {p.parent.name.removeprefix('seed')}": _read(p) for p in found}


def kept_preset(preset_name: str, results: Path = RESULTS) -> str:
    """The preset whose runs a page shows: `preset_name`, or "cpu" if nothing of it is kept."""
    return preset_name if (results / preset_name).is_dir() else "cpu"


def matrix_table(
    preset_name: str, results: Path = RESULTS, files: Sequence[str] = ("evaluation", "best_of")
) -> pd.DataFrame:
    """Every held-out response in `results/`, one row each, with its `architecture` and `seed`.

    `frozen` is the role of the frozen LLM. `files` names the tables of each run that are read. The
    oracle's architecture is the frozen LLM alone. Raises FileNotFoundError if nothing has been run.
    """
    tables = [
        _read(path).assign(architecture=path.parts[-3], frozen=_card(path)["architecture"][-1])
        for name in files
        for path in sorted((results / preset_name).glob(f"*/*/seed*/{name}.parquet"))
    ]
    if not tables:
        raise FileNotFoundError(
            f"no results of the preset {preset_name!r} in {results}: run "
            f"`python -m alignpro reproduce --preset {preset_name}`"
        )
    return pd.concat(tables, ignore_index=True)


def matrix_rewards(table: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Mean and variance of the reward, one row per architecture, dataset and configuration.

    See `reward_summary` for the columns. An oracle is repeated for every architecture that has its
    frozen LLM.
    """
    oracle = table["configuration"] == "RLHF"
    parts = []
    for (pair, dataset), part in table[~oracle].groupby(["architecture", "dataset"], sort=False):
        same_frozen = table["frozen"] == part["frozen"].iloc[0]
        beside = oracle & same_frozen & (table["dataset"] == dataset)
        part = reward_summary(pd.concat([part, table[beside]]), resamples).reset_index()
        parts.append(part.assign(architecture=pair, dataset=dataset))
    return pd.concat(parts, ignore_index=True)


def matrix_cards(preset_name: str, results: Path = RESULTS) -> pd.DataFrame:
    """The card of every run in `results/`, one row each: what was run, when, where, how long."""
    paths = sorted((results / preset_name).glob("*/*/seed*/card.json"))
    return pd.DataFrame([json.loads(path.read_text(encoding="utf-8")) for path in paths])


def recipe_changes(preset: Preset, results: Path = RESULTS) -> pd.DataFrame:
    """The kept runs whose settings are not those that `preset` has today, one row per setting.

    Columns: dataset, architecture, seed, and those of `changed_settings`.
    """
    rows = []
    for path in sorted((results / preset.name).glob("*/*/seed*/config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        cell = (path.parts[-4], path.parts[-3], int(path.parts[-2].removeprefix("seed")))
        rows += [(*cell, *change) for change in changed_settings(config, preset)]
    columns = ["dataset", "architecture", "seed", "setting", "kept", "today"]
    return pd.DataFrame(rows, columns=columns)


def matrix_metrics(preset_name: str, results: Path = RESULTS) -> pd.DataFrame:
    """Every training step in `results/`, one row each, with the cell that it belongs to.

    The cell is `architecture`, `dataset`, `seed` and `configuration` ("Align-Pro" or "RLHF"). The
    result is empty if nothing has been trained.
    """
    runs = [
        pd.read_json(path, lines=True).assign(
            architecture=path.parts[-3],
            configuration=TRAINED[_card(path)["configuration"]],
            dataset=path.parts[-4],
            seed=int(path.parts[-2].removeprefix("seed")),
        )
        for path in sorted((results / preset_name).glob("*/*/seed*/metrics.jsonl"))
    ]
    return pd.concat(runs, ignore_index=True) if runs else pd.DataFrame()


def prompt_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean reward by prompt (rows, ids) and configuration (columns), over all runs.

    Raises RewardError where a reward is not a finite number, which a mean would hide.
    """
    checked_rewards(table["reward"], table["id"], "the reward in a table of responses")
    return table.pivot_table(index="id", columns="configuration", values="reward", sort=False)


def compare_runs(tables: dict[str, pd.DataFrame], resamples: int) -> pd.DataFrame:
    """One row per run: mean reward of each configuration, and the gain of Align-Pro.

    `tables` maps a run's name to its evaluation table. The gain is over No Fine-Tuning and paired
    by prompt, with the columns of `paired_gain`.
    """
    rows = {}
    for name, table in tables.items():
        means = table.groupby("configuration", sort=False)["reward"].mean()
        gain = paired_gain(table, "Align-Pro", "No Fine-Tuning", resamples)
        rows[name] = {**means, **gain}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
