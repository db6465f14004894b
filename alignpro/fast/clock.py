"""What each stage of a training step costs."""

from __future__ import annotations

import time

import torch


class StageClock:
    """Seconds of each stage of a step, measured from one `lap` to the next."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        if torch.cuda.is_available():  # kernels run on after the call that starts them returns
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[name], self.start = now - self.start, now

    def seconds(self, prefix: str) -> dict[str, float]:
        return {prefix + name: round(value, 3) for name, value in self.laps.items()}
