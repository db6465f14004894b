"""What the stages of a PPO step cost: this project's own code, run without data (see `ledger`).

Every row of a batch is as long as the lengths say, so that memory is an upper bound for batches
whose rows are shorter.
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
from alignpro.config import ModelSpec, PPOConfig, PrompterConfig, SamplingConfig
from alignpro.fast import linears
from alignpro.fast.cache import GrowingLayer
from alignpro.fast.logprobs import Batch, Trunk, forward
from alignpro.generation import sample_tokens
from alignpro.prompter import add_lora
from alignpro.scale.meta_device import cost

ARCHITECTURES = Path(__file__).parent / "architectures.yaml"
GROUP = 24  # rows that logprobs.forward runs together
REWARD_BATCH = 16  # rows that a reward model scores together


class PlanError(RuntimeError):
    """A plan that cannot be made; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row: the prefix it shares with all others, the rest of its prompt, its answer."""

    shared: int
    own: int
    new: int


@dataclass(frozen=True)
class Stage:
    """Bytes that a stage needs for itself, and its work: pairs of FLOPs and of bytes read.

    The pairs follow one another in time; within one, computing and reading overlap at best.
    """

    name: str
    work: tuple[tuple[float, float], ...]
    cache: int = 0
    logits: int = 0
    activations: int = 0
    gradients: int = 0


def architecture(spec: ModelSpec) -> PreTrainedConfig:
    """The config of a model, without its weights.

    From a directory or the Hub's cache, else from `architectures.yaml`, else from the Hub. Raises
    PlanError where none of them has it.
    """
    source, revision = models.location(spec), spec.revision
    try:
        return AutoConfig.from_pretrained(source, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        facts = yaml.safe_load(ARCHITECTURES.read_text(encoding="utf-8"))
    if source in facts:
        return AutoConfig.for_model(**facts[source])
    try:
        return AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise PlanError(
            f"no config for {source!r}: neither a directory nor the Hub has one that can be read. "
            f"Download it where there is a network (`hf download {source} config.json`), or set "
            f"`source` to a directory that holds it. Known without: {', '.join(facts)}"
        ) from error


def hollow(
    config: PreTrainedConfig,
    precision: torch.dtype,
    lora: PrompterConfig | None = None,
    auto: type = AutoModelForCausalLM,
) -> torch.nn.Module:
    """The model of `config` on the meta device, every shape and no weights.

    With `lora`, it has the adapter that training gives it.
    """
    with torch.device("meta"):
        model = auto.from_config(config, dtype=precision).requires_grad_(False).eval()
        return add_lora(model, lora, seed=0) if lora else model


def parameters(model: torch.nn.Module) -> int:
    """How many parameters there are without the adapter, tied ones once."""
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of those parameters."""
    return sum(p.nbytes for p in model.parameters() if not p.requires_grad)


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of what PPO trains, in float32: the adapter and the value head.

    Their gradients take as much again, AdamW's two moments twice as much, and a checkpoint, which
    holds parameters and moments, three times as much.
    """
    head = model.config.hidden_size + 1
    return 4 * head + sum(p.nbytes for p in model.parameters() if p.requires_grad)


def cache_bytes(model: torch.nn.Module) -> int:
    """Bytes of keys and values that one token of one row leaves in all layers."""
    return _length_bytes(cost(model, lambda: _prefilled(model, 1, Lengths(0, 1, 1))).result)


def generation(
    name: str, model, sampling: SamplingConfig, lengths: Lengths, batch: int, count: int
) -> Stage:
    """Sampling `count` completions, `batch` at a time, as Policy does it."""
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
    """As if `count` tokens more had been read."""
    for layer in cache.layers:
        one = layer.keys[:, :, :1], layer.values[:, :, :1]
        layer.update(*(torch.empty_like(x).expand(-1, -1, count, -1) for x in one))


def _buffers(cache: Cache) -> list[torch.Tensor]:
    return [b for layer in cache.layers for b in (layer.key_buffer, layer.value_buffer)]


def _length_bytes(cache: Cache) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@torch.no_grad()
def _prefilled(model, rows: int, lengths: Lengths) -> Cache:
    """The cache once a batch's prompts are read."""
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
    """One token more for every row of `cache`."""
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


def scoring(name: str, model, tokens: int, count: int) -> Stage:
    """A reward model's scores of `count` conversations, `tokens` long."""
    rows = min(REWARD_BATCH, count)

    @torch.no_grad()
    def run():
        model(input_ids=_ids(rows, tokens), attention_mask=_ids(rows, tokens))

    once = cost(model, run)
    work = ((once.flops * count / rows, once.read * ceil(count / rows)),)
    return Stage(name, work, activations=once.peak)


def reference(model, lengths: Lengths, count: int) -> Stage:
    """The log-probabilities of `count` completions under the policy and its reference."""
    rows = min(GROUP, count)
    groups, share = ceil(count / rows), count / rows
    batch = _batch(model, rows, lengths)
    policy = cost(model, lambda: _forward(model, batch, entropy=True))
    with model.disable_adapter():
        frozen = cost(model, lambda: _forward(model, batch))
    # The trunk is computed once, by the layers that a pass with a trunk leaves out.
    whole = cost(model, lambda: _forward(model, replace(batch, trunk=None), entropy=True))
    work = tuple((c.flops * share, c.read * groups) for c in (whole, frozen))
    held = policy.peak - policy.logits + _kept(model, batch, count)
    return Stage("reference", work, logits=policy.logits, activations=held)


def update(model, lengths: Lengths, ppo: PPOConfig) -> Stage:
    """PPO's passes over a batch, one minibatch at a time, forward and backward."""
    batch = _batch(model, ppo.minibatch_size, lengths)
    once = cost(model, lambda: forward(model, batch, 0)[0].sum().backward())
    model.zero_grad()
    repeats = ppo.epochs * ppo.batch_size // ppo.minibatch_size
    return Stage(
        "update",
        ((once.flops * repeats, once.read * repeats),),
        logits=once.logits,
        activations=once.peak - once.logits + _kept(model, batch, ppo.batch_size),
        gradients=trained_bytes(model),
    )


@torch.no_grad()
def _forward(model, batch: Batch, entropy: bool = False) -> None:
    forward(model, batch, 0, entropy=entropy)


class _Rows(Batch):
    """A batch whose rows are all alike, so that picking some needs no data."""

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
    """Bytes that stay from pass to pass for a whole batch of `size` rows.

    The trunk, and the final hidden states of policy and reference in float32.
    """
    hidden = 2 * 4 * size * batch.tokens.shape[1] * model.config.hidden_size
    return hidden + (size * batch.trunk.rows[0].nbytes if batch.trunk else 0)
