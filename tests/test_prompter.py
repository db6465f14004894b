"""The prompter: what it is asked, what it may change, and how it is kept."""

import pytest
import torch
from conftest import ARCHITECTURES
from sklearn.decomposition import PCA

from alignpro.data import load_prompts
from alignpro.fast.adapter import (
    adapter_inputs,
    adapter_similarity,
    add_lora,
    centre_adapter,
    merge_adapter,
)
from alignpro.generation import Policy
from alignpro.prompter import Prompter
from alignpro.texts import BEST_SUFFIXES, META_PROMPT, NEUTRAL_MENU


def test_a_suffix_keeps_the_prompt_word_for_word():
    prompter = Prompter(policy=None, form="suffix")
    prompts = load_prompts("help", "train", 5)
    outputs = ["Be brief.", "  List\n\nsteps. ", "", "x", "{braces} %s"]
    rewrites = prompter.rewritten(prompts, outputs)
    assert all(z.startswith(x) for x, z in zip(prompts, rewrites))
    assert rewrites[1] == f"{prompts[1]} List steps."
    assert rewrites[2] == prompts[2]


def test_a_rewrite_replaces_the_prompt_unless_it_is_empty():
    prompter = Prompter(policy=None, form="rewrite")
    assert prompter.rewritten(["Old?", "Kept?"], ["New\n question?", " "]) == [
        "New question?",
        "Kept?",
    ]


@pytest.mark.parametrize("form", META_PROMPT)
def test_the_prompter_is_asked_with_the_prompt_but_not_its_kind(load_tiny, greedy, form):
    prompt = load_prompts("help", "train", 1)[0]
    prompter = Prompter(Policy(*load_tiny("llama"), greedy), form)
    system, user = prompter.messages([prompt])[0]
    assert system == {"role": "system", "content": META_PROMPT[form]}
    assert user == {"role": "user", "content": str(prompt)}


def test_the_neutral_menu_leaves_the_best_suffixes_out():
    assert not set(NEUTRAL_MENU) & set(BEST_SUFFIXES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fresh_adapter_changes_nothing_and_sits_in_the_last_layers(
    load_tiny, smoke, architecture
):
    model, tokenizer = load_tiny(architecture)
    ids = torch.tensor([tokenizer.encode("How do I boil an egg?")])
    before = model(ids).logits
    adapted = add_lora(model, smoke.prompter, seed=0)
    assert torch.equal(adapted(ids).logits, before)
    trainable = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in n and ".layers.1." in n for n in trainable)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_centred_adapter_sees_what_differs_between_prompts(
    load_tiny, smoke, greedy, architecture
):
    model, tokenizer = load_tiny(architecture)
    adapted = add_lora(model, smoke.prompter, seed=0)
    policy = Policy(adapted, tokenizer, greedy)
    queries = policy.encode(
        [[{"role": "user", "content": x}] for x in load_prompts("help", "train", 20)]
    )
    before = adapted(torch.tensor(queries[:1])).logits
    centre_adapter(policy.model, queries)
    assert torch.equal(adapted(torch.tensor(queries[:1])).logits, before)

    layer = adapted.get_base_model().get_decoder().layers[1]
    first = getattr(layer.self_attn, "q_proj", None) or layer.self_attn.qkv_proj
    rows = first.lora_A["default"].weight.detach()
    with torch.no_grad():
        inputs = [
            adapted(torch.tensor([q]), output_hidden_states=True).hidden_states[1] for q in queries
        ]
        states = torch.stack([layer.input_layernorm(h[0, -1]) for h in inputs])
    assert (rows @ states.mean(0)).abs().max() < 1e-5 * (states @ rows.T).abs().mean()
    expected = PCA(len(rows), svd_solver="full").fit(states.double().numpy()).components_
    along = torch.nn.functional.cosine_similarity(rows.double(), without(expected, states.mean(0)))
    torch.testing.assert_close(along.abs(), torch.ones(len(rows)).double(), atol=1e-3, rtol=0)


def test_prompts_look_less_alike_to_a_centred_adapter(load_tiny, smoke, greedy):
    model, tokenizer = load_tiny("llama")
    policy = Policy(add_lora(model, smoke.prompter, seed=0), tokenizer, greedy)
    queries = policy.encode(
        [[{"role": "user", "content": x}] for x in load_prompts("help", "train", 20)]
    )
    before = adapter_similarity(policy.model, queries)
    centre_adapter(policy.model, queries)
    after = adapter_similarity(policy.model, queries)
    others = ~torch.eye(20, dtype=bool)
    for view in (before, after):
        torch.testing.assert_close(view.diag(), torch.ones(20))
        torch.testing.assert_close(view, view.T)
    assert after[others].mean().abs() < 0.1 < before[others].mean()
    module, states = next(iter(adapter_inputs(policy.model, queries[:2]).items()))
    one = policy.model.get_base_model().get_decoder().layers[1].self_attn.q_proj
    assert module is one and states.shape == (2, model.config.hidden_size)


def without(directions, mean):
    """`directions` [R, H] without their part along `mean` [H]."""
    mean = mean.double()
    directions = torch.tensor(directions)
    return directions - torch.outer(directions @ mean, mean) / (mean @ mean)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_prompter_comes_back_as_plain_files(
    load_tiny, smoke, greedy, tmp_path, architecture
):
    model, tokenizer = load_tiny(architecture)
    adapted = add_lora(model, smoke.prompter, seed=0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3)
    prompter = Prompter(Policy(adapted, tokenizer, greedy), "suffix")
    prompts = load_prompts("help", "test", 5)
    written = prompter(prompts, seed=0)
    prompter.save(tmp_path / "prompter")
    names = {p.name for p in (tmp_path / "prompter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl", ".py"))]
    merged = merge_adapter(load_tiny(architecture)[0], tmp_path / "prompter")
    again = Prompter(Policy(merged, tokenizer, greedy), "suffix")
    assert again(prompts, seed=0) == written
