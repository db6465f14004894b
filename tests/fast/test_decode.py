"""How many rows are sampled together where the preset does not say."""

import dataclasses

import pytest
import torch

from alignpro.fast import decode
from alignpro.generation import Policy

PROMPTS = ["Name a fruit.", "Why is the sky blue on a clear day?", "Tea or coffee?"]


def test_rows_that_fit_take_half_of_the_free_memory(load_tiny, monkeypatch):
    """The tiny Llama has 2 layers, 2 heads of keys and values, 8 wide, in float32: 256 bytes."""
    model, _ = load_tiny("llama")
    row = 100 * 2 * 2 * 2 * 8 * 4
    for free, rows in ((2 * 7 * row, 7), (2 * 7 * row - 2, 6), (0, 1), (10**12, decode.MOST_ROWS)):
        monkeypatch.setattr(decode, "free_memory", lambda device, free=free: free)
        assert decode.rows_that_fit(model, 100) == rows
    model.to(torch.bfloat16)
    monkeypatch.setattr(decode, "free_memory", lambda device: 2 * 7 * row)
    assert decode.rows_that_fit(model, 100) == 14


def test_there_is_free_memory_here():
    assert decode.free_memory(torch.device("cpu")) > 10**6


@pytest.mark.parametrize("free", [0, 10**9])
def test_what_is_sampled_does_not_depend_on_the_rows_that_fit(load_tiny, smoke, monkeypatch, free):
    model, tokenizer = load_tiny("llama")
    sampling = dataclasses.replace(smoke.frozen, max_new_tokens=6)
    monkeypatch.setattr(decode, "free_memory", lambda device: free)
    found = Policy(model, tokenizer, sampling, None).generate(PROMPTS, seed=3)
    asked = Policy(model, tokenizer, sampling, 3).generate(PROMPTS, seed=3)
    assert [y.token_ids for y in found] == [y.token_ids for y in asked]
    assert Policy(model, tokenizer, sampling, None).generate([], seed=3) == []
