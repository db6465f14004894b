"""The paper's four architectures with their own templates and end tokens, from real checkpoints."""

import dataclasses

import numpy as np
import pytest
import torch
from checkpoints import FEATURES, save_language_model, save_reward_model
from conftest import ARCHITECTURES
from greedy import check_greedy
from jinja2 import TemplateError
from safetensors.torch import load_file

from alignpro import experiments, models
from alignpro.config import ModelSpec
from alignpro.data import load_prompts
from alignpro.experiments import Cell
from alignpro.fast.adapter import add_lora
from alignpro.generation import Policy
from alignpro.prompter import Prompter
from alignpro.sources.reward_model import RewardModel
from alignpro.texts import META_PROMPT

PROMPTS = ["How do I boil an egg?", "Why?", "Tea or coffee, on a long cold winter morning?"]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """The source of each architecture's checkpoint, and of a reward model's, under "RM"."""
    root = tmp_path_factory.mktemp("checkpoints")
    folders = {a: save_language_model(a, root / a) for a in ARCHITECTURES}
    folders["RM"] = save_reward_model(root / "rm")
    return {name: ModelSpec(str(folder)) for name, folder in folders.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_output_is_that_of_transformers(checkpoints, greedy, architecture):
    """Also with scaled positions, a sliding window, one key-value head, and tied embeddings."""
    model, tokenizer = models.load(checkpoints[architecture])
    check_greedy(model.float(), tokenizer, greedy, PROMPTS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_stops_at_every_end_token(checkpoints, greedy, architecture):
    """Each of them is made likely, and each ends a response; none is passed over, none is text."""
    model, tokenizer = models.load(checkpoints[architecture])
    ends = tokenizer.convert_tokens_to_ids(FEATURES[architecture]["ends"])
    assert None not in ends and len(set(ends)) == len(ends) > 1
    likely = torch.zeros(len(tokenizer), dtype=model.dtype)
    likely[ends] = 6
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + likely)
    sampling = dataclasses.replace(greedy, temperature=1.0, max_new_tokens=30)
    responses = Policy(model, tokenizer, sampling).generate(PROMPTS * 30, seed=0)
    assert {r.token_ids[-1] for r in responses if r.ended} == set(ends)
    for response in responses:
        assert response.ended == (response.token_ids[-1] in ends)
        assert response.ended or len(response.token_ids) == 30
        assert not set(ends) & set(response.token_ids[:-1])
        assert not any(end in response for end in FEATURES[architecture]["ends"])


@pytest.mark.parametrize("form", META_PROMPT)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_prompter_is_told_what_to_do_once(checkpoints, greedy, architecture, form):
    """Whether or not its template has a system role, and with one BOS or none, as it is used to."""
    model, tokenizer = models.load(checkpoints[architecture])
    prompter = Prompter(Policy(model, tokenizer, greedy), form)
    ids = prompter.policy.encode(prompter.messages(PROMPTS))
    for prompt, row in zip(PROMPTS, ids):
        text = tokenizer.decode(row)
        assert text.count(META_PROMPT[form]) == text.count(prompt) == 1
        assert text.index(META_PROMPT[form]) < text.index(prompt)
        assert row.count(tokenizer.bos_token_id) == (architecture in ("llama", "gemma"))
    system = [m["content"] for m in prompter.messages(PROMPTS)[0] if m["role"] == "system"]
    assert system == ([] if architecture == "gemma" else [META_PROMPT[form]])


def test_gemmas_template_refuses_the_system_role(checkpoints):
    """What the prompter works around is there."""
    _, tokenizer = models.load(checkpoints["gemma"])
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with pytest.raises(TemplateError, match="System role not supported"):
        tokenizer.apply_chat_template(chat, tokenize=False)


def test_a_template_that_drops_the_system_role_is_worked_around_too(checkpoints, greedy):
    model, tokenizer = models.load(checkpoints["phi3"])
    tokenizer.chat_template = (
        "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
    )
    prompter = Prompter(Policy(model, tokenizer, greedy), "rewrite")
    text = tokenizer.decode(prompter.policy.encode(prompter.messages(["Why?"]))[0])
    assert META_PROMPT["rewrite"] in text and "Why?" in text


SEPARATE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
FUSED = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_adapter_sits_on_every_linear_map_of_a_layer(checkpoints, smoke, architecture):
    model, _ = models.load(checkpoints[architecture])
    adapted = add_lora(model, dataclasses.replace(smoke.prompter, lora_layers=32), seed=0)
    places = [n.split(".layers.")[1] for n, p in adapted.named_parameters() if p.requires_grad]
    maps = FUSED if architecture == "phi3" else SEPARATE
    names = {(place.split(".")[0], place.split(".")[2]) for place in places}
    assert names == {(layer, name) for layer in "01" for name in maps}
    assert len(places) == 2 * len(names), "A and B of each"


def rewriting(quick, checkpoints, prompter, frozen):
    """`quick` with a rewriting prompter and the reward model, as in the `h100` preset."""
    form = {"form": "rewrite", "lora_layers": 32}
    warm_start = dataclasses.replace(quick.prompter.warm_start, steps=0)
    return dataclasses.replace(
        quick,
        models={"P1": checkpoints[prompter], "F1": checkpoints[frozen], "RM": checkpoints["RM"]},
        prompter=dataclasses.replace(quick.prompter, warm_start=warm_start, **form),
        ppo=dataclasses.replace(quick.ppo, steps=1),
        reward="RM",
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_rewriting_prompter_takes_a_step(quick, checkpoints, tmp_path, architecture):
    """From its own checkpoint, for a frozen Llama and Gemma's reward: the step starts at ρ_sft."""
    preset = rewriting(quick, checkpoints, architecture, "llama")
    cell = Cell(preset, "help", 0, root=tmp_path)
    cell.train(progress=False)
    (metrics,) = cell.run.read("metrics.jsonl")
    assert abs(metrics["objective/kl"]) < 1e-3
    assert np.isfinite([v for v in metrics.values()]).all()
    adapter = load_file(cell.run.folder / "prompter" / "adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    kept = cell.run.read("samples.jsonl")
    scores = RewardModel(checkpoints["RM"])(
        [row["prompt"] for row in kept], [row["response"] for row in kept]
    )
    torch.testing.assert_close(
        torch.tensor([row["score"] for row in kept]), scores, atol=1e-3, rtol=0
    )


def test_a_cell_of_the_paper_from_prompts_to_results(quick, checkpoints, tmp_path, monkeypatch):
    """Phi-3 rewrites for Llama, Gemma scores, on prompts without a kind, as the Hub's are."""

    def kindless(*arguments):
        prompts = load_prompts(*arguments)
        for prompt in prompts:
            prompt.kind = None
        return prompts

    monkeypatch.setattr(experiments, "load_prompts", kindless)
    cell = Cell(rewriting(quick, checkpoints, "phi3", "llama"), "help", 0, root=tmp_path)
    table = cell.evaluate(progress=False)
    assert list(table["configuration"].unique()) == [
        "No Fine-Tuning",
        "Untrained prompter",
        "Best constant suffix",
        "Align-Pro",
    ]
    oracle = cell.evaluate_oracle(progress=False)
    assert np.isfinite([*table["reward"], *oracle["reward"]]).all()
    assert (oracle["rewrite"] == oracle["prompt"]).all()
