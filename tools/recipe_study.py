"""Which recipe trains a prompter that reads? Trials on training and validation prompts alone.

    python tools/recipe_study.py suffixes    # once: what each suffix earns, 8 answers per prompt
    python tools/recipe_study.py list        # every trial, and which are done
    python tools/recipe_study.py next        # run the first trial that is missing, then exit

One process runs one trial on one thread; `while python tools/recipe_study.py next; do :; done`
runs them all, and after a stop goes on where it was. `results/recipe/` holds

- `suffixes.parquet`, the answers under each suffix;
- `trials.jsonl`, one line per trial, failed trials too;
- `rewrites/`, the validation rewrites of each trial and what they earned;
- `comparisons.csv`, each trial minus the one that differs from it in a single change.

How a trial is judged. Its trained prompter writes 12 rewrites for each of the 30 validation prompts
of `help`, each is answered once, with the sampling of the book's evaluation, and the mean reward of
these 360 answers is the trial's result. It is compared with the best constant suffix and with the
best suffix per kind, both chosen among all 18 suffixes on the same 30 prompts, from 8 answers each.
These two are chosen and judged on the same answers, which flatters them a little. The test prompts
are never read.

Three changes are taken apart: the menu of all 18 suffixes instead of 12, the balanced warm start
whose rate falls to 0, and a PPO rate that stays constant. "All three" has them all, and each "all
but" trial leaves one out.

The decision rule, set before the trials were read:

1. Settings are compared at the same number of frozen calls, one setting changed at a time, by the
   mean validation reward over the seeds that both have.
2. A change is adopted if it raises this mean by more than one standard error of the difference
   (paired by prompt, stratified by kind). Otherwise the setting stays as it was.
3. A setting is dropped, whatever its mean, if one of its seeds earns less than the best constant
   suffix while the setting it is compared with does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from alignpro.config import Preset, load_preset
from alignpro.evaluation import best_suffixes, constant, evaluate
from alignpro.experiments import Cell
from alignpro.report.reading import information, suffix_of
from alignpro.runs import RESULTS, atomic_write, stage_seed
from alignpro.sources.provenance import provenance
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU

DATASET = "help"
SAMPLES = 12
SUFFIX_SAMPLES = 8
FOLDER = RESULTS / "recipe"
MENU = NEUTRAL_MENU + BEST_SUFFIXES
LAST = 5  # steps over which the end of training is averaged


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one trial changes in the `cpu` preset; `why` is the question that it answers.

    `against` names the trial that differs in this one change.

    `drawn` marks the warm start as it was before this study: each example pairs a random prompt
    with a random entry of the menu, at a constant rate. Only the commit in its line can run it, and
    its prompts came in another order.
    """

    name: str
    why: str
    ppo: dict
    warm_start: dict
    seeds: tuple[int, ...] = (0,)
    drawn: bool = False
    against: str = "all three"

    def preset(self) -> Preset:
        """The preset that this trial trains."""
        preset = load_preset("cpu")
        warm_start = dataclasses.replace(preset.prompter.warm_start, **self.warm_start)
        return dataclasses.replace(
            preset,
            prompter=dataclasses.replace(preset.prompter, warm_start=warm_start),
            ppo=dataclasses.replace(preset.ppo, **self.ppo),
        )

    def cell(self, seed: int, root: Path) -> Cell:
        """The cell that trains it."""
        return Cell(self.preset(), DATASET, seed, root=root)


DRAWN = {"menu": "all", "steps": 40, "batch_size": 16, "learning_rate": 1e-3}
BALANCED = {"menu": "all", "steps": 80, "batch_size": 18, "learning_rate": 1e-3}
# Half the length of a run of the preset: 1,440 frozen calls.
CONSTANT = {"steps": 30, "batch_size": 48, "learning_rate": 4e-4, "lr_scheduler_type": "constant"}
HALF_BATCH = {"steps": 60, "batch_size": 24, "minibatch_size": 12}
FALLING = {"lr_scheduler_type": "linear"}
TWICE = CONSTANT | {"learning_rate": 8e-4}
NEUTRAL = BALANCED | {"menu": "neutral"}
TRIALS = (
    Trial("all but the warm start", "which change matters", CONSTANT, DRAWN, drawn=True),
    Trial("all three", "which change matters", CONSTANT, BALANCED, seeds=(0, 1)),
    Trial("twice the rate", "the PPO rate", TWICE, BALANCED, seeds=(0, 1)),
    Trial("all but the constant rate", "which change matters", CONSTANT | FALLING, BALANCED),
    Trial("all but the menu", "which change matters", CONSTANT, NEUTRAL),
    *(
        Trial(name, why, TWICE | change, BALANCED, against="twice the rate")
        for name, why, change in (
            ("twice the rate, falling", "the PPO rate", FALLING),
            ("four times the rate", "the PPO rate", {"learning_rate": 1.6e-3}),
            ("twice the rate, half lam", "the leash", {"lam": 0.015}),
            ("twice the rate, half batch", "the batch", HALF_BATCH),
            ("twice the rate, twice the steps", "the steps", {"steps": 60}),
        )
    ),
)


def suffixes(out: Path) -> None:
    """Rewards of every hand-written suffix on the validation prompts, one row per answer."""
    cell = Cell(load_preset("cpu"), DATASET, 0, root=out / "runs")
    rewriters = {s or "(nothing)": constant(s) for s in ("", *MENU)}
    seed = stage_seed("recipe study", "suffixes")
    table = evaluate(
        rewriters, cell.frozen, cell.reward, cell.prompts("validation"), SUFFIX_SAMPLES, seed
    )
    kept = table.drop(columns=["prompt", "rewrite", "dataset"])
    with atomic_write(out / "suffixes.parquet") as partial:
        kept.to_parquet(partial, index=False, compression="zstd")


def mutual_information(table: pd.DataFrame) -> float:
    """Between kind and suffix of `table`, in nats: 0 for one suffix for all, log 5 for one each.

    Suffixes off the menu count as one, so that chance adds little.
    """
    on_menu = table["suffix"].where(table["suffix"].isin(MENU), "off the menu")
    return information(table["kind"], on_menu)


def gain_over(table: pd.DataFrame, base: pd.Series) -> tuple[float, float]:
    """Mean reward of `table` minus `base` (by prompt id), and its standard error.

    Paired by prompt; the error is that of a sample stratified by kind.
    """
    difference = table.groupby("id")["reward"].mean() - base
    kind = table.groupby("id")["kind"].first()
    parts = [d for _, d in difference.groupby(kind)]
    error = sum(len(d) * d.var(ddof=1) for d in parts) ** 0.5 / len(difference)
    return float(difference.mean()), float(error)


def judged(table: pd.DataFrame, suffix_table: pd.DataFrame) -> dict:
    """What a trial's validation answers `table` tell, beside the hand-written suffixes."""
    best, by_kind = best_suffixes(suffix_table)
    by_id = suffix_table.pivot_table(index="id", columns="configuration", values="reward")
    by_id.columns = ["" if c == "(nothing)" else c for c in by_id.columns]
    kinds = table.groupby("id")["kind"].first()
    told = pd.Series({i: by_id.loc[i, by_kind[kind]] for i, kind in kinds.items()})
    means = suffix_table.groupby(["kind", "configuration"])["reward"].mean()
    top = {kind: set(means[kind].nlargest(2).index) for kind in kinds.unique()}
    gain, gain_error = gain_over(table, by_id[best])
    below, below_error = gain_over(table, told)
    return {
        "reward": table["reward"].mean(),
        "standard_error": gain_over(table, 0 * told)[1],
        "best_constant": by_id[best].mean(),
        "gain_over_constant": gain,
        "gain_error": gain_error,
        "best_per_kind": told.mean(),
        "gain_over_per_kind": below,
        "gain_over_per_kind_error": below_error,
        "on_menu": table["suffix"].isin(MENU).mean(),
        "mutual_information": mutual_information(table),
        "reading_accuracy": float(
            np.mean([s in top[k] for s, k in zip(table["suffix"], table["kind"])])
        ),
    }


def run(trial: Trial, seed: int, out: Path) -> dict:
    """Train one trial, judge it, and return its line."""
    started = time.perf_counter()
    cell = trial.cell(seed, out / "runs")
    prompter = cell.train(progress=False)
    trained = time.perf_counter()
    metrics = pd.DataFrame(cell.run.read("metrics.jsonl"))
    length = prompter.policy.sampling.max_new_tokens
    prompter.policy.sampling = dataclasses.replace(cell.preset.frozen, max_new_tokens=length)
    table = evaluate(
        {trial.name: prompter},
        cell.frozen,
        cell.reward,
        cell.prompts("validation"),
        SAMPLES,
        stage_seed("recipe study", seed),
        progress=False,
    )
    table["suffix"] = suffix_of(table)
    rewrites = rewrites_path(trial.name, seed, out)
    rewrites.parent.mkdir(exist_ok=True)
    table[["id", "kind", "sample", "suffix", "reward"]].to_parquet(rewrites, index=False)
    end = metrics.tail(LAST).mean(numeric_only=True)
    coverage = cell.run.folder / "coverage.json"
    return {
        **judged(table, pd.read_parquet(FOLDER / "suffixes.parquet")),
        "training_reward": end["objective/scores"],
        "kl": end["objective/kl"],
        "entropy": end["objective/entropy"],
        "clip_fraction": end["policy/clipfrac_avg"],
        "coverage": json.loads(coverage.read_text()) if coverage.exists() else None,
        "frozen_calls": int(metrics["episode"].iloc[-1]),
        "training_seconds": round(trained - started),
        "curve": {
            short: [round(v, 4) for v in metrics[name]]
            for short, name in (
                ("reward", "objective/scores"),
                ("kl", "objective/kl"),
                ("entropy", "objective/entropy"),
                ("clip_fraction", "policy/clipfrac_avg"),
            )
        },
    }


def rewrites_path(name: str, seed: int, out: Path) -> Path:
    """Where the validation rewrites of a trial are kept."""
    return out / "rewrites" / f"{name.replace(' ', '-')}-s{seed}.parquet"


def comparisons(out: Path, trials: Sequence[Trial] = TRIALS) -> pd.DataFrame:
    """Each trial's mean reward minus that of the trial it is compared with.

    Over the seeds that both have; the standard error is that of `gain_over`.
    """
    rows, finished = [], done(out)
    for trial in (t for t in trials if t.name != t.against):
        pair = (trial.name, trial.against)
        seeds = [s for s in trial.seeds if {(name, s) for name in pair} <= finished]
        paths = [[rewrites_path(name, s, out) for s in seeds] for name in pair]
        if seeds and all(path.exists() for path in paths[0] + paths[1]):
            ours, theirs = (pd.concat(map(pd.read_parquet, part)) for part in paths)
            difference, error = gain_over(ours, theirs.groupby("id")["reward"].mean())
            rows.append([*pair, len(seeds), difference, error])
    return pd.DataFrame(rows, columns=["trial", "against", "seeds", "difference", "standard_error"])


def done(out: Path) -> set[tuple[str, int]]:
    """The (trial, seed) that have a line."""
    path = out / "trials.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return {(row["trial"], row["seed"]) for row in map(json.loads, filter(None, lines))}


def missing_trials(out: Path, trials: Sequence[Trial] = TRIALS) -> list[tuple[Trial, int]]:
    """The trials and seeds that can be run and have no line yet, in the order of `trials`."""
    finished = done(out)
    new = [(t, s) for t in trials if not t.drawn for s in t.seeds]
    # First every trial with its first seed, then the second seeds.
    new.sort(key=lambda pair: pair[0].seeds.index(pair[1]))
    return [(t, s) for t, s in new if (t.name, s) not in finished]


def write(trial: Trial, seed: int, out: Path, trials: Sequence[Trial] = TRIALS) -> None:
    """Run one trial and add its line to `trials.jsonl`, with the error where it failed."""
    settings = trial.preset()
    warm = dataclasses.asdict(settings.prompter.warm_start)
    ppo = {k: v for k, v in dataclasses.asdict(settings.ppo).items() if v is not None}
    line = {
        "trial": trial.name,
        "why": trial.why,
        "seed": seed,
        "warm_start": {**warm, "examples": "drawn" if trial.drawn else "balanced"},
        "ppo": ppo,
    }
    try:
        line |= {"error": None, **run(trial, seed, out)}
    except Exception as error:
        traceback.print_exc()
        line |= {"error": f"{type(error).__name__}: {error}"}
    line |= provenance()
    with open(out / "trials.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    comparisons(out, trials).to_csv(out / "comparisons.csv", index=False, float_format="%.4f")


def list_or_next(what: str, out: Path, trials: Sequence[Trial]) -> None:
    """List `trials`, or run the next one; with none left, exit with status 1."""
    missing = missing_trials(out, trials)
    if what == "list":
        names = {(t.name, s) for t, s in missing}
        for trial in trials:
            for seed in trial.seeds:
                state = "missing" if (trial.name, seed) in names else "done"
                print(f"{trial.name:40} seed {seed}  {state:8} {trial.why}")
    elif missing:
        trial, seed = missing[0]
        print(f"{datetime.datetime.now():%H:%M:%S} {trial.name}, seed {seed}", flush=True)
        write(trial, seed, out, trials)
    else:
        sys.exit(1)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("suffixes", "list", "next"))
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: results/recipe")
    args = parser.parse_args()
    if args.what == "suffixes":
        suffixes(args.out)
    else:
        list_or_next(args.what, args.out, TRIALS)


if __name__ == "__main__":
    main()
