"""The reading experiment: can a prompter learn to choose by the question, and against what?

    python tools/reading_study.py answers help       # once per dataset: every suffix, answered
    python tools/reading_study.py cell help 0        # train and judge one prompter
    python tools/reading_study.py best-of help 0     # best of n rewrites, for a run that is done
    python tools/reading_study.py longer help        # kept rewrites, with more room for the answer

Each command runs on one thread and can be stopped and repeated: it goes on where it was, or ends at
once where it is done. The cells of the `cpu` preset go to `results/cpu/`, as `reproduce` would put
them. `results/reading/DATASET/` holds what `reproduce` does not make:

- `every_suffix.parquet`, the answers to the test prompts under each hand-written suffix and under
  none, 4 per prompt. What any choice of suffixes earns on the test prompts can be read from it.
- `search.parquet`, one answer to each training prompt under each of them: the 2,850 frozen calls of
  a search without training.
- `curve-seedN.parquet`, held-out answers of each prompter after 480, 960 and 1,440 of its 2,880
  training calls, with the seeds of its evaluation.
- `longer.parquet`, new answers to the kept rewrites of every run, and to the test prompts with the
  best constant suffix and without one, with twice the preset's limit of tokens.

Nothing here chooses anything by the test prompts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from alignpro.config import load_preset
from alignpro.evaluation import Rewriter, constant, evaluate, kept, unchanged
from alignpro.experiments import Cell
from alignpro.ppo import Trainer
from alignpro.report.kept_runs import matrix_table
from alignpro.report.reading import CONSTANT, NOTHING, pooled_choice
from alignpro.runs import RESULTS, atomic_write, stage_seed
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU

SNAPSHOTS = (10, 20, 30)  # steps of 48 frozen calls
SUFFIXES = ("", *NEUTRAL_MENU, *BEST_SUFFIXES)
KEPT = ["configuration", "id", "kind", "sample", "suffix", "response", "ended", "tokens", "reward"]


class KeepingTrainer(Trainer):
    """A trainer that also keeps the adapter after the steps of SNAPSHOTS."""

    def step(self, step: int) -> tuple[dict, list[dict]]:
        """A step of PPO, then perhaps a snapshot."""
        told = super().step(step)
        if step in SNAPSHOTS:
            tensors = {n: p.detach().cpu().contiguous() for n, p in self.adapter.items()}
            with atomic_write(snapshot(self.run.folder, step)) as partial:
                save_file(tensors, partial)
        return told


class KeepingCell(Cell):
    """A cell whose trainer keeps its adapter on the way."""

    trainer = KeepingTrainer


def snapshot(folder: Path, step: int) -> Path:
    """Where the adapter after `step` is kept."""
    return folder / "snapshots" / f"step-{step:06d}.safetensors"


def compact(table: pd.DataFrame) -> pd.DataFrame:
    """`table` without what its other columns give: the prompt, and the rewrite but its suffix."""
    suffix = [z[len(x) :].strip() for x, z in zip(table["prompt"], table["rewrite"], strict=True)]
    return table.assign(suffix=suffix)[KEPT]


def answers(cell: Cell, out: Path) -> None:
    """The two tables of a dataset that need no prompter."""
    rewriters = {suffix or "(nothing)": constant(suffix) for suffix in SUFFIXES}
    for name, split, samples in (("every_suffix", "test", 4), ("search", "train", 1)):
        kept(
            out / f"{name}.parquet",
            lambda split=split, samples=samples, name=name: compact(
                evaluate(
                    *(rewriters, cell.frozen, cell.reward, cell.prompts(split), samples),
                    stage_seed("reading", cell.dataset, name),
                )
            ),
        )


def curve(cell: Cell) -> pd.DataFrame:
    """Held-out answers of the prompters of SNAPSHOTS."""
    tables = []
    for step in SNAPSHOTS:
        prompter = cell.untrained()
        length = prompter.policy.sampling.max_new_tokens
        prompter.policy.sampling = replace(cell.preset.frozen, max_new_tokens=length)
        tensors = load_file(snapshot(cell.run.folder, step))
        with torch.no_grad():
            for name, parameter in prompter.policy.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[name])
        calls = step * cell.preset.ppo.batch_size
        rewriters = {f"{calls} calls": prompter}
        tables.append(
            evaluate(
                *(rewriters, cell.frozen, cell.reward, cell.prompts("test")),
                *(cell.preset.evaluation.samples, stage_seed(cell.seed, "evaluation.parquet")),
            )
        )
    return compact(pd.concat(tables, ignore_index=True))


def again(rows: pd.DataFrame) -> Rewriter:
    """The kept rewrites of one run: `rows`, one for each test prompt and sample."""
    rewrites, samples = rows.set_index(["id", "sample"])["rewrite"], rows["sample"].nunique()
    return lambda prompts, seed: [rewrites[x.id, i % samples] for i, x in enumerate(prompts)]


def longer(cell: Cell, results: Path) -> pd.DataFrame:
    """Answers to the kept rewrites with twice the limit of tokens; `seed` is that of the run."""
    tables = [
        matrix_table(cell.preset.name, results, [name]) for name in ("evaluation", "suffixes")
    ]
    runs, suffixes = (table[table["dataset"] == cell.dataset] for table in tables)
    best, _ = pooled_choice(suffixes)
    runs_of = runs[runs["configuration"] == "Align-Pro"].groupby("seed")
    ours = {f"Align-Pro, seed {seed}": again(rows) for seed, rows in runs_of}
    common = {"No Fine-Tuning": unchanged, CONSTANT: constant("" if best == NOTHING else best)}
    limit = 2 * cell.preset.frozen.max_new_tokens
    cell.frozen.sampling = replace(cell.preset.frozen, max_new_tokens=limit)
    table = evaluate(
        *(common | ours, cell.frozen, cell.reward, cell.prompts("test")),
        *(cell.preset.evaluation.samples, stage_seed("reading", cell.dataset, "longer")),
    )
    seed = table["configuration"].map(dict(zip(ours, runs_of.groups))).astype("Int64")
    name = table["configuration"].where(seed.isna(), "Align-Pro")
    return compact(table.assign(configuration=name)).assign(seed=seed)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("answers", "cell", "best-of", "longer"))
    parser.add_argument("dataset")
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    cell = KeepingCell(load_preset(args.preset), args.dataset, args.seed, root=args.root)
    out = args.results / "reading" / args.dataset
    out.mkdir(parents=True, exist_ok=True)
    if args.what == "answers":
        answers(cell, out)
    elif args.what == "cell":
        cell.train()
        cell.evaluate()
        cell.export(args.results)
        kept(out / f"curve-seed{args.seed}.parquet", lambda: curve(cell))
    elif args.what == "longer":
        kept(out / "longer.parquet", lambda: longer(cell, args.results))
    else:
        cell.evaluate_best_of()
        cell.export(args.results)


if __name__ == "__main__":
    main()
