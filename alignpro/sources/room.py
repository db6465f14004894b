"""Whether a run has room on this machine: on the disk, and in memory for its models."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from alignpro import models
from alignpro.config import Preset
from alignpro.devices import device, dtype
from alignpro.runs import RunError
from alignpro.sources.files import explained

LIBRARIES = 1e9  # bytes of Python, PyTorch and the rubric's sentence encoder
COPIES = 4  # of the logits in float32: themselves, log-probabilities, two gradients


def require(folder: Path, disk: float, memory: float) -> None:
    """Raise RunError if fewer than `disk` bytes are free at `folder`, or `memory` bytes of RAM."""
    with explained(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise RunError(
            f"this run needs {disk / 1e9:.1f} GB on the disk of {folder}, {free / 1e9:.1f} GB are "
            "free: make room, or point `runs` elsewhere"
        )
    available = psutil.virtual_memory().available
    if available < memory:
        raise RunError(
            f"this run needs about {memory / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are "
            "free: close other programs, or take a smaller preset"
        )


def memory_needed(preset: Preset, pair: Sequence[str]) -> float:
    """Return the bytes of RAM that training `pair` = (prompter, frozen LLM) takes, about.

    On a CPU, all models are in RAM at once, with the logits of a minibatch, or of the part of it
    that `accumulate` runs at a time. On a GPU, each model passes through RAM alone. An endpoint
    needs nothing here. Computed from the models' configs.
    Raises ModelError if one of them is unavailable.
    """
    loaded = [(AutoModelForCausalLM, preset.models[role]) for role in pair]
    if preset.reward:
        loaded.append((AutoModel, preset.models[preset.reward]))
    here = [(auto, models.pretrained(AutoConfig, s)) for auto, s in loaded if s.endpoint is None]
    with torch.device("meta"):  # shapes alone
        shapes = [auto.from_config(config, dtype=dtype()) for auto, config in here]
    weights = [sum(p.nbytes for p in model.parameters()) for model in shapes]
    if device().type == "cuda":
        return LIBRARIES + max(weights)
    tokens = max(preset.prompter.max_new_tokens, preset.frozen.max_new_tokens)
    rows = min(preset.ppo.accumulate or preset.ppo.minibatch_size, preset.ppo.minibatch_size)
    logits = 4 * rows * tokens * max(config.get_text_config().vocab_size for _, config in here)
    return LIBRARIES + sum(weights) + COPIES * logits
