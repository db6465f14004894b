"""The reading experiment's arithmetic, on tables whose answers are known by hand."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from alignpro.evaluation import TOLD_THE_KIND
from alignpro.report import reading

SUFFIXES = ("(nothing)", "One.", "Two.")
EARNS = {
    ("a", "(nothing)"): 0.1, ("a", "One."): 0.9, ("a", "Two."): 0.4,
    ("b", "(nothing)"): 0.1, ("b", "One."): 0.2, ("b", "Two."): 0.8,
}  # fmt: skip
PROMPTS = {"a1": "how do apples", "a2": "how do pears", "b1": "why is snow", "b2": "why is rain"}


def answered(prompts=tuple(PROMPTS), samples=2, noise=0.0):
    """The answers to each prompt under each suffix. An id begins with its prompt's kind."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "configuration": suffix, "id": i, "kind": i[0], "sample": sample,
                "reward": EARNS[i[0], suffix] + noise * rng.normal(),
            }
            for suffix, i, sample in itertools.product(SUFFIXES, prompts, range(samples))
        ]
    )  # fmt: skip


def written(suffix_by_kind, seed=0, name="Align-Pro"):
    """The test answers of a prompter that writes one suffix for each kind."""
    rows = []
    for i, prompt in PROMPTS.items():
        suffix = suffix_by_kind[i[0]]
        text = prompt if suffix == "(nothing)" else f"{prompt} {suffix}"
        reward = EARNS.get((i[0], suffix), 0.0)
        rows.append([name, i, i[0], 0, prompt, text, reward, seed, "help", "P1F1", "F1"])
    names = "configuration id kind sample prompt rewrite reward seed dataset architecture frozen"
    return pd.DataFrame(rows, columns=names.split())


def test_a_perfect_reader_earns_its_kinds_best_and_loses_it_when_shuffled():
    read = reading.reading(written({"a": "One.", "b": "Two."}), answered())
    assert read["own"] == pytest.approx((0.9 + 0.8) / 2)
    assert read["shuffled"] == pytest.approx((0.9 + 0.4 + 0.2 + 0.8) / 4)
    assert read["information"] == pytest.approx(np.log(2))
    assert (read["on_menu"], read["top_two"]) == (1.0, 1.0)


def test_one_suffix_for_all_reads_nothing():
    read = reading.reading(written({"a": "One.", "b": "One."}), answered())
    assert read["own"] == pytest.approx(read["shuffled"]) == pytest.approx((0.9 + 0.2) / 2)
    assert read["information"] == pytest.approx(0.0, abs=1e-12)
    assert reading.reading(written({"a": "One.", "b": "Else."}), answered())["on_menu"] == 0.5


def test_runs_are_shuffled_apart():
    """Two runs of one suffix each tell nothing apart, though together they hold two suffixes."""
    runs = [written({"a": s, "b": s}, seed) for seed, s in enumerate(("One.", "Two."))]
    read = reading.reading(pd.concat(runs), answered())
    assert read["own"] == pytest.approx(read["shuffled"])


@pytest.fixture
def results(tmp_path):
    """Two runs whose own validation answers would choose different constants, and the study."""
    for seed, luck in ((0, "One."), (1, "Two.")):
        folder = tmp_path / "cpu" / "help" / "P1F1" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(json.dumps({"architecture": ["P1", "F1"]}))
        own = answered()
        own.loc[own["configuration"] == luck, "reward"] += 0.3
        own.assign(dataset="help", seed=seed).to_parquet(folder / "suffixes.parquet")
    study = tmp_path / "reading" / "help"
    study.mkdir(parents=True)
    answered(samples=4).to_parquet(study / "every_suffix.parquet")
    return tmp_path


def test_the_constant_is_chosen_once_for_all_runs(results):
    table = pd.concat(
        written({"a": s, "b": s}, seed, name)
        for seed, s in ((0, "One."), (1, "Two."))
        for name in ("Align-Pro", reading.CONSTANT, TOLD_THE_KIND)
    )
    pooled = reading.with_pooled_choices(table, results=results)
    means = pooled.groupby(["configuration", "seed"])["reward"].mean()
    # Over both runs "Two." earns (0.4 + 0.8) / 2 + 0.15 and "One." (0.9 + 0.2) / 2 + 0.15.
    assert means[reading.CONSTANT].tolist() == pytest.approx([0.6, 0.6])
    assert means[TOLD_THE_KIND].tolist() == pytest.approx([0.85, 0.85])
    kept = pooled[pooled["configuration"] == "Align-Pro"]
    pd.testing.assert_frame_equal(
        kept[table.columns].reset_index(drop=True),
        table[table["configuration"] == "Align-Pro"].reset_index(drop=True),
    )


def test_a_dataset_without_the_study_keeps_what_its_runs_chose(results):
    table = written({"a": "One.", "b": "One."}, name=reading.CONSTANT).assign(dataset="chat")
    pd.testing.assert_frame_equal(
        reading.with_pooled_choices(table, results=results), table, check_like=True
    )


def test_searches_find_what_is_there_to_find():
    train = {f"{kind}{n}": f"{word} is it {n}" for n in range(30)
             for kind, word in (("a", "how"), ("b", "why"))}  # fmt: skip
    calls = answered(tuple(train), samples=1, noise=0.02)
    calls = calls.assign(prompt=calls["id"].map(train))
    tested = pd.DataFrame({"id": list(PROMPTS), "prompt": list(PROMPTS.values())})
    ends = {
        name: reading.search_curve(name, calls, answered(), tested, counts=(60, 10**6), draws=5)
        for name in reading.SEARCHES
    }
    constant, classifier = ends["Search for a constant"], ends["Classifier of kinds"]
    assert constant["calls"].tolist() == [60, len(calls)]
    assert constant["reward"].iloc[-1] == pytest.approx(0.6)
    assert classifier["reward"].iloc[-1] == pytest.approx(0.85)
    assert (constant["low"] <= constant["reward"]).all()


def test_the_learning_curve_joins_the_runs_ends_and_what_was_kept_on_the_way(results):
    curve = answered(samples=1).query("configuration == 'One.'").assign(configuration="480 calls")
    curve.to_parquet(results / "reading" / "help" / "curve-seed1.parquet")
    table = pd.concat(
        [
            written({"a": "(nothing)", "b": "(nothing)"}, 1, "Untrained prompter"),
            written({"a": "One.", "b": "Two."}, 1),
            written({"a": "One.", "b": "One."}, 0),  # a run without its curve is left out
        ]
    )
    learned = reading.learning_curve("help", table, results)
    assert learned["calls"].tolist() == [0, 480, 2880]
    assert learned["reward"].tolist() == pytest.approx([0.1, 0.55, 0.85])
    assert learned["seed"].unique().tolist() == [1]


def test_answers_with_more_room_are_paired_with_every_run(results):
    base = written({"a": "(nothing)", "b": "(nothing)"}, pd.NA, "No Fine-Tuning")
    runs = [written({"a": "One.", "b": s}, seed) for seed, s in ((0, "Two."), (1, "One."))]
    path = results / "reading" / "help" / "longer.parquet"
    pd.concat([base, *runs]).astype({"seed": "Int64"}).to_parquet(path)
    table = reading.with_more_room("help", results)
    means = table.groupby(["configuration", "seed"])["reward"].mean()
    assert means["No Fine-Tuning"].to_dict() == pytest.approx({0: 0.1, 1: 0.1})
    assert means["Align-Pro"].to_dict() == pytest.approx({0: 0.85, 1: 0.55})
