"""The rehearsal: its memory against the plan's, its parts against counts and arithmetic by hand."""

import dataclasses
import sys

import pandas as pd
import pytest
import torch

from alignpro import devices, models
from alignpro.commands.main import main
from alignpro.config import ConfigError, ModelSpec, load_preset
from alignpro.prompter import Prompter
from alignpro.scale import rehearsal
from alignpro.scale.memory_meter import MemoryMeter, Peak
from alignpro.scale.plan import meta_tokens
from alignpro.scale.random_models import (
    random_texts,
    shrunk,
    shrunk_config,
    with_random_models,
    word_tokenizer,
)
from alignpro.scale.step_costs import architecture
from alignpro.sources.chat import Chat


@pytest.fixture
def float32(monkeypatch):
    """A machine that computes in float32, whatever it has: the formats of others differ in size."""
    for module in (devices, models):
        monkeypatch.setattr(module, "dtype", lambda: torch.float32)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the plan of a CPU in float32")
def test_a_small_rehearsal_holds_what_the_plan_says(float32, monkeypatch, capsys, tmp_path):
    command = ["alignpro", "rehearse", "--preset", "h100", "--scale", "0.01"]
    monkeypatch.setattr(sys, "argv", [*command, "--results", str(tmp_path)])
    assert main() == 0
    printed = capsys.readouterr().out
    (result,) = rehearsal.kept(tmp_path / "rehearsal")
    assert result["preset"] == "h100" and result["scale"] == 0.01 and result["memory"] is None
    table = rehearsal.stage_table(result)
    named = table.groupby("architecture", sort=False)["stage"].agg(list).to_dict()
    trained = ["rollout", "frozen", "reward", "reference", "update", "evaluation"]
    oracle = ["rollout", "reward", "reference", "update", "evaluation"]
    assert named == {"P1-F1": trained, "F1": oracle, "P2-F1": trained}
    for row in table.itertuples():
        assert row[6] == pytest.approx(1, abs=0.1), row
    for part in result["parts"]:
        assert part["checkpoint_bytes"] == pytest.approx(part["checkpoint_planned"], rel=0.1)
        assert part["step_seconds"] > 0
        assert part["architecture"] in printed
    assert "never end a text" in printed and "No GPU" in printed


def test_a_meter_counts_what_a_lap_holds_on_top_of_what_is_there():
    mega = 2**20
    with MemoryMeter() as meter:
        kept = torch.zeros(4 * mega, dtype=torch.uint8)
        dropped = torch.zeros(8 * mega, dtype=torch.uint8)
        del dropped
        meter.lap("first")
        more = torch.zeros(2 * mega, dtype=torch.uint8)
        meter.lap("second")
        del kept, more
        meter.lap("freed")
        once = torch.zeros(mega, dtype=torch.uint8)
        del once
        meter.lap("second")
    found = {name: peak.allocated / mega for name, peak in meter.peaks.items()}
    assert found == pytest.approx({"first": 12, "second": 6, "freed": 6}, abs=0.01)


@pytest.mark.parametrize("role", ["P1", "P2", "F1", "RM"])
def test_a_smaller_model_has_about_its_share_of_each_matrix(role):
    whole = architecture(load_preset("h100").models[role])
    assert shrunk_config(whole, 1).to_dict() == whole.to_dict()
    small = shrunk_config(whole, 0.04)
    assert small.num_hidden_layers == round(whole.num_hidden_layers / 5)
    assert small.num_attention_heads == whole.num_attention_heads
    for name in ("vocab_size", "intermediate_size", "hidden_size"):
        assert getattr(small, name) == pytest.approx(getattr(whole, name) / 5, rel=0.3), name


def test_rows_and_tokens_shrink_together_and_minibatches_still_divide_the_batch(smoke):
    ppo = dataclasses.replace(smoke.ppo, batch_size=240, minibatch_size=30)
    small = shrunk(dataclasses.replace(smoke, ppo=ppo, generation_batch=64), 0.25)
    assert small.ppo.minibatch_size == 15 and small.ppo.batch_size % 15 == 0
    assert small.ppo.batch_size == pytest.approx(120, abs=15)
    assert small.generation_batch == 32 and small.frozen.max_new_tokens == 6


@pytest.mark.parametrize("form", ["rewrite", "suffix"])
def test_texts_have_the_lengths_that_the_plan_takes_them_to_have(form):
    tokenizer = word_tokenizer(600, form)
    asked = random_texts(3, 20, seed=0)
    policy = type("Policy", (), {"tokenizer": tokenizer, "chat": Chat(tokenizer)})()
    chats = Prompter(policy, form).messages(asked)
    lengths = [
        len(tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False))
        for m in chats
    ]
    assert lengths == [meta_tokens(form) + n for n in (19, 20, 20)]
    written = list(range(2, 600))
    text = tokenizer.decode(written, skip_special_tokens=True)
    assert tokenizer.encode(text, add_special_tokens=False) == written
    assert tokenizer.eos_token_id == 600, "a model of 600 tokens cannot write it"


def test_random_models_have_the_presets_shapes_and_keep_equal_roles_equal(tmp_path):
    preset = load_preset("h100")
    random = with_random_models(preset, 0.01, tmp_path)
    assert random.models["F1"] == random.models["F2"] != random.models["P1"]
    model, tokenizer = models.load(random.models["P2"])
    wanted = shrunk_config(architecture(preset.models["P2"]), 0.01)
    assert model.config.hidden_size == wanted.hidden_size
    assert len(model.model.layers) == wanted.num_hidden_layers
    assert model.config.vocab_size == tokenizer.eos_token_id
    assert tokenizer.encode("t5 t7 t6") == [5, 7, 6], "read as the words that it was made of"
    served = ModelSpec("served", endpoint="http://localhost:1/v1")
    remote = dataclasses.replace(preset, models={**preset.models, "F1": served})
    assert with_random_models(remote, 0.01, tmp_path).models["F1"] == served


def test_a_step_and_a_cell_are_scaled_up_by_what_they_repeat(smoke):
    """A batch of 8 measured for one of 16 with 3 epochs; 4 + 2 × (4 + 16) texts by hand below."""
    ppo = dataclasses.replace(smoke.ppo, batch_size=16, epochs=3, steps=10)
    data = dataclasses.replace(smoke.data, validation=2, test=5)
    evaluation = dataclasses.replace(smoke.evaluation, samples=3, validation_samples=1)
    full = dataclasses.replace(smoke, ppo=ppo, data=data, evaluation=evaluation, reward="F1")
    short = dataclasses.replace(full, ppo=dataclasses.replace(ppo, batch_size=8, epochs=1))
    stages = ["rollout", "update", "evaluation"]
    table = pd.DataFrame({"stage": stages, "total": [100, 200, 300], "adapter": 7, "seconds": 0.5})
    small = {("P1-F1", "Align-Pro"): table.set_index("stage")}
    planned = {k: t.assign(total=t["total"] * 2) for k, t in small.items()}
    part = {
        "architecture": "P1-F1",
        "configuration": "Align-Pro",
        "peaks": {name: Peak(110, 120) for name in stages},
        "spent": {"rollout": 8.0, "frozen": 16.0, "reward": 4.0, "reference": 1.0, "update": 2.0},
    }
    rehearsal._beside_the_plan(part, full, short, planned, small)
    rollout, update, evaluation = part["stages"]
    assert rollout["step_seconds"] == 16 and update["step_seconds"] == 12
    assert evaluation["seconds"] is None
    assert [row["projected"] for row in part["stages"]] == [220, 320, 420]
    assert part["step_seconds"] == 2 * (8 + 16 + 4 + 1) + 12
    rewrites = 2 * 5 * 3 + 5 * (4 + 16)
    suffixes = rehearsal._asked(full, "Align-Pro")[1] - 4 * 5 * 3 - 5 * (5 + 17)
    assert suffixes == 2 * (1 + len(rehearsal.NEUTRAL_MENU) + len(rehearsal.BEST_SUFFIXES))
    answers = 4 * 5 * 3 + 5 * (5 + 17) + suffixes
    assert part["evaluation_seconds"] == pytest.approx(rewrites * 1 + answers * 2.5, abs=0.1)
    assert part["hours"] == pytest.approx(
        (10 * part["step_seconds"] + part["evaluation_seconds"]) / 3600, abs=0.001
    )
    assert rehearsal._asked(full, "RLHF") == (15, 0)


@pytest.mark.parametrize(("memory", "fits"), [(430, True), (429, False), (None, None)])
def test_a_preset_fits_if_its_largest_peak_and_the_context_do(memory, fits):
    stage = {"step_seconds": 3.0, "projected": 100, "stage": "rollout"}
    top = {"step_seconds": 9.0, "projected": 400, "stage": "update"}
    part = {
        "architecture": "P1-F1",
        "configuration": "Align-Pro",
        "stages": [stage, top],
        "step_seconds": 12.0,
        "evaluation_seconds": 1.0,
        "hours": 2.0,
    }
    (row,) = rehearsal.time_table({"parts": [part], "overhead": 30, "memory": memory}).itertuples()
    assert row.fits is fits and row[3] == 430 / 1e9 and row[4] == "update"
    assert row[7] == "update" and row[8] == 0.75


@pytest.mark.parametrize("scale", [0, 1.5, -1])
def test_a_scale_is_a_share(scale, smoke):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        rehearsal.rehearse(smoke, scale)


def test_a_pair_that_the_preset_lacks_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["alignpro", "rehearse", "--preset", "smoke", "--pair", "P1-F9"]
    )
    assert main() == 2
    assert "P1-F9" in capsys.readouterr().err
