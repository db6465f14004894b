"""The command line: `python -m alignpro reproduce`, `learn-reward` or `plan`, `--preset NAME`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignpro.config import Preset


def main() -> int:
    """Run a preset's experiments or plan them; exit status 1 where one failed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="alignpro", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("reproduce", help="train and evaluate every cell of a preset")
    command.add_argument("--dataset", help="only this dataset")
    command.add_argument("--seed", type=int, help="only this seed")
    _add_common(command, _reproduce)
    command = commands.add_parser(
        "learn-reward", help="learn a reward from labelled pairs and train prompters on it"
    )
    command.add_argument("--dataset", default="help")
    command.add_argument("--seed", type=int, default=0)
    _add_common(command, _learn_reward)
    _add_plan(commands)
    arguments = parser.parse_args()

    from alignpro.config import ConfigError, load_preset

    try:
        return arguments.run(load_preset(arguments.preset), arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _add_common(command: argparse.ArgumentParser, run: Callable) -> None:
    command.set_defaults(run=run)
    command.add_argument("--preset", default="cpu", help="a preset's name, or a YAML file")
    command.add_argument("--runs", default="runs", help="folder of the runs (default: runs)")
    command.add_argument("--results", help="folder of what is kept of them (default: results)")
    command.add_argument("--threads", type=int, help="CPU threads (default: all cores)")


def _learn_reward(preset: Preset, arguments: argparse.Namespace) -> int:
    """Make, or go on with, the study of a learned reward."""
    from alignpro.config import load_reward_learning

    config = load_reward_learning(preset.name)
    import torch

    from alignpro.reward_learning.run_study import run_study
    from alignpro.runs import RESULTS

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    results = Path(arguments.results or RESULTS)
    dataset, seed = arguments.dataset, arguments.seed
    print(f"in {run_study(preset, config, dataset, seed, arguments.runs, results)}")
    return 0


def _reproduce(preset: Preset, arguments: argparse.Namespace) -> int:
    """Run what is missing of the matrix, and draw all that is kept; 1 where a cell failed."""
    import torch

    from alignpro.devices import process
    from alignpro.experiments import reproduce
    from alignpro.figures.matrix import paper_figure
    from alignpro.figures.style import use_style
    from alignpro.report.kept_runs import matrix_summary, matrix_table
    from alignpro.runs import RESULTS

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    datasets = None if arguments.dataset is None else [arguments.dataset]
    seeds = None if arguments.seed is None else [arguments.seed]
    results = Path(arguments.results or RESULTS)
    failed = reproduce(preset, arguments.runs, results, datasets, seeds)
    folder = results / preset.name
    if process().is_main_process and folder.is_dir():
        use_style()
        cells = matrix_summary(matrix_table(preset.name, results), resamples=1000)
        figure = paper_figure(cells, "mean", "mean reward r*", "Mean held-out reward")
        figure.savefig(folder / "mean_reward.png", dpi=150)
    return 1 if failed else 0


def _add_plan(commands) -> None:
    command = commands.add_parser("plan", help="compute what a preset needs of a GPU")
    command.set_defaults(run=_plan)
    command.add_argument("--preset", default="h100", help="a preset's name, or a YAML file")
    for name, default, unit in (
        ("gpu-memory", 80.0, "GB"),
        ("flops", 989.0, "TFLOP/s, dense"),
        ("bandwidth", 3350.0, "GB/s"),
    ):
        said = f"{unit} (default: %(default)g, as the vendor publishes for the H100 SXM)"
        command.add_argument(f"--{name}", type=_positive, default=default, help=said)
    command.add_argument(
        "--prompt-tokens", type=int, default=256, help="of a prompt (default: 256)"
    )
    command.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    command.add_argument(
        "--remote-frozen", action="store_true", help="the frozen LLM is served by another machine"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, got {text}")
    return value


def _plan(preset: Preset, arguments: argparse.Namespace) -> int:
    """Print the plan of `preset`; 2 where a model's config cannot be had."""
    import torch

    from alignpro.scale.plan import GPU, Plan
    from alignpro.scale.step_costs import PlanError

    gpu = GPU(arguments.gpu_memory * 1e9, arguments.flops * 1e12, arguments.bandwidth * 1e9)
    precision = getattr(torch, arguments.precision)
    try:
        plan = Plan(preset, gpu, arguments.prompt_tokens, precision, arguments.remote_frozen)
        print(plan.report())
    except PlanError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
