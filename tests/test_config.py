"""Presets: what is right loads, what is wrong is named with its file and line."""

import pytest

from alignpro.config import PRESETS, ConfigError, load_preset


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_under_its_own_name(path):
    assert load_preset(path.stem).name == path.stem


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'gpu': use one of cpu, .*smoke"):
        load_preset("gpu")


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
        ("  lam: 0.02", "  lambda: 0.02", "unknown field 'lambda'; known: .*lam"),
        ("  lam: 0.02", "  lam: -1", "preset.ppo.lam: must be at least 0"),
        ("  top_p: 0.6", "  top_p: 1.5", "must be at most 1"),
        ("  top_p: 0.6", "  top_p: 0", "must be greater than 0"),
        ("  top_k: 20", "  top_k: 2.5", "must be int, got '2.5'"),
        ("  top_k: 20", "  top_k: yes", "must be int"),
        ("  form: suffix", "  form: prefix", "must be one of suffix, rewrite, got 'prefix'"),
        ("  form: suffix", "  form: suffix\n  form: suffix", "'form' is set twice"),
        ("datasets: [help]", "datasets: []", "a list with at least one entry"),
        ("architectures: [[P1, F1]]", "architectures: [[P1]]", "must have 2 entries"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path, old, new, message):
    path, line = edited(tmp_path, old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        load_preset(path)
    found = int(str(caught.value).split(":")[1])
    assert str(caught.value).startswith(str(path)) and line <= found <= line + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  lam: 0.02\n", "", "preset.ppo: missing lam"),
        ("architectures: [[P1, F1]]", "architectures: [[P9, F1]]", "no model for role 'P9'"),
        ("  minibatch_size: 4", "  minibatch_size: 3", "minibatch_size must divide batch_size"),
        ("  form: suffix", "  form: rewrite", "a warm start teaches suffixes"),
        ("name: smoke", "name: [", "not valid YAML"),
    ],
)
def test_a_wrong_whole_is_refused(tmp_path, old, new, message):
    path, _ = edited(tmp_path, old, new)
    with pytest.raises(ConfigError, match=message):
        load_preset(path)


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    path, _ = edited(tmp_path, "  lam: 0.02", "  lam: 2e-2")
    assert load_preset(path).ppo.lam == 0.02
