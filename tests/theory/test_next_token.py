"""alignpro.theory.next_token against one unbatched forward pass for each rewrite."""

import numpy as np
import pytest
import torch

from alignpro import models
from alignpro.config import ModelSpec, SamplingConfig
from alignpro.generation import filter_logits
from alignpro.theory import next_token

PROMPTS = ["Is Sydney the capital of Australia?", "Are bats blind, as the saying goes?", "Why?"]
SUFFIXES = ["", "Answer yes or no.", "Yes or no?", "Answer with a few short words, please."]


@pytest.fixture(scope="module", params=["llama", "qwen2", "phi3", "gemma"])
def tiny(request):
    return models.load(ModelSpec(f"tiny:{request.param}"))


@torch.inference_mode()
def one_by_one(model, tokenizer):
    """Logits [X, K, V], and log-likelihood per token of what follows the prompt, [X, K]."""
    logits, likelihoods = [], []
    for prompt in PROMPTS:
        texts = [f"{prompt} {s}".strip() for s in SUFFIXES]
        chats = [[{"role": "user", "content": t}] for t in texts]
        encoded = [
            tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False)
            for c in chats
        ]
        start = next(i for i in range(999) if len({tuple(e[: i + 1]) for e in encoded}) > 1)
        for ids in encoded:
            out = model(torch.tensor([ids], device=model.device)).logits[0].double().cpu()
            p = out.log_softmax(-1)
            logits.append(out[-1])
            likelihoods.append(np.mean([p[i - 1, ids[i]] for i in range(start, len(ids))]))
    shape = len(PROMPTS), len(SUFFIXES)
    return torch.stack(logits).reshape(*shape, -1), np.reshape(likelihoods, shape)


def test_table_and_likelihood_are_those_of_single_forward_passes(tiny):
    logits, likelihood = next_token.next_token_logits(*tiny, PROMPTS, SUFFIXES)
    expected, expected_likelihood = one_by_one(*tiny)
    assert logits.shape == expected.shape and likelihood.shape == expected.shape[:2]
    table = next_token.next_token_table(logits)
    assert table.dtype == np.float64
    assert table.sum(axis=-1) == pytest.approx(1.0, abs=1e-14)
    tolerance = 1e-5 if tiny[0].dtype == torch.float32 else 0.02
    assert np.abs(table - expected.softmax(-1).numpy()).max() < tolerance
    assert likelihood == pytest.approx(expected_likelihood, abs=100 * tolerance)


def test_sampling_keeps_the_nucleus_of_the_top_k(tiny):
    sampling = SamplingConfig(temperature=1.5, top_p=0.6, top_k=20, max_new_tokens=1)
    logits, _ = next_token.next_token_logits(*tiny, PROMPTS[:1], SUFFIXES)
    table = next_token.next_token_table(logits, sampling)
    for k in range(len(SUFFIXES)):
        kept, ids = filter_logits(torch.from_numpy(logits[0, k : k + 1]), 1.5, 20, 0.6)
        direct = np.zeros(logits.shape[2])
        direct[ids[0]] = kept[0].double().softmax(-1)
        assert table[0, k] == pytest.approx(direct, abs=1e-15)
    # By hand: the fewest of the 20 likeliest tokens that hold 60 % of their mass.
    scaled = np.sort(logits[0, 0].astype(float))[::-1][:20] / 1.5
    mass = np.cumsum(np.exp(scaled) / np.exp(scaled).sum())
    assert (table[0, 0] > 0).sum() == np.searchsorted(mass, 0.6) + 1


def test_sampling_that_truncates_nothing_is_a_softmax_at_its_temperature(tiny):
    logits, _ = next_token.next_token_logits(*tiny, PROMPTS[:1], SUFFIXES[:2])
    sampling = SamplingConfig(temperature=2.0, top_p=1.0, top_k=0, max_new_tokens=1)
    heat = np.exp(logits.astype(float) / 2)
    expected = heat / heat.sum(axis=-1, keepdims=True)
    assert next_token.next_token_table(logits, sampling) == pytest.approx(expected, abs=1e-15)
