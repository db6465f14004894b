"""Log-probabilities of sampled completions, with as little work and memory as possible.

Three kinds of work are saved. What all queries share (the meta-prompt) is computed once. Rows of
similar length run together, with little padding. The trunk, that is, the layers below the first
adapted one, is computed once for the policy, its reference and every PPO epoch. Logits as wide as
the vocabulary are held for a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from alignpro.fast.cache import exceeds_reach, left_pad, shared_prefix
from alignpro.fast.linears import decoder

GROUP = 24  # rows of similar length that run together
LOGITS = 2**27  # entries of logits that are held at once: half a GB in float32


@dataclass
class Trunk:
    """Inputs of layer `first`: those of the shared prefix [1, S, H], and of each row's tokens."""

    first: int
    prefix: torch.Tensor | None
    rows: list[torch.Tensor]


@dataclass
class Batch:
    """Token ids of queries and sampled completions; completions are padded on the right."""

    queries: list[list[int]]
    tokens: torch.Tensor  # [B, T]
    mask: torch.Tensor  # [B, T], True on sampled tokens, the end of sequence among them
    shared: int  # length of the queries' common prefix
    trunk: Trunk | None = None

    def rows(self, index: torch.Tensor) -> Batch:
        """The sub-batch of `index`, its padding trimmed."""
        mask, picks = self.mask[index], index.tolist()
        width = int(mask.sum(-1).max())
        trunk = self.trunk
        if trunk is not None:
            trunk = replace(trunk, rows=[trunk.rows[i] for i in picks])
        queries = [self.queries[i] for i in picks]
        return Batch(queries, self.tokens[index, :width], mask[:, :width], self.shared, trunk)


def make_batch(
    queries: list[list[int]], completions: Sequence[Sequence[int]], pad_id: int, device
) -> Batch:
    """A Batch from token ids."""
    width = max(map(len, completions))
    rows = [list(c) + [pad_id] * (width - len(c)) for c in completions]
    lengths = torch.tensor([len(c) for c in completions], device=device)
    mask = torch.arange(width, device=device) < lengths[:, None]
    return Batch(queries, torch.tensor(rows, device=device), mask, shared_prefix(queries))


def forward(
    model, batch: Batch, pad_id: int, group: int = GROUP, entropy: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return log-probabilities [B, T] of the sampled tokens, hidden states [B, T, H], entropies.

    The entropies [B, T], in nats, cost as much as the log-probabilities; they are None unless
    `entropy` is set. All three are 0 on padding. Gradients flow through the log-probabilities
    alone: the critic reads the hidden states without changing them. `group` rows run together.
    """
    width = batch.tokens.shape[1]
    batch = _in_reach(model, batch)
    order = _by_length(batch)
    parts = []
    for index in order.split(group):
        part = batch.rows(index)
        with attention_with_fast_backward(model):
            hidden = _hidden_states(model, part, pad_id)
        read = _read_tokens(model, hidden, part.tokens, entropy)
        columns = [column * part.mask[..., None] for column in (*read, hidden.detach().float())]
        missing = width - part.tokens.shape[1]
        parts.append([nn.functional.pad(column, (0, 0, 0, missing)) for column in columns])
    back = order.argsort()
    logp, *spread, hidden = (torch.cat(tensors)[back] for tensors in zip(*parts))
    return logp[..., 0], hidden, spread[0][..., 0] if entropy else None


def _in_reach(model, batch: Batch) -> Batch:
    """`batch`, which shares no prefix where a window slides over it: see `exceeds_reach`."""
    slots = max(map(len, batch.queries)) + batch.tokens.shape[1]
    return replace(batch, shared=0) if exceeds_reach(model, slots) else batch


def _by_length(batch: Batch) -> torch.Tensor:
    lengths = torch.tensor([len(q) for q in batch.queries])
    return lengths.argsort(stable=True).to(batch.tokens.device)


@contextmanager
def attention_with_fast_backward(model) -> Iterator[None]:
    """Use attention in plain products inside the block where a CPU computes in bfloat16.

    The backward pass of fused attention takes several times as long there. Passes without gradients
    use plain products too, so that a policy before its first update has exactly the
    log-probabilities that it is compared with.
    """
    inner = decoder(model)
    if inner.device.type != "cpu" or inner.dtype != torch.bfloat16:
        yield
        return
    own = inner.config._attn_implementation
    inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        inner.set_attn_implementation(own)


def _hidden_states(model, batch: Batch, pad_id: int) -> torch.Tensor:
    """The final hidden states [B, T, H] that predict the tokens of each completion."""
    states = _run(model, batch, pad_id).last_hidden_state
    return states[:, -batch.tokens.shape[1] - 1 : -1]


def _read_tokens(
    model, hidden: torch.Tensor, tokens: torch.Tensor, entropy: bool
) -> list[torch.Tensor]:
    """Log-probabilities [B, T, 1] of `tokens`, and with `entropy` the entropies [B, T, 1].

    Where the logits of all rows are too many to hold, they are computed for some rows at a time,
    and for the backward pass once more.
    """
    rows = max(1, LOGITS // (tokens.shape[1] * model.config.vocab_size))

    def read(hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logp = _logits(model, hidden).float().log_softmax(-1)
        picked = logp.gather(-1, tokens[..., None])
        if not entropy:
            return (picked,)
        return picked, -(logp.detach().exp() * logp.detach()).sum(-1, keepdim=True)

    if rows >= len(tokens):
        return list(read(hidden, tokens))
    parts = [
        checkpoint(read, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(hidden.split(rows), tokens.split(rows))
    ]
    return [torch.cat(columns) for columns in zip(*parts)]


def _logits(model, hidden: torch.Tensor) -> torch.Tensor:
    """The logits [B, T, V] of final hidden states: the model's own pass, without its layers."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    whole = base.get_decoder()
    name = next(name for name, part in base.named_children() if part is whole)
    setattr(base, name, _Known(hidden))
    try:
        return base(inputs_embeds=hidden, use_cache=False).logits
    finally:
        setattr(base, name, whole)


class _Known(nn.Module):
    """Stands in for a decoder whose final hidden states are known."""

    def __init__(self, states: torch.Tensor):
        super().__init__()
        self.states = states

    def forward(self, *arguments, **options) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.states)


def _run(model, batch: Batch, pad_id: int):
    """The output of the decoder for queries and completions.

    Gradients flow through the shared prefix too.
    """
    device, size = batch.tokens.device, len(batch.tokens)
    cache, shared, trunk = DynamicCache(), batch.shared, batch.trunk
    if shared:
        prefix = torch.tensor([batch.queries[0][:shared]], device=device)
        with _starting_at(model, trunk, trunk and trunk.prefix):
            decoder(model)(prefix, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(size)
    own, own_mask = left_pad([q[shared:] for q in batch.queries], pad_id, device)
    mask = torch.cat([own_mask.new_ones(size, shared), own_mask, batch.mask.long()], dim=-1)
    with _starting_at(model, trunk, trunk and _padded(batch, own.shape[1])):
        return decoder(model)(
            torch.cat([own, batch.tokens], dim=-1),
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, shared:],
            past_key_values=cache,
            use_cache=True,
        )


def _padded(batch: Batch, own_width: int) -> torch.Tensor:
    """The rows of the trunk laid out like the input: queries to the left, completions after."""
    width = own_width + batch.tokens.shape[1]
    first = batch.trunk.rows[0]
    states = first.new_zeros(len(batch.queries), width, first.shape[-1])
    for row, (query, own) in enumerate(zip(batch.queries, batch.trunk.rows)):
        start = own_width - (len(query) - batch.shared)
        states[row, start : start + len(own)] = own
    return states


def with_trunk(model, batch: Batch, pad_id: int, group: int = GROUP) -> Batch:
    """Return `batch` with its trunk computed, so that `forward` runs the adapted layers only.

    `batch` is returned unchanged where the first layer is adapted, or none is.
    """
    layers = decoder(model).layers
    adapted = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    if adapted[0] or not any(adapted):
        return batch
    batch = _in_reach(model, batch)
    first = adapted.index(True)
    rows: list[torch.Tensor | None] = [None] * len(batch.queries)
    prefix = None
    for index in _by_length(batch).split(group):
        part = batch.rows(index)
        seen: list[torch.Tensor] = []
        # What the adapted layers would return is not needed.
        kept = [*layers[:first], _Keep(seen), *(_Pass() for _ in layers[first + 1 :])]
        with torch.no_grad(), _swapped(model, kept):
            _run(model, part, pad_id)
        *before, states = seen
        prefix = before[0] if before else None
        own_width = states.shape[1] - part.tokens.shape[1]
        for row, i in enumerate(index.tolist()):
            start = own_width - (len(batch.queries[i]) - batch.shared)
            stop = own_width + int(batch.mask[i].sum())
            rows[i] = states[row, start:stop].clone()
    return replace(batch, trunk=Trunk(first, prefix, rows))


class _Pass(nn.Module):
    """Takes the place of a layer that has nothing left to do."""

    def forward(self, hidden_states, **kwargs):
        return hidden_states


class _Keep(_Pass):
    """Takes the place of the first adapted layer and keeps its input."""

    def __init__(self, seen: list[torch.Tensor]):
        super().__init__()
        self.seen = seen

    def forward(self, hidden_states, **kwargs):
        self.seen.append(hidden_states)
        return hidden_states


class _Feed(_Pass):
    """Takes the place of the first layer: returns known states and grows the cache as it would."""

    def __init__(self, states: torch.Tensor):
        super().__init__()
        self.states = states

    def forward(self, hidden_states, past_key_values=None, **kwargs):
        length = self.states.new_zeros(*self.states.shape[:1], 1, self.states.shape[1], 1)
        past_key_values.update(length, length, 0)
        return self.states


@contextmanager
def _swapped(model, layers: list[nn.Module]) -> Iterator[None]:
    """Give `model` these layers inside the block."""
    inner = decoder(model)
    whole, inner.layers = inner.layers, nn.ModuleList(layers)
    try:
        yield
    finally:
        inner.layers = whole


@contextmanager
def _starting_at(model, trunk: Trunk | None, states: torch.Tensor | None) -> Iterator[None]:
    """Let a pass of `model` inside the block begin at the end of the trunk, with `states`."""
    if trunk is None:
        yield
        return
    whole = decoder(model).layers
    # Every layer keeps its index: the mask and the cache are chosen by it.
    skipped = [_Feed(states), *(_Pass() for _ in range(trunk.first - 1))]
    with _swapped(model, [*skipped, *whole[trunk.first :]]):
        yield
