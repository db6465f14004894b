"""What only a GPU can tell; `bench/gpu.sh tests` runs these where one is lent."""

import dataclasses

import pytest
import torch

from alignpro import models
from alignpro.config import ModelSpec, load_preset
from alignpro.experiments import Cell
from alignpro.fast.adapter import add_lora
from alignpro.fast.logprobs import forward, make_batch, with_trunk
from alignpro.generation import Policy, sample_tokens
from alignpro.scale import rehearsal
from alignpro.scale.memory_meter import MemoryMeter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
ARCHITECTURES = ("llama", "qwen2", "phi3", "gemma")
PROMPTS = ["How do I brew tea?", "Why is the sky blue, and since when is that known?", "Tea?"]


def on_both(name, lora=None):
    """The tiny model in float32 on the CPU and on the GPU, and its tokenizer."""
    model, tokenizer = models.load(ModelSpec(f"tiny:{name}"), precision=torch.float32)
    copy, _ = models.load(ModelSpec(f"tiny:{name}"), precision=torch.float32)
    if lora:
        model, copy = (add_lora(m, lora, seed=0) for m in (model, copy))
    assert copy.device.type == "cuda"
    return model.cpu(), copy, tokenizer


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_gpu_writes_what_the_cpu_writes(name, greedy):
    here, there, tokenizer = on_both(name)
    texts = [
        Policy(model, tokenizer, greedy, 2).generate(PROMPTS, seed=0) for model in (here, there)
    ]
    assert [y.token_ids for y in texts[0]] == [y.token_ids for y in texts[1]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probabilities_and_gradients_are_those_of_the_cpu(name, smoke):
    found = []
    for model in on_both(name, dataclasses.replace(smoke.prompter, lora_rank=4, lora_layers=1))[:2]:
        queries = [[5] * 9 + [7, 8], [5] * 9 + [6]]
        batch = make_batch(queries, [[9, 10, 11], [12]], 0, model.device)
        logp, _, _ = forward(model, with_trunk(model, batch, 0), 0)
        logp.sum().backward()
        gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        found.append((logp.detach().cpu(), gradients))
    (here, before), (there, after) = found
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_gpu_draws_from_the_same_distribution(smoke):
    sampling = dataclasses.replace(smoke.frozen, temperature=1.0, top_p=1.0, top_k=3)
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]], device="cuda").expand(4000, -1)
    noise = [torch.Generator("cuda").manual_seed(i) for i in range(4000)]
    shares = sample_tokens(logits, sampling, noise).bincount(minlength=5) / 4000
    wanted = torch.tensor([2.0, 1.0, 0.0]).softmax(-1)
    torch.testing.assert_close(shares[:3].cpu(), wanted, atol=0.03, rtol=0)
    assert shares[3:].sum() == 0


def test_a_run_trains_is_resumed_and_evaluated_on_a_gpu(quick, tmp_path):
    cell = Cell(quick, "help", 0, root=tmp_path)
    cell.train(progress=False)
    rows = cell.run.read("metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["time/update"] > 0 for row in rows)
    assert len(cell.evaluate(progress=False)) > 0


def test_a_meter_reads_the_allocator_of_the_gpu():
    mega = 2**20
    torch.cuda.empty_cache()
    with MemoryMeter() as meter:
        before = torch.cuda.memory_allocated()
        dropped = torch.zeros(64 * mega, dtype=torch.uint8, device="cuda")
        del dropped
        meter.lap("first")
        meter.lap("second")
    peaks = {name: peak.allocated - before for name, peak in meter.peaks.items()}
    assert peaks == {"first": 64 * mega, "second": 0}
    assert meter.overhead() > 0 and meter.total > 64 * mega


def test_a_small_rehearsal_runs_on_a_gpu_and_judges_the_fit():
    result = rehearsal.rehearse(load_preset("h100"), 0.01, pairs=[("P1", "F1")])
    table = rehearsal.time_table(result)
    assert result["memory"] and table["fits"].all() and (table["hours a cell"] > 0).all()
    assert "hours a cell" in rehearsal.report(result)
