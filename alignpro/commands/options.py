"""The options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

PRESETS = ", ".join(sorted(p.stem for p in (Path(__file__).parents[1] / "presets").glob("*.yaml")))


def add_parser(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    """Add the command `name`, which calls `run`; `text` says in its help what it does."""
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run)
    return command


def add_command(commands, name: str, run: Callable, text: str, preset: str = "cpu"):
    """Add a command that takes a preset, by default `preset`."""
    command = add_parser(commands, name, run, text)
    text = f"a YAML file of your own, or the name of one of {PRESETS}; default: %(default)s"
    command.add_argument("--preset", default=preset, help=text)
    return command


def add_folders(command: argparse.ArgumentParser) -> None:
    """Add `--runs`, `--results` and `--threads`."""
    add_runs(command)
    add_results(command)


def add_runs(command: argparse.ArgumentParser) -> None:
    """Add `--runs`."""
    text = "the folder of runs and their checkpoints; default: runs, beside a preset of your own"
    command.add_argument("--runs", metavar="FOLDER", help=text)


def add_column(command: argparse.ArgumentParser, default: str | None) -> None:
    """Add `--prompt-column`."""
    text = "the column of the file that holds the prompts; default: prompt"
    command.add_argument("--prompt-column", metavar="COLUMN", default=default, help=text)


def add_prompt_tokens(command: argparse.ArgumentParser) -> None:
    """Add `--prompt-tokens`."""
    text = "the length of a prompt in tokens; default: %(default)s"
    number = positive(int)
    command.add_argument("--prompt-tokens", type=number, default=256, metavar="TOKENS", help=text)


def add_threads(command: argparse.ArgumentParser) -> None:
    """Add `--threads`."""
    text = "CPU threads; default: all cores"
    command.add_argument("--threads", type=positive(int), help=text)


def add_results(command: argparse.ArgumentParser) -> None:
    """Add `--results` and `--threads`."""
    text = "the folder of kept results; default: results, beside a preset of your own"
    command.add_argument("--results", metavar="FOLDER", help=text)
    add_threads(command)


def positive(kind: type) -> Callable:
    """The type of a positive and finite number of this `kind`, int or float."""

    def number(text: str):
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"must be greater than 0 and finite, got {text}")
        return value

    return number


def seed(text: str) -> int:
    """The type of a seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text}")
    return int(text)


def price(text: str) -> float:
    """The type of a price."""
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, got {text}")
    return float(text)


def pair(text: str) -> tuple[str, str]:
    """The type of two roles of a preset, as in P1-F1."""
    prompter, dash, frozen = text.partition("-")
    if not (prompter and frozen) or "-" in frozen:
        raise argparse.ArgumentTypeError(
            f"must be two roles of the preset, the prompter and the frozen LLM, as in P1-F1, got "
            f"{text}"
        )
    return prompter, frozen
