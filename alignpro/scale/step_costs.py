"""The cost of each stage of a PPO step: this project's own code, run on the meta device.

Every row of a batch has the full length, so memory is an upper bound for batches of shorter rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.cache_utils import Cache

from alignpro import models
from alignpro.config import ConfigError, ModelSpec, PPOConfig, PrompterConfig, SamplingConfig
from alignpro.fast import linears
from alignpro.fast.adapter import add_lora
from alignpro.fast.cache import GrowingLayer
from alignpro.fast.logprobs import GROUP, Batch, Trunk, forward
from alignpro.generation import sample_tokens
from alignpro.scale.meta_device import cost

ARCHITECTURES = Path(__file__).parent / "architectures.yaml"


class PlanError(ConfigError):
    """Raised when no plan can be made. The message names what is missing and what to do."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of one row.

    `shared`: the prefix that all rows of a batch share, such as the meta-prompt.
    `own`: the rest of the row's prompt.
    `new`: what the model writes.
    """

    shared: int
    own: int
    new: int


@dataclass(frozen=True)
class Stage:
    """One stage of a PPO step.

    `work` lists (FLOPs, bytes read) of its phases, in order; at best, computing and reading overlap
    within a phase. The other numbers are the bytes that the stage needs beside the weights, the
    adapter and the optimizer's state: `cache` for keys and values, `logits` for tensors as wide as
    the vocabulary, `gradients` of the trained parameters, and `activations` for the rest.
    """

    name: str
    work: tuple[tuple[float, float], ...]
    cache: int = 0
    logits: int = 0
    activations: int = 0
    gradients: int = 0


def architecture(spec: ModelSpec) -> PreTrainedConfig:
    """The config of the model that `spec` names; no weights are read.

    Looks in the directory or the Hub's local cache, then in `architectures.yaml`, then on the Hub.
    Raises PlanError if none of them has it.
    """
    source = models.location(spec)
    try:
        return models.pretrained(AutoConfig, spec, local_files_only=True)
    except models.ModelError:
        facts = yaml.safe_load(ARCHITECTURES.read_text(encoding="utf-8"))
    if source in facts:
        return AutoConfig.for_model(**facts[source])
    try:
        return models.pretrained(AutoConfig, spec)
    except models.ModelError as error:
        raise PlanError(
            f"no config for {source!r}: neither a directory nor the Hub has one that can be read. "
            f"Download it where there is a network (`hf download {source} config.json`), or set "
            f"`source` to a directory that holds it. Known without: {', '.join(facts)}"
        ) from error


def without_weights(
    config: PreTrainedConfig,
    precision: torch.dtype,
    lora: PrompterConfig | None = None,
    auto: type = AutoModelForCausalLM,
) -> torch.nn.Module:
    """The model of `config` on the meta device: all shapes, no data.

    `precision` is that of its weights, `auto` the kind of model. With `lora` it carries the adapter
    that training would give it.
    """
    with torch.device("meta"):
        model = auto.from_config(config, dtype=precision).requires_grad_(False).eval()
        return add_lora(model, lora, seed=0) if lora else model


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters without the adapter; tied ones count once."""
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of the parameters without the adapter."""
    return sum(p.nbytes for p in model.parameters() if not p.requires_grad)


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of what PPO trains, in float32: the adapter and the value head.

    Their gradients take as much again. AdamW's two moments take twice as much. A checkpoint holds
    the parameters and both moments, so it takes three times as much.
    """
    head = model.config.hidden_size + 1
    return 4 * head + sum(p.nbytes for p in model.parameters() if p.requires_grad)


def cache_bytes(model: torch.nn.Module) -> int:
    """Bytes of keys and values that one token of one row keeps, over all layers."""
    return _length_bytes(cost(model, lambda: _prefilled(model, 1, Lengths(0, 1, 1))).result)


def generation(
    name: str, model, sampling: SamplingConfig, lengths: Lengths, batch: int, count: int
) -> Stage:
    """The stage `name`: sampling `count` completions, `batch` at a time, as `Policy` does."""
    rows = min(batch, count)
    batches, share = ceil(count / rows), count / rows
    prefill = cost(model, lambda: _prefilled(model, rows, lengths))
    cache = prefill.result
    steps = lengths.new - 1
    _extend(cache, steps // 2)
    mean = _length_bytes(cache)
    half = cost(model, lambda: _decoded(model, cache, sampling), known=_buffers(cache))
    _extend(cache, max(steps - steps // 2 - 2, 0))
    last = cost(model, lambda: _decoded(model, cache, sampling), known=_buffers(cache))
    held = sum(b.nbytes for b in _buffers(cache))
    peak = max(prefill.peak, held + last.peak)
    work = (
        (prefill.flops * share, prefill.read * batches),
        (steps * half.flops * share, steps * (half.read + mean) * batches),
    )
    return Stage(name, work, held, last.logits, peak - held - last.logits)


def _extend(cache: Cache, count: int) -> None:
    """Grow `cache` as if `count` more tokens had been read."""
    for layer in cache.layers:
        one = layer.keys[:, :, :1], layer.values[:, :, :1]
        layer.update(*(torch.empty_like(x).expand(-1, -1, count, -1) for x in one))


def _buffers(cache: Cache) -> list[torch.Tensor]:
    return [b for layer in cache.layers for b in (layer.key_buffer, layer.value_buffer)]


def _length_bytes(cache: Cache) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@torch.no_grad()
def _prefilled(model, rows: int, lengths: Lengths) -> Cache:
    """The cache after the prompts of `rows` rows have been read."""
    cache = Cache(layer_class_to_replicate=GrowingLayer)
    if lengths.shared:
        linears.decoder(model)(_ids(1, lengths.shared), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(rows)
    mask = _ids(rows, lengths.shared + lengths.own)
    model(
        _ids(rows, lengths.own),
        position_ids=(mask.cumsum(-1) - 1)[:, lengths.shared :],
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache


@torch.no_grad()
def _decoded(model, cache: Cache, sampling: SamplingConfig) -> torch.Tensor:
    """Sample one more token for every row of `cache`."""
    rows, length = len(cache.layers[0].keys), cache.get_seq_length()
    out = model(
        _ids(rows, 1),
        position_ids=_ids(rows, 1),
        attention_mask=_ids(rows, length + 1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return sample_tokens(out.logits[:, -1], sampling, [None] * rows)


def _ids(rows: int, length: int) -> torch.Tensor:
    return torch.ones(rows, length, dtype=torch.long, device="meta")


def scoring(name: str, model, tokens: int, batch: int, count: int) -> Stage:
    """The stage `name`: a reward model scores `count` conversations of `tokens` tokens each.

    It scores `batch` of them at a time.
    """
    rows = min(batch, count)

    @torch.no_grad()
    def run():
        model(input_ids=_ids(rows, tokens), attention_mask=_ids(rows, tokens))

    once = cost(model, run)
    work = ((once.flops * count / rows, once.read * ceil(count / rows)),)
    return Stage(name, work, activations=once.peak)


def reference(model, lengths: Lengths, count: int) -> Stage:
    """Log-probabilities of `count` completions under the policy, then under its reference."""
    rows = min(GROUP, count)
    groups, share = ceil(count / rows), count / rows
    batch = _batch(model, rows, lengths)
    policy = cost(model, lambda: _forward(model, batch, entropy=True))
    with model.disable_adapter():
        frozen = cost(model, lambda: _forward(model, batch))
    # The trunk (the layers below the first adapted one) is computed once, before the policy's pass.
    whole = cost(model, lambda: _forward(model, replace(batch, trunk=None), entropy=True))
    work = tuple((c.flops * share, c.read * groups) for c in (whole, frozen))
    held = policy.peak - policy.logits + _kept(model, batch, count)
    return Stage("reference", work, logits=policy.logits, activations=held)


def update(model, lengths: Lengths, ppo: PPOConfig) -> Stage:
    """PPO's epochs over a batch, forward and backward, one minibatch or a part of one at a time."""
    rows = min(ppo.accumulate or ppo.minibatch_size, ppo.minibatch_size)
    batch = _batch(model, rows, lengths)
    once = cost(model, lambda: forward(model, batch, 0)[0].sum().backward())
    model.zero_grad()
    repeats = ppo.epochs * (ppo.batch_size // ppo.minibatch_size) * ppo.minibatch_size / rows
    return Stage(
        "update",
        ((once.flops * repeats, once.read * ceil(repeats)),),
        logits=once.logits,
        activations=once.peak - once.logits + _kept(model, batch, ppo.batch_size),
        gradients=trained_bytes(model),
    )


@torch.no_grad()
def _forward(model, batch: Batch, entropy: bool = False) -> None:
    forward(model, batch, 0, entropy=entropy)


class _Rows(Batch):
    """A batch of identical rows: picking some of them needs no data."""

    def rows(self, index: torch.Tensor) -> Batch:
        count = len(index)
        trunk = self.trunk and replace(self.trunk, rows=self.trunk.rows[:count])
        return replace(
            self,
            queries=self.queries[:count],
            tokens=self.tokens[:count],
            mask=self.mask[:count],
            trunk=trunk,
        )


def _batch(model, rows: int, lengths: Lengths) -> Batch:
    queries = [[0] * (lengths.shared + lengths.own)] * rows
    tokens = _ids(rows, lengths.new)
    batch = _Rows(queries, tokens, tokens.bool(), lengths.shared)
    base = model.get_base_model()
    layers = linears.decoder(model).layers
    first = next(i for i, x in enumerate(layers) if any(p.requires_grad for p in x.parameters()))
    if first == 0:
        return batch

    def states(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, base.config.hidden_size, dtype=base.dtype, device="meta")

    prefix = states(1, lengths.shared) if lengths.shared else None
    own = [states(lengths.own + lengths.new) for _ in range(rows)]
    return replace(batch, trunk=Trunk(first, prefix, own))


def _kept(model, batch: Batch, size: int) -> int:
    """Bytes kept between passes for a whole batch of `size` rows.

    They are the trunk's, and those of the final hidden states of policy and reference in float32.
    """
    hidden = 2 * 4 * size * batch.tokens.shape[1] * model.config.hidden_size
    return hidden + (size * batch.trunk.rows[0].nbytes if batch.trunk else 0)
