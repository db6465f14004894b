"""What a preset needs of a GPU: memory by stage, FLOPs, and a lower bound on the time.

Nothing is loaded but configs. All of it is computed, none of it measured: see `stages` for what is
run to compute it, and the book's last chapter for what was checked against real runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification

from alignpro.config import ModelSpec, Preset, SamplingConfig
from alignpro.prompter import META_PROMPT
from alignpro.stages import (
    Lengths,
    Stage,
    architecture,
    cache_bytes,
    generation,
    hollow,
    parameters,
    scoring,
    trained_bytes,
    training,
    weight_bytes,
)

# What PyTorch takes on a GPU beside its tensors: the CUDA context, workspaces of the libraries,
# gaps between blocks. An allowance, neither computed nor measured.
OVERHEAD = 3e9
PARTS = ("weights", "adapter", "optimizer", "gradients", "cache", "logits", "activations")


@dataclass(frozen=True)
class GPU:
    """Bytes of memory, FLOP/s, and bytes/s.

    The defaults are the vendor's published figures for the H100 SXM: 80 GB, 989 TFLOP/s (bf16,
    dense), 3.35 TB/s.
    """

    memory: float = 80e9
    flops: float = 989e12
    bandwidth: float = 3.35e12

    def seconds(self, stage: Stage) -> float:
        """A lower bound on the time of `stage`: no GPU runs at its published peaks."""
        return sum(max(f / self.flops, read / self.bandwidth) for f, read in stage.work)


@dataclass(frozen=True)
class Resident:
    """Bytes that stay for as long as a model is trained or asked."""

    weights: int
    trained: int = 0


@cache
def _policy(
    spec: ModelSpec, preset: Preset, precision: torch.dtype, lengths: Lengths
) -> tuple[Resident, list[Stage]]:
    """A model that PPO trains: its rollout, reference and update."""
    model = hollow(architecture(spec), precision, preset.prompter)
    as_it_is = SamplingConfig(1.0, 1.0, 0, lengths.new)
    size = preset.ppo.batch_size
    rollout = generation("rollout", model, as_it_is, lengths, preset.generation_batch, size)
    stages = [rollout, *training(model, lengths, preset.ppo)]
    return Resident(weight_bytes(model), trained_bytes(model)), stages
