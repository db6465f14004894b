"""Health signs of a training run: what to warn of, read from its metrics."""

from __future__ import annotations

from collections.abc import Sequence

# A run is called frozen where over this many steps hardly any ratio reaches the clip range, while
# the policy still has more than half of the entropy that it began with.
FROZEN_STEPS, FROZEN_CLIP_FRACTION = 5, 0.005
# Nats per token between a batch's policy and the updated one, by the estimate of the metrics. The
# kept runs of the preset `cpu` move by at most 0.004.
TOO_FAST = 0.2


def warnings_for(history: Sequence[dict]) -> list[str]:
    """What to warn of after the last step of `history`, a run's metrics, one row per step."""
    last, found = history[-1], []
    # The k1 estimate of a small KL may be slightly negative by chance.
    if last["objective/kl"] < -0.5:
        found.append(
            f"KL is {last['objective/kl']:.2f} < 0: sampling and scoring of the policy disagree"
        )
    if last["val/distinct_outputs"] < 0.05:
        found.append(
            "nearly all outputs are equal: the policy has collapsed; a larger lam or a smaller "
            "learning_rate prevents it"
        )
    if is_constant(history) and not is_constant(history[:-1]):
        found.append(
            f"the reward has been {last['objective/scores']:g} for every response of "
            f"{FROZEN_STEPS} steps: there is nothing to learn from a constant"
        )
    if is_too_fast(history) and not is_too_fast(history[:-1]):
        found.append(
            f"one update moved the policy by {last['policy/approxkl_avg']:.1f} nats per token. "
            "That is far too much, and a smaller learning_rate helps"
        )
    if is_frozen(history) and not is_frozen(history[:-1]):
        found.append(
            f"the policy is frozen: for {FROZEN_STEPS} steps its updates have been too small to be "
            f"clipped, and its entropy is still {last['objective/entropy']:.1f} nats; a larger "
            "learning_rate, or one that does not decay, lets it go on"
        )
    return found


def is_frozen(history: Sequence[dict]) -> bool:
    """Whether the policy has stopped moving before it has made up its mind: see FROZEN_STEPS."""
    if len(history) < FROZEN_STEPS:
        return False
    window = history[-FROZEN_STEPS:]
    clipped = sum(row["policy/clipfrac_avg"] for row in window) / FROZEN_STEPS
    entropy = sum(row["objective/entropy"] for row in window) / FROZEN_STEPS
    return clipped < FROZEN_CLIP_FRACTION and entropy > history[0]["objective/entropy"] / 2


def is_constant(history: Sequence[dict]) -> bool:
    """Whether the last FROZEN_STEPS steps gave one and the same reward to all responses."""
    window = history[-FROZEN_STEPS:]
    values = {(row["objective/scores"], row["objective/scores_std"]) for row in window}
    return (
        len(window) == FROZEN_STEPS and len(values) == 1 and window[0]["objective/scores_std"] == 0
    )


def is_too_fast(history: Sequence[dict]) -> bool:
    """Whether the last update moved the policy by more than TOO_FAST."""
    return bool(history) and history[-1]["policy/approxkl_avg"] > TOO_FAST
