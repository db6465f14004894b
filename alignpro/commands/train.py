"""`alignpro train` and `evaluate`: one cell of a preset, and what it has earned."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from alignpro.config import PRESETS, ConfigError, Preset
from alignpro.sources.files import require_place
from alignpro.sources.own_reward import load_reward
from alignpro.sources.prompt_files import is_file
from alignpro.sources.reference import candidates


def frozen_calls(preset: Preset, kinds: bool = False) -> str:
    """Return how often training and evaluating one cell asks the frozen LLM, as a sentence.

    kinds: whether the prompts carry kinds, which adds one configuration to the evaluation.
    """
    data, how = preset.data, preset.evaluation
    training = preset.ppo.steps * preset.ppo.batch_size
    suffixes = len(candidates(preset.prompter.warm_start))
    choosing = suffixes * data.validation * how.validation_samples
    testing = (4 + kinds) * data.test * how.samples
    return (
        f"the frozen LLM is asked {training:,} times in training ({preset.ppo.steps} steps of "
        f"{preset.ppo.batch_size}) and {choosing + testing:,} times in evaluation ({choosing:,} to "
        f"choose the best of {suffixes} suffixes, {testing:,} on test prompts)"
    )


def the_cell(preset: Preset, arguments: argparse.Namespace):
    """Return the cell that the arguments choose: a file of your own preset lies beside it.

    Raises ConfigError where the preset, the prompts or the reward cannot be used.
    """
    from alignpro.experiments import Cell

    folder = preset_folder(arguments.preset)
    if folder:
        sys.path.insert(0, str(folder.resolve()))  # the reward's module
    if arguments.prompt_column:
        data = dataclasses.replace(preset.data, prompt_column=arguments.prompt_column)
        preset = dataclasses.replace(preset, data=data)
    dataset = arguments.dataset or beside(folder, preset.datasets[0])
    reward = load_reward(arguments.reward) if arguments.reward else None
    again = getattr(arguments, "again", False)
    where = arguments.seed, arguments.pair, reward, runs_folder(arguments)
    return Cell(preset, dataset, *where, again=again)


def runs_folder(arguments: argparse.Namespace) -> Path:
    """The folder of all runs: that of a preset of your own is beside it."""
    return Path(arguments.runs or (preset_folder(arguments.preset) or Path()) / "runs")


def preset_folder(name_or_path: str) -> Path | None:
    """Return the folder of a preset of your own, or None for one of the project's."""
    path = Path(name_or_path)
    own = path.suffix in (".yaml", ".yml") and path.resolve().parent != PRESETS
    return path.parent if own else None


def beside(folder: Path | None, dataset: str) -> str:
    """Return a dataset of a preset in `folder`: a relative path is relative to the preset."""
    return str(folder / dataset) if folder and is_file(dataset) else dataset


def train(preset: Preset, arguments: argparse.Namespace) -> int:
    """Train the prompter of one cell, or resume its training, and keep it."""
    copy = Path(arguments.save) if arguments.save else None
    cell = the_cell(preset, arguments)
    kept = cell.run.folder / "prompter"
    if copy and copy.exists() and not _same_prompter(copy, kept):
        raise ConfigError(f"--save {copy} exists: choose another folder, or move it away")
    if not cell.run.finished:
        print(f"training in {cell.run.folder.resolve()}", file=sys.stderr)
        if cell.remote:
            print(frozen_calls(cell.preset), file=sys.stderr)
    prompter = cell.train()
    if cell.usage:
        print(cell.usage, file=sys.stderr)
    if copy and not copy.exists():
        prompter.save(copy)
    print(f"the prompter is in {copy or kept.resolve()}")
    return 0


# Where no prompt differs from another, a gain has no effect size.
@np.errstate(divide="ignore", invalid="ignore")
def evaluate(preset: Preset, arguments: argparse.Namespace) -> int:
    """Measure a trained prompter on test prompts, print its gains and draw them."""
    from alignpro.figures.style import use_style, verbatim
    from alignpro.figures.training import mean_reward
    from alignpro.statistics import paired_gain, reward_summary

    cell = the_cell(preset, arguments)
    if not cell.run.finished:
        raise ConfigError(
            f"no finished training in {cell.run.folder.resolve()}: run `alignpro train` with the "
            "same arguments first"
        )
    figure_path = Path(arguments.figure or cell.run.folder / "evaluation.png")
    require_place(figure_path)
    table, resamples = cell.evaluate(), cell.preset.evaluation.resamples
    summary = reward_summary(table, resamples)
    size = summary.iloc[0]
    print(
        f"{size['prompts']:.0f} test prompts, {size['samples']:.0f} answers to each; in brackets, "
        "95 % intervals over prompts\n\nmean reward"
    )
    for name, row in summary.iterrows():
        print(f"  {name:<28}{row['mean']:8.3f}  [{row['mean_low']:.3f}, {row['mean_high']:.3f}]")
    print("\ngain of Align-Pro, prompt by prompt")
    for name in ("No Fine-Tuning", "Best constant suffix"):
        g = paired_gain(table, "Align-Pro", name, resamples)
        print(f"  over {name:<23}{g['gain']:+8.3f}  [{g['low']:+.3f}, {g['high']:+.3f}]")
    suffix = _suffix(table)
    print(f"\nthe best constant suffix is {suffix!r}. {_verdict(g)}")
    use_style()
    figure = mean_reward(summary, verbatim(Path(cell.source).stem))
    figure.savefig(figure_path, dpi=150, bbox_inches="tight")
    print(f"figure: {figure_path}\ncard: {cell.run.folder / 'prompter' / 'README.md'}")
    if cell.usage:
        print(cell.usage, file=sys.stderr)
    return 0


def _verdict(over_suffix: dict[str, float]) -> str:
    """What the gain over the best constant suffix means for its user."""
    if over_suffix["low"] > 0:
        return "The prompter earns more: it reads the prompt"
    if over_suffix["high"] < 0:
        return "It earns more than the prompter: use it instead"
    return "The prompter is not told apart from it, and a constant suffix costs nothing"


def _suffix(table) -> str:
    row = table[table["configuration"] == "Best constant suffix"].iloc[0]
    return row["rewrite"].removeprefix(row["prompt"]).strip() or "(nothing)"


def _same_prompter(one: Path, other: Path) -> bool:
    """Whether two folders hold the same trained adapter."""
    name = "adapter_model.safetensors"
    both = [folder / name for folder in (one, other)]
    return all(p.exists() for p in both) and both[0].read_bytes() == both[1].read_bytes()
