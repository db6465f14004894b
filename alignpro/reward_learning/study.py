"""Reading a reward study: what was learned from the pairs, and what optimising it did.

The rubric is the gold reward r*, so every gain by the learned reward has the true one beside it.
`run_study` makes the files in `results/reward_learning/`; this module reads them, and loads no
model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from alignpro.reward_learning.config import RewardLearningConfig
from alignpro.reward_learning.held_out import held_out
from alignpro.reward_learning.preferences import label_pairs
from alignpro.runs import RESULTS, stage_seed
from alignpro.statistics import bootstrap
from alignpro.theory.from_samples import best_of_n, rlhf_front

GAINS = ("proxy", "gold", "gold_low", "gold_high")


def study_folder(preset: str, dataset: str, seed: int, results: Path = RESULTS) -> Path:
    """Where the results of one reward study are kept."""
    return Path(results) / "reward_learning" / f"{preset}-{dataset}-seed{seed}"


@dataclass(frozen=True, eq=False)
class Study:
    """The results of a reward study, as `read_study` reads them.

    `train` and `test` have one row per response with its gold `reward`; `test` also has the learned
    one, in logits, in a column for each of `shares`. `prompters` has the held-out responses under
    each λ with `reward` and `proxy`, the learned reward. `metrics` has the PPO steps, with `lam`.
    """

    config: RewardLearningConfig
    seed: int
    card: dict
    train: pd.DataFrame
    test: pd.DataFrame
    prompters: pd.DataFrame
    metrics: pd.DataFrame

    @cached_property
    def train_pairs(self) -> pd.DataFrame:
        """Labelled pairs of training prompts, shuffled. A share is the first so many of them."""
        return labelled(self.train, self.config.scale, self.seed, "train")

    @cached_property
    def test_pairs(self) -> pd.DataFrame:
        """Labelled pairs of held-out prompts."""
        return labelled(self.test, self.config.scale, self.seed, "test")

    def margins(self, share: float = 1.0) -> np.ndarray:
        """r(first) − r(second) [pairs] of the held-out pairs, in logits, learned from `share`."""
        scores = self.test[column(share)]
        first, second = (self.test_pairs[side] for side in ("first_row", "second_row"))
        return scores.loc[first].to_numpy() - scores.loc[second].to_numpy()

    def accuracy(self) -> pd.DataFrame:
        """`held_out` for each share of the training pairs: measure, pairs, value, low, high."""
        tables = [
            held_out(self.test_pairs, self.margins(share)).assign(
                pairs=round(share * len(self.train_pairs))
            )
            for share in self.config.shares
        ]
        return pd.concat(tables).rename_axis("measure").reset_index()

    def rewards(self, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Learned reward, in the unit of r*, and r* of the held-out responses, both [X, M]."""
        by_prompt = self.test.pivot(index="id", columns="sample")
        proxy = self.config.scale * by_prompt[column(share)].to_numpy()
        return proxy, by_prompt["reward"].to_numpy()

    def selection_curve(self, share: float = 1.0) -> pd.DataFrame:
        """What both rewards gain from the best of n = 1, 2, 4, ... answers by the learned reward.

        Columns: n; sqrt_kl, from log n − (n − 1)/n, which is exact without ties; proxy and gold,
        the gains over n = 1; gold_low and gold_high, the 95 % interval over prompts.
        """
        proxy, gold = self.rewards(share)
        rows = []
        for n in 2 ** np.arange(int(np.log2(proxy.shape[1])) + 1):
            gain = best_of_n(proxy, gold, n) - gold.mean(axis=1)
            low, high = bootstrap(gain[None])
            optimised = (best_of_n(proxy, proxy, n) - proxy.mean(axis=1)).mean()
            rows.append((n, np.sqrt(np.log(n) - (n - 1) / n), optimised, gain.mean(), low, high))
        return pd.DataFrame(rows, columns=["n", "sqrt_kl", *GAINS])

    def leash_curve(self, lams: Sequence[float], share: float = 1.0) -> pd.DataFrame:
        """What both rewards gain at the estimated optimum of the learned one, at each λ (Eq. 4).

        The answers are reweighted. Columns: lam; sqrt_kl; ess, the effective number of the M
        answers per prompt; then the gains as in `selection_curve`.
        """
        proxy, gold = self.rewards(share)
        by_proxy, by_gold = rlhf_front(proxy, lams), rlhf_front(proxy, lams, values=gold)
        gain_x = by_gold.reward_x - gold.mean(axis=1, keepdims=True)
        low, high = bootstrap(gain_x[None]).T
        columns = (
            *(lams, np.sqrt(by_proxy.kl), by_proxy.ess, by_proxy.reward - proxy.mean()),
            *(gain_x.mean(axis=0), low, high),
        )
        return pd.DataFrame(dict(zip(["lam", "sqrt_kl", "ess", *GAINS], columns)))


def column(share: float) -> str:
    """The column of the reward learned from `share` of the training pairs."""
    return f"learned from {share:g}"


def labelled(responses: pd.DataFrame, scale: float, seed: int, split: str) -> pd.DataFrame:
    """The study's labelled pairs of a split, in random order."""
    pairs = label_pairs(responses, scale, stage_seed(seed, "labels", split))
    return pairs.sample(frac=1, random_state=seed).reset_index(drop=True)


def read_study(folder: Path) -> Study:
    """Read the results in `folder`, see `study_folder`."""
    config = json.loads((folder / "config.json").read_text())
    numbers = {k: tuple(v) if isinstance(v, list) else v for k, v in config["learning"].items()}
    tables = {n: pd.read_parquet(folder / f"{n}.parquet") for n in ("train", "test", "prompters")}
    metrics = pd.read_json(folder / "metrics.jsonl", lines=True)
    card = json.loads((folder / "card.json").read_text())
    return Study(RewardLearningConfig(**numbers), card["seed"], card, **tables, metrics=metrics)
