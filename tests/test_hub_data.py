"""The Hub's datasets, read by `datasets` from files in their schemas: on disk, and over HTTP."""

import http.server
import re
import threading

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro import data, hub_data
from alignpro.config import ConfigError, HubConfig, load_preset
from alignpro.data import SPLITS, load_prompts, mostly_latin, sort_out, split_of
from alignpro.hub_data import SOURCES, DataError

HUB = HubConfig(seed=0, max_characters=200)
TURN = [{"content": "Some text", "role": "user"}, {"content": "More", "role": "assistant"}]
COMPLETION = {
    "model": "some-model",
    "principle": "helpfulness",
    "custom_system_prompt": "SYSTEM: be brief",
    "response": "An answer",
    "annotations": {"honesty": {"Rating": "4"}, "helpfulness": {"Rating": "5"}},
    "fine-grained_score": 4.0,
    "overall_score": 7.5,
    "critique": "Fine.",
}
# The columns of each dataset beside its prompt; the prompt's own column is the literal below.
PREFERENCES = {"chosen": TURN, "rejected": TURN}
RATINGS = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 3)
SCORES = {"score_chosen": 8.5, "score_rejected": 6.0}
SCHEMAS = {
    "ultrafeedback": (
        "prompt",
        {"prompt_id": "0a1b", **PREFERENCES, "messages": TURN, **SCORES},
    ),
    "helpsteer": ("prompt", {"response": "An answer", **RATINGS}),
    "orca": ("question", {"system": "SYSTEM: be brief", "chosen": "An answer", "rejected": "No"}),
    "ultrafeedback-openbmb": (
        "instruction",
        {
            "source": "sharegpt",
            "models": ["some-model"],
            "completions": [COMPLETION],
            "correct_answers": ["None"],
            "incorrect_answers": ["None"],
        },
    ),
    "openorca": (
        "question",
        {"id": "flan.1", "system_prompt": "SYSTEM: be brief", "response": "An answer"},
    ),
    "orca-h4": ("prompt", PREFERENCES),
}
SPLIT_NAMES = {
    "ultrafeedback": ("train_prefs", "test_prefs"),
    "helpsteer": ("train", "validation"),
    "orca-h4": ("train_prefs", "test_prefs"),
}


def write(folder, name, **texts_by_split):
    """Files of the dataset `name` below `folder`, named and laid out as Parquet on the Hub is."""
    column, others = SCHEMAS[name]
    target = folder / SOURCES[name].hub_id / "data"
    target.mkdir(parents=True)
    for split, texts in texts_by_split.items():
        rows = pd.DataFrame([{column: text, **others} for text in texts])
        rows.to_parquet(target / f"{split}-00000-of-00001.parquet", index=False)


def questions(number, start=0):
    return [f"What is the number {n} good for?" for n in range(start, start + number)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder in place of the Hub, with nothing kept between tests."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv(hub_data.FOLDER, str(tmp_path / "mirror"))
    data._hub_prompts.cache_clear()
    return tmp_path / "mirror"


@pytest.mark.parametrize("name", SOURCES)
def test_each_schema_gives_the_users_question_alone(name, folder, capsys):
    splits = SPLIT_NAMES.get(name, ("train",))
    texts = {split: questions(30, 30 * i) for i, split in enumerate(splits)}
    write(folder, name, **texts)
    prompts = [p for split in SPLITS for p in load_prompts(name, split, hub=HUB)]
    assert sorted(prompts) == sorted(sum(texts.values(), []))
    assert {p.dataset for p in prompts} == {name} and {p.kind for p in prompts} == {None}
    assert not any("SYSTEM" in p for p in prompts)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1, "read and counted once"
    assert f"{SOURCES[name].hub_id}@" in printed and f"{30 * len(splits)} kept" in printed


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


def test_a_stream_is_read_no_further_than_it_says(folder, monkeypatch):
    source = SOURCES["openorca"]
    assert source.first and not any(s.first for n, s in SOURCES.items() if n != "openorca")
    import dataclasses

    monkeypatch.setitem(SOURCES, "openorca", dataclasses.replace(source, first=7))
    write(folder, "openorca", train=questions(40))
    assert [text for _, text in hub_data.rows("openorca", folder)] == questions(7)


def test_a_missing_column_is_named_with_the_columns_there_are(folder):
    write(folder, "orca", train=["What is tea?"])
    path = next(folder.rglob("*.parquet"))
    pd.read_parquet(path).rename(columns={"question": "prompt"}).to_parquet(path)
    message = "no column 'question'; it has prompt, system, chosen, rejected"
    with pytest.raises(DataError, match=f"Intel/orca_dpo_pairs@624952e, split train: {message}"):
        load_prompts("orca", "train", hub=HUB)


def test_a_column_of_messages_is_no_text(folder):
    write(folder, "orca", train=[TURN])
    with pytest.raises(DataError, match="'question' is no text but list"):
        load_prompts("orca", "train", hub=HUB)


def test_a_missing_split_is_named_with_the_splits_there_are(folder):
    write(folder, "helpsteer", train=["What is tea?"])
    with pytest.raises(DataError, match=r"HelpSteer@3ca5d59: .*\"validation\".*\['train'\]"):
        load_prompts("helpsteer", "train", hub=HUB)


def test_a_folder_without_the_dataset_says_how_to_fill_it(folder):
    with pytest.raises(DataError) as caught:
        load_prompts("orca", "train", hub=HUB)
    said = str(caught.value)
    assert f"there is no folder {folder / 'Intel' / 'orca_dpo_pairs'}" in said
    assert "hf download Intel/orca_dpo_pairs --repo-type dataset --revision 624952e" in said


def test_a_broken_file_is_no_traceback_of_a_library(folder):
    write(folder, "orca", train=["What is tea?"])
    next(folder.rglob("*.parquet")).write_bytes(b"not Parquet")
    with pytest.raises(DataError, match="cannot load Intel/orca_dpo_pairs@624952e from /"):
        load_prompts("orca", "train", hub=HUB)


def test_a_hub_that_may_not_be_asked_gives_the_remedy(monkeypatch):
    import datasets

    monkeypatch.delenv(hub_data.FOLDER)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="from the Hub: .*Offline mode") as caught:
        load_prompts("helpsteer", "train", hub=HUB)
    assert (
        f"hf download nvidia/HelpSteer --repo-type dataset --revision {SOURCES['helpsteer'].revision}"
        in str(caught.value)
    )


class GatedHub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does to somebody without access to a gated dataset."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this dataset is restricted")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_a_gated_dataset_says_where_its_licence_is_accepted(monkeypatch):
    import datasets

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GatedHub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    monkeypatch.delenv(hub_data.FOLDER)
    with pytest.raises(DataError, match="gated dataset on the Hub") as caught:
        load_prompts("orca", "train", hub=HUB)
    server.shutdown()
    assert "hf auth login" in str(caught.value)
    assert "licence on https://huggingface.co/datasets/Intel/orca_dpo_pairs" in str(caught.value)
    assert server.asked[0].startswith(
        f"/datasets/Intel/orca_dpo_pairs/resolve/{SOURCES['orca'].revision}/"
    )


def test_a_preset_with_the_papers_three_datasets_serves_them(folder, tmp_path):
    from alignpro.config import PRESETS
    from alignpro.experiments import Cell

    text = (PRESETS / "smoke.yaml").read_text()
    text = text.replace("datasets: [help]", "datasets: [ultrafeedback, helpsteer, orca]")
    text = text.replace("  test: 10\n", "  test: 10\n  hub: {seed: 0, max_characters: 2000}\n")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    preset = load_preset(path)
    for name in preset.datasets:
        first, *rest = SPLIT_NAMES.get(name, ("train",))
        write(folder, name, **{first: questions(200)}, **{r: questions(5, 200) for r in rest})
        cell = Cell(preset, name, 0, root=tmp_path / "runs")
        sizes = {split: len(cell.prompts(split)) for split in SPLITS}
        assert sizes == {"train": 10, "validation": 5, "test": 10}


def test_options_of_the_hub_are_asked_for_and_checked(tmp_path):
    from alignpro.config import PRESETS

    with pytest.raises(ConfigError, match="'helpsteer' comes from the Hub: .*`max_characters`"):
        load_prompts("helpsteer", "train")
    path = tmp_path / "mine.yaml"
    text = (PRESETS / "smoke.yaml").read_text()
    path.write_text(
        text.replace("  test: 10\n", "  test: 10\n  hub: {seed: 0, max_characters: 0}\n")
    )
    with pytest.raises(ConfigError, match="preset.data.hub.max_characters: must be at least 1"):
        load_preset(path)
