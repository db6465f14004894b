"""The discovery experiment: can PPO find a suffix that nobody wrote?

    python tools/discovery_study.py list     # every trial, and which are done
    python tools/discovery_study.py next     # run the first trial that is missing, then exit

The reading experiment starts from a menu that holds the best suffixes, and learns to choose among
them. Here ρ_sft does not know them. Each trial trains a prompter on the training prompts of `help`,
with the recipe and the 2,880 frozen calls of the `cpu` preset, and is judged as in
`recipe_study.py`: 12 rewrites for each validation prompt, one answer to each. A *discovery* is a
suffix that is neither on the trial's menu nor hand-written, is written often for a kind of
question, and earns more than the best of the menu there. The test prompts are never read.

What may help PPO to leave the menu, one trial for each:

- *a flatter start*: the logits of the prompter divided by a temperature T > 1. This is exploration
  with exact ratios, since sampling, training and reference all use the same distribution. It is an
  entropy bonus too: with ρ_T ∝ ρ_sft^(1/T) for each token, λ KL(ρ‖ρ_T) is
  (λ/T) KL(ρ‖ρ_sft) − λ (1 − 1/T) H(ρ), plus the logarithm of the normaliser of ρ_T;
- *a weaker leash* in addition;
- *a menu of words*: many short instructions put together at random from an opening, a number or a
  quality, and a thing. ρ_sft may then also write combinations that it was not shown, and
  "List three reasons." is one of those;
- *longer suffixes*: pairs of neutral sentences, with twice the room;
- *own instructions*: no warm start; ρ_sft is what the model answers to the meta-prompt by itself;
- *more steps*, from the menu of words.

`results/discovery/` holds the files of `results/recipe/`, but for the answers under each
hand-written suffix, which are read from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
from pathlib import Path

import torch
from recipe_study import CONSTANT, DATASET, TWICE, Trial, list_or_next

from alignpro.config import Preset
from alignpro.experiments import Cell
from alignpro.prompter import Prompter
from alignpro.runs import RESULTS
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU

FOLDER = RESULTS / "discovery"
OPENINGS = ("List", "Give", "Name", "Write", "Use", "Answer with", "Explain in", "Say it in")
QUALITIES = ("", "one", "three", "short", "simple", "numbered", "good")
THINGS = ("steps", "reasons", "points", "words", "examples", "sentences", "tips", "facts")
WORDS_SHOWN = 180


def words_menu() -> tuple[str, ...]:
    """WORDS_SHOWN combinations of the words above, at random but always the same.

    None of them is a hand-written suffix, or one of these without a word.
    """
    best = [set(s.lower().strip(".?").split()) for s in BEST_SUFFIXES]
    every = [
        " ".join(filter(None, words)) + "."
        for words in itertools.product(OPENINGS, QUALITIES, THINGS)
    ]
    free = [s for s in every if not any(set(s.lower().strip(".").split()) <= b for b in best)]
    return tuple(random.Random(0).sample(free, WORDS_SHOWN))


def pairs_menu() -> tuple[str, ...]:
    """Every two different neutral sentences, one after the other."""
    return tuple(f"{a} {b}" for a, b in itertools.permutations(NEUTRAL_MENU, 2))


class FlatterCell(Cell):
    """A cell whose prompter has its logits divided by `temperature`, ρ_sft included."""

    temperature = 1.0

    def untrained(self, progress: bool = True) -> Prompter:
        """The prompter at its flatter reference."""
        return self._flatter(super().untrained(progress))

    def train(self, progress: bool = True) -> Prompter:
        """The trained prompter, as it was trained."""
        return self._flatter(super().train(progress))

    def _flatter(self, prompter: Prompter) -> Prompter:
        # The last norm's scale is a factor of all logits, so that sampler, trainer and reference
        # follow without another line.
        with torch.no_grad():
            prompter.policy.model.get_base_model().model.norm.weight.div_(self.temperature)
        return prompter


@dataclasses.dataclass(frozen=True)
class Discovery(Trial):
    """A trial with changes to the prompter too, and a temperature of its logits."""

    prompter: dict = dataclasses.field(default_factory=dict)
    temperature: float = 1.0

    def preset(self) -> Preset:
        """The preset that this trial trains."""
        preset = super().preset()
        return dataclasses.replace(
            preset, prompter=dataclasses.replace(preset.prompter, **self.prompter)
        )

    def cell(self, seed: int, root: Path) -> Cell:
        """The cell that trains it."""
        # The temperature is no part of the preset, which names the run: it names the folder.
        cell = FlatterCell(self.preset(), DATASET, seed, root=root / f"T{self.temperature:g}")
        cell.temperature = self.temperature
        return cell


WHOLE = TWICE | {"steps": 2 * CONSTANT["steps"]}  # the 2,880 calls of the cpu preset
WEAK = {"lam": 0.01}
NEUTRAL = {"menu": "neutral", "steps": 80, "batch_size": 18, "learning_rate": 1e-3}
WORDS = NEUTRAL | {"menu": words_menu(), "steps": 160}
PAIRS = NEUTRAL | {"menu": pairs_menu(), "steps": 160}
ROOM = {"max_new_tokens": 28}
TRIALS = tuple(
    Discovery(name, why, ppo, warm, against="neutral", prompter=prompter, temperature=temperature)
    for name, why, ppo, warm, prompter, temperature in (
        ("neutral", "the menu without the best", WHOLE, NEUTRAL, {}, 1.0),
        ("flatter", "exploration", WHOLE, NEUTRAL, {}, 1.5),
        ("flatter, weak leash", "exploration", WHOLE | WEAK, NEUTRAL, {}, 1.5),
        ("words", "a menu of words", WHOLE, WORDS, {}, 1.0),
        ("words, flatter", "a menu of words", WHOLE, WORDS, {}, 1.5),
        ("pairs", "longer suffixes", WHOLE, PAIRS, ROOM, 1.0),
        ("own instructions", "no menu", WHOLE, NEUTRAL | {"steps": 0}, ROOM, 1.0),
        ("words, twice the steps", "more steps", WHOLE | {"steps": 120}, WORDS, {}, 1.0),
    )
)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("list", "next"))
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: results/discovery")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    list_or_next(args.what, args.out, TRIALS)


if __name__ == "__main__":
    main()
