"""The loop that samples a batch token by token, with as little work as the batch allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil
import torch
from transformers.cache_utils import Cache

from alignpro.fast.cache import GrowingLayer, exceeds_reach, left_pad, shared_prefix
from alignpro.fast.linears import decoder

MOST_ROWS = 256  # that are sampled together without being asked for: more gain little


def rows_that_fit(model: torch.nn.Module, tokens: int) -> int:
    """How many rows of `tokens` tokens `model` can sample together in free memory; at least 1.

    Keys and values may take half of it. The rest is for what else a pass needs, and for the copy
    that a growing cache makes of one layer.
    """
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_hidden_layers * config.num_key_value_heads
    row = 2 * heads * head_dim * model.dtype.itemsize * tokens
    return min(MOST_ROWS, max(1, int(free_memory(model.device) / 2 // row)))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, its allocator's unused blocks included, or in RAM."""
    if device.type == "cpu":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


@torch.inference_mode()
def decode(
    model: torch.nn.Module,
    encoded: Sequence[Sequence[int]],
    pad_id: int,
    eos_ids: torch.Tensor,
    max_new_tokens: int,
    draw: Callable[[torch.Tensor, list[int]], torch.Tensor],
) -> list[list[int]]:
    """Sampled token ids for each row of `encoded` (token ids), up to and with one of `eos_ids`.

    `draw` gets the logits [R, V] of the R rows that still run, and the indices of these rows; it
    returns their next tokens [R]. What all rows share at their start, such as the opening of the
    chat template, is computed once, and a row that has ended costs nothing more.
    """
    device = model.device
    cache = Cache(layer_class_to_replicate=GrowingLayer)
    longest = max(map(len, encoded)) + max_new_tokens
    shared = 0 if exceeds_reach(model, longest) else shared_prefix(encoded)
    if shared:
        prefix = torch.tensor([encoded[0][:shared]], device=device)
        decoder(model)(prefix, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(encoded))
    ids, mask = left_pad([e[shared:] for e in encoded], pad_id, device)
    mask = torch.cat([mask.new_ones(len(mask), shared), mask], dim=-1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    step = {"input_ids": ids, "position_ids": positions[:, shared:]}
    position = positions[:, -1:]
    alive = torch.arange(len(encoded), device=device)
    tokens: list[list[int]] = [[] for _ in encoded]
    for _ in range(max_new_tokens):
        out = model(
            **step, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        drawn = draw(out.logits[:, -1], alive.tolist())
        for row, token in zip(alive.tolist(), drawn.tolist()):
            tokens[row].append(token)
        running = ~torch.isin(drawn, eos_ids.to(device))
        if not running.any():
            break
        if not running.all():
            keep = running.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            alive, drawn, mask, position = (t[keep] for t in (alive, drawn, mask, position))
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        step = {"input_ids": drawn[:, None], "position_ids": position}
    return tokens
