"""Reward learning: labels, ceiling and calibration against hand counts; TRL on a toy preference."""

import dataclasses
import json
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from alignpro.config import ConfigError
from alignpro.reward_learning.config import load_reward_learning
from alignpro.reward_learning.held_out import calibration_error, held_out, reliability
from alignpro.reward_learning.learn import ScaledReward, learn_reward
from alignpro.reward_learning.preferences import (
    PreferenceError,
    as_preferences,
    bradley_terry,
    label_pairs,
    menu_suffixes,
    noise_ceiling,
    read_preferences,
)
from alignpro.reward_learning.run_study import require_one_configuration, run_study
from alignpro.reward_learning.study import read_study
from alignpro.runs import RunError
from alignpro.texts import NEUTRAL_MENU
from alignpro.theory.from_samples import best_of_n, rlhf_front


def responses(rewards):
    """A table as `evaluate` gives it; `rewards` [X, M]."""
    rows = [
        {"id": f"p{x}", "kind": None, "prompt": f"Q{x}", "response": f"a{x}.{m}", "reward": r}
        for x, row in enumerate(rewards)
        for m, r in enumerate(row)
    ]
    return pd.DataFrame(rows)


@settings(max_examples=10, deadline=None)
@given(margin=st.floats(-0.5, 0.5), scale=st.floats(0.05, 1.0), seed=st.integers(0, 2**32))
def test_labels_are_as_frequent_as_bradley_terry_says(margin, scale, seed):
    count = 2000
    pairs = label_pairs(responses([[margin, 0.0]] * count), scale, seed)
    high = pairs["first"].str.endswith(".0")
    wins = int((pairs["first_won"] == high).sum())
    p = 1 / (1 + np.exp(-margin / scale))
    low, top = binom.ppf([1e-9, 1 - 1e-9], count, p)
    assert low <= wins <= top
    assert np.allclose(pairs["p_first"], np.where(high, p, 1 - p))
    # Which of the two stands first says nothing.
    low, top = binom.ppf([1e-9, 1 - 1e-9], count, 0.5)
    assert low <= high.sum() <= top


def test_pairs_are_disjoint_within_a_prompt_and_equal_texts_are_left_out():
    table = responses(np.random.default_rng(0).random((5, 7)))
    table.loc[table["id"] == "p0", "response"] = "the same"
    pairs = label_pairs(table, 0.1, 3)
    used = [*pairs["first_row"], *pairs["second_row"]]
    assert len(used) == len(set(used)) and len(pairs) == 4 * 3
    assert (table.loc[pairs["first_row"], "id"].to_numpy() == pairs["id"]).all()
    assert (table.loc[pairs["second_row"], "response"].to_numpy() == pairs["second"]).all()
    pd.testing.assert_frame_equal(pairs, label_pairs(table, 0.1, 3))
    chosen = as_preferences(pairs)
    assert (chosen["chosen"] == np.where(pairs["first_won"], pairs["first"], pairs["second"])).all()
    assert (chosen["chosen"] != chosen["rejected"]).all()


def test_the_menu_is_drawn_evenly_and_keeps_the_prompt():
    texts = menu_suffixes(["Why?"] * 1300, seed=0)
    counts = pd.Series(texts).value_counts()
    assert set(counts.index) == {"Why?", *(f"Why? {s}" for s in NEUTRAL_MENU)}
    assert binom.ppf(1e-9, 1300, 1 / 13) <= counts.min()


def test_no_rule_beats_the_noise_ceiling_and_the_oracle_reaches_it():
    p = bradley_terry(np.array([0.3, -0.1, 0.0, 0.05]), 0.1)
    rules = [np.array(bits) for bits in np.ndindex(2, 2, 2, 2)]
    best = max(np.where(rule == 1, p, 1 - p).mean() for rule in rules)
    assert noise_ceiling(p).mean() == pytest.approx(best)

    pairs = pd.DataFrame({"id": ["a", "a", "b", "c"], "p_first": p, "first_won": [1, 1, 0, 1]})
    found = held_out(pairs.astype({"first_won": bool}), margins=p - 0.5)["value"]
    assert found["expected accuracy"] == pytest.approx(found["noise ceiling"])
    # By prompt: a is right once of two, b is right (a tie is not "first"), c is right.
    assert found["accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)


def test_calibration_by_hand():
    predicted = np.array([0.05, 0.1, 0.75, 0.85, 0.95, 1.0])
    won = np.array([False, True, True, True, False, True])
    table = reliability(predicted, won, bins=2)
    assert table["pairs"].tolist() == [2, 4]
    assert table["predicted"].tolist() == pytest.approx([0.075, 0.8875])
    assert table["observed"].tolist() == [0.5, 0.75]
    assert calibration_error(table) == pytest.approx((2 * 0.425 + 4 * 0.1375) / 6)
    z, n, q = 1.959964, 4, 0.75
    half = z * np.sqrt(q * (1 - q) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (q + z**2 / (2 * n)) / (1 + z**2 / n)
    assert table.loc[1, ["low", "high"]].tolist() == pytest.approx([middle - half, middle + half])


def test_best_of_n_counts_every_choice_of_n_responses():
    rng = np.random.default_rng(1)
    scores, values = rng.random((2, 6)), rng.random((2, 6))
    for n in range(1, 7):
        for x in range(2):
            picked = [max(c, key=lambda i: scores[x, i]) for c in combinations(range(6), n)]
            assert len(picked) == comb(6, n)
            mean = values[x, picked].mean()
            assert best_of_n(scores, values, n)[x] == pytest.approx(mean)
    with pytest.raises(ValueError, match="between 1 and the 6 responses"):
        best_of_n(scores, values, 7)


def test_a_front_valued_by_another_reward_weighs_by_the_first():
    scores, values = np.array([[1.0, 0.0, 2.0]]), np.array([[0.2, 0.9, 0.4]])
    weights = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
    front = rlhf_front(scores, [0.5], values=values)
    assert front.reward[0] == pytest.approx((weights * values).sum())
    assert front.kl[0] == pytest.approx((weights * np.log(3 * weights)).sum())


def message(role, content):
    return {"role": role, "content": content}


ASK, GOOD, BAD = (message("user", "Why?"), message("assistant", "Sun."), message("assistant", "No"))
FORMS = {
    "text": {"prompt": "Why?", "chosen": "Sun.", "rejected": "No"},
    "messages": {"prompt": "Why?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "answers": {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "dataset"])
def test_every_form_of_a_preference_file_reads_alike(form, kind, tmp_path):
    from datasets import Dataset

    dataset = Dataset.from_list([FORMS[form], FORMS[form]])
    path = tmp_path / f"preferences.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(FORMS[form]) + "\n" for _ in range(2)))
    elif kind == "parquet":
        dataset.to_parquet(path)
    table, dropped = read_preferences(dataset if kind == "dataset" else path)
    assert table.values.tolist() == [["Why?", "Sun.", "No"]] * 2
    assert dropped == {"empty": 0, "identical": 0}


def test_a_conversation_is_the_prompt():
    turns = [message("system", "Be brief."), ASK]
    row = {"prompt": "Why?", "chosen": [*turns, GOOD], "rejected": [*turns, BAD]}
    assert read_preferences(pd.DataFrame([row]))[0].loc[0, "prompt"] == "Be brief.\n\nWhy?"


def test_empty_and_identical_rows_are_dropped_and_counted():
    rows = [
        ("Why?", "Sun.", "No"),
        ("Why?", "Sun.", " Sun. "),
        ("Why?", " ", "No"),
        (None, "Sun.", "No"),
        ("Why?", "Sun.", float("nan")),
    ]
    table, dropped = read_preferences(pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"]))
    assert len(table) == 1 and dropped == {"empty": 3, "identical": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rejected": 3}, "row 1: rejected must be text, or messages"),
        ({"rejected": [ASK]}, "row 1: the last message must be the assistant's"),
        ({"rejected": [message("user", "Who?"), BAD]}, "row 1: .* different conversations"),
        ({"rejected": "Sun."}, "no preference is left of 1 rows"),
    ],
)
def test_preferences_that_cannot_be_used_are_named(change, expected):
    with pytest.raises(PreferenceError, match=expected):
        read_preferences(pd.DataFrame([FORMS["text"] | change]))


def test_files_that_cannot_be_used_are_named(tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "Why?"}\n{')
    with pytest.raises(PreferenceError, match="broken.jsonl:2: not JSON"):
        read_preferences(broken)
    broken.write_text('{"prompt": "Why?", "response": "Sun."}\n')
    with pytest.raises(PreferenceError, match="no column chosen, rejected among prompt, response"):
        read_preferences(broken)
    broken.write_text("[1, 2]\n")
    with pytest.raises(PreferenceError, match="broken.jsonl:1: must be an object"):
        read_preferences(broken)
    broken.write_bytes('{"prompt": "caf\xe9?"}\n'.encode("latin-1"))
    with pytest.raises(PreferenceError, match="broken.jsonl:1: not UTF-8.*Save the file as UTF-8"):
        read_preferences(broken)
    broken.write_bytes(b"")
    with pytest.raises(PreferenceError, match="no column prompt, chosen, rejected among"):
        read_preferences(broken)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(PreferenceError, match="broken.parquet: not Parquet"):
        read_preferences(tmp_path / "broken.parquet")
    with pytest.raises(PreferenceError, match="no such file"):
        read_preferences(tmp_path / "absent.jsonl")
    with pytest.raises(PreferenceError, match="must be a .jsonl or .parquet"):
        read_preferences(__file__)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_line_separators_marks_and_blank_lines_do_not_break_preferences(
    tmp_path, encoding, separator
):
    """`str.splitlines` would cut a row at any of these characters."""
    rows = [
        {"prompt": f"Why{separator}{n}?", "chosen": f"So{separator}.", "rejected": "No."}
        for n in range(3)
    ]
    text = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(f"\n{text}\n\n".encode(encoding))
    table, dropped = read_preferences(path)
    assert dropped == {"empty": 0, "identical": 0}
    assert table.to_dict("records") == rows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A two-layer BERT with the words of MiniLM, saved as a checkpoint without a head."""
    from alignpro.sources.weights import minilm_folder

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def numbers():
    config = load_reward_learning("smoke")
    return dataclasses.replace(config, epochs=3, batch_size=16, learning_rate=3e-3)


def toy(count, seed):
    """Preferences with a rule: the answer that names a colour is chosen."""
    rng = np.random.default_rng(seed)
    nouns, colours = ("sea", "grass", "sun", "night"), ("blue", "green", "yellow", "black")
    rows = []
    for _ in range(count):
        noun, colour, other = rng.choice(nouns), rng.choice(colours), rng.choice(nouns)
        rows.append((f"What is the {noun}?", f"It is {colour}.", f"It is a {other}."))
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])


def test_the_trainer_learns_a_rule_and_what_is_saved_is_what_was_trained(
    encoder, numbers, tmp_path
):
    model = learn_reward(toy(300, 0), tmp_path / "reward", numbers, 0, encoder, progress=False)
    test = toy(60, 1)
    margins = model(test["prompt"], test["chosen"]) - model(test["prompt"], test["rejected"])
    assert (margins > 0).float().mean() > 0.9
    # The score is the one of the inputs that the trainer's collator makes: ids and mask alone.
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    ids = tokenizer(test["prompt"][0], test["chosen"][0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        by_hand = loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0]
    torch.testing.assert_close(model(test["prompt"][:1], test["chosen"][:1])[0], by_hand)
    scaled = ScaledReward(model, 0.5)
    assert scaled(test["prompt"][:1], test["chosen"][:1])[0] == pytest.approx(0.5 * by_hand.item())
    assert model.name in scaled.name and "0.5" in scaled.name

    card = json.loads((tmp_path / "reward" / "card.json").read_text())
    assert card["pairs"] == 300 and card["seed"] == 0 and card["versions"]["trl"]
    assert not list(tmp_path.glob("*.training")) and not list(tmp_path.glob("*.partial"))
    assert not list((tmp_path / "reward").glob("*.bin"))


def test_a_finished_model_is_loaded_and_another_one_is_refused(
    encoder, numbers, tmp_path, monkeypatch
):
    short = dataclasses.replace(numbers, epochs=1)
    preferences = toy(32, 0)
    first = learn_reward(preferences, tmp_path / "reward", short, 0, encoder, progress=False)
    monkeypatch.setattr("alignpro.reward_learning.learn._trainer", None)  # must not be needed again
    again = learn_reward(preferences, tmp_path / "reward", short, 0, encoder, progress=False)
    assert again.name == first.name
    with pytest.raises(RunError, match="learned from other preferences or settings"):
        learn_reward(preferences, tmp_path / "reward", short, 1, encoder, progress=False)


def test_a_stopped_training_goes_on_to_the_same_model(encoder, numbers, tmp_path, monkeypatch):
    from trl import RewardTrainer

    preferences = toy(64, 0)
    whole = learn_reward(preferences, tmp_path / "whole", numbers, 0, encoder, progress=False)
    step, taken = RewardTrainer.training_step, []

    def killed(self, *arguments):
        taken.append(1)
        if len(taken) == 10:  # in the third epoch of four steps
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(RewardTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        learn_reward(preferences, tmp_path / "resumed", numbers, 0, encoder, progress=False)
    assert not (tmp_path / "resumed").exists()
    taken[:] = [1] * 100
    resumed = learn_reward(preferences, tmp_path / "resumed", numbers, 0, encoder, progress=False)
    assert len(taken) == 100 + 4, "two epochs were kept, one is left"
    prompts, texts = preferences["prompt"], preferences["chosen"]
    torch.testing.assert_close(resumed(prompts, texts), whole(prompts, texts))


def test_an_encoder_that_lacks_weights_is_refused(encoder, numbers, tmp_path):
    config = json.loads((encoder / "config.json").read_text())
    for path in encoder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(RunError, match=r"no weights for bert.encoder.layer.2\."):
        learn_reward(toy(16, 0), tmp_path / "reward", numbers, 0, tmp_path, progress=False)


def test_a_study_never_replaces_one_of_another_configuration(tmp_path):
    require_one_configuration(tmp_path / "nothing", {})
    (tmp_path / "config.json").write_text('{"learning": {"lams": [0.1, 1.0]}}')
    require_one_configuration(tmp_path, {"learning": {"lams": (0.1, 1.0)}})
    with pytest.raises(RunError, match="holds a study of another configuration"):
        require_one_configuration(tmp_path, {"learning": {"lams": (0.1,)}})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match="config.json is damaged"):
        require_one_configuration(tmp_path, {})


def test_the_numbers_are_read_from_their_own_preset(tmp_path, monkeypatch):
    assert load_reward_learning("cpu").shares[-1] == 1
    with pytest.raises(ConfigError, match="use one of cpu, smoke"):
        load_reward_learning("h100")
    folder = tmp_path / "reward_learning"
    folder.mkdir()
    monkeypatch.setattr("alignpro.config.PRESETS", tmp_path)
    text = (
        "scale: 0.1\ntrain_samples: 4\ntest_samples: 4\nepochs: 1\nbatch_size: 8\n"
        "learning_rate: 1e-4\nlams: [0.1]\nshares: "
    )
    for shares, expected in {
        "[0.5]": "must be 1",
        "[1.0, 0.5]": "must rise",
        "[0.0, 1]": "rise",
    }.items():
        (folder / "mine.yaml").write_text(text + shares)
        with pytest.raises(ConfigError, match=expected):
            load_reward_learning("mine")


@pytest.mark.slow
def test_a_study_runs_is_read_back_and_keeps_both_rewards_of_every_step(smoke, tmp_path):
    config = load_reward_learning("smoke")
    arguments = (smoke, config, "help", 0, tmp_path / "runs", tmp_path / "results", False)
    folder = run_study(*arguments)
    study = read_study(folder)
    assert study.config == config and study.seed == 0
    assert study.metrics.groupby("lam")["step"].max().to_dict() == {
        lam: smoke.ppo.steps for lam in config.lams
    }
    assert study.metrics["objective/gold"].between(0, 1).all()
    proxy, gold = study.rewards()
    assert proxy.shape == gold.shape == (smoke.data.test, config.test_samples)
    assert set(study.accuracy()["measure"]) == {"accuracy", "expected accuracy", "noise ceiling"}
    # One answer a prompt is no selection; no leash is the best by the learned reward.
    curve = study.selection_curve()
    assert curve.loc[0, ["proxy", "gold"]].abs().max() < 1e-9
    greedy = study.leash_curve([1e-9]).loc[0, "proxy"]
    assert greedy == pytest.approx((proxy.max(axis=1) - proxy.mean(axis=1)).mean())
    made = {p: p.read_bytes() for p in folder.iterdir() if p.suffix == ".parquet"}
    assert run_study(*arguments) == folder
    assert all(path.read_bytes() == content for path, content in made.items())
