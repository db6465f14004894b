"""Log-probabilities against one plain pass per row: the savings change no number."""

import contextlib
import dataclasses
from unittest import mock

import pytest
import torch
from conftest import ARCHITECTURES
from torch.utils._python_dispatch import TorchDispatchMode

from alignpro.config import ModelSpec
from alignpro.fast import logprobs
from alignpro.fast.adapter import add_lora
from alignpro.fast.linears import decoder
from alignpro.fast.logprobs import forward, make_batch, with_trunk
from alignpro.models import load
from alignpro.scale.meta_device import CostMeter

QUERIES = ["Name a fruit.", "Why is the sky blue on a clear day?", "Tea or coffee?"]


def batch_of(tokenizer, completions):
    queries = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": q}], add_generation_prompt=True, return_dict=False
        )
        for q in QUERIES
    ]
    tokens = [tokenizer.encode(c, add_special_tokens=False) for c in completions]
    return make_batch(queries, tokens, tokenizer.pad_token_id, "cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_agrees_with_one_plain_pass_per_row(load_tiny, architecture):
    """Shared prefix, padding and grouping by length are bookkeeping: they change no number."""
    model, tokenizer = load_tiny(architecture)
    batch = batch_of(tokenizer, ["an apple", "because of the air, they say", "tea"])
    logp, hidden, entropy = forward(model, batch, tokenizer.pad_token_id, group=2, entropy=True)
    for row, query in enumerate(batch.queries):
        length = int(batch.mask[row].sum())
        ids = query + batch.tokens[row, :length].tolist()
        out = model(torch.tensor([ids]), output_hidden_states=True)
        plain = out.logits[0, len(query) - 1 : -1].log_softmax(-1)
        picked = plain.gather(-1, batch.tokens[row, :length, None])[:, 0]
        torch.testing.assert_close(logp[row, :length], picked, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(
            entropy[row, :length],
            torch.distributions.Categorical(logits=plain).entropy(),
            atol=2e-5,
            rtol=1e-4,
        )
        states = out.hidden_states[-1][0, len(query) - 1 : -1]
        torch.testing.assert_close(hidden[row, :length], states, atol=2e-5, rtol=1e-4)
        assert not logp[row, length:].any() and not hidden[row, length:].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_flow_through_the_shared_prefix(load_tiny, smoke, architecture):
    """The adapter's gradient equals that of plain, unpadded passes over whole sequences."""
    model, tokenizer = load_tiny(architecture)
    config = dataclasses.replace(smoke.prompter, lora_layers=2)
    model = add_lora(model, config, seed=0)
    generator = torch.Generator().manual_seed(0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.05)
    batch = batch_of(tokenizer, ["an apple", "because of the air, they say", "tea"])
    forward(model, batch, tokenizer.pad_token_id, group=2)[0].sum().backward()
    ours = [p.grad.clone() for p in parameters]
    model.zero_grad()
    for row, query in enumerate(batch.queries):
        length = int(batch.mask[row].sum())
        ids = torch.tensor([query + batch.tokens[row, :length].tolist()])
        logp = model(ids).logits[0, len(query) - 1 : -1].log_softmax(-1)
        logp.gather(-1, batch.tokens[row, :length, None]).sum().backward()
    for mine, parameter in zip(ours, parameters):
        torch.testing.assert_close(mine, parameter.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_trunk_changes_neither_values_nor_gradients(load_tiny, smoke, architecture):
    """With the layers below the adapter computed once, everything comes out the same."""
    model, tokenizer = load_tiny(architecture)
    model = add_lora(model, smoke.prompter, seed=0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    batch = batch_of(tokenizer, ["an apple", "because of the air, they say", "tea"])
    trunk = with_trunk(model, batch, tokenizer.pad_token_id, group=2)
    assert trunk.trunk.first == 1
    results = []
    for b in (batch, trunk):
        model.zero_grad()
        logp, hidden, _ = forward(model, b, tokenizer.pad_token_id, group=2)
        (logp * torch.arange(1.0, logp.shape[1] + 1)).sum().backward()
        results.append([logp, hidden, *(p.grad.clone() for p in parameters)])
    for plain, saved in zip(*results):
        torch.testing.assert_close(plain, saved, atol=1e-4, rtol=1e-4)
    index = torch.tensor([2, 0])
    part = forward(model, trunk.rows(index), tokenizer.pad_token_id)[0]
    torch.testing.assert_close(part, results[0][0][index, : part.shape[1]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_a_few_rows_at_a_time_change_no_number(
    load_tiny, smoke, architecture, monkeypatch
):
    """Also not the gradients, for which they are computed twice."""
    model, tokenizer = load_tiny(architecture)
    model = add_lora(model, smoke.prompter, seed=0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    batch = batch_of(tokenizer, ["an apple", "because of the air, they say", "tea"])
    results = []
    for entries in (logprobs.LOGITS, batch.tokens.shape[1] * model.config.vocab_size):
        monkeypatch.setattr(logprobs, "LOGITS", entries)
        meter = CostMeter(parameters, (), model.config.vocab_size)
        model.zero_grad()
        with meter:
            logp, hidden, entropy = forward(model, batch, tokenizer.pad_token_id, entropy=True)
            logp.sum().backward()
        results.append([logp, hidden, entropy, *(p.grad.clone() for p in parameters)])
        results[-1].append(meter.peak_logits)
    *whole, all_rows = results[0]
    *parts, one_row = results[1]
    assert one_row < 0.5 * all_rows
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_attention_in_plain_products_where_a_cpu_computes_in_bf16(architecture, precision):
    """Close to the fused one's numbers, and switched back, since sampling is quicker with that."""
    model, tokenizer = load(ModelSpec(f"tiny:{architecture}"), precision=precision)
    batch = batch_of(tokenizer, ["an apple", "because of the air, they say", "tea"])
    called = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(function.name())
            return function(*args, **(kwargs or {}))

    with Watch():
        logp, _, _ = forward(model, batch, tokenizer.pad_token_id)
    fused = any("scaled_dot_product" in name for name in called)
    assert fused == (precision == torch.float32)
    assert decoder(model).config._attn_implementation == "sdpa"
    with mock.patch("alignpro.fast.logprobs.attention_with_fast_backward", contextlib.nullcontext):
        by_fused, _, _ = forward(model, batch, tokenizer.pad_token_id)
    torch.testing.assert_close(logp, by_fused, atol=0.1, rtol=0.02)


def test_no_trunk_where_the_first_layer_is_adapted_or_none_is(load_tiny, smoke):
    model, tokenizer = load_tiny("llama")
    batch = batch_of(tokenizer, ["an apple", "because", "tea"])
    assert with_trunk(model, batch, tokenizer.pad_token_id).trunk is None
    config = dataclasses.replace(smoke.prompter, lora_layers=2)
    adapted = add_lora(model, config, seed=0)
    assert with_trunk(adapted, batch, tokenizer.pad_token_id).trunk is None
