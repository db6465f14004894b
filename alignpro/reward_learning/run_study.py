"""Running a reward study: pairs → reward models → prompters trained on the learned reward.

Every stage keeps a file and is skipped if that exists. A small plain copy of all files goes into
`results/reward_learning/`, which the book reads.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd

from alignpro.config import Preset, described
from alignpro.evaluation import evaluate, kept, rewards_of, unchanged
from alignpro.experiments import Cell
from alignpro.reward_learning.config import RewardLearningConfig
from alignpro.reward_learning.learn import ScaledReward, learn_reward
from alignpro.reward_learning.preferences import as_preferences, menu_suffixes
from alignpro.reward_learning.study import column, labelled, study_folder
from alignpro.rewards import rubric
from alignpro.runs import (
    RESULTS,
    RunError,
    atomic_write,
    code_digest,
    digest,
    stage_seed,
    write_json,
)
from alignpro.sources.files import file_hash, read_json
from alignpro.sources.provenance import provenance


def run_study(
    preset: Preset,
    config: RewardLearningConfig,
    dataset: str,
    seed: int,
    root: str | Path = "runs",
    results: Path = RESULTS,
    progress: bool = True,
) -> Path:
    """Run the study, or resume it, and return the folder of its results.

    Work is kept under `root` in a folder named after everything that determines it. Raises what
    `Cell` and `learn_reward` raise, and RunError where `results` holds another configuration.
    """
    facts = {"preset": described(preset), "learning": dataclasses.asdict(config)}
    name = (
        f"reward-learning-{preset.name}-{dataset}-s{seed}-{digest(facts, code_digest(), _code())}"
    )
    target = study_folder(preset.name, dataset, seed, results)
    require_one_configuration(target, facts)
    work = Path(root) / name
    work.mkdir(parents=True, exist_ok=True)
    cell = Cell(preset, dataset, seed, reward=rubric, root=root)

    seen = {}
    for split, samples in (("train", config.train_samples), ("test", config.test_samples)):
        seen[split] = kept(work / f"{split}.parquet", _responses, cell, split, samples, progress)
    learned = _learned(seen["train"], work, config, seed, progress)
    scored = kept(work / "scored.parquet", _scored, seen["test"], learned)

    reward = ScaledReward(learned[1.0], config.scale)
    cells = {lam: _prompter_cell(preset, lam, dataset, seed, reward, root) for lam in config.lams}
    prompters = {f"λ = {lam:g}": one.train(progress) for lam, one in cells.items()}
    evaluated = kept(work / "prompters.parquet", _evaluated, cell, prompters, reward, progress)

    card = {"preset": preset.name, "dataset": dataset, "seed": seed}
    card["reward_models"] = {share: _card(work / column(share)) for share in config.shares}
    card["prompters"] = {lam: _card(one.run.folder) for lam, one in cells.items()}
    steps = [
        {"lam": lam, **row} for lam, one in cells.items() for row in one.run.read("metrics.jsonl")
    ]
    tables = {"train": seen["train"], "test": scored, "prompters": evaluated}
    _export(target, tables, steps, facts, {**card, **provenance()})
    return target


def require_one_configuration(target: Path, facts: dict) -> None:
    """Raise RunError where the folder of results holds a study that was made from other `facts`."""
    path = target / "config.json"
    if path.exists() and read_json(path) != json.loads(json.dumps(facts)):
        raise RunError(
            f"{target} holds a study of another configuration: choose another folder by --results, "
            "or delete it if this study is to replace it"
        )


def _export(target: Path, tables: dict, steps: list[dict], facts: dict, card: dict) -> None:
    """Write all files of a study to the folder `target`, in place of an earlier study."""
    with atomic_write(target) as partial:
        partial.mkdir()
        for name, table in tables.items():
            table.to_parquet(partial / f"{name}.parquet", index=False)
        (partial / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
        write_json(partial / "config.json", facts)
        write_json(partial / "card.json", card)
        if target.exists():  # to be deleted with the hidden folder, once the new one is in place
            target.rename(partial.with_name("earlier"))


def _responses(cell: Cell, split: str, samples: int, progress: bool) -> pd.DataFrame:
    """Answers of π_F to prompts of `split` with the menu's suffixes, and their gold reward."""
    seed = stage_seed(cell.seed, "pairs", split)
    rewriters, prompts = {"menu": menu_suffixes}, cell.prompts(split)
    table = evaluate(rewriters, cell.frozen, rubric, prompts, samples, seed, progress)
    return table.drop(columns="configuration")


def _learned(
    responses: pd.DataFrame, work: Path, config: RewardLearningConfig, seed: int, progress: bool
) -> dict:
    """A reward model for each share of the labelled pairs."""
    pairs = as_preferences(labelled(responses, config.scale, seed, "train"))
    return {
        share: learn_reward(
            pairs.head(round(share * len(pairs))),
            work / column(share),
            config,
            seed,
            progress=progress,
        )
        for share in config.shares
    }


def _scored(responses: pd.DataFrame, learned: dict) -> pd.DataFrame:
    prompts, texts = responses["prompt"].tolist(), responses["response"].tolist()
    scores = {column(share): rewards_of(model, prompts, texts) for share, model in learned.items()}
    return responses.assign(**scores)


def _prompter_cell(
    preset: Preset, lam: float, dataset: str, seed: int, reward: ScaledReward, root: str | Path
) -> Cell:
    """The preset's cell with another λ and the learned reward, and the gold one beside it."""
    leashed = dataclasses.replace(preset, ppo=dataclasses.replace(preset.ppo, lam=lam))
    # `again`: the runs of the other λ have the same name and are meant to be beside this one.
    return Cell(leashed, dataset, seed, reward=reward, root=root, gold=rubric, again=True)


def _evaluated(cell: Cell, prompters: dict, reward: ScaledReward, progress: bool) -> pd.DataFrame:
    """Held-out answers under each prompter, sampled as in training, with both rewards."""
    rewriters = {"No Fine-Tuning": unchanged, **prompters}
    seed, samples = stage_seed(cell.seed, "prompters"), cell.preset.evaluation.samples
    table = evaluate(rewriters, cell.frozen, rubric, cell.prompts("test"), samples, seed, progress)
    proxy = rewards_of(reward, table["prompt"].tolist(), table["response"].tolist())
    return table.assign(proxy=proxy)


def _card(folder: Path) -> dict:
    return read_json(folder / "card.json")


def _code() -> str:
    """A hash of the code of this folder, which `code_digest` does not cover."""
    return digest(*(file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))))
