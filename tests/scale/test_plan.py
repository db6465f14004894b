"""The plan against published counts, against arithmetic, and against bytes of real runs."""

import dataclasses
import re
import sys

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForSequenceClassification

from alignpro import models
from alignpro.commands.main import main
from alignpro.config import ModelSpec, SamplingConfig, load_preset
from alignpro.fast.adapter import add_lora
from alignpro.fast.logprobs import forward, make_batch, with_trunk
from alignpro.generation import Policy
from alignpro.ppo import Scored, Trainer
from alignpro.runs import Run
from alignpro.scale import step_costs
from alignpro.scale.meta_device import CostMeter
from alignpro.scale.plan import GPU, OVERHEAD, PARTS, Plan, _duration
from alignpro.scale.step_costs import Lengths, PlanError, Stage, architecture, without_weights
from alignpro.sources import weights

TINY = [f"tiny:{name}" for name in ("llama", "qwen2", "phi3", "gemma")]
SMOLLM2 = pytest.param(weights.SMOLLM2, marks=pytest.mark.slow)
LENGTHS = Lengths(shared=20, own=40, new=24)
UNTRUNCATED = SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=LENGTHS.new)


@pytest.mark.parametrize(
    ("source", "count", "cache_kib"),
    [
        ("microsoft/Phi-3.5-mini-instruct", 3_821_079_552, 384),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, 28),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, 12),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248, 128),
    ],
)
def test_the_hubs_models_have_their_published_sizes(source, count, cache_kib):
    model = without_weights(architecture(ModelSpec(source)), torch.bfloat16)
    assert step_costs.parameters(model) == count
    assert step_costs.weight_bytes(model) == 2 * count
    assert step_costs.cache_bytes(model) == cache_kib * 1024


def test_the_reward_model_is_gemma_2b_with_one_output_for_its_head():
    config = architecture(ModelSpec("weqweasdas/RM-Gemma-2B"))
    config.num_labels = 1
    model = without_weights(config, torch.bfloat16, auto=AutoModelForSequenceClassification)
    assert step_costs.parameters(model) == 2_506_172_416 + 2048


def loaded(source, lora):
    """The real model in float32 on the CPU, with its adapter and its tokenizer."""
    model, tokenizer = models.load(ModelSpec(source))
    return add_lora(model.float(), lora, seed=0), tokenizer


@pytest.fixture
def lora(smoke):
    """An adapter that leaves a trunk below it."""
    return dataclasses.replace(smoke.prompter, lora_rank=4, lora_layers=1)


def both(source, lora):
    model, tokenizer = loaded(source, lora)
    return without_weights(architecture(ModelSpec(source)), torch.float32, lora), model, tokenizer


def rows(count):
    """Ids of queries with a common prefix, one a token shorter, so that there is padding."""
    shared, own = [5] * LENGTHS.shared, LENGTHS.own
    return [shared + [6 + i % 50] + [7] * (own - 1 - (i == 0)) for i in range(count)]


def peak_bytes(run):
    """What `run` held at most beyond what was there before, as PyTorch's CPU allocator saw it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("source", [*TINY, SMOLLM2])
def test_sizes_are_those_of_the_loaded_model(source, lora):
    planned, real, _ = both(source, lora)
    assert step_costs.parameters(planned) == sum(
        p.numel() for p in real.parameters() if not p.requires_grad
    )
    assert step_costs.weight_bytes(planned) == sum(
        p.nbytes for p in real.parameters() if not p.requires_grad
    )
    head = 4 * (real.config.hidden_size + 1)
    trained = sum(p.nbytes for p in real.parameters() if p.requires_grad)
    assert step_costs.trained_bytes(planned) == trained + head
    with torch.no_grad():
        cache = real(torch.tensor(rows(3)[1:]), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert step_costs.cache_bytes(planned) * 2 * (LENGTHS.shared + LENGTHS.own) == held


@pytest.mark.parametrize("source", [*TINY, SMOLLM2])
def test_generation_holds_what_a_real_batch_holds(source, lora):
    planned, real, tokenizer = both(source, lora)
    stage = step_costs.generation("rollout", planned, UNTRUNCATED, LENGTHS, batch=6, count=6)
    policy = Policy(real, tokenizer, UNTRUNCATED)
    policy.eos_ids = torch.tensor([-1])  # every row runs to the limit
    measured = peak_bytes(lambda: policy.generate_ids(rows(6), seed=0))
    assert stage.cache + stage.logits + stage.activations == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("source", [*TINY, SMOLLM2])
def test_reference_and_update_hold_what_a_real_minibatch_holds(source, lora, smoke):
    planned, real, tokenizer = both(source, lora)
    ppo = dataclasses.replace(smoke.ppo, batch_size=8, minibatch_size=4)
    reference = step_costs.reference(planned, LENGTHS, ppo.batch_size)
    update = step_costs.update(planned, LENGTHS, ppo)
    done = [[8] * LENGTHS.new] * 8
    batch = with_trunk(real, make_batch(rows(8), done, 0, "cpu"), 0)
    part = batch.rows(torch.arange(4))
    kept = step_costs._kept(planned, step_costs._batch(planned, 8, LENGTHS), 8)

    def passed():
        with torch.no_grad():
            forward(real, batch, 0, entropy=True)

    measured = peak_bytes(passed)
    assert reference.logits + reference.activations - kept == pytest.approx(measured, rel=0.1)
    measured = peak_bytes(lambda: forward(real, part, 0)[0].sum().backward())
    assert update.logits + update.activations - kept == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("source", TINY)
def test_shapes_that_were_seen_before_leave_every_count_untruncated(
    source, lora, smoke, monkeypatch
):
    def counted():
        model = without_weights(architecture(ModelSpec(source)), torch.bfloat16, lora)
        rollout = step_costs.generation("rollout", model, smoke.frozen, LENGTHS, batch=6, count=6)
        return rollout, step_costs.update(model, LENGTHS, smoke.ppo)

    found = counted()
    monkeypatch.setattr(CostMeter, "_result", lambda _, func, args, kwargs: func(*args, **kwargs))
    assert counted() == found


@pytest.mark.parametrize("source", TINY)
def test_a_checkpoint_is_as_large_as_planned(source, lora, quick, tmp_path):
    planned, real, tokenizer = both(source, lora)
    policy = Policy(real, tokenizer, dataclasses.replace(UNTRUNCATED, max_new_tokens=4))
    run = Run(tmp_path, quick, "help", ("P1", "F1"), "align-pro", seed=0)
    config = dataclasses.replace(quick.ppo, steps=1)

    def score(prompts, outputs, seed):
        return Scored(torch.rand(len(prompts)), [{} for _ in prompts], {})

    def messages(prompts):
        return [[{"role": "user", "content": x}] for x in prompts]

    Trainer(policy, ["one", "two"] * 4, messages, score, config, run).train(progress=False)
    (path,) = (run.folder / "checkpoints").glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        held = sum(file.get_tensor(key).nbytes for key in file.keys())
    assert 3 * step_costs.trained_bytes(planned) == pytest.approx(held, rel=0.1)


def test_flops_and_bytes_read_are_those_of_arithmetic(lora):
    config = architecture(ModelSpec("tiny:llama"))
    model = without_weights(config, torch.float32)
    stage = step_costs.generation(
        "frozen", model, UNTRUNCATED, Lengths(0, 30, 2), batch=4, count=12
    )
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    kv = config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    head = hidden * config.vocab_size
    matrices = layers * layer
    attention = 4 * layers * hidden  # FLOPs a pair of tokens
    (prefill, read), (decode, again) = stage.work
    assert prefill == 12 * (2 * (30 * matrices + head) + attention * 30 * 30)
    assert decode == 12 * (2 * (matrices + head) + attention * 31)
    assert read == 3 * 4 * (matrices + head)
    assert again == read + 12 * 30 * step_costs.cache_bytes(model)


def test_an_update_computes_at_least_a_forward_pass_and_no_more_than_three(lora, smoke):
    model = without_weights(architecture(ModelSpec("tiny:llama")), torch.float32, lora)
    once = dataclasses.replace(smoke.ppo, batch_size=8, minibatch_size=8, epochs=1)
    _, (forward_flops, _) = step_costs.reference(model, LENGTHS, once.batch_size).work
    update = step_costs.update(model, LENGTHS, once)
    assert forward_flops < update.work[0][0] < 3.2 * forward_flops
    twice = dataclasses.replace(once, minibatch_size=4, epochs=2)
    longer = step_costs.update(model, LENGTHS, twice)
    assert longer.work[0][0] == pytest.approx(2 * update.work[0][0], rel=0.1)
    assert longer.work[0][1] == pytest.approx(4 * update.work[0][1])


def test_a_minibatch_in_parts_holds_one_part_and_computes_all(lora, smoke):
    model = without_weights(architecture(ModelSpec("tiny:llama")), torch.float32, lora)
    whole = dataclasses.replace(smoke.ppo, batch_size=16, minibatch_size=16, epochs=1)
    parts = dataclasses.replace(whole, accumulate=4)
    small = dataclasses.replace(whole, minibatch_size=4)
    planned, once, fours = (step_costs.update(model, LENGTHS, p) for p in (parts, whole, small))
    assert (planned.logits, planned.activations) == (fours.logits, fours.activations)
    assert planned.logits < 0.3 * once.logits
    assert planned.work[0][0] == pytest.approx(once.work[0][0], rel=0.1)
    assert planned.work[0][1] == pytest.approx(4 * once.work[0][1])


def test_without_a_generation_batch_the_plan_samples_a_whole_batch(smoke):
    free, whole = (
        Plan(dataclasses.replace(smoke, generation_batch=rows), prompt_tokens=32).stages()
        for rows in (None, smoke.ppo.batch_size)
    )
    pd.testing.assert_frame_equal(free, whole)


def test_the_bound_on_time_is_the_larger_of_computing_and_reading():
    stage = Stage("x", ((2 * 989e12, 3.35e12), (0, 3 * 3.35e12)))
    assert GPU().seconds(stage) == pytest.approx(5)


def test_a_plan_has_every_stage_of_every_architecture_and_oracle(smoke):
    pairs = (("P1", "F1"), ("P2", "F2"))
    preset = dataclasses.replace(smoke, architectures=pairs, reward="F1")
    plan = Plan(preset, prompt_tokens=32)
    table = plan.stages()
    named = {name: list(part["stage"]) for name, part in table.groupby("architecture")}
    trained = ["rollout", "frozen", "reward", "reference", "update", "evaluation"]
    oracle = ["rollout", "reward", "reference", "update", "evaluation"]
    assert named == {"P1-F1": trained, "P2-F2": trained, "F1": oracle, "F2": oracle}
    assert (table["total"] == table[list(PARTS)].sum(axis=1)).all()
    asked = table[table["stage"] != "evaluation"]
    assert (asked[["total", "flops", "seconds"]] > 0).all().all()
    weights = plan.models()["weights"]
    shown = table[(table["architecture"] == "P1-F1") & (table["stage"] == "update")]
    # The reward model has one output where the language model has a vocabulary.
    assert weights["P1"] + weights["F1"] < shown["weights"].item() < weights[["P1", "F1"]].sum() * 2


def test_architectures_of_the_same_models_are_planned_once(smoke):
    roles = {**smoke.models, "F2": smoke.models["F1"]}
    plan = Plan(dataclasses.replace(smoke, models=roles), prompt_tokens=32)
    assert list(plan.summary()["architecture"]) == ["P1-F1", "P2-F1", "F1"]
    assert list(plan.models().index) == ["P1", "P2", "F1"]


def test_evaluation_holds_answers_to_prompts_longer_than_their_rewrites(smoke):
    """An oracle is asked x itself, where the frozen LLM of Align-Pro is asked a rewrite."""
    cold = dataclasses.replace(smoke.prompter.warm_start, steps=0)
    prompter = dataclasses.replace(smoke.prompter, form="rewrite", warm_start=cold)
    plan = Plan(dataclasses.replace(smoke, prompter=prompter), prompt_tokens=400)
    cache = plan.stages().set_index(["architecture", "stage"])["cache"]
    a_token = smoke.ppo.batch_size * plan.models()["cache a token"]["F1"]
    answer = smoke.frozen.max_new_tokens
    assert cache["F1", "evaluation"] >= a_token * (400 + answer - 1)
    assert cache["P1-F1", "frozen"] < a_token * 100 < cache["P1-F1", "evaluation"]


def test_the_sibling_of_h100_differs_in_its_ppo_alone():
    paper, sibling = load_preset("h100"), load_preset("h100-minibatch-128")
    same = dataclasses.replace(sibling, name=paper.name, ppo=paper.ppo, rlhf=paper.rlhf)
    assert same == paper
    assert sibling.ppo.minibatch_size == 128 and sibling.ppo.accumulate < 128
    assert sibling.rlhf == dataclasses.replace(paper.rlhf, learning_rate=sibling.ppo.learning_rate)


@pytest.mark.parametrize("name", ["h100", "h100-minibatch-128", "colab"])
def test_the_presets_for_a_gpu_are_planned_without_the_hub(name, monkeypatch):
    monkeypatch.setattr(step_costs.AutoConfig, "from_pretrained", unreachable)
    for spec in load_preset(name).models.values():
        assert architecture(spec).hidden_size


def unreachable(*arguments, **options):
    raise OSError("no network")


def test_a_remote_frozen_llm_costs_nothing_here_and_has_no_oracle(smoke):
    here, remote = Plan(smoke, prompt_tokens=32), Plan(smoke, prompt_tokens=32, remote_frozen=True)
    table = remote.stages()
    assert set(table["configuration"]) == {"Align-Pro"} and "frozen" not in set(table["stage"])
    saved = here.stages()["weights"][0] - table["weights"][0]
    assert saved == here.models()["weights"]["F1"]


def test_a_plan_says_whether_the_gpu_is_large_enough(smoke):
    peak = Plan(smoke).summary()["peak"].max()
    assert peak > OVERHEAD
    assert Plan(smoke, GPU(memory=peak)).summary()["fits"].all()
    assert not Plan(smoke, GPU(memory=peak - 1)).summary()["fits"].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h100", {}),
        ("h100-minibatch-128", {}),
        ("colab", {"gpu": GPU(memory=15.7e9), "precision": torch.float32, "prompt_tokens": 64}),
    ],
)
def test_a_preset_for_a_gpu_fits_into_it(name, options):
    """The second is a T4, by the memory that CUDA reports, and the project's own short prompts."""
    assert Plan(load_preset(name), **options).summary()["fits"].all()


def test_the_command_prints_the_plan(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["alignpro", "plan", "--preset", "smoke", "--gpu-memory", "16"]
    )
    assert main() == 0
    printed = capsys.readouterr().out
    assert "not measured" in printed and "16 GB" in printed and "tiny:qwen2" in printed
    assert re.search(r"1 dataset with 2 seeds\): at least [\d.]+ seconds of PPO steps", printed)


@pytest.mark.parametrize(
    ("hours", "told"), [(5.04, "5.0 hours"), (0.5, "30.0 minutes"), (0.001, "3.6 seconds")]
)
def test_a_short_time_is_told_in_a_smaller_unit(hours, told):
    assert _duration(hours) == told


def test_a_missing_config_is_named_with_what_to_do(tmp_path):
    with pytest.raises(PlanError, match="hf download .* config.json"):
        architecture(ModelSpec(str(tmp_path)))


def test_the_config_of_a_directory_is_read(tmp_path):
    config = architecture(ModelSpec("meta-llama/Llama-3.1-8B-Instruct"))
    config.num_hidden_layers = 2
    config.save_pretrained(tmp_path)
    assert architecture(ModelSpec(str(tmp_path))).num_hidden_layers == 2
