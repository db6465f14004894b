"""8-bit products against full precision, which layers keep theirs, and who computes in bf16."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from checkpoints import save_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from alignpro import devices, models
from alignpro.config import ModelSpec, load_preset
from alignpro.fast import linears
from alignpro.fast.adapter import add_lora
from alignpro.fast.linears import Bf16Linear, Int8Linear, PackedLinear, arithmetic, to_bf16, to_fast
from alignpro.models import ModelError
from alignpro.reward_learning.config import load_reward_learning
from alignpro.reward_learning.learn import learn_reward
from alignpro.scale.step_costs import PlanError, architecture
from alignpro.sources import room

INT8 = ModelSpec("tiny:llama", int8=True)


def linear(inputs=12, outputs=7, bias=True, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(inputs, outputs, bias=bias)


@settings(max_examples=50, deadline=None)
@given(
    x=hnp.arrays("float32", (4, 12), elements=st.floats(-1e3, 1e3, width=32)), bias=st.booleans()
)
def test_the_error_is_at_most_half_a_unit_of_each_factor(x, bias):
    exact, x = linear(bias=bias), torch.from_numpy(x.copy())
    with torch.no_grad():
        error = (Int8Linear(exact)(x) - exact(x)).abs()
        unit_x = x.abs().amax(-1, keepdim=True) / 127
        unit_w = exact.weight.abs().amax(1) / 127
        # |xw − x'w'| ≤ |x − x'||w| + |x'||w − w'|, each rounding at most half a unit.
        bound = 0.5 * unit_x * exact.weight.abs().sum(1)
        bound = bound + 0.5 * unit_w * (x.abs() + 0.5 * unit_x).sum(-1, keepdim=True)
    assert (error <= bound * 1.001 + 1e-5).all()


def test_integers_within_range_come_out_exactly():
    exact = linear(bias=False)
    with torch.no_grad():
        exact.weight.copy_(torch.randint(-126, 127, exact.weight.shape))
        exact.weight[:, 0] = 127
        x = torch.randint(-126, 127, (5, 12)).float()
        x[:, 1] = -127
        assert torch.equal(Int8Linear(exact)(x), exact(x))


def test_a_row_does_not_depend_on_its_batch():
    quantized, x = Int8Linear(linear()), torch.randn(9, 12) * torch.logspace(-3, 3, 9)[:, None]
    assert torch.equal(quantized(x), torch.cat([quantized(row[None]) for row in x]))
    assert torch.equal(quantized(x.reshape(3, 3, 12)), quantized(x).reshape(3, 3, 7))


def test_zeros_give_the_bias():
    exact = linear()
    assert torch.equal(Int8Linear(exact)(torch.zeros(2, 12)), exact.bias.expand(2, 7))


@pytest.mark.skipif(torch.cuda.is_available(), reason="8-bit products are for the CPU")
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3", "gemma"])
def test_a_whole_model_stays_close(load_tiny, architecture, few_bits_cpu):
    exact, tokenizer = load_tiny(architecture)
    quantized = to_fast(load_tiny(architecture)[0], ModelSpec(f"tiny:{architecture}", int8=True))
    ids = torch.tensor([tokenizer.encode("How do I boil an egg, and for how long?")])
    with torch.no_grad():
        p, q = (m(ids).logits.log_softmax(-1) for m in (exact, quantized))
    assert not any(isinstance(m, torch.nn.Linear) for m in quantized.modules())
    assert 0 < (p.exp() * (p - q)).sum(-1).mean() < 0.02


@pytest.mark.skipif(torch.cuda.is_available(), reason="8-bit products are for the CPU")
def test_trained_layers_and_the_head_keep_their_precision(load_tiny, few_bits_cpu):
    model = to_fast(load_tiny("llama")[0], INT8, trained_layers=1)
    below, above = model.get_decoder().layers
    assert not any(isinstance(m, torch.nn.Linear) for m in below.modules())
    assert not any(isinstance(m, Int8Linear) for m in above.modules())
    assert isinstance(model.lm_head, torch.nn.Linear)


def test_a_model_that_does_not_ask_is_left_alone(load_tiny, few_bits_cpu):
    model = to_fast(load_tiny("llama")[0], ModelSpec("tiny:llama"))
    assert not any(isinstance(m, Int8Linear) for m in model.modules())


def test_no_eight_bit_products_where_the_cpu_has_no_instruction_for_them(load_tiny, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    model = to_fast(load_tiny("llama")[0], INT8)
    assert not any(isinstance(m, Int8Linear) for m in model.modules())
    assert arithmetic(model) == [str(devices.dtype()).split(".")[1]]


def test_no_eight_bit_products_beside_a_gpu(load_tiny, monkeypatch, few_bits_cpu):
    model, _ = load_tiny("llama")
    monkeypatch.setattr(linears, "device", lambda: torch.device("cuda"))
    to_fast(model, INT8)
    assert not any(isinstance(m, Int8Linear) for m in model.modules())


with_tiles = pytest.mark.skipif(
    torch.cuda.is_available() or not torch.cpu._is_amx_tile_supported(),
    reason="this CPU has no AMX tiles",
)


@with_tiles
@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 200), outputs=st.integers(1, 90), inputs=st.integers(1, 90))
def test_products_with_weights_laid_out_once_are_those_of_bf16(rows, outputs, inputs):
    exact = linear(inputs, outputs).bfloat16()
    x = torch.randn(rows, inputs, dtype=torch.bfloat16)
    with torch.no_grad():
        out = PackedLinear(exact)(x)
        expected = x.double() @ exact.weight.double().T + exact.bias.double()
    assert out.dtype == torch.bfloat16
    # One rounding of the sum to 8 bits, and float32's own error in summing.
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-4)


@with_tiles
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3", "gemma"])
@pytest.mark.parametrize("trained_layers", [0, 1])
def test_a_model_laid_out_for_tiles_says_what_it_said(load_tiny, architecture, trained_layers):
    spec = ModelSpec(f"tiny:{architecture}", int8=True)
    (exact, tokenizer), (packed, _) = models.load(spec), models.load(spec)
    to_fast(packed, spec, trained_layers)
    left = [isinstance(m, torch.nn.Linear) for m in packed.get_decoder().layers[-1].modules()]
    assert any(left) == bool(trained_layers)
    assert isinstance(packed.lm_head, torch.nn.Linear) == bool(trained_layers)
    assert arithmetic(packed) == arithmetic(exact) == ["bfloat16"]
    ids = torch.tensor([tokenizer.encode("How do I boil an egg, and for how long?")])
    with torch.no_grad():
        p, q = (m(ids).logits.float().log_softmax(-1) for m in (exact, packed))
    torch.testing.assert_close(p, q, rtol=0, atol=0.1)


def test_sixteen_bit_products_are_those_of_rounded_numbers():
    torch.manual_seed(0)
    exact = torch.nn.Linear(64, 5).requires_grad_(False)
    x, upstream = torch.randn(3, 7, 64, requires_grad=True), torch.randn(3, 7, 5)
    out = Bf16Linear(exact)(x)
    out.backward(upstream)
    w = exact.weight.bfloat16().double()
    expected = x.detach().bfloat16().double() @ w.T + exact.bias.double()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=2**-7, atol=1e-2)
    torch.testing.assert_close(
        x.grad.double(), upstream.bfloat16().double() @ w, rtol=2**-7, atol=1e-2
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="these products are for the CPU")
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3", "gemma"])
def test_an_adapted_model_multiplies_in_sixteen_bits_beside_its_adapter(
    load_tiny, architecture, few_bits_cpu
):
    spec, config = ModelSpec(f"tiny:{architecture}", int8=True), load_preset("smoke").prompter
    exact = add_lora(load_tiny(architecture)[0], config, seed=0)
    model, tokenizer = load_tiny(architecture)
    model = to_bf16(add_lora(to_fast(model, spec, 1), config, seed=0), spec)
    left = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert left and all(m.weight.requires_grad for m in left), "the adapter alone stays as it was"
    assert arithmetic(model) == ["bfloat16", "float32", "int8"]
    trained = [p.dtype for p in model.parameters() if p.requires_grad]
    assert set(trained) == {torch.float32}
    ids = torch.tensor([tokenizer.encode("How do I boil an egg, and for how long?")])
    p, q = (m(ids).logits.log_softmax(-1) for m in (exact, model))
    assert 0 < (p.exp() * (p - q)).sum(-1).mean() < 0.02
    q.sum().backward()
    assert all(m.weight.grad is not None for m in left)


def test_sixteen_bits_only_where_asked_for_and_where_the_cpu_has_them(load_tiny, monkeypatch):
    for asked, has in ((True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        model = to_bf16(load_tiny("llama")[0], ModelSpec("tiny:llama", int8=asked))
        assert not any(isinstance(m, Bf16Linear) for m in model.modules())


@pytest.mark.parametrize(("computes", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_that_only_emulates_bf16_computes_in_float32(monkeypatch, computes, expected):
    """As torch tells them apart: an H100 computes in bf16, a T4 does not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or computes,
    )
    assert devices.dtype() is expected


@pytest.mark.slow
def test_processes_wait_for_one_another_longer_than_an_evaluation_takes():
    """Alone in its group, as `torchrun` starts it: the time after which a silent peer is dead."""
    code = (
        "import torch; from alignpro.devices import process; process(); "
        "group = torch.distributed.group.WORLD; cpu = torch.device('cpu'); "
        "print(group._get_backend(cpu).options._timeout.total_seconds())"
    )
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | alone | {"MASTER_PORT": "0"},
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) >= 12 * 3600, done.stderr


@pytest.mark.parametrize("rows", [1, 4])
def test_the_head_is_multiplied_once_and_not_row_by_row(load_tiny, rows):
    """A slice of the last positions would be, in bfloat16 on a CPU with a copy of it each."""
    products = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape[-1:] == (model.config.vocab_size,):
                products.append(function.name())
            return out

    model, _ = load_tiny("llama")
    ids = torch.arange(6 * rows).reshape(rows, 6)
    with torch.no_grad(), Watch():
        model(ids, logits_to_keep=1)
    assert any("mm" in name for name in products) and "aten::bmm" not in products


def test_a_random_source_has_the_configs_shapes_and_the_same_weights_each_time(tmp_path):
    tiny = models.location(ModelSpec("tiny:llama"))
    for path in Path(tiny).iterdir():
        if path.suffix != ".safetensors" and path.name != "sha256.json":  # nor their seal
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before = torch.random.get_rng_state()
    first, tokenizer = models.load(ModelSpec(f"random:{tmp_path}"), precision=torch.bfloat16)
    second, _ = models.load(ModelSpec(f"random:{tmp_path}"), precision=torch.bfloat16)
    known = models.load(ModelSpec("tiny:llama"))[0].state_dict()
    assert {n: t.shape for n, t in first.state_dict().items()} == {
        n: t.shape for n, t in known.items()
    }
    assert first.dtype == torch.bfloat16 and not first.training
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's noise has moved"
    assert tokenizer.decode(tokenizer.encode("kept", add_special_tokens=False)) == "kept"


PAIRS = pd.DataFrame({"prompt": ["a b", "c d"], "chosen": ["e", "f"], "rejected": ["g", "h"]})
CODE = """
from pathlib import Path
Path({trace!r}).write_text("ran")
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
"""


@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_checkpoint_is_never_run(tmp_path, known, monkeypatch):
    """Every loader here, on a checkpoint whose code leaves a trace, even when the user says yes."""
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    folder, trace = save_encoder(tmp_path / "planted"), tmp_path / "trace"
    (folder / "planted.py").write_text(CODE.format(trace=str(trace)))
    code = {"AutoConfig": "BertConfig", "AutoTokenizer": ["BertTokenizerFast", None]}
    code |= {"AutoModelForSequenceClassification": "BertForSequenceClassification"}
    planted = {
        auto: [f"planted.{n}" if n else n for n in name] if isinstance(name, list)
        else f"planted.{name}"
        for auto, name in code.items()
    }  # fmt: skip
    for file in ("config.json", "tokenizer_config.json"):
        facts = json.loads((folder / file).read_text())
        if file == "config.json" and not known:
            facts["model_type"] = "planted"
        (folder / file).write_text(json.dumps({**facts, "auto_map": planted}))
    spec = ModelSpec(str(folder))
    kind = AutoModelForSequenceClassification
    loaders = [
        lambda: models.load(spec, kind),
        lambda: models.pretrained(AutoConfig, spec),
        lambda: architecture(spec),
        lambda: models.load(ModelSpec(f"random:{folder}"), kind),
        lambda: learn_reward(
            PAIRS, tmp_path / "learned", load_reward_learning("smoke"), 0, folder, progress=False
        ),
    ]
    for loader in loaders:
        with contextlib.nullcontext() if known else pytest.raises((ModelError, PlanError)):
            loader()
    assert not trace.exists()
    if not known:
        trusting = (
            "from transformers import AutoConfig; "
            f"AutoConfig.from_pretrained({str(folder)!r}, trust_remote_code=True)"
        )
        subprocess.run([sys.executable, "-c", trusting], check=True)
        assert trace.exists(), "the planted code works"


def test_the_memory_asked_for_follows_from_the_models(smoke, monkeypatch):
    """Weights counted by hand: SmolLM2 has 134,515,008, tied embeddings once."""
    monkeypatch.setattr(models, "dtype", lambda: torch.float32)
    cpu = load_preset("cpu")
    logits = 4 * cpu.ppo.minibatch_size * cpu.frozen.max_new_tokens * 49_152
    expected = room.LIBRARIES + 2 * 4 * 134_515_008 + room.COPIES * logits
    assert room.memory_needed(cpu, ("P1", "F1")) == expected
    for accumulate, rows in ((6, 6), (99, 24)):  # never more than the minibatch of 24
        parts = dataclasses.replace(cpu, ppo=dataclasses.replace(cpu.ppo, accumulate=accumulate))
        less = room.COPIES * logits * (24 - rows) // 24
        assert room.memory_needed(parts, ("P1", "F1")) == expected - less
    remote = {**cpu.models, "F1": ModelSpec("m", endpoint="http://localhost/v1")}
    alone = room.memory_needed(dataclasses.replace(cpu, models=remote), ("P1", "F1"))
    assert alone == expected - 4 * 134_515_008
    assert room.memory_needed(smoke, ("P1", "F1")) < 1.1 * room.LIBRARIES
    judged = dataclasses.replace(smoke, reward="F2")
    assert room.memory_needed(judged, ("P1", "F1")) > room.memory_needed(smoke, ("P1", "F1"))
