"""Sampling: right tokens, right distribution, same seed same text."""

import dataclasses

import pytest
import torch
from conftest import ARCHITECTURES
from greedy import check_greedy
from scipy.stats import chisquare
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from alignpro.config import SamplingConfig
from alignpro.fast.cache import shared_prefix
from alignpro.generation import Policy, sample_tokens

PROMPTS = ["How do I boil an egg?", "Why?", "Tea or coffee, on a long cold winter morning?"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_output_is_that_of_transformers(load_tiny, greedy, architecture):
    """Shared prefix, growing cache and dropped rows change no token, in any architecture."""
    model, tokenizer = load_tiny(architecture)
    check_greedy(model, tokenizer, greedy, PROMPTS)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.6), (1.5, 20, 0.6), (1.5, 6, 0.9)],
)
def test_the_sampler_has_the_distribution_of_transformers(temperature, top_k, top_p):
    torch.manual_seed(0)
    logits = torch.randn(1, 40) * 2
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    probabilities = expected.double().softmax(-1)[0]
    draws = 20_000
    sampling = SamplingConfig(temperature, top_p, top_k, 1)
    tokens = sample_tokens(
        logits.expand(draws, -1), sampling, [torch.Generator().manual_seed(1)] * draws
    )
    counts = torch.bincount(tokens, minlength=40).double()
    kept = probabilities > 0
    assert counts[~kept].sum() == 0
    assert chisquare(counts[kept], probabilities[kept] * draws).pvalue > 1e-3


def test_the_same_seed_gives_the_same_text_and_another_seed_another(load_tiny, greedy):
    sampling = dataclasses.replace(greedy, temperature=1.0)
    policy = Policy(*load_tiny("qwen2"), sampling)
    assert policy.generate(PROMPTS, seed=1) == policy.generate(PROMPTS, seed=1)
    assert policy.generate(PROMPTS, seed=1) != policy.generate(PROMPTS, seed=2)


def test_a_row_does_not_depend_on_how_the_list_is_cut_into_batches(load_tiny, greedy):
    sampling = dataclasses.replace(greedy, temperature=1.0)
    model, tokenizer = load_tiny("llama")
    prompts = PROMPTS * 3
    whole = Policy(model, tokenizer, sampling, batch_size=9).generate(prompts, seed=1)
    assert Policy(model, tokenizer, sampling, batch_size=2).generate(prompts, seed=1) == whole
    assert Policy(model, tokenizer, sampling).generate(prompts[:5], seed=1) == whole[:5]
    assert len({*whole[::3]}) == 3  # the same prompt thrice, each with noise of its own


def test_a_response_tells_whether_it_ended_by_itself(load_tiny, greedy):
    model, tokenizer = load_tiny("llama")
    sampling = dataclasses.replace(greedy, temperature=1.0, max_new_tokens=200)
    responses = Policy(model, tokenizer, sampling).generate(PROMPTS * 20, seed=0)
    eos = tokenizer.eos_token_id
    assert {r.ended for r in responses} == {True, False}
    for response in responses:
        assert response.ended == (response.token_ids[-1] == eos)
        assert response.ended or len(response.token_ids) == 200
        assert eos not in response.token_ids[:-1]


def test_shared_prefix_leaves_each_row_a_token_of_its_own():
    assert shared_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 5, 6]]) == 2
    assert shared_prefix([[1, 2], [1, 2]]) == 1
    assert shared_prefix([[7]]) == 0
