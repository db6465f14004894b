"""The numbers of reward learning, from `presets/reward_learning/`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from alignpro import config
from alignpro.config import CHECKED, ConfigError, Count, NonNegative, Positive
from alignpro.sources.preset_file import read_file


def _rising_to_one(shares: tuple[float, ...]) -> tuple[float, ...]:
    if not shares or shares[0] <= 0 or list(shares) != sorted(set(shares)):
        raise ValueError("must rise, from above 0 to 1")
    if shares[-1] != 1:
        raise ValueError("the last must be 1, all pairs")
    return shares


@dataclass(frozen=True, config=CHECKED)
class RewardLearningConfig:
    """Learning a reward from labelled pairs (Eq. 1), and what is then optimised against it.

    `scale` is the rubric's margin at which one in e + 1 labels is wrong. One reward is learned from
    each of `shares` of the pairs. The last of them trains one prompter for each λ in `lams`.
    """

    scale: Positive
    train_samples: Annotated[int, Field(strict=True, ge=2)]
    test_samples: Annotated[int, Field(strict=True, ge=2)]
    shares: Annotated[tuple[float, ...], AfterValidator(_rising_to_one)]
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    lams: Annotated[tuple[NonNegative, ...], Field(min_length=1)]


def load_reward_learning(preset_name: str) -> RewardLearningConfig:
    """Read the numbers of reward learning for the preset of this name.

    They are in `presets/reward_learning/`, apart from the preset, because the preset's runs do not
    depend on them. Raises ConfigError as `load_preset` does.
    """
    path = config.PRESETS / "reward_learning" / f"{preset_name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ConfigError(
            f"no reward learning for the preset {preset_name!r}: use one of {known}, or give your "
            "own preset one of these as its `name`"
        )
    return read_file(RewardLearningConfig, path, "reward_learning")
