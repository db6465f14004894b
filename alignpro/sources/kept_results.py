"""What a reader needs of finished runs, in `results/`: whole, and of one configuration.

The folder of a run is PRESET/DATASET/ARCHITECTURE/seedN. Tables and figures average over the seeds
in one folder, so that all of them must have been made with the same settings.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from alignpro.config import Preset, described
from alignpro.runs import Run, RunError, atomic_write
from alignpro.sources.files import explained, read_json, require_readable
from alignpro.sources.finished_runs import flat

KEPT = (
    "config.json",
    "card.json",
    "coverage.json",
    "metrics.jsonl",
    "samples.jsonl",
    "suffixes.parquet",
    "evaluation.parquet",
    "best_of.parquet",
)
# Settings that an oracle, which shares the adapter's form, is not trained with.
PROMPTER_ONLY = ("prompter.form", "prompter.max_new_tokens", "prompter.warm_start.")
# They choose which runs there are, and nothing within one.
CHOICES = ("seeds", "datasets", "architectures")


def folder_of(run: Run, results: Path) -> Path:
    """Return the folder of a run in `results`. That of an oracle is named after the frozen LLM."""
    architecture = "".join(run.cell["architecture"])
    return results / run.preset.name / run.cell["dataset"] / architecture / f"seed{run.seed}"


def keep(run: Run, results: Path) -> None:
    """Copy the small, plain files of a finished run into `results`.

    Raises RunError for a damaged file, and as `require_one_configuration` does, before anything is
    copied.
    """
    target = folder_of(run, results)
    found = [path for name in KEPT if (path := run.folder / name).exists()]
    for path in found:
        require_readable(path)
    require_one_configuration(run, results)
    for path in found:
        with explained(target / path.name), atomic_write(target / path.name) as partial:
            shutil.copyfile(path, partial)


def require_one_configuration(run: Run, results: Path) -> None:
    """Raise RunError where runs of other settings are kept where this one belongs."""
    for path in sorted(folder_of(run, results).parent.glob("seed*/config.json")):
        if different := list(_differences(read_json(path), run)):
            raise RunError(
                f"{path.parent} holds results of another configuration ({'; '.join(different)}). "
                "Both would be taken for one. Give the preset a `name` of its own, choose another "
                f"folder by --results, or delete {path.parent} if this run is to replace it"
            )


def _differences(config: dict, run: Run) -> Iterator[str]:
    """What a kept run was made with and `run` was not."""
    cell, reward = config.get("cell", {}), run.preset.reward
    roles = {*run.cell["architecture"], *([reward] if reward else [])}
    for key in ("reward", "weights"):
        if cell.get(key) != run.cell.get(key):
            yield f"{key} {cell.get(key)}, now {run.cell.get(key)}"
    for name, kept, today in changed_settings(config, run.preset):
        section, _, rest = name.partition(".")
        other_role = section == "models" and rest.partition(".")[0] not in roles
        if section not in CHOICES and not other_role:
            yield f"{name} {kept}, now {today}"


def changed_settings(config: dict, preset: Preset) -> list[tuple[str, object, object]]:
    """What a kept `config.json` was made with and what `preset` has today, where they differ.

    The setting's name, its value then, and its value today; None where there was or is none. A
    prompter's run is compared without the settings of the oracle, and an oracle's without those of
    the prompter and of its PPO, which `rlhf` replaces.
    """
    oracle = config.get("cell", {}).get("configuration") == "rlhf"
    kept, today = (
        _in_force(dict(flat(settings)), oracle)
        for settings in (config["preset"], described(preset))
    )
    names = sorted(kept | today)
    return [(n, kept.get(n), today.get(n)) for n in names if kept.get(n) != today.get(n)]


def _in_force(settings: dict, oracle: bool) -> dict:
    """What a prompter, or an oracle, is trained with; both under the names of `ppo`."""
    if not oracle:
        return {k: v for k, v in settings.items() if not k.startswith("rlhf.")}
    own = {k.replace("rlhf.", "ppo."): v for k, v in settings.items() if k.startswith("rlhf.")}
    others = {k: v for k, v in settings.items() if not k.startswith(("rlhf.", *PROMPTER_ONLY))}
    return others | {k: v for k, v in own.items() if v is not None}
