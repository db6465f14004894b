"""Shared fixtures: tiny real checkpoints, and a preset small enough for every test."""

import dataclasses

import pytest

from alignpro.config import ModelSpec, SamplingConfig, load_preset

ARCHITECTURES = ("llama", "qwen2", "phi3", "gemma")


@pytest.fixture(autouse=True)
def style_of_its_own():
    """The style of figures that one test sets is not that of the next."""
    import matplotlib

    with matplotlib.rc_context():
        yield


@pytest.fixture(scope="session")
def smoke():
    """The smoke preset."""
    return load_preset("smoke")


@pytest.fixture(scope="session")
def greedy():
    """Greedy decoding of a dozen tokens."""
    return SamplingConfig(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=12)


@pytest.fixture
def load_tiny():
    """A function that loads the tiny (model, tokenizer) of an architecture.

    In float32 on every machine, because these models are compared with exact results.
    """
    import torch

    from alignpro import models

    return lambda name: models.load(ModelSpec(f"tiny:{name}"), precision=torch.float32)


@pytest.fixture
def few_bits_cpu(monkeypatch):
    """A CPU that reports instructions for 8-bit and 16-bit products, and no AMX tiles."""
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.fixture
def quick(smoke):
    """One pair of the smoke preset with the fewest steps that still resume and minibatch."""
    ppo = dataclasses.replace(smoke.ppo, steps=3, checkpoint_every=1, sample_every=1)
    return dataclasses.replace(smoke, ppo=ppo, architectures=(("P1", "F1"),))
