"""The peak memory of each stage of a run, as PyTorch's own allocator reports it."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

# The profiler announces each start and stop otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@dataclass(frozen=True)
class Peak:
    """Bytes at a peak: in tensors, and in all that the allocator reserved for them."""

    allocated: int
    reserved: int


class MemoryMeter:
    """A context in which laps are measured; `peaks` holds the largest peak of each stage.

    A GPU's allocator counts by itself. A CPU's does not, so there the profiler records each
    allocation, which takes time, and nothing is known of memory that was held before.
    """

    def __init__(self):
        self.peaks: dict[Hashable, Peak] = {}
        self.cuda, self.held = torch.cuda.is_available(), 0

    def __enter__(self) -> MemoryMeter:
        self._start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()  # a profiler that still runs at exit brings the interpreter down

    def lap(self, stage: Hashable) -> None:
        """End a lap and count its peak for `stage`."""
        found, known = self._stop(), self.peaks.get(stage, Peak(0, 0))
        self.peaks[stage] = Peak(
            max(found.allocated, known.allocated), max(found.reserved, known.reserved)
        )
        self._start()

    @property
    def total(self) -> int | None:
        """Bytes of the GPU; None on a CPU."""
        return torch.cuda.get_device_properties(0).total_memory if self.cuda else None

    def overhead(self) -> int:
        """Bytes that are used on the GPU beside the allocator's: the CUDA context; 0 on a CPU."""
        if not self.cuda:
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved()

    def _start(self) -> None:
        if self.cuda:
            # An earlier stage's cached blocks would count as this one's.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            self.profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self.profile.start()

    def _stop(self) -> Peak:
        if self.cuda:
            torch.cuda.synchronize()
            return Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
        self.profile.stop()
        events = self.profile.profiler.kineto_results.events()
        memory = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
        held = self.held + np.cumsum([0, *(e.nbytes() for e in memory)])
        self.held = int(held[-1])
        return Peak(int(held.max()), int(held.max()))
