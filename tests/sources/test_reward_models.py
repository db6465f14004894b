"""Reward models: the score is the card's, whatever the batch, and the preset can name one."""

import dataclasses
import shutil

import pytest
import torch
from checkpoints import save_encoder, save_language_model, save_reward_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignpro.config import PRESETS, ConfigError, ModelSpec, load_preset
from alignpro.experiments import Cell
from alignpro.rewards import rubric
from alignpro.sources.reward_model import RewardModel
from alignpro.sources.weights import ModelError

PAIRS = [
    ("How do I boil an egg?", "Put it into boiling water for eight minutes."),
    ("Why?", "No."),
    (" Tea or coffee, on a long cold winter morning? ", "Tea, since it is milder.\n"),
    ("What is a tide?", "The sea's rise and fall, twice a day, drawn by the moon. " * 3),
    ("Empty?", ""),
]
PROMPTS, RESPONSES = zip(*PAIRS)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """A folder with a reward model of RM-Gemma-2B's architecture."""
    return save_reward_model(tmp_path_factory.mktemp("gemma") / "rm")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with an encoder that scores text pairs."""
    return save_encoder(tmp_path_factory.mktemp("encoder") / "rm")


def test_the_score_is_the_cards_one_pair_at_a_time(gemma):
    """Turns written by hand, BOS taken out and added by the tokenizer, the head's product."""
    tokenizer = AutoTokenizer.from_pretrained(gemma)
    model = AutoModelForSequenceClassification.from_pretrained(gemma, dtype=torch.float32)
    expected = []
    for prompt, response in PAIRS:
        text = (
            f"<start_of_turn>user\n{prompt.strip()}<end_of_turn>\n"
            f"<start_of_turn>model\n{response.strip()}<end_of_turn>\n"
        )
        ids = tokenizer(text)["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
        with torch.no_grad():
            states = model.model(torch.tensor([ids])).last_hidden_state
        expected.append((states[0, -1] @ model.score.weight[0]).item())
    scores = RewardModel(ModelSpec(str(gemma)))(PROMPTS, RESPONSES)
    assert scores.shape == (len(PAIRS),) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert scores.unique().numel() == len(PAIRS)


def test_an_encoder_reads_the_prompt_and_the_response_as_a_pair(encoder):
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, dtype=torch.float32)
    expected = []
    for prompt, response in PAIRS:
        first, second = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, response)
        )
        first = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id]
        second = [*second, tokenizer.sep_token_id]
        kinds = torch.tensor([[0] * len(first) + [1] * len(second)])
        with torch.no_grad():
            out = model(torch.tensor([first + second]), token_type_ids=kinds)
        expected.append(out.logits.item())
    scores = RewardModel(ModelSpec(str(encoder)))(PROMPTS, RESPONSES)
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_an_encoder_cuts_what_it_cannot_hold(encoder):
    reward = RewardModel(ModelSpec(str(encoder)))
    long, longer = "word " * 600, "word " * 900
    first, second = reward(["Why?", "Why?"], [long, longer])
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gemma", "encoder"])
def test_a_score_does_not_depend_on_its_batch(kind, request):
    spec = ModelSpec(str(request.getfixturevalue(kind)))
    whole = RewardModel(spec)(PROMPTS, RESPONSES)
    for size in (1, 2):
        scores = RewardModel(spec, batch_size=size)(PROMPTS, RESPONSES)
        torch.testing.assert_close(scores, whole, atol=1e-5, rtol=1e-4)
    turned = RewardModel(spec, batch_size=2)(PROMPTS[::-1], RESPONSES[::-1])
    torch.testing.assert_close(turned.flip(0), whole, atol=1e-5, rtol=1e-4)


def test_padding_is_the_models_where_the_tokenizer_pads_otherwise(gemma, tmp_path):
    """A tokenizer that lost its pad token would otherwise pad with its end of sequence."""
    folder = shutil.copytree(gemma, tmp_path / "rm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    scores = RewardModel(ModelSpec(str(folder)))(PROMPTS, RESPONSES)
    assert torch.equal(scores, RewardModel(ModelSpec(str(gemma)))(PROMPTS, RESPONSES))


def test_a_response_without_a_prompt_is_refused(gemma):
    with pytest.raises(ValueError, match="zip"):
        RewardModel(ModelSpec(str(gemma)))(["Why?"], [])


def test_the_name_is_that_of_the_weights_and_not_of_their_place(gemma, tmp_path):
    name = RewardModel(ModelSpec(str(gemma))).name
    copied = shutil.copytree(gemma, tmp_path / "elsewhere" / "rm")
    assert RewardModel(ModelSpec(str(copied))).name == name
    assert name.startswith("rm@") and str(gemma.parent) not in name
    weights = load_file(copied / "model.safetensors")
    weights["score.weight"] += 1e-3
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert RewardModel(ModelSpec(str(copied))).name != name


def test_what_is_no_reward_model_is_refused_and_says_why(gemma, tmp_path):
    language_model = save_language_model("gemma", tmp_path / "lm")
    with pytest.raises(ModelError, match="not a checkpoint of a Gemma.*lacks score.weight"):
        RewardModel(ModelSpec(str(language_model)))(["x"], ["y"])
    classifier = save_reward_model(tmp_path / "classifier", labels=2)
    with pytest.raises(ModelError, match="has 2 outputs, a reward model has one"):
        RewardModel(ModelSpec(str(classifier)))(["x"], ["y"])
    folder = shutil.copytree(gemma, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        RewardModel(ModelSpec(str(folder)))(["x"], ["y"])


def with_reward_model(preset, folder):
    models = preset.models | {"RM": ModelSpec(str(folder))}
    return dataclasses.replace(preset, models=models, reward="RM")


def test_a_cell_takes_the_presets_reward_unless_it_is_given_one(smoke, gemma, tmp_path):
    preset = with_reward_model(smoke, gemma)
    cell = Cell(preset, "help", 0, root=tmp_path)
    assert isinstance(cell.reward, RewardModel)
    assert cell.run.cell["reward"] == cell.reward.name
    assert Cell(preset, "help", 0, reward=rubric, root=tmp_path).reward is rubric
    assert Cell(smoke, "help", 0, root=tmp_path).reward is rubric


def test_another_reward_model_is_another_run(smoke, gemma, tmp_path):
    other = save_reward_model(tmp_path / "other", seed=1)
    folders = {
        Cell(with_reward_model(smoke, folder), "help", 0, root=tmp_path / "runs").run.folder
        for folder in (gemma, other)
    }
    assert len(folders) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "reward: R9",
            r"mine.yaml:2: preset.reward: no model for role 'R9'; known: P1, F1, P2, F2",
        ),
        ("reward: 3", r"mine.yaml:2: preset.reward: must be a valid string, got 3"),
    ],
)
def test_a_reward_that_no_role_has_is_refused(tmp_path, line, message):
    path = tmp_path / "mine.yaml"
    comment, rest = (PRESETS / "smoke.yaml").read_text().split("\n", 1)
    path.write_text(f"{comment}\n{line}\n{rest}")
    with pytest.raises(ConfigError, match=message):
        load_preset(path)
