"""Train a prompter for a frozen LLM, and use it. `alignpro COMMAND --help` explains a command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignpro.commands.options import (
    add_column,
    add_command,
    add_folders,
    add_parser,
    add_prompt_tokens,
    add_results,
    add_runs,
    add_threads,
    pair,
    positive,
    price,
    seed,
)

if TYPE_CHECKING:
    from alignpro.config import Preset

PROMPT_FILE = (
    "a JSONL, JSON, CSV or Parquet file with a column `prompt` and, if you like, `split` (train, "
    "validation, test), `kind` (any word) and `options`"
)
REWARD = "MODULE:FUNCTION, FILE.py:FUNCTION, or a reward model by its Hub id or folder"
SEED = "the seed of the run: it draws the data's order, the samples and the first adapter"
TERMS = """\
A preset is a YAML file with every number of an experiment. A cell is one of its datasets with one
of its pairs of models and one seed. Repeat a command that was stopped: it resumes.

A model of your own:
  alignpro init bike.yaml --endpoint URL --model NAME --prompts FILE --reward reward:helpful
  alignpro train --preset bike.yaml --save bike-prompter
  alignpro evaluate --preset bike.yaml
  alignpro rewrite --prompter bike-prompter "How do I true a wheel?"

The paper's models on one H100:
  alignpro plan --preset h100
  alignpro rehearse --preset h100
  alignpro reproduce --preset h100
"""
# Errors with a message for the user, which come from modules that are slow to import.
EXPECTED = ("ModelError", "EndpointError", "JudgeError", "StoreError", "DataError")


def main() -> int:
    """Run one command. The exit status is 1 if an experiment failed, and 2 for bad input."""
    arguments = parser().parse_args()

    from alignpro.config import ConfigError, load_preset
    from alignpro.runs import RunError
    from alignpro.sources.terminal import inert

    try:
        if "preset" in arguments:
            return arguments.run(load_preset(arguments.preset), arguments)
        return arguments.run(arguments)
    except (ConfigError, RunError) as error:
        print(inert(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped. What is done is kept: the same command goes on from there", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if type(error).__name__ not in EXPECTED:
            raise
        print(inert(str(error)), file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The parser of the command line. `run` is the function of the chosen command."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("alignpro", None, __doc__, TERMS, formatter_class=as_written)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_own_model, _add_use, _add_judge, _add_book, _add_scale):
        add(commands)
    return parser


def _add_own_model(commands) -> None:
    """`init`, `train` and `evaluate`: a prompter for a model of your own."""
    text = (
        "write a preset for your model, prompts and reward, and count the calls that it will make"
    )
    command = add_parser(commands, "init", _init, text)
    command.add_argument("file", metavar="FILE.yaml", help="the preset to write; a new file")
    text = "the frozen LLM: its name at the endpoint, or a Hub id or a folder"
    command.add_argument("--model", required=True, metavar="MODEL", help=text)
    text = "the address of an OpenAI-compatible server; default: the model is loaded here"
    command.add_argument("--endpoint", metavar="URL", help=text)
    command.add_argument("--prompts", required=True, metavar="FILE", help=PROMPT_FILE)
    command.add_argument("--reward", required=True, help=REWARD)
    text = "the model to train, a Hub id or a folder; default: one that fits this machine"
    command.add_argument("--prompter", metavar="MODEL", help=text)
    add_column(command, "prompt")
    for name, run, text in (
        ("train", _train, "train a prompter, or resume its training"),
        (
            "evaluate",
            _evaluate,
            "compare a trained prompter with none and with the best suffix, on test prompts",
        ),
    ):
        command = add_command(commands, name, run, text)
        text = f"a name, or {PROMPT_FILE}; default: the first of the preset"
        command.add_argument("--dataset", metavar="DATASET", help=text)
        add_column(command, None)
        command.add_argument("--reward", help=f"{REWARD}; default: the preset's")
        command.add_argument("--seed", type=seed, default=0, help=f"{SEED}; default: %(default)s")
        text = "the prompter and the frozen LLM, by their roles in the preset, such as P1-F1; "
        command.add_argument("--pair", type=pair, help=f"{text}default: the preset's first")
        add_runs(command)
        add_threads(command)
        if name == "train":
            text = "train although a finished run of this name exists, made from something else"
            command.add_argument("--again", action="store_true", help=text)
            text = "copy the trained prompter to this folder"
            command.add_argument("--save", metavar="FOLDER", help=text)
        else:
            text = "where to draw it; default: evaluation.png in the run's folder"
            command.add_argument("--figure", metavar="FILE.png", help=text)


def _add_use(commands) -> None:
    """`rewrite` and `serve`: a trained prompter at work."""
    command = add_parser(commands, "rewrite", _rewrite, "rewrite prompts with a trained prompter")
    command.add_argument("prompt", nargs="*", help="a prompt; several are rewritten in this order")
    text = "read more prompts from a JSONL, JSON, CSV or Parquet file"
    command.add_argument("--file", metavar="FILE", help=text)
    add_column(command, "prompt")
    command.add_argument(
        "--seed", type=seed, help="sample with this seed; default: the greedy rewrite"
    )
    text = "write the rewrites here; default: the screen"
    command.add_argument("--out", metavar="FILE.jsonl", help=text)
    _add_prompter(command)
    text = "serve the aligned model on this machine, with OpenAI's protocol"
    command = add_parser(commands, "serve", _serve, text)
    text = "the address of the frozen LLM's server, such as http://localhost:8000/v1"
    command.add_argument("--endpoint", required=True, metavar="URL", help=text)
    command.add_argument(
        "--port", type=positive(int), default=8080, help="the port; default: %(default)s"
    )
    _add_prompter(command)


def _add_judge(commands) -> None:
    text = "compare two files of responses with a model as the judge"
    command = add_parser(commands, "judge", _judge, text)
    for name in ("a", "b"):
        text = "a JSONL, JSON, CSV or Parquet file with the columns `prompt` and `response`"
        command.add_argument(name, metavar=name.upper(), help=text)
    command.add_argument("--model", required=True, help="the judge's name at the endpoint")
    text = (
        "the address of the judge's server; default: OPENAI_BASE_URL, or OpenAI's own. The key is "
        "read from OPENAI_API_KEY"
    )
    command.add_argument("--endpoint", metavar="URL", help=text)
    text = (
        "the replies are kept in this file: only those to calls under way at a kill are paid for "
        "twice; default: %(default)s"
    )
    command.add_argument("--store", metavar="FILE", default="verdicts.sqlite", help=text)
    text = "prices of a million tokens in and out, in any currency"
    command.add_argument("--prices", nargs=2, type=price, metavar=("IN", "OUT"), help=text)
    text = "stop before the replies cost more than this; needs --prices"
    command.add_argument("--max-cost", type=positive(float), metavar="COST", help=text)
    command.add_argument("--out", metavar="FILE.csv", help="write the table of verdicts here")


def _add_prompter(command: argparse.ArgumentParser) -> None:
    text = "the folder of a trained prompter, or its id on the Hub"
    command.add_argument("--prompter", required=True, metavar="FOLDER", help=text)
    text = "where its base model is now; default: where it was in training"
    command.add_argument("--base", metavar="FOLDER", help=text)


def _add_book(commands) -> None:
    """`reproduce`, `learn-reward` and `verify`: the experiments of the book."""
    text = "train and evaluate all cells of a preset, each with its RLHF oracle, or resume them"
    command = add_command(commands, "reproduce", _reproduce, text)
    text = f"run this dataset alone: a name, or {PROMPT_FILE}; may be given several times"
    command.add_argument("--dataset", action="append", metavar="DATASET", help=text)
    text = "run this seed alone; may be given several times"
    command.add_argument("--seed", type=seed, action="append", help=text)
    add_folders(command)
    text = "learn a reward from labelled pairs, and train prompters on it"
    command = add_command(commands, "learn-reward", _learn_reward, text)
    text = "the dataset, by its name; default: %(default)s"
    command.add_argument("--dataset", default="help", help=text)
    command.add_argument("--seed", type=seed, default=0, help=f"{SEED}; default: %(default)s")
    add_folders(command)
    command = add_command(commands, "verify", _verify, "check the kept results and their numbers")
    text = (
        "accept the results as they are: write the hashes and numbers that the checks compare with"
    )
    command.add_argument("--keep", action="store_true", help=text)
    text = "compute every reward again; default: a sample of 20 of each kept table"
    command.add_argument("--all-rewards", action="store_true", help=text)
    text = "train this kept cell again, such as help/P1F1/seed0; default: one of the preset smoke"
    command.add_argument("--cell", metavar="CELL", help=text)
    add_folders(command)


def _add_scale(commands) -> None:
    """`plan` and `rehearse`: what a preset needs of a GPU."""
    command = add_command(commands, "plan", _plan, "compute what a preset needs of a GPU", "h100")
    for name, default, unit, what in (
        ("gpu-memory", 80.0, "GB", "the GPU's memory in GB"),
        ("flops", 989.0, "TFLOPS", "its peak in TFLOP/s, dense, in the precision below"),
        ("bandwidth", 3350.0, "GB/S", "the bandwidth of its memory in GB/s"),
    ):
        text = f"{what}; default: %(default)g, the published value of an H100 SXM"
        number = {"type": positive(float), "default": default, "metavar": unit}
        command.add_argument(f"--{name}", **number, help=text)
    add_prompt_tokens(command)
    text = (
        "the number format of the models; float32 for a GPU without bfloat16; default: %(default)s"
    )
    formats = ("bfloat16", "float32")
    command.add_argument("--precision", choices=formats, default="bfloat16", help=text)
    text = "another machine serves the frozen LLM, so that it needs no memory here"
    command.add_argument("--remote-frozen", action="store_true", help=text)
    text = "run all stages of a preset with random weights, and measure their memory and time"
    command = add_command(commands, "rehearse", _rehearse, text, "h100")
    text = "below 1 for smaller models and batches, such as 0.01 on a CPU; default: %(default)g"
    command.add_argument("--scale", type=positive(float), default=1.0, help=text)
    command.add_argument("--pair", type=pair, help="run only this architecture, such as P1-F1")
    add_prompt_tokens(command)
    add_results(command)


def _init(arguments: argparse.Namespace) -> int:
    """Write a preset for a model of the user's own."""
    from alignpro.commands.init import write_preset

    path, a = Path(arguments.file), arguments
    cost = write_preset(
        path, a.model, Path(a.prompts), a.reward, a.endpoint, a.prompter, a.prompt_column
    )
    print(f"wrote {path}. With it, {cost}.\nNext: alignpro train --preset {path}")
    return 0


def _train(preset: Preset, arguments: argparse.Namespace) -> int:
    from alignpro.commands.train import train

    _set_threads(arguments)
    return train(preset, arguments)


def _evaluate(preset: Preset, arguments: argparse.Namespace) -> int:
    from alignpro.commands.train import evaluate

    _set_threads(arguments)
    return evaluate(preset, arguments)


def _rewrite(arguments: argparse.Namespace) -> int:
    from alignpro.commands.use import rewrite

    return rewrite(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from alignpro.commands.use import serve

    return serve(arguments)


def _judge(arguments: argparse.Namespace) -> int:
    """Judge two files of responses, print the report and keep the verdicts."""
    from alignpro.config import ConfigError
    from alignpro.judging.llm_judge import Judge
    from alignpro.judging.pairs import read_pairs
    from alignpro.judging.report import report
    from alignpro.sources.files import require_place

    if arguments.out:
        require_place(Path(arguments.out))
    try:
        pairs = read_pairs(arguments.a, arguments.b)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    prices = tuple(arguments.prices) if arguments.prices else None
    judge = Judge(arguments.model, arguments.endpoint, prices=prices)
    table = judge.compare(pairs, arguments.store, arguments.max_cost)
    if arguments.out:
        table.to_csv(arguments.out, index=False)
    for name, value in report(table).items():
        print(f"{name:<16}{value:10.3f}" if isinstance(value, float) else f"{name:<16}{value:>6}")
    return 0


def _learn_reward(preset: Preset, arguments: argparse.Namespace) -> int:
    """Run the study of a learned reward, or resume it."""
    from alignpro.commands.train import runs_folder
    from alignpro.reward_learning.config import load_reward_learning
    from alignpro.reward_learning.run_study import run_study

    config, cell = load_reward_learning(preset.name), (arguments.dataset, arguments.seed)
    print(f"in {run_study(preset, config, *cell, runs_folder(arguments), _results(arguments))}")
    return 0


def _reproduce(preset: Preset, arguments: argparse.Namespace) -> int:
    """Run the missing cells of a preset, and draw all kept ones. Returns 1 if a cell failed."""
    from alignpro.commands.train import beside, preset_folder, runs_folder
    from alignpro.devices import process
    from alignpro.experiments import reproduce
    from alignpro.figures.matrix import paper_figure
    from alignpro.figures.style import use_style
    from alignpro.report.kept_runs import matrix_rewards, matrix_table
    from alignpro.report.reading import with_pooled_choices

    results = _results(arguments)
    folder = preset_folder(arguments.preset)
    if folder:
        sys.path.insert(0, str(folder.resolve()))  # the reward's module
    datasets = arguments.dataset or [beside(folder, dataset) for dataset in preset.datasets]
    failed = reproduce(preset, runs_folder(arguments), results, datasets, arguments.seed)
    folder = results / preset.name
    if process().is_main_process and folder.is_dir():
        use_style()
        table = with_pooled_choices(matrix_table(preset.name, results), preset.name, results)
        cells = matrix_rewards(table, resamples=1000)
        figure = paper_figure(cells, "mean", "mean reward r*", "Mean held-out reward")
        figure.savefig(folder / "mean_reward.png", dpi=150)
    return 1 if failed else 0


def _results(arguments: argparse.Namespace) -> Path:
    """The folder of kept results; also sets the number of threads.

    The project's own folder holds the results of its own presets alone, unless it is named.
    """
    from alignpro.commands.train import preset_folder
    from alignpro.runs import RESULTS

    _set_threads(arguments)
    own = preset_folder(arguments.preset)
    return Path(arguments.results or (own / "results" if own else RESULTS))


def _set_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)


def _rehearse(preset: Preset, arguments: argparse.Namespace) -> int:
    """Rehearse a preset, print the result and keep it."""
    from alignpro.scale.rehearsal import rehearse, report, save

    folder = _results(arguments) / "rehearsal"
    pairs = [arguments.pair] if arguments.pair else []
    result = rehearse(preset, arguments.scale, arguments.prompt_tokens, pairs)
    print(f"{report(result)}\nin {save(result, folder)}")
    return 0


def _verify(preset: Preset, arguments: argparse.Namespace) -> int:
    """Check the kept results, or keep what the checks compare with. Returns 1 for a difference."""
    from alignpro.commands import verify
    from alignpro.commands.train import runs_folder

    results, answers = _results(arguments), None if arguments.all_rewards else 20
    if arguments.keep:
        verify.keep(preset, results)
        print(f"in {results}: {verify.MANIFEST}, {verify.NUMBERS}, {verify.SMOKE}/smoke")
        return 0
    runs = runs_folder(arguments)
    return 0 if verify.verify(preset, results, answers, arguments.cell, runs) else 1


def _plan(preset: Preset, arguments: argparse.Namespace) -> int:
    """Print the plan of a preset."""
    import torch

    from alignpro.scale.plan import GPU, Plan

    gpu = GPU(arguments.gpu_memory * 1e9, arguments.flops * 1e12, arguments.bandwidth * 1e9)
    precision = getattr(torch, arguments.precision)
    plan = Plan(preset, gpu, arguments.prompt_tokens, precision, arguments.remote_frozen)
    print(plan.report())
    return 0
