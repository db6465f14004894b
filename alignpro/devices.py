"""This process among several, the device at hand, and the number format that it computes in."""

from __future__ import annotations

import datetime

import torch
from accelerate import PartialState


def process() -> PartialState:
    """Return this process among those of `torchrun` or `accelerate launch`, or the only one.

    The others wait for up to a day while the first evaluates. By default, a process that is silent
    for 10 minutes (on GPUs) or 30 (on CPUs) is taken for dead.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(days=1))


def device() -> torch.device:
    """Return this process's GPU, or the CPU if there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", process().local_process_index)


def dtype() -> torch.dtype:
    """Return bfloat16 for GPUs that compute in it and CPUs with AMX tiles, else float32.

    CPUs with AVX512-BF16 alone get float32: `to_fast` and `to_bf16` change only their products.
    GPUs that emulate bfloat16, such as Colab's T4, get float32 too. Their own float16 has too small
    a range for the activations of some models.
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
