"""The command line: `python -m alignpro reproduce --preset cpu`, or `learn-reward`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run a preset's experiments; exit status 1 where a cell failed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="alignpro", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("reproduce", help="train and evaluate every cell of a preset")
    command.add_argument("--dataset", help="only this dataset")
    command.add_argument("--seed", type=int, help="only this seed")
    _add_common(command)
    command = commands.add_parser(
        "learn-reward", help="learn a reward from labelled pairs and train prompters on it"
    )
    command.add_argument("--dataset", default="help")
    command.add_argument("--seed", type=int, default=0)
    _add_common(command)
    arguments = parser.parse_args()
    return (
        _learn_reward(arguments) if arguments.command == "learn-reward" else _reproduce(arguments)
    )


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="cpu", help="a preset's name, or a YAML file")
    command.add_argument("--runs", default="runs", help="folder of the runs (default: runs)")
    command.add_argument("--results", help="folder of what is kept of them (default: results)")
    command.add_argument("--threads", type=int, help="CPU threads (default: all cores)")


def _learn_reward(arguments: argparse.Namespace) -> int:
    from alignpro.config import ConfigError, load_preset, load_reward_learning

    try:
        preset = load_preset(arguments.preset)
        config = load_reward_learning(preset.name)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    import torch

    from alignpro.experiments import RESULTS
    from alignpro.reward_study import run_study

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    results = Path(arguments.results or RESULTS)
    dataset, seed = arguments.dataset, arguments.seed
    print(f"in {run_study(preset, config, dataset, seed, arguments.runs, results)}")
    return 0


def _reproduce(arguments: argparse.Namespace) -> int:
    from alignpro.config import ConfigError, load_preset

    try:
        preset = load_preset(arguments.preset)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    import torch

    from alignpro.evaluation import compare_runs
    from alignpro.experiments import RESULTS
    from alignpro.figures import run_means, use_style
    from alignpro.matrix import reference_tables, reproduce
    from alignpro.models import process

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    datasets = None if arguments.dataset is None else [arguments.dataset]
    seeds = None if arguments.seed is None else [arguments.seed]
    results = Path(arguments.results or RESULTS)
    failed = reproduce(preset, arguments.runs, results, datasets, seeds)
    if not process().is_main_process:
        return 1 if failed else 0
    use_style()
    for folder in sorted((results / preset.name).glob("*/")):
        runs = compare_runs(reference_tables(preset.name, folder.name, results), resamples=100)
        figure = run_means(runs, f"Held-out prompts of `{folder.name}`, one dot a run")
        figure.savefig(results / preset.name / f"{folder.name}.png", dpi=150)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
