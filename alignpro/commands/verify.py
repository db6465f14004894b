"""`python -m alignpro verify`: is what `results/` keeps whole, and does it follow from its causes?

Five checks, each of which prints one line and then what it found wrong:

files: every file of `results/` has the hash in `results/SHA256SUMS`, and none is missing or new.
    `sha256sum --check SHA256SUMS` in that folder tests the same without this package.
configs: every kept run was made with the preset as it is today, for all of its steps, and its card,
    its configuration and its folder name the same cell.
rewards: stored rewards follow from the stored answers, by the rubric of today, to 1e-4.
numbers: the numbers behind the book's tables and figures (`report.book_numbers`), computed again,
    are those of `results/verify/numbers.json`, to a relative 1e-6.
cell: one cell is trained and evaluated again. See `compare_cells` for what must agree.

`keep` writes what the first, fourth and fifth check compare with.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch

from alignpro.config import ConfigError, Preset, load_preset
from alignpro.data import SPLITS, load_prompts
from alignpro.experiments import Cell
from alignpro.report.book_numbers import book_numbers
from alignpro.rewards import rubric
from alignpro.runs import RESULTS, STEP_PARTS, atomic_write, write_json
from alignpro.sources.kept_results import changed_settings
from alignpro.texts import Response

MANIFEST, NUMBERS, SMOKE = "SHA256SUMS", "verify/numbers.json", "verify"
TABLES = ("suffixes", "evaluation", "best_of")
STUDY_TABLES = ("train", "test", "prompters")
RELATIVE, REWARD = 1e-6, 1e-4
# On another CPU; `compare_cells` says what was measured.
SAME_ANSWERS, SAME_FORMAT, OTHER_FORMAT = 0.9, 0.01, 0.1


def verify(
    preset: Preset,
    results: Path = RESULTS,
    answers: int | None = 20,
    cell: str | None = None,
    runs: Path = Path("runs"),
) -> bool:
    """Run the five checks on `results`, print what they find, and return whether all is well.

    answers: how many answers of each kept table have their reward computed again; None for all.
    cell: the kept cell that is trained again, such as "help/P1F1/seed0". By default, one cell of
        the smoke preset is, in less than a minute. A cell of the preset `cpu` takes half an hour.
    runs: the folder in which `cell` is trained. A run that was stopped there goes on.
    """
    checks: dict[str, Callable[[], list[str]]] = {
        "files": lambda: check_files(results),
        "configs": lambda: check_configs(preset, results),
        "rewards": lambda: check_rewards(preset, results, answers),
        "numbers": lambda: check_numbers(preset, results),
        "cell": lambda: check_cell(preset, results, cell, runs),
    }
    well = True
    for name, check in checks.items():
        problems = check()
        print(f"{name}: {'as kept' if not problems else f'{len(problems)} problems'}", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
        well = well and not problems
    return well


def keep(preset: Preset, results: Path = RESULTS) -> None:
    """Train the smoke cell, and write its results, the book's numbers and the manifest."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "results"
        train(*_smoke_cell(), threads=1, root=Path(folder) / "runs", results=made)
        shutil.rmtree(results / SMOKE / "smoke", ignore_errors=True)
        shutil.copytree(made / "smoke", results / SMOKE / "smoke")
    write_json(results / NUMBERS, book_numbers(preset, results))
    write_manifest(results)


def hashes(results: Path) -> dict[str, str]:
    """The SHA-256 of every file in `results` but the manifest, by its path there."""
    paths = (p for p in sorted(results.rglob("*")) if p.is_file())
    names = {p.relative_to(results).as_posix(): p for p in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if name != MANIFEST
    }


def write_manifest(results: Path) -> None:
    """Write the hashes of all files in the format of `sha256sum`."""
    lines = [f"{value}  {name}\n" for name, value in hashes(results).items()]
    with atomic_write(results / MANIFEST) as partial:
        partial.write_text("".join(lines), encoding="utf-8")


def check_files(results: Path) -> list[str]:
    """What differs between the files in `results` and the manifest."""
    if not (results / MANIFEST).exists():
        return [f"there is no {MANIFEST}: `python -m alignpro verify --keep` writes it"]
    lines = (results / MANIFEST).read_text(encoding="utf-8").split("\n")
    wanted = {name: value for value, _, name in (x.partition("  ") for x in lines if x)}
    found = hashes(results)
    told = {"missing": wanted.keys() - found.keys(), "not in the manifest": found - wanted.keys()}
    told["altered"] = {name for name in wanted.keys() & found if wanted[name] != found[name]}
    return [f"{name} is {what}" for what, names in told.items() for name in sorted(names)]


def _runs(preset: Preset, results: Path) -> list[Path]:
    """The folders of the kept runs of `preset`."""
    return sorted(p.parent for p in (results / preset.name).glob("*/*/seed*/config.json"))


def _studies(preset: Preset, results: Path) -> list[Path]:
    """The folders of the kept reward studies of `preset`."""
    studies = sorted((results / "reward_learning").glob("*/card.json"))
    return [p.parent for p in studies if _json(p)["preset"] == preset.name]


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def check_configs(preset: Preset, results: Path) -> list[str]:
    """Where the kept runs and studies of `preset` differ from it, or from their own cards."""
    problems = []
    for folder in [*_runs(preset, results), *_studies(preset, results)]:
        config, where = _json(folder / "config.json"), folder.relative_to(results).as_posix()
        if not (folder / "card.json").exists():
            problems.append(f"{where} has no card")
            continue
        changed = changed_settings(config, preset)
        facts = [f"{name} was {kept}, is {today}" for name, kept, today in changed]
        if facts:
            problems.append(f"{where} was made with another preset: {'; '.join(facts)}")
        if "cell" in config:
            problems += [f"{where}: {x}" for x in _misfits(preset, folder, config["cell"])]
    return problems


def _misfits(preset: Preset, folder: Path, cell: dict) -> Iterator[str]:
    """What in the folder of a run contradicts its `cell`."""
    card, rows = _json(folder / "card.json"), _rows(folder / "metrics.jsonl")
    if any(card.get(name) != value for name, value in cell.items()):
        yield "the card is that of another cell"
    place = cell["preset"], cell["dataset"], "".join(cell["architecture"]), f"seed{cell['seed']}"
    if folder.parts[-4:] != place:
        yield f"the folder is not {'/'.join(place)}"
    steps = (preset.rlhf if cell["configuration"] == "rlhf" else preset.ppo).steps
    if [row["step"] for row in rows] != list(range(1, steps + 1)):
        yield f"the metrics do not have the steps 1 to {steps}, once each"
    seconds = sum(row[name] for row in rows for name in STEP_PARTS)
    if abs(seconds - card["training_seconds"]) > 0.1:
        yield f"the steps took {seconds:.1f} s, the card has {card['training_seconds']} s"


def check_rewards(preset: Preset, results: Path, answers: int | None) -> list[str]:
    """Which kept tables hold a reward that the rubric does not give to the kept answer."""
    problems = []
    for folder, tables in [
        *((folder, TABLES) for folder in _runs(preset, results)),
        *((folder, STUDY_TABLES) for folder in _studies(preset, results)),
    ]:
        card = _json(folder / "card.json")
        if card.get("reward", "rubric") != "rubric":
            continue
        try:
            known = {p.id: p for split in SPLITS for p in load_prompts(card["dataset"], split)}
        except ConfigError:
            problems.append(f"{folder.name}: the prompts of {card['dataset']!r} are not kept here")
            continue
        for path in (folder / f"{name}.parquet" for name in tables):
            if path.exists():
                where = path.relative_to(results).as_posix()
                problems += [f"{where}: {x}" for x in _wrong_rewards(path, known, answers)]
    return problems


def _wrong_rewards(path: Path, known: dict, answers: int | None) -> Iterator[str]:
    table = pd.read_parquet(path)
    if unknown := sorted(set(table["id"]) - known.keys()):
        yield f"{len(unknown)} prompts are not in the project's files, such as {unknown[0]}"
        return
    if answers is not None and answers < len(table):
        table = table.sample(answers, random_state=0)
    responses = [Response(y, e) for y, e in zip(table["response"], table["ended"])]
    rewards = rubric([known[i] for i in table["id"]], responses).double().numpy()
    wrong = ~(abs(rewards - table["reward"].to_numpy()) <= REWARD)
    if wrong.any():
        row = int(wrong.argmax())
        yield (
            f"{wrong.sum()} of {len(table)} rewards are not the rubric's, such as "
            f"{table['reward'].iloc[row]:.4f} instead of {rewards[row]:.4f} in row "
            f"{table.index[row]}"
        )


def check_numbers(preset: Preset, results: Path) -> list[str]:
    """Which of the book's numbers, computed again, differ from the kept ones."""
    if not (results / NUMBERS).exists():
        return [f"there is no {NUMBERS}: `python -m alignpro verify --keep` writes it"]
    kept, again = _json(results / NUMBERS), book_numbers(preset, results)
    problems = [f"{name} is missing" for name in kept.keys() - again.keys()]
    problems += [f"{name} is new" for name in again.keys() - kept.keys()]
    for name in kept.keys() & again.keys():
        if not _equal(kept[name], again[name]):
            problems.append(f"{name} was {kept[name]}, is {again[name]}")
    return sorted(problems)


def _equal(kept: float | str | None, again: float | str | None) -> bool:
    if isinstance(kept, (int, float)) and isinstance(again, (int, float)):
        return math.isclose(kept, again, rel_tol=RELATIVE, abs_tol=1e-9)
    return kept == again


def _smoke_cell() -> tuple[Preset, str, str, int]:
    """The preset, dataset, architecture and seed that are trained where no cell is named."""
    smoke = load_preset("smoke")
    return smoke, smoke.datasets[0], "".join(smoke.architectures[0]), smoke.seeds[0]


def train(
    preset: Preset, dataset: str, architecture: str, seed: int, threads: int, root: Path,
    results: Path,
) -> Path:  # fmt: skip
    """Train and evaluate one cell with its oracle on `threads` threads, and export it.

    Returns the prompter's folder in `results`. Raises ValueError for an architecture that the
    preset does not have.
    """
    pairs = {"".join(pair): pair for pair in preset.architectures}
    if architecture not in pairs:
        raise ValueError(f"no architecture {architecture!r} in the preset {preset.name!r}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        cell = Cell(preset, dataset, seed, pairs[architecture], root=root)
        cell.train(progress=False)
        cell.train_oracle(progress=False)
        cell.evaluate(progress=False)
        cell.evaluate_best_of(progress=False)
        cell.evaluate_oracle(progress=False)
        return cell.export(results)
    finally:
        torch.set_num_threads(before)


def check_cell(preset: Preset, results: Path, cell: str | None, runs: Path) -> list[str]:
    """How the kept cell and the same one trained again differ beyond what `compare_cells` allows.

    Raises ConfigError for a text that names no cell.
    """
    with tempfile.TemporaryDirectory() as folder:
        if cell is None:
            (preset, *names), kept, root = _smoke_cell(), results / SMOKE, Path(folder) / "runs"
        else:
            if not re.fullmatch(r"[^/]+/[^/]+/seed\d+", cell):
                raise ConfigError(f"no cell {cell!r}: name one as in help/P1F1/seed0")
            dataset, architecture, seed = cell.split("/")
            names, kept = [dataset, architecture, int(seed.removeprefix("seed"))], results
            root = runs / "verify"
        dataset, architecture, seed = names
        at = kept / preset.name / dataset / architecture / f"seed{seed}"
        if not (at / "card.json").exists():
            return [f"{at.relative_to(results).as_posix()} is not kept"]
        threads = _json(at / "card.json")["hardware"]["threads"]
        again = train(preset, dataset, architecture, seed, threads, root, Path(folder) / "results")
        return compare_cells(at, again, random_models=cell is None)


def compare_cells(kept: Path, again: Path, random_models: bool) -> list[str]:
    """How two folders of the same cell, and of its oracle, differ more than they may.

    On the same CPU model, with the same number formats, threads and library versions, every kept
    file must be the same byte for byte, apart from times and dates. Elsewhere rounding may change a
    token, and training amplifies it:

    - With the same number formats and `random_models` (the smoke preset), nine tenths of the
      answers of each table must be the same word for word, and the mean reward of each
      configuration within 0.01. Measured between AVX512, AVX2 and SSE: all answers the same.
    - Otherwise, the mean reward of each configuration must be within 0.1. Measured between float32
      and bfloat16 on the smoke preset, whose tables are small: at most 0.04.
    """
    problems, oracle = [], _json(kept / "card.json")["architecture"][-1]
    for architecture in (kept.parent.name, oracle):
        folders = [f.parents[1] / architecture / f.name for f in (kept, again)]
        cards = [_json(folder / "card.json") for folder in folders]
        if _machine(cards[0]) == _machine(cards[1]):
            differ = (f"{name} differs" for name in _other_bytes(*folders))
        else:
            close = random_models and cards[0]["arithmetic"] == cards[1]["arithmetic"]
            differ = _far_apart(*folders, close)
        problems += [f"{architecture}/{what}" for what in differ]
    return problems


def _machine(card: dict) -> tuple:
    hardware = card["hardware"]
    names = ("cpu", "gpu", "instructions", "threads")
    return *(hardware[name] for name in names), card["arithmetic"], card["versions"]


def _other_bytes(kept: Path, again: Path) -> Iterator[str]:
    """The names of files that differ, apart from times and dates."""
    names = {p.name for folder in (kept, again) for p in folder.iterdir()} - {"card.json"}
    for name in sorted(names):
        paths = [folder / name for folder in (kept, again)]
        if not all(path.exists() for path in paths):
            yield name
        elif name == "metrics.jsonl":
            if _untimed(paths[0]) != _untimed(paths[1]):
                yield name
        elif paths[0].read_bytes() != paths[1].read_bytes():
            yield name


def _untimed(path: Path) -> list[dict]:
    """The rows of a file of metrics without what the clock gave."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in _rows(path)]


def _far_apart(kept: Path, again: Path, close: bool) -> Iterator[str]:
    """The configurations whose rewards or answers differ too much."""
    for name in (n for n in TABLES if (kept / f"{n}.parquet").exists()):
        if not (again / f"{name}.parquet").exists():
            yield f"{name}.parquet is missing"
            continue
        tables = [pd.read_parquet(folder / f"{name}.parquet") for folder in (kept, again)]
        means = [table.groupby("configuration")["reward"].mean() for table in tables]
        far = (means[0] - means[1]).abs()
        for row in far.index[~(far <= (SAME_FORMAT if close else OTHER_FORMAT))]:
            yield f"{name}.parquet: the mean reward of {row!r} is off by {far[row]:.3f}"
        keys = ["configuration", "id", "sample"]
        both = tables[0].merge(tables[1], on=keys, suffixes=("", "_again"), how="outer")
        same = (both["response"] == both["response_again"]).mean()
        if close and same < SAME_ANSWERS:
            yield f"{name}.parquet: only {same:.0%} of the answers are the same"
