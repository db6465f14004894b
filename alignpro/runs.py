"""A run on disk: what it was made from, what it produced, and where it can resume.

A run's folder is named after everything that determines it. Another configuration, other prompts or
other code therefore never continue it by mistake. Files appear under their final name only when
they are complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from alignpro.config import Preset, described
from alignpro.sources.files import (
    Row,
    RunError,
    Tensors,
    atomic_write,
    explained,
    load_tensors,
    read_rows,
    save_tensors,
    write_json,
)
from alignpro.sources.provenance import provenance

PACKAGE = Path(__file__).parent
RESULTS = PACKAGE.parent / "results"
STEP_PARTS = ("time/rollout", "time/score", "time/policy", "time/reference", "time/update")


def digest(*parts: object) -> str:
    """Return a short hash of JSON-able values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def stage_seed(*parts: object) -> int:
    """Return a seed for one stage of one step, from the run's seed, the stage and its number.

    No random generator lives longer than a stage, so a resumed run draws what the whole run drew.
    """
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:15], 16)


def row_seeds(seed: int, rows: Iterable[Hashable]) -> list[int]:
    """Return one seed per row, from `seed`, the row, and how many equal rows came before it."""
    seen: Counter[Hashable] = Counter()
    seeds = []
    for row in rows:
        seeds.append(stage_seed(seed, row, seen[row]))
        seen[row] += 1
    return seeds


def code_digest() -> str:
    """Return a hash of what a run depends on: the core, `fast`, `sources` and the prompts."""
    patterns = ("*.py", "fast/*.py", "sources/*.py", "prompts/*.jsonl")
    files = [path for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]
    return digest(*(hashlib.sha256(f.read_bytes()).hexdigest() for f in files))


class Run:
    """The folder of one cell of the experiment.

    root: the folder of all runs.
    preset, dataset, pair, seed: the cell. `pair` are the roles (prompter, frozen LLM), or the
        frozen LLM alone where it is itself trained.
    kind: what is trained, "align-pro" or "rlhf".
    reward: the name of the reward, from `sources.own_reward.reward_name`.
    weights: `models.identity` of each role whose source does not tell its weights.

    `cell` has these facts as a dict, and `folder` is the run's own folder, made if it is missing.
    """

    def __init__(
        self,
        root: str | Path,
        preset: Preset,
        dataset: str,
        pair: Sequence[str],
        kind: str,
        seed: int,
        reward: str = "rubric",
        weights: Mapping[str, str] | None = None,
    ):
        self.preset, self.seed = preset, seed
        self.watchers: list[Callable[[str, Sequence[Row]], None]] = []  # of `append`
        self.cell: Row = {
            "preset": preset.name,
            "dataset": dataset,
            "architecture": list(pair),
            "configuration": kind,
            "reward": reward,
            "seed": seed,
            **({"weights": weights} if weights else {}),
        }
        config = {"cell": self.cell, "preset": described(preset)}
        key = digest(config["preset"], code_digest(), self.cell)
        slug = f"{preset.name}-{dataset}-{''.join(pair)}-{kind}-s{seed}-{key}"
        self.folder = Path(root) / slug.lower().replace(" ", "-")
        if not (self.folder / "config.json").exists():
            with explained(self.folder):
                write_json(self.folder / "config.json", config)

    @property
    def finished(self) -> bool:
        """Whether training is done and the card is written."""
        return (self.folder / "card.json").exists()

    def finish(self, **facts: object) -> None:
        """Write the run card: the cell, its provenance and `facts` such as the wall time."""
        with self.writing("card.json"):
            write_json(self.folder / "card.json", {**self.cell, **facts, **provenance()})

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Turn a failed write of `name` into a RunError that says how to resume."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            whole = sorted((self.folder / "checkpoints").glob("step-*.safetensors"))
            left = f"{whole[-1].name} is whole, and" if whole else "no checkpoint was reached, but"
            raise RunError(
                f"cannot write {name} in {self.folder}: {error}. The run stops; {left} once there "
                "is room on this disk the same command goes on"
            ) from error

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """Add `rows` to the JSONL file `name`, and show them to the watchers."""
        with self.writing(name), open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(_jsonl(rows))
        for watcher in list(self.watchers):
            watcher(name, rows)

    def read(self, name: str) -> list[Row]:
        """Return the rows of a JSONL file of this run, as `files.read_rows` does."""
        return read_rows(self.folder / name)

    def cut_back(self, name: str, step: int) -> None:
        """Drop the rows of `name` after `step`, which a resumed run writes again."""
        kept = [row for row in self.read(name) if row["step"] <= step]
        if (self.folder / name).exists():
            with self.writing(name), atomic_write(self.folder / name) as partial:
                partial.write_text(_jsonl(kept), encoding="utf-8")

    def save_checkpoint(self, step: int, tensors: Tensors, name: str = "step") -> None:
        """Keep `tensors`, by name, as the state after `step`; the newest two of `name` are kept."""
        target = self.folder / "checkpoints" / f"{name}-{step:06d}.safetensors"
        with self.writing(f"checkpoints/{target.name}"):
            save_tensors(target, tensors, {"step": str(step), "run": self.folder.name})
        for old in sorted(target.parent.glob(f"{name}-*.safetensors"))[:-2]:
            old.unlink()

    def load_checkpoint(self) -> tuple[int, Tensors] | None:
        """Return the newest complete checkpoint as (step, tensors by name), or None.

        A damaged one is set aside with a message, and the one before is used. Raises RunError for
        a checkpoint of another run.
        """
        from safetensors import SafetensorError

        for path in sorted((self.folder / "checkpoints").glob("step-*.safetensors"), reverse=True):
            try:
                facts, tensors = load_tensors(path)
            except (SafetensorError, OSError) as error:
                print(f"{path} is damaged ({error}); going back to the one before")
                path.replace(path.with_suffix(".damaged"))
                continue
            if facts.get("run") != self.folder.name:
                raise RunError(
                    f"{path} belongs to the run {facts.get('run')!r}: move it away, or delete "
                    f"{self.folder} to start again"
                )
            return int(facts["step"]), tensors
        return None


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
