"""Presets load, and an error in one names its file, line and field."""

import contextlib
import dataclasses
import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro import config
from alignpro.config import PRESETS, AdaptiveKLConfig, ConfigError, load_preset
from alignpro.data import datasets


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_under_its_own_name(path):
    assert load_preset(path.stem).name == path.stem


def test_the_presets_for_a_gpu_hold_the_papers_experiment_and_a_small_one():
    h100, colab = load_preset("h100"), load_preset("colab")
    assert {role: spec.source for role, spec in h100.models.items()} == {
        "P1": "microsoft/Phi-3.5-mini-instruct",
        "P2": "Qwen/Qwen2.5-1.5B-Instruct",
        "F1": "meta-llama/Llama-3.1-8B-Instruct",
        "F2": "meta-llama/Llama-3.1-8B-Instruct",
        "RM": "weqweasdas/RM-Gemma-2B",
    }
    assert h100.architectures == (("P1", "F1"), ("P1", "F2"), ("P2", "F1"), ("P2", "F2"))
    assert h100.datasets == ("ultrafeedback", "helpsteer", "orca")
    assert (h100.reward, h100.prompter.form) == ("RM", "rewrite")
    assert {name: getattr(h100.ppo, name) for name in PAPER} == PAPER
    oracle = dataclasses.replace(h100.ppo, **dataclasses.asdict(h100.rlhf))
    assert oracle == h100.ppo, "the paper's oracle gets the same PPO"
    assert colab.reward is None and set(colab.datasets) <= set(datasets())
    for preset in (h100, colab, load_preset("cpu")):
        sampling = preset.frozen
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.5, 0.6, 20)
        assert preset.ppo.batch_size <= preset.data.train, "no prompt twice in a batch"


def test_roles_of_one_model_are_run_as_the_first_of_them(smoke):
    """The paper prints one model for F1 and F2: what is left are two pairs and one oracle."""
    assert set(config.distinct_pairs(load_preset("h100")).values()) == {("P1", "F1"), ("P2", "F1")}
    assert all(pair == same for pair, same in config.distinct_pairs(smoke).items())
    shared = {**smoke.models, "P2": smoke.models["P1"], "F1": smoke.models["P1"]}
    preset = dataclasses.replace(smoke, models=shared)
    assert list(config.distinct_pairs(preset).values()) == [("P1", "F1"), ("P1", "F2")] * 2
    pinned = {**shared, "P2": dataclasses.replace(shared["P1"], revision="v2")}
    preset = dataclasses.replace(preset, models=pinned)
    assert all(pair == same for pair, same in config.distinct_pairs(preset).items())


def test_an_option_that_is_not_set_leaves_no_trace_in_what_a_run_is_named_after():
    preset = load_preset("cpu")
    plain = config.described(preset)
    assert plain["ppo"]["lam"] == preset.ppo.lam
    assert plain["architectures"] == [["P1", "F1"]], "plain JSON: lists, no tuples"
    assert preset.ppo.adaptive_kl is None and "adaptive_kl" not in plain["ppo"]
    controlled = dataclasses.replace(preset.ppo, adaptive_kl=AdaptiveKLConfig(6.0, 10000))
    changed = config.described(dataclasses.replace(preset, ppo=controlled))
    assert changed["ppo"].pop("adaptive_kl") == {"target": 6.0, "horizon": 10000}
    assert changed == plain


def test_a_copy_of_a_preset_has_the_name_of_its_own_file(tmp_path):
    for file, name in (
        ("mine.yaml", "mine"),
        ("cpu (1).yaml", "cpu-1"),
        ("h100.v2.yml", "h100.v2"),
    ):
        shutil.copy(PRESETS / "cpu.yaml", tmp_path / file)
        copied = load_preset(tmp_path / file)
        assert copied.name == name
        assert dataclasses.replace(copied, name="cpu") == load_preset("cpu")


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "/x", ".hidden", "a\\b", "", "a\nb"])
def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path, smoke, name):
    """Of a preset, and of a role: both are parts of the names of folders."""
    with pytest.raises(ValueError, match="name"):
        dataclasses.replace(smoke, name=name)
    with pytest.raises(ValueError, match="models"):
        dataclasses.replace(smoke, models={**smoke.models, name: smoke.models["P1"]})
    path = tmp_path / "mine.yaml"
    path.write_text((PRESETS / "smoke.yaml").read_text() + f"name: {json.dumps(name)}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:\d+: preset.name: "):
        load_preset(path)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'gpu': use one of .*cpu, .*smoke"):
        load_preset("gpu")


ROLES = "architectures: [[P1, F1],"
FROZEN = '  F1: {source: "tiny:llama"}'


def edited(tmp_path, old, new):
    text = (PRESETS / "smoke.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    line = text[: text.index(old)].count("\n") + 1
    return path, line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  lam: 0.02", "  lambda: 0.02", "preset.ppo.lambda: unknown field; known: .*lam,"),
        ("  lam: 0.02", "  lam: -1", "preset.ppo.lam: must be greater than or equal to 0, got -1"),
        ("  lam: 0.02", "  lam: .inf", "preset.ppo.lam: must be a valid number, got '.inf'"),
        ("  lam: 0.02", "  lam: 1e999", "preset.ppo.lam: must be a finite number, got inf"),
        ("  lam: 0.02", "  lam:", "preset.ppo.lam: must be a valid number, got None"),
        ("  lam: 0.02", "  lam: yes", "preset.ppo.lam: must be a valid number, got True"),
        ("  lam: 0.02", "  lam: 1:30", "preset.ppo.lam: must be a valid number, got '1:30'"),
        ("  lam: 0.02", "  lam: !tag 0.02", "preset.ppo.lam: has the tag '!tag'"),
        ("  lam: 0.02", "  lam: {a: 1}", "preset.ppo.lam: must be a valid number"),
        ("  clip: 0.2", "  clip: .inf", "preset.ppo.clip: must be a valid number"),
        ("  learning_rate: 1e-3", "  learning_rate: .inf", "learning_rate: must be a valid number"),
        ("  temperature: 1.5", "  temperature: .inf", "frozen.temperature: must be a valid number"),
        ("  top_p: 0.6", "  top_p: 1.5", "must be less than or equal to 1, got 1.5"),
        ("  top_p: 0.6", "  top_p: 0", "must be greater than 0, got 0"),
        ("  top_k: 20", "  top_k: 2.5", "must be a valid integer, got 2.5"),
        ("  top_k: 20", "  top_k: yes", "must be a valid integer, got True"),
        ("  top_k: 20", "  top_k: 010", "frozen.top_k: must be a valid integer, got '010'"),
        ("  top_k: 20", "  top_k: 2001-99-99", "must be a valid integer, got '2001-99-99'"),
        ("  top_k: 20", f"  top_k: {'9' * 5000}", "frozen.top_k: must be a valid integer"),
        ("  top_k: 20", "  ? [a, b]\n  : 20", "preset.frozen: a field's name must be one word"),
        ("  top_k: 20", f"  top_k: {'[' * 5000}", "preset: nested too deeply"),
        ("  top_k: 20", "  top_k: &a [*a]", "preset: nested too deeply, or an alias"),
        ("seeds: [0, 1]", "seeds: [0, -1]", "preset.seeds.1: must be greater than or equal to 0"),
        ("  form: suffix", "  form: prefix", "must be 'suffix' or 'rewrite', got 'prefix'"),
        ("  form: suffix", "  form: suffix\n  form: suffix", "prompter.form: is set twice"),
        (FROZEN, f"{FROZEN}\n{FROZEN}", "preset.models.F1: is set twice"),
        (FROZEN, '  F1: "tiny:llama"', "preset.models.F1: must be a section of"),
        (FROZEN, "  F1: {source: m, int8: 3}", "preset.models.F1.int8: must be a valid boolean"),
        ("datasets: [help]", "datasets: []", "datasets: Tuple should have at least 1 item"),
        ("datasets: [help]", "datasets: help", "datasets: must be a valid tuple, got 'help'"),
        (ROLES, "architectures: [[P1],", "should have at least 2 items"),
        ("  minibatch_size: 4", "  minibatch_size: \xff", "must be a valid integer"),
        (ROLES, "architectures: [[P9, F1],", "preset.architectures: no model for role 'P9'"),
        (
            "  minibatch_size: 4",
            "  minibatch_size: 3",
            "ppo.minibatch_size: must divide batch_size",
        ),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path, old, new, message):
    path, line = edited(tmp_path, old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        load_preset(path)
    found = int(str(caught.value).split(":")[1])
    assert str(caught.value).startswith(str(path)) and line <= found <= line + 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: preset: the file is empty"),
        (b"# nothing\n", ":1: preset: the file is empty"),
        (b"name: a\ndatasets: [caf\xe9]\n", ":2: preset: not UTF-8 text"),
        (b"only words", ":1: preset: must be a section of"),
        (b"- a\n- b\n", ":1: preset: must be a section of"),
        (b"name: a\nreward: \x01", ":2: preset: not valid YAML"),
        (b"name: a\nseeds: [0\nreward: x", ":3: preset: not valid YAML"),
        (b"name: a\n---\nname: b", ":2: preset: not valid YAML"),
    ],
)
def test_a_file_that_holds_no_preset_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_preset(path)
    assert str(caught.value).startswith(str(path))


@settings(max_examples=200, deadline=None)
@given(
    line=st.integers(0, 61),
    text=st.text("abP1.-+:[]{}!&*?|>'\"#%@`,~ 0e\t", max_size=12),
    whole=st.booleans(),
)
def test_no_edit_of_a_preset_ends_in_anything_but_a_config_error(
    tmp_path_factory, line, text, whole
):
    lines = (PRESETS / "smoke.yaml").read_text().splitlines()
    line %= len(lines)
    lines[line] = text if whole else lines[line].partition(":")[0] + ": " + text
    path = tmp_path_factory.mktemp("edited") / "mine.yaml"
    path.write_text("\n".join(lines))
    with contextlib.suppress(ConfigError):
        load_preset(path)


def test_ranges_hold_for_a_preset_that_is_changed_in_python(smoke):
    with pytest.raises(ValueError, match="greater than 0"):
        dataclasses.replace(smoke.ppo, clip=0.0)
    with pytest.raises(ValueError, match="no model for role 'P7'"):
        dataclasses.replace(smoke, architectures=(("P7", "F1"),))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  lam: 0.02\n", "", "preset.ppo: missing lam"),
        ("datasets: [help]", "datasets: [", "not valid YAML"),
        ("  form: suffix", "  form: rewrite", "warm_start.steps: must be 0: a warm start teaches"),
        ("  train: 10", "  train: 2", "lora_centred: needs more train prompts than lora_rank"),
    ],
)
def test_a_wrong_whole_is_refused(tmp_path, old, new, message):
    path, _ = edited(tmp_path, old, new)
    with pytest.raises(ConfigError, match=message):
        load_preset(path)


PAPER = {
    "learning_rate": 1.41e-5,
    "value_learning_rate": 1.41e-5,
    "batch_size": 256,
    "minibatch_size": 1,
    "epochs": 4,
    "lam": 0.2,
    "adaptive_kl": AdaptiveKLConfig(target=6, horizon=10000),
    "gamma": 1,
    "gae_lambda": 0.95,
    "clip": 0.2,
    "value_clip": 0.2,
    "value_coefficient": 0.1,
}


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A preset that says `ppo: paper`, and the file of that section, both free to be changed."""
    monkeypatch.setattr(config, "PRESETS", tmp_path / "presets")
    shutil.copytree(PRESETS, config.PRESETS)
    text = (PRESETS / "smoke.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"^ppo:\n(  .*\n)+", "ppo: paper\n", text, flags=re.MULTILINE))
    return path, config.PRESETS / "ppo" / "paper.yaml"


def test_a_section_can_be_named(paper):
    """`ppo: paper` holds the paper's hyper-parameters."""
    ppo = load_preset(paper[0]).ppo
    assert {name: getattr(ppo, name) for name in PAPER} == PAPER


def test_a_section_that_is_not_there_is_named_with_the_ones_that_are(paper):
    text = paper[0].read_text()
    line = text[: text.index("ppo: paper")].count("\n") + 1
    paper[0].write_text(text.replace("ppo: paper", "ppo: papers"))
    with pytest.raises(
        ConfigError, match=f"mine.yaml:{line}: preset.ppo: .*name one: minibatch-128, paper"
    ):
        load_preset(paper[0])
    paper[0].write_text(
        re.sub(r"^frozen:.*\n(  .*\n)+", "frozen: paper\n", text, flags=re.MULTILINE)
    )
    with pytest.raises(ConfigError, match="preset.frozen: must be a section of .* lines$"):
        load_preset(paper[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  target: 6 ", "  target: 0 ", "preset.ppo.adaptive_kl.target: must be greater than 0"),
        (
            "  horizon: 10000 ",
            "  horizon: 51 ",  # a fifth of 256 is 51.2
            "preset.ppo.adaptive_kl.horizon: must exceed a fifth of batch_size",
        ),
        ("  horizon: 10000 ", "  horizont: 10000 ", "ppo.adaptive_kl.horizont: unknown field"),
        ("lr_scheduler_type: constant", "lr_scheduler_type: cosine", "'linear' or 'constant'"),
    ],
)
def test_a_wrong_field_of_a_named_section_is_found_in_its_own_file(paper, old, new, message):
    text = paper[1].read_text()
    assert old in text
    paper[1].write_text(text.replace(old, new, 1))
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(ConfigError, match=message) as caught:
        load_preset(paper[0])
    assert str(caught.value).startswith(f"{paper[1]}:{line}:")


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    path, _ = edited(tmp_path, "  lam: 0.02", "  lam: 2e-2")
    assert load_preset(path).ppo.lam == 0.02
