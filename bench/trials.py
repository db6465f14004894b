"""The trials of `bench.py`: the same work without and with each optimisation."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from contenders import MINIBATCH, plain, settings
from transformers.cache_utils import DynamicLayer

from alignpro import models
from alignpro.devices import dtype
from alignpro.experiments import Cell
from alignpro.fast import linears, logprobs
from alignpro.fast.linears import Int8Linear, PackedLinear
from alignpro.generation import Policy, filter_logits
from alignpro.prompter import Prompter
from alignpro.texts import NEUTRAL_MENU

Work = Callable[[], object]
# (part, name of an optimisation): the work without it, and with it.
Pairs = dict[tuple[str, str], tuple[Work, Work]]


def _sorted_filter(logits, temperature, top_k, top_p):
    """Sort the whole vocabulary, as transformers does. This project does not."""
    if top_k:
        floor = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    return filter_logits(logits, temperature, 0, top_p)


def _gumbel_max(logits, sampling, generators):
    """Draw noise for each token of the vocabulary and take the largest sum. Not used either."""
    kept, ids = filter_logits(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    noise = torch.empty_like(kept)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    choice = (kept - noise.log()).argmax(-1)
    return choice if ids is None else ids.gather(-1, choice[:, None])[:, 0]


@contextlib.contextmanager
def head_after_prefix(model: torch.nn.Module) -> Iterator[None]:
    """Also compute the shared prefix's logits, which nothing needs, while the context is open."""
    head = model.get_output_embeddings()

    def ask(layers, inputs, out):
        if len(out.last_hidden_state) == 1:
            torch.nn.functional.linear(out.last_hidden_state[:, -1:], head.weight)

    handle = linears.decoder(model).register_forward_hook(ask)
    try:
        yield
    finally:
        handle.remove()


def under(patch: Callable[[], contextlib.AbstractContextManager], work: Work) -> Work:
    """`work` with a new `patch` in place."""

    def run():
        with patch():
            work()

    return run


def minibatch(prompter: Prompter, prompts: list) -> logprobs.Batch:
    """A batch of `prompts` whose completions are suffixes from the menu."""
    tokenizer = prompter.policy.tokenizer
    written = [tokenizer.encode(s, add_special_tokens=False) for s in NEUTRAL_MENU]
    queries = prompter.policy.encode(prompter.messages(prompts))
    ends = [[*s, tokenizer.eos_token_id] for s in written]
    completions = [ends[i % len(ends)] for i in range(len(queries))]
    model = prompter.policy.model
    return logprobs.make_batch(queries, completions, tokenizer.pad_token_id, model.device)


def learner(prompter: Prompter, prompts: list) -> Work:
    """PPO's work on one minibatch: trunk, policy, reference, and one epoch of the update."""
    model, pad = prompter.policy.model, prompter.policy.tokenizer.pad_token_id

    def learn():
        batch = logprobs.with_trunk(model, minibatch(prompter, prompts), pad)
        with torch.no_grad():
            logprobs.forward(model, batch, pad, entropy=True)
            with model.disable_adapter():
                logprobs.forward(model, batch, pad)
        logprobs.forward(model, batch, pad)[0].sum().backward()
        model.zero_grad(set_to_none=True)

    return learn


def patched(name: str, value: object) -> Callable[[], contextlib.AbstractContextManager]:
    """Make patches of `alignpro.name`."""
    return lambda: mock.patch(f"alignpro.{name}", value)


def without_tiles() -> contextlib.AbstractContextManager:
    """Hide the CPU's AMX tiles, so that products use the next best format."""
    return mock.patch.object(torch.cpu, "_is_amx_tile_supported", lambda: False)


def sampling_pairs(root: Path, preset: str) -> Pairs:
    """Sampling without and with each optimisation. Answers stop at half their length."""
    cell = Cell(settings(preset), "help", 0, root=root)
    prompts, spec = cell.prompts("train")[:MINIBATCH], cell.preset.models["F1"]
    prompter, frozen = cell.untrained(progress=False), cell.frozen
    half = dataclasses.replace(frozen.sampling, max_new_tokens=frozen.sampling.max_new_tokens // 2)
    frozen.sampling = half

    def answers(precision: torch.dtype, form: Callable | None = None) -> Work:
        model, tokenizer = models.load(spec, precision=precision)
        if form:
            linears.swap_linears(model, form)
        return answers_of(Policy(model, tokenizer, half, MINIBATCH))

    def answers_of(policy: Policy) -> Work:
        return lambda: policy.generate([str(x) for x in prompts], seed=0)

    def writes():
        prompter(prompts, seed=0)

    def endless():
        return mock.patch.object(prompter.policy, "eos_ids", torch.tensor([], dtype=torch.long))

    fp32, fast, part = answers(torch.float32), answers_of(frozen), "frozen LLM"
    whole = under(patched("generation.filter_logits", _sorted_filter), fast)
    stock = under(patched("fast.decode.GrowingLayer", DynamicLayer), fast)
    apart = under(patched("fast.decode.shared_prefix", lambda encoded: 0), writes)
    noisy = under(patched("generation.sample_tokens", _gumbel_max), writes)
    pairs = {
        (part, "weights laid out once, float32"): (fp32, answers(torch.float32, PackedLinear)),
        (part, "top-k before the sort"): (whole, fast),
        (part, "a cache that grows in chunks"): (stock, fast),
        (part, "the whole model in bf16"): (fp32, answers(torch.bfloat16)),
        ("rollout", "shared prefix read once"): (apart, writes),
        ("rollout", "rows leave the batch as they end"): (under(endless, writes), writes),
        ("rollout", "one random number a row, not one a token"): (noisy, writes),
    }
    if torch.cpu._is_vnni_supported():
        pairs[part, "8-bit products"] = fp32, answers(torch.float32, Int8Linear)
    if dtype() == torch.bfloat16:
        pairs[part, "weights laid out once, bf16"] = answers(torch.bfloat16), fast
    return pairs


def learning_pairs(root: Path, preset: str) -> Pairs:
    """Log-probabilities and update without and with each optimisation."""
    cell, part = Cell(settings(preset), "help", 0, root=root), "log-probabilities and update"
    prompts, once = cell.prompts("train")[:MINIBATCH], "one product for the head, not one a row"

    def prompter() -> Prompter:
        return cell.untrained(progress=False)

    ours = prompter()
    with plain(torch.float32):
        fp32 = prompter()
    with plain(torch.bfloat16):
        half = prompter()
    learn, exactly, halved = (learner(p, prompts) for p in (ours, fp32, half))
    apart = under(patched("fast.logprobs.shared_prefix", lambda encoded: 0), learn)
    again = under(patched("fast.logprobs.with_trunk", lambda model, batch, pad: batch), learn)
    asking = under(lambda: head_after_prefix(ours.policy.model), learn)
    always = under(patched("fast.logprobs.forward", partial(logprobs.forward, entropy=True)), learn)
    pairs = {
        (part, "trunk computed once"): (again, learn),
        (part, "shared prefix read once"): (apart, learn),
        (part, "no head after the shared prefix"): (asking, learn),
        (part, "entropies only where they are reported"): (always, learn),
        (part, "the whole model in bf16"): (exactly, halved),
        ("fp32 log-probabilities", once): heads(fp32, prompts),
        # Without it each row copies the head; a few rows are enough to show that.
        ("bf16 log-probabilities", once): heads(half, prompts[:4]),
        ("reference", "the adapter switched off, no second model"): references(
            ours, cell.frozen, prompts
        ),
    }
    if torch.cpu._is_vnni_supported():
        with without_tiles():
            few = learner(prompter(), prompts)
            with patched("fast.linears.to_bf16", lambda model, spec: model)():
                below = learner(prompter(), prompts)
        pairs[part, "8-bit products below the adapter"] = exactly, below
        if torch.cpu._is_avx512_bf16_supported():
            pairs[part, "bf16 products beside the adapter"] = below, few
    if dtype() == torch.bfloat16:
        fused = patched("fast.logprobs.attention_with_fast_backward", contextlib.nullcontext)
        pairs[part, "attention in plain products"] = under(fused, learn), learn
        pairs[part, "weights laid out once, bf16"] = halved, learn
    return pairs


def heads(prompter: Prompter, prompts: list) -> tuple[Work, Work]:
    """Log-probabilities with the head's input as a slice, and copied to be contiguous."""
    model, pad = prompter.policy.model, prompter.policy.tokenizer.pad_token_id
    batch, head = minibatch(prompter, prompts), model.get_output_embeddings()

    @torch.no_grad()
    def log_probs():
        logprobs.forward(model, batch, pad)

    return under(lambda: mock.patch.object(head, "_forward_pre_hooks", {}), log_probs), log_probs


def references(prompter: Prompter, copy: Policy, prompts: list) -> tuple[Work, Work]:
    """The reference's log-probabilities from a second model, and from the first without adapter."""
    model, pad = prompter.policy.model, prompter.policy.tokenizer.pad_token_id
    whole = minibatch(prompter, prompts)
    batch = logprobs.with_trunk(model, whole, pad)

    @torch.no_grad()
    def second():
        logprobs.forward(copy.model, whole, pad)

    @torch.no_grad()
    def switched_off():
        with model.disable_adapter():
            logprobs.forward(model, batch, pad)

    return second, switched_off


def seconds(work: Work) -> float:
    """The seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 4)


def trials(root: Path, preset: str) -> Callable[[], list[dict]]:
    """The seconds without and with each optimisation, measured in turns."""
    pairs = sampling_pairs(root, preset) | learning_pairs(root, preset)
    turns = itertools.count()
    for _, taken in pairs.values():
        taken()

    def measure() -> list[dict]:
        rows, turn = [], next(turns)
        for (part, trial), works in pairs.items():
            # The order alternates, because the second one finds a warmer machine.
            spent = {i: seconds(works[i]) for i in ((0, 1) if turn % 2 else (1, 0))}
            rows.append({"trial": trial, "part": part, "without": spent[0], "with": spent[1]})
            print(f"  {f'{part}: {trial}':70} ×{spent[0] / spent[1]:.2f}", flush=True)
        return rows

    return measure
