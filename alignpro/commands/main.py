"""The command line: `python -m alignpro COMMAND --preset NAME`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignpro.config import Preset


def main() -> int:
    """Run one command. The exit status is 1 if an experiment failed, and 2 for bad input."""
    parser = argparse.ArgumentParser(prog="alignpro", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = _command(commands, "reproduce", _reproduce, "train and evaluate a preset's cells")
    only = {"action": "append", "help": "run only this one; may be given several times"}
    text = (
        "run only this one: a name, or a JSONL, JSON, CSV or Parquet file with a column `prompt` "
        "and, if you like, `split` and `kind`; may be given several times"
    )
    command.add_argument("--dataset", **only | {"help": text})
    command.add_argument("--seed", type=int, **only)
    _add_folders(command)
    command = _command(
        commands, "learn-reward", _learn_reward, "learn a reward from pairs and train on it"
    )
    command.add_argument("--dataset", default="help", help="default: %(default)s")
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    _add_folders(command)
    command = _command(commands, "plan", _plan, "compute what a preset needs of a GPU", "h100")
    for name, default, unit in (
        ("gpu-memory", 80.0, "GB"),
        ("flops", 989.0, "TFLOP/s, dense"),
        ("bandwidth", 3350.0, "GB/s"),
    ):
        text = f"in {unit}; default: %(default)g, the published value of an H100 SXM"
        command.add_argument(f"--{name}", type=_positive(float), default=default, help=text)
    command.add_argument(
        "--prompt-tokens", type=_positive(int), default=256, help="default: %(default)s"
    )
    command.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    command.add_argument(
        "--remote-frozen", action="store_true", help="another machine serves the frozen LLM"
    )
    text = "run all stages of a preset with random weights, and measure them"
    command = _command(commands, "rehearse", _rehearse, text, "h100")
    text = "below 1 for smaller models and batches; default: %(default)g"
    command.add_argument("--scale", type=_positive(float), default=1.0, help=text)
    command.add_argument("--pair", help="run only this architecture, such as P1-F1")
    command.add_argument(
        "--prompt-tokens", type=_positive(int), default=256, help="default: %(default)s"
    )
    _add_results(command)
    arguments = parser.parse_args()

    from alignpro.config import ConfigError, load_preset

    try:
        return arguments.run(load_preset(arguments.preset), arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _command(commands, name: str, run: Callable, text: str, preset: str = "cpu"):
    command = commands.add_parser(name, help=text)
    command.set_defaults(run=run)
    text = "the name of a preset, or a YAML file; default: %(default)s"
    command.add_argument("--preset", default=preset, help=text)
    return command


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", default="runs", help="the runs' folder; default: %(default)s")
    _add_results(command)


def _add_results(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", help="the folder of kept results; default: results")
    command.add_argument("--threads", type=_positive(int), help="CPU threads; default: all cores")


def _positive(kind: type) -> Callable:
    def number(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be greater than 0, got {text}")
        return value

    return number


def _learn_reward(preset: Preset, arguments: argparse.Namespace) -> int:
    """Run the study of a learned reward, or resume it."""
    from alignpro.reward_learning.config import load_reward_learning
    from alignpro.reward_learning.run_study import run_study

    config, cell = load_reward_learning(preset.name), (arguments.dataset, arguments.seed)
    print(f"in {run_study(preset, config, *cell, arguments.runs, _results(arguments))}")
    return 0


def _reproduce(preset: Preset, arguments: argparse.Namespace) -> int:
    """Run the missing cells of a preset, and draw all kept ones. Returns 1 if a cell failed."""
    from alignpro.devices import process
    from alignpro.experiments import reproduce
    from alignpro.figures.matrix import paper_figure
    from alignpro.figures.style import use_style
    from alignpro.report.kept_runs import matrix_rewards, matrix_table

    results = _results(arguments)
    failed = reproduce(preset, arguments.runs, results, arguments.dataset, arguments.seed)
    folder = results / preset.name
    if process().is_main_process and folder.is_dir():
        use_style()
        cells = matrix_rewards(matrix_table(preset.name, results), resamples=1000)
        figure = paper_figure(cells, "mean", "mean reward r*", "Mean held-out reward")
        figure.savefig(folder / "mean_reward.png", dpi=150)
    return 1 if failed else 0


def _results(arguments: argparse.Namespace) -> Path:
    """The folder of kept results; also sets the number of threads."""
    import torch

    from alignpro.runs import RESULTS

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return Path(arguments.results or RESULTS)


def _rehearse(preset: Preset, arguments: argparse.Namespace) -> int:
    """Rehearse a preset, print the result and keep it."""
    from alignpro.scale.rehearsal import rehearse, report, save

    folder = _results(arguments) / "rehearsal"
    pairs = [tuple(arguments.pair.split("-"))] if arguments.pair else []
    result = rehearse(preset, arguments.scale, arguments.prompt_tokens, pairs)
    print(f"{report(result)}\nin {save(result, folder)}")
    return 0


def _plan(preset: Preset, arguments: argparse.Namespace) -> int:
    """Print the plan of a preset."""
    import torch

    from alignpro.scale.plan import GPU, Plan

    gpu = GPU(arguments.gpu_memory * 1e9, arguments.flops * 1e12, arguments.bandwidth * 1e9)
    precision = getattr(torch, arguments.precision)
    plan = Plan(preset, gpu, arguments.prompt_tokens, precision, arguments.remote_frozen)
    print(plan.report())
    return 0
