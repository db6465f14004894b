"""This process among several, the device at hand, and the number format that it computes in."""

from __future__ import annotations

import datetime

import torch
from accelerate import PartialState


def process() -> PartialState:
    """This process among those that `torchrun` or `accelerate launch` started, or the only one.

    The others wait while the first evaluates: for a day, and not for the minutes after which GPUs
    (10) and CPUs (30) by default take a process for dead.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(days=1))


def device() -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", process().local_process_index)


def dtype() -> torch.dtype:
    """bfloat16 on GPUs that compute in it and on CPUs with AMX tiles, float32 elsewhere.

    AVX512-BF16 alone does not count: there `to_fast` and `to_bf16` change the products, and what
    is around them stays in float32. Nor does a GPU that emulates bf16, such as Colab's T4;
    float16, which it computes in, has too small a range for the activations of some models.
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
