"""The key-value cache of the sampler, and what the rows of a batch share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A key-value cache layer that grows in chunks. The usual one copies itself for every token."""

    chunk = 32

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.keys = self._append("key_buffer", self.keys, key_states)
        self.values = self._append("value_buffer", self.values, value_states)
        return self.keys, self.values

    def _append(self, name: str, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        length = held.shape[2] + new.shape[2]
        buffer = getattr(self, name, None)
        if buffer is None or len(buffer) != len(new) or buffer.shape[2] < length:
            buffer = new.new_empty(*new.shape[:2], length + self.chunk, new.shape[3])
            buffer[:, :, : held.shape[2]] = held
            setattr(self, name, buffer)
        elif held.data_ptr() != buffer.data_ptr():
            buffer[:, :, : held.shape[2]] = held
        buffer[:, :, held.shape[2] : length] = new
        return buffer[:, :, :length]


def shared_prefix(encoded: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix that leaves every row at least one token of its own."""
    first, last = min(encoded), max(encoded)
    limit = min(map(len, encoded)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def exceeds_reach(model: torch.nn.Module, length: int) -> bool:
    """Whether some layer of `model` cannot see all of `length` slots: its window slides.

    Such a window counts slots. Padding between a shared prefix and a row's own tokens would push
    tokens out of it that the row alone would see, so that nothing is shared then, and all padding
    comes first.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return window is not None and length > window


def left_pad(
    encoded: Sequence[Sequence[int]], pad_id: int, device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both [B, T], padded on the left."""
    width = max(map(len, encoded))
    ids = torch.tensor([[pad_id] * (width - len(e)) + list(e) for e in encoded], device=device)
    mask = torch.tensor([[0] * (width - len(e)) + [1] * len(e) for e in encoded], device=device)
    return ids, mask
