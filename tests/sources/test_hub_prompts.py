"""The Hub's datasets, read by `datasets` from files in their schemas: on disk, and over HTTP."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pandas as pd
import pytest
from hub_server import serve
from hypothesis import given
from hypothesis import strategies as st

from alignpro import data
from alignpro.config import PRESETS, ConfigError, HubConfig, load_preset
from alignpro.data import SPLITS, load_prompts
from alignpro.sources import hub_prompts
from alignpro.sources.hub_prompts import SOURCES, DataError, mostly_latin, sort_out, split_of

ROOT = Path(__file__).parents[2]
HUB = HubConfig(seed=0, max_characters=200)
SYSTEM = "SYSTEM: be brief"
TURNS = [{"content": "Some text", "role": "user"}, {"content": "More", "role": "assistant"}]
RATINGS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
# By dataset: its files on the Hub, the column of the prompt, and the other columns.
SCHEMAS = {
    "ultrafeedback": (
        ["data/{split}-00000-of-00001.parquet"],
        "prompt",
        {"prompt_id": "0a1b", "chosen": TURNS, "rejected": TURNS, "messages": TURNS}
        | {"score_chosen": 8.5, "score_rejected": 6.0},
    ),
    "helpsteer": (
        ["{split}.jsonl.gz"],
        "prompt",
        {"response": "An answer", **dict.fromkeys(RATINGS, 3)},
    ),
    "orca": (
        ["orca_rlhf.jsonl"],
        "question",
        {"system": SYSTEM, "chosen": "An answer", "rejected": "Another"},
    ),
}


def write(folder, name, **texts_by_split):
    """The dataset `name` below `folder`, its files named and laid out as on the Hub."""
    files, column, others = SCHEMAS[name]
    for split, texts in texts_by_split.items():
        share = -(-len(texts) // len(files))
        for number, file in enumerate(files):
            path = folder / SOURCES[name].hub_id / file.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = texts[number * share : (number + 1) * share]
            rows = pd.DataFrame([{column: text, **others} for text in part])
            if path.suffix == ".parquet":
                rows.to_parquet(path, index=False)
            else:
                rows.to_json(path, orient="records", lines=True)


def questions(number, start=0):
    return [f"What is the number {n} good for?" for n in range(start, start + number)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder in place of the Hub, with nothing kept between tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv(hub_prompts.FOLDER, str(tmp_path / "mirror"))
    data._hub_prompts.cache_clear()
    return tmp_path / "mirror"


@pytest.mark.parametrize("name", SOURCES)
def test_each_schema_gives_the_users_question_alone(name, folder, capsys):
    splits = SOURCES[name].splits
    texts = {split: questions(30, 30 * i) for i, split in enumerate(splits)}
    write(folder, name, **texts)
    prompts = [p for split in SPLITS for p in load_prompts(name, split, hub=HUB)]
    assert sorted(prompts) == sorted(sum(texts.values(), []))
    assert {p.dataset for p in prompts} == {name} and {p.kind for p in prompts} == {None}
    assert not any("SYSTEM" in p for p in prompts)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1, "read and counted once"
    assert printed.startswith(
        f"{name} ({SOURCES[name].hub_id} in {folder}): {30 * len(splits)} rows"
    )


def test_the_other_splits_of_ultrafeedback_are_left_alone(folder):
    """The sft and gen splits repeat the prompts of prefs: reading them would only cost time."""
    write(
        folder,
        "ultrafeedback",
        train_prefs=questions(20),
        test_prefs=questions(5, 20),
        train_sft=questions(9, 100),
    )
    assert len({p for s in SPLITS for p in load_prompts("ultrafeedback", s, hub=HUB)}) == 25


def test_what_is_dropped_is_counted_and_printed(folder, capsys):
    long, chinese, russian = "word " * 50, "请解释一下什么是黑洞", "Как вырастить помидоры дома?"
    kept = ["How do I bake bread?", "¿Qué es la fotosíntesis?", "12 * 7 = ?"]
    repeated = ["how do I  BAKE bread?", kept[0]]
    write(
        folder,
        "helpsteer",
        train=[*kept, "", "  \n", None, long, chinese, russian, *repeated],
        validation=["How do I bake bread?\n", "Is tea older than coffee?"],
    )
    prompts = {p for split in SPLITS for p in load_prompts("helpsteer", split, hub=HUB)}
    assert prompts == {*kept, "Is tea older than coffee?"}
    printed = capsys.readouterr().out
    found = dict((what, int(number)) for number, what in re.findall(r"(\d+) ([\w ]+)", printed))
    assert found.pop("train") + found.pop("validation") + found.pop("test") == 4
    assert found == {
        "rows read": 13,
        "empty": 3,
        "too long": 1,
        "not in Latin script": 2,
        "repeated": 2,
        "repeated in another split of the Hub": 1,
        "kept": 4,
    }


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("Explain black holes", True),
        ("Giải thích về hố đen", True),
        ("Was heißt „Größe“?", True),
        ("1 + 1 = ?", True),
        ("Let α, β and γ be angles", True),
        ("ブラックホールとは何ですか", False),
        ("Что такое hash?", False),
        ("ما هو الثقب الأسود؟", False),
    ],
)
def test_scripts_are_told_apart_and_languages_are_not(text, latin):
    assert mostly_latin(text) == latin


TEXTS = st.lists(st.text("abcdefgh XY", max_size=12), max_size=60)


@given(TEXTS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_splits_are_disjoint_and_know_nothing_of_files_and_order(texts, seed, random):
    hub = HubConfig(seed, max_characters=10)
    rows = [("train", text) for text in texts]
    prompts, counts = sort_out(rows, "orca", hub)
    assert counts["rows read"] == len(rows)
    dropped = ("empty", "too long", "not in Latin script", "repeated")
    assert counts["kept"] == len(prompts) == len(rows) - sum(counts[what] for what in dropped)
    ids = [p.id for p in prompts]
    assert len(set(ids)) == len(ids)
    shuffled = [(random.choice(["train", "test"]), text) for text in texts]
    random.shuffle(shuffled)
    again, _ = sort_out(shuffled, "ultrafeedback", hub)
    assert [(p.id, p.split) for p in again] == [(p.id, p.split) for p in prompts]
    assert all(p.split == split_of(p.id, seed) for p in prompts)


def test_a_seed_shuffles_and_the_held_out_shares_are_a_tenth():
    rows = [("train", text) for text in questions(4000)]
    (first, counts), (second, _) = (sort_out(rows, "orca", HubConfig(s, 200)) for s in (0, 1))
    assert set(first) == set(second) and first != second
    moved = sum(p.split != split_of(p.id, 1) for p in first)
    assert moved > 1000, "another seed is another split: 34 in 100 move where 0.8² + 2 · 0.1² stay"
    for split in ("validation", "test"):  # binomial, standard error 19
        assert 400 - 80 < counts[split] < 400 + 80


def test_a_smaller_subset_is_the_start_of_a_larger_one(folder):
    write(folder, "orca", train=questions(300))
    few, more = (load_prompts("orca", "train", n, HUB) for n in (20, 50))
    assert more[:20] == few and len(more) == 50
    with pytest.raises(ValueError, match=r"orca/test has \d+ prompts, 300 are asked for"):
        load_prompts("orca", "test", 300, HUB)


def test_a_missing_column_is_named_with_the_columns_there_are(folder, monkeypatch):
    files, _, others = SCHEMAS["orca"]
    monkeypatch.setitem(SCHEMAS, "orca", (files, "instruction", others))
    write(folder, "orca", train=["What is tea?"])
    message = "no column 'question'; it has instruction, system, chosen, rejected"
    with pytest.raises(DataError, match=f"Intel/orca_dpo_pairs@624952e, split train: {message}"):
        load_prompts("orca", "train", hub=HUB)


def test_a_column_of_messages_is_no_text(folder):
    write(folder, "orca", train=[TURNS])
    with pytest.raises(DataError, match="'question' is no text but list"):
        load_prompts("orca", "train", hub=HUB)


def test_a_missing_split_is_named_with_the_splits_there_are(folder):
    write(folder, "helpsteer", train=["What is tea?"])
    with pytest.raises(DataError, match=r"HelpSteer@3ca5d59 from .*\"validation\".*\['train'\]"):
        load_prompts("helpsteer", "train", hub=HUB)


def test_a_folder_without_the_dataset_says_how_to_fill_it(folder):
    with pytest.raises(DataError) as caught:
        load_prompts("orca", "train", hub=HUB)
    said = str(caught.value)
    assert f"there is no folder {folder / 'Intel' / 'orca_dpo_pairs'}" in said
    assert "hf download Intel/orca_dpo_pairs --repo-type dataset --revision 624952e" in said


@pytest.mark.parametrize("name", ["orca", "ultrafeedback"])
def test_a_broken_file_is_named_with_its_folder_and_the_reason(name, folder):
    write(folder, name, **{split: questions(4) for split in SOURCES[name].splits})
    for path in (folder / SOURCES[name].hub_id).rglob("*.*"):
        path.write_bytes(b"neither JSON nor Parquet")
    place = re.escape(f"{SOURCES[name]} from {folder / SOURCES[name].hub_id}")
    with pytest.raises(DataError, match=f"{place}.*(JSON|Parquet)"):
        load_prompts(name, "train", hub=HUB)


READ = """
import json, sys
from alignpro.sources import hub_prompts
try:
    print(json.dumps(list(hub_prompts.rows(sys.argv[1]))))
except hub_prompts.DataError as error:
    print(json.dumps(str(error)))
"""


def read(name, cache, **environment):
    """The rows of `name` from the Hub, or the error's text, in a process with its own settings."""
    settings = {k: v for k, v in os.environ.items() if k != hub_prompts.FOLDER}
    settings |= {"HF_HOME": str(cache), **environment}
    command = [sys.executable, "-c", READ, name]
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SOURCES)
def test_over_http_the_pinned_revision_is_read(name, tmp_path):
    texts = {split: questions(8, 8 * i) for i, split in enumerate(SOURCES[name].splits)}
    write(tmp_path, name, **texts)
    with serve(tmp_path) as (address, asked):
        found = read(name, tmp_path / "cache", HF_ENDPOINT=address)
    assert found == [[split, text] for split in texts for text in texts[split]]
    of_it = [path for path in asked if SOURCES[name].hub_id in path]
    assert of_it and all(SOURCES[name].revision in path for path in of_it)


def test_what_was_downloaded_once_is_read_without_the_hub(tmp_path):
    write(tmp_path, "orca", train=questions(8))
    with serve(tmp_path) as (address, _):
        online = read("orca", tmp_path / "cache", HF_ENDPOINT=address)
    assert read("orca", tmp_path / "cache", HF_HUB_OFFLINE="1") == online
    assert [text for _, text in online] == questions(8)


def test_another_revision_in_the_cache_is_not_taken_for_the_pinned_one(tmp_path):
    """Offline, `datasets` itself returns whatever it read last, under the name asked for."""
    write(tmp_path, "orca", train=questions(8))
    cache = tmp_path / "cache"
    other = (
        "import datasets; datasets.load_dataset('Intel/orca_dpo_pairs', split='train', "
        f"revision='{'0' * 40}')"
    )
    with serve(tmp_path) as (address, _):
        settings = {**os.environ, "HF_HOME": str(cache), "HF_ENDPOINT": address}
        subprocess.run([sys.executable, "-c", other], env=settings, check=True)
        told = read("orca", cache, HF_HUB_OFFLINE="1")
        assert f"at another revision, {'0' * 40}, than {SOURCES['orca'].revision}" in told
        online = read("orca", cache, HF_ENDPOINT=address)
    assert read("orca", cache, HF_HUB_OFFLINE="1") == online
    assert [text for _, text in online] == questions(8)


def test_a_hub_out_of_reach_gives_the_remedy(tmp_path):
    said = read("helpsteer", tmp_path, HF_HUB_OFFLINE="1")
    assert "cannot load nvidia/HelpSteer@3ca5d59 from the Hub (ConnectionError: " in said
    pinned = f"--repo-type dataset --revision {SOURCES['helpsteer'].revision}"
    assert f"`hf download nvidia/HelpSteer {pinned} --local-dir DIR/nvidia/HelpSteer`" in said


def test_a_gated_dataset_says_where_its_licence_is_accepted(tmp_path):
    with serve(tmp_path, gated=True) as (address, _):
        said = read("orca", tmp_path, HF_ENDPOINT=address)
    assert "gated dataset on the Hub" in said and "`hf auth login`" in said
    assert "licence on https://huggingface.co/datasets/Intel/orca_dpo_pairs" in said


def test_a_preset_with_the_papers_three_datasets_serves_them(folder, tmp_path):
    from alignpro.experiments import Cell

    text = (PRESETS / "smoke.yaml").read_text()
    text = text.replace("datasets: [help]", "datasets: [ultrafeedback, helpsteer, orca]")
    text = text.replace("  test: 10\n", "  test: 10\n  hub: {seed: 0, max_characters: 2000}\n")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    preset = load_preset(path)
    for name in preset.datasets:
        write(folder, name, **{split: questions(200) for split in SOURCES[name].splits})
        cell = Cell(preset, name, 0, root=tmp_path / "runs")
        sizes = {split: len(cell.prompts(split)) for split in SPLITS}
        assert sizes == {"train": 10, "validation": 5, "test": 10}


def test_options_of_the_hub_are_asked_for_and_checked(tmp_path):
    with pytest.raises(ConfigError, match="'helpsteer' comes from the Hub: .*`max_characters`"):
        load_prompts("helpsteer", "train")
    path = tmp_path / "mine.yaml"
    text = (PRESETS / "smoke.yaml").read_text()
    path.write_text(
        text.replace("  test: 10\n", "  test: 10\n  hub: {seed: 0, max_characters: 0}\n")
    )
    with pytest.raises(
        ConfigError, match="preset.data.hub.max_characters: must be greater than or equal to 1"
    ):
        load_preset(path)
