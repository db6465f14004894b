"""The prompter: what it is asked, what it may change, and how it is kept."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ARCHITECTURES
from model_hub import hub
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from alignpro import models
from alignpro.config import ModelSpec, SamplingConfig
from alignpro.data import load_prompts
from alignpro.fast.adapter import (
    adapter_inputs,
    adapter_similarity,
    add_lora,
    centre_adapter,
    load_adapter,
    merge_adapter,
    save_folded,
)
from alignpro.generation import Policy
from alignpro.prompter import Prompter
from alignpro.sources.prompter_folder import write
from alignpro.sources.weights import ModelError, tiny_folder
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


def with_noise(model, seed):
    """`model` with an adapter that does something, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.fixture
def keep_trained(smoke, load_tiny, tmp_path, monkeypatch):
    """A function that makes a prompter as training does, keeps it, and returns (it, its folder).

    A warm start is merged into the base model, which then gets a second adapter. All in float32.
    """
    monkeypatch.setattr("alignpro.models.dtype", lambda: torch.float32)
    sampling = SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12)

    def make(architecture, form="suffix"):
        warm_start, folder = tmp_path / "warm_start", tmp_path / "prompter"
        model, tokenizer = load_tiny(architecture)
        with_noise(add_lora(model, smoke.prompter, seed=1), 1).save_pretrained(warm_start)
        merged = merge_adapter(load_tiny(architecture)[0], warm_start)
        model = with_noise(add_lora(merged, smoke.prompter, seed=2), 2)
        prompter = Prompter(Policy(model, tokenizer, sampling), form)
        spec = ModelSpec(f"tiny:{architecture}")
        said = (form, prompter.meta_prompt)
        write(folder, prompter.policy, *said, spec, smoke.prompter.lora_layers, warm_start)
        return prompter, folder

    return make


def greedily(prompter, prompts):
    """What `prompter` itself writes for each prompt, the likeliest token at each place."""
    sampling = dataclasses.replace(prompter.policy.sampling, temperature=0.0)
    policy = Policy(prompter.policy.model, prompter.policy.tokenizer, sampling)
    return policy.generate(prompter.messages(prompts), seed=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kept_prompter_gives_the_trained_ones_tokens_anywhere(
    keep_trained, tmp_path, architecture
):
    trained, folder = keep_trained(architecture)
    names = {p.name for p in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert {Path(name).suffix for name in names} == {".safetensors", ".json"}
    assert str(tmp_path) not in (folder / "adapter_config.json").read_text()
    loaded = Prompter.load(folder.rename(tmp_path / "elsewhere"))
    assert loaded.form == "suffix" and not [p for p in loaded.policy.model.parameters()
                                            if p.requires_grad]  # fmt: skip
    prompts = load_prompts("help", "test", 8)
    tokens = [y.token_ids for y in trained.propose(prompts, seed=5)]
    assert [y.token_ids for y in loaded.propose(prompts, seed=5)] == tokens
    assert loaded.rewrite(prompts, seed=5) == trained(prompts, seed=5)
    assert loaded.rewrite(prompts) == trained.rewritten(prompts, greedily(trained, prompts))
    assert loaded.rewrite(prompts) != loaded.rewrite(prompts, seed=5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_peft_gives_the_same_tokens(keep_trained, architecture):
    """With `transformers` and `peft` alone, as by a reader who does not know this project."""
    trained, folder = keep_trained(architecture)
    facts = json.loads((folder / "prompter.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(tiny_folder(architecture), dtype=torch.float32)
    model, tokenizer = (
        PeftModel.from_pretrained(base, folder),
        AutoTokenizer.from_pretrained(folder),
    )
    prompts = load_prompts("help", "test", 8)
    for prompt, written in zip(prompts, greedily(trained, prompts)):
        chat = [
            {"role": "system", "content": facts["meta_prompt"]},
            {"role": "user", "content": str(prompt)},
        ]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        out = model.generate(**ids, do_sample=False, max_new_tokens=12)
        assert out[0, ids["input_ids"].shape[1] :].tolist() == list(written.token_ids)


def test_the_warm_start_is_folded_in_exactly(keep_trained, smoke, tmp_path):
    """The product of the kept maps is the sum of both adapters' products, map by map."""
    trained, folder = keep_trained("qwen2")
    first, both = (load_file(tmp_path / f / "adapter_model.safetensors") for f in
                   ("warm_start", "prompter"))  # fmt: skip
    own = get_peft_model_state_dict(trained.policy.model)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == 2 * smoke.prompter.lora_rank and config["lora_alpha"] == 2 * config["r"]
    assert config["base_model_name_or_path"] == "tiny:qwen2"
    for name in filter(lambda n: "lora_A" in n, both):
        parts = [p[name.replace("lora_A", "lora_B")] @ p[name] for p in (first, own, both)]
        torch.testing.assert_close(parts[0] + parts[1], parts[2])


def test_adapters_of_other_scales_are_folded_in_too(load_tiny, smoke, tmp_path):
    """The second adapter's scale is 2; the first one's becomes 3."""
    model, _ = load_tiny("llama")
    with_noise(add_lora(model, smoke.prompter, seed=1), 1).save_pretrained(tmp_path / "first")
    config = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    (tmp_path / "first" / "adapter_config.json").write_text(
        json.dumps(config | {"lora_alpha": 3 * config["r"]})
    )
    merged = merge_adapter(load_tiny("llama")[0], tmp_path / "first")
    wider = dataclasses.replace(smoke.prompter, lora_rank=3)
    both = with_noise(add_lora(merged, wider, seed=2), 2)
    save_folded(both, tmp_path / "both", "base", None, tmp_path / "first")
    again = load_adapter(load_tiny("llama")[0], tmp_path / "both")
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(again(ids).logits, both(ids).logits)


def test_another_base_model_is_refused(keep_trained, load_tiny, tmp_path):
    _, folder = keep_trained("llama")
    prompts = load_prompts("help", "test", 3)
    model, tokenizer = load_tiny("llama")
    model.save_pretrained(tmp_path / "copy", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "copy")
    assert len(list((tmp_path / "copy").glob("*.safetensors"))) > 1
    same = Prompter.load(folder, base=str(tmp_path / "copy"))
    assert same.rewrite(prompts) == Prompter.load(folder).rewrite(prompts)
    next(model.parameters()).data[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="other' is not the model .* trained on, 'tiny:llama'"):
        Prompter.load(folder, base=str(tmp_path / "other"))
    with pytest.raises(ModelError, match="pass its place as `base`"):
        Prompter.load(folder, base=str(tmp_path / "nowhere"))


def test_a_folder_without_a_prompter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no trained prompter: prompter.json: .*No such"):
        Prompter.load(tmp_path)
    (tmp_path / "prompter.json").write_text('{"form": "poem"}')
    with pytest.raises(ModelError, match="holds no trained prompter: prompter.json: .*form"):
        Prompter.load(tmp_path)


def test_a_prompter_is_no_base_model(keep_trained):
    """`transformers` would load it, and the reference of PPO would then lack the adapter."""
    _, folder = keep_trained("llama")
    with pytest.raises(ModelError, match="prompter' is an adapter, not a model"):
        models.load(ModelSpec(str(folder)))
    with pytest.raises(ModelError, match="prompter' is an adapter, not a model"):
        models.pretrained(AutoConfig, ModelSpec(str(folder)))  # what a run asks of a model first


def test_a_prompter_that_no_run_has_kept_cannot_be_saved_or_uploaded(tmp_path):
    prompter = Prompter(policy=None, form="suffix")
    for give in (lambda: prompter.save(tmp_path / "copy"), lambda: prompter.push_to_hub("me/mine")):
        with pytest.raises(ValueError, match="has no folder to copy"):
            give()
    assert not (tmp_path / "copy").exists()


def test_a_single_prompt_is_no_list_of_prompts():
    with pytest.raises(TypeError, match="put the single one in a list"):
        Prompter(policy=None, form="suffix").rewrite("Why?")


ALONE = """
import sys
for name in ("datasets", "trl", "openai", "sentence_transformers", "scipy", "pandas", "pyarrow",
             "seaborn", "matplotlib", "gguf", "sklearn"):
    sys.modules[name] = None
import torch
from alignpro import models
from alignpro.prompter import Prompter
models.dtype = lambda: torch.float32
print(Prompter.load(sys.argv[1]).rewrite(["What is tea?"]) == [sys.argv[2]])
"""


def test_a_prompter_needs_torch_transformers_and_peft_alone(keep_trained):
    _, folder = keep_trained("qwen2")
    expected = Prompter.load(folder).rewrite(["What is tea?"])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder), *expected],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "True", done.stderr


PUSHED = """
import json, sys, torch
from alignpro import models
from alignpro.prompter import Prompter
from alignpro.sources.prompter_folder import write
from alignpro.sources.weights import ModelError
models.dtype = lambda: torch.float32
print(Prompter.load(sys.argv[1]).push_to_hub("me/mine"))
print(json.dumps(Prompter.load("me/mine").rewrite(["What is tea?"])))
try:
    Prompter.load("me/none")
except ModelError as error:
    print(error)
"""


def test_a_prompter_goes_to_the_hub_and_comes_back(keep_trained, tmp_path):
    _, folder = keep_trained("phi3")
    (tmp_path / "uploads").mkdir()
    repositories = {}
    with hub(repositories, tmp_path / "uploads") as url:
        done = subprocess.run(
            [sys.executable, "-c", PUSHED, str(folder)],
            env=os.environ
            | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_x"}
            | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    address, rewrites, refused = done.stdout.splitlines()[-3:]
    ((commit, uploaded),) = repositories["me/mine"].items()
    assert address.endswith(f"me/mine/commit/{commit}")
    assert {p.name for p in uploaded.iterdir()} == {p.name for p in folder.iterdir()}
    assert all((uploaded / p.name).read_bytes() == p.read_bytes() for p in folder.iterdir())
    assert json.loads(rewrites) == Prompter.load(folder).rewrite(["What is tea?"])
    assert refused.startswith("me/none is no folder, nor available on the Hub: ")


def test_the_readmes_lines_run_as_printed(keep_trained, tmp_path, monkeypatch, capsys):
    _, folder = keep_trained("llama")
    folder.rename(tmp_path / "my-prompter")
    readme = Path(__file__).parents[1] / "README.md"
    section = readme.read_text().split("## Use a trained prompter")[1]
    lines = section.split("```python\n")[1].split("```")[0]
    assert len([line for line in lines.splitlines() if line]) <= 5
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert "How do I boil an egg?" in capsys.readouterr().out
    assert (tmp_path / "copy-of-my-prompter" / "adapter_model.safetensors").exists()
