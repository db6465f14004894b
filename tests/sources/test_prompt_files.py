"""Prompts from a user's file: all formats give the same, and errors name the file and the line."""

import codecs
import dataclasses
import json

import pandas as pd
import pytest

from alignpro.config import ConfigError
from alignpro.data import load_prompts
from alignpro.experiments import Cell
from alignpro.sources.hub_prompts import split_of
from alignpro.sources.prompt_files import is_file, name_of, read_prompts

ROWS = [
    {"prompt": "Wo ist das Öl, bitte?\nIch koche.", "split": "train", "kind": "refund"},
    {"prompt": 'He said "no, thanks".', "split": "validation", "kind": "refund"},
    {"prompt": "¿Qué es el té?", "split": "test", "kind": "small talk"},
]


def written(path, rows=ROWS):
    """`rows` in the format that the ending of `path` names."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2), "utf-8")
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def facts(prompts):
    return [(str(x), x.split, x.kind) for x in prompts]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "A.CSV"])
def test_every_format_gives_the_same_prompts(tmp_path, name):
    path = written(tmp_path / name.lower()).rename(tmp_path / name)
    assert is_file(path)
    assert facts(read_prompts(path)) == [tuple(row.values()) for row in ROWS]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_without_splits_a_hash_of_the_text_makes_them(tmp_path, name):
    texts = [f"What is number {i}?" for i in range(300)]
    prompts = read_prompts(written(tmp_path / name, [{"prompt": x} for x in texts]))
    assert sorted(prompts) == sorted(texts) and list(prompts) != texts
    assert all(x.split == split_of(x.id, seed=0) and x.kind is None for x in prompts)
    sizes = pd.Series([x.split for x in prompts]).value_counts()
    assert sizes["train"] > 200 and min(sizes) > 15
    more = read_prompts(written(tmp_path / name, [{"prompt": x} for x in [*texts, "And now?"]]))
    assert {str(x): x.split for x in prompts}.items() <= {str(x): x.split for x in more}.items()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_marks_line_ends_and_empty_lines_change_nothing(tmp_path, name, encoding, line_end):
    rows = [row | {"prompt": row["prompt"].replace("\n", " ")} for row in ROWS]
    path = written(tmp_path / name, rows)
    text = "\n\n".join(path.read_text("utf-8").splitlines()) + "\n\n"
    path.write_bytes(text.replace("\n", line_end).encode(encoding))
    assert facts(read_prompts(path)) == [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_has_the_separator_of_the_program_that_wrote_it(tmp_path, delimiter):
    path = tmp_path / "a.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False, sep=delimiter)
    assert facts(read_prompts(path)) == [tuple(row.values()) for row in ROWS]


def test_a_long_prompt_is_read_whole(tmp_path):
    long = "word " * 60_000
    assert read_prompts(written(tmp_path / "a.csv", [{"prompt": long}])) == [long.strip()]


WRONG = [
    ("a.jsonl", '{"prompt": "Hi"}\n\n{"prompt": }', "a.jsonl:3: not JSON: Expecting value"),
    ("a.jsonl", '{"text": "Hi"}', "a.jsonl:1: no column `prompt`; there is text"),
    ("a.jsonl", '["Hi"]', "a.jsonl:1: must be an object with a field `prompt`"),
    ("a.jsonl", '{"prompt": "Hi"}\n{"prompt": "hi "}', "a.jsonl:2: the same prompt is on line 1"),
    ("a.jsonl", '{"prompt": "a", "options": "tea"}', "a.jsonl:1: `options` must be a list of two"),
    ("a.jsonl", '{"prompt": "a", "options": ["b"]}', "a.jsonl:1: `options` must be two words"),
    ("a.jsonl", "\n", "a.jsonl holds no prompts"),
    ("a.jsonl", b'{"prompt": "Hi"}\n{"prompt": "caf\xe9"}', "a.jsonl:2: not UTF-8: byte 0xe9"),
    ("a.json", '[{"prompt": "Hi"},\n\n {"prompt": 5}]', "a.json:3: `prompt` must be a non-empty"),
    ("a.json", '[{"prompt": "Hi"},\n{"prompt"]', "a.json:2: not JSON"),
    ("a.json", '{"prompt": "Hi"}\n{"prompt": "Ho"}', "a.json:2: .* JSONL: name it .jsonl"),
    ("a.json", '{"prompt": "Hi"}', "a.json: must be a list of objects"),
    ("a.csv", "question\nWhy?\n", "a.csv:1: no column `prompt`; the first line is 'question'"),
    ("a.csv", 'prompt,kind\n"a\nb",x\n,y\n', "a.csv:4: `prompt` must be a non-empty text"),
    ("a.csv", "prompt,kind\na,b,c\n", "a.csv:2: not CSV: more fields"),
    ("a.csv", 'prompt\n"a\n', "a.csv:.: not CSV: unexpected end of data"),
    ("a.csv", "prompt,split\na,train\nb,\n", "a.csv:3: `split` must be one of .* got None"),
    ("a.parquet", "prompt", "a.parquet: not Parquet: "),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        read_prompts(path)


def test_parquet_names_the_row(tmp_path):
    path = written(tmp_path / "a.parquet", [{"prompt": "Hi"}, {"prompt": None}])
    with pytest.raises(ConfigError, match="a.parquet, row 2: `prompt` must be a non-empty text"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="no column `prompt`; there is question"):
        read_prompts(written(tmp_path / "b.parquet", [{"question": "Why?"}]))


def test_options_may_have_capitals(tmp_path):
    row = {"prompt": "Tea or Coffee?", "kind": "choice", "options": ["Tea", "Coffee"]}
    (prompt,) = read_prompts(written(tmp_path / "a.jsonl", [row]))
    assert prompt.options == ("tea", "coffee")


def test_another_content_is_another_dataset(tmp_path):
    path = written(tmp_path / "my prompts.jsonl")
    name = name_of(path)
    assert name.startswith("my-prompts-") and name_of(path) == name
    assert {x.dataset for x in load_prompts(str(path), "test")} == {name}
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert name_of(path) != name
    with pytest.raises(ConfigError, match="there is no file of prompts .*none.csv"):
        load_prompts(str(tmp_path / "none.csv"), "test")


def test_own_kinds_are_taken_in_turns(tmp_path):
    rows = [{"prompt": f"{kind} {i}", "split": "train", "kind": kind}
            for kind in ("bug", "refund", "howto") for i in range(2)]  # fmt: skip
    prompts = load_prompts(str(written(tmp_path / "a.json", rows)), "train")
    assert [x.kind for x in prompts] == ["howto", "bug", "refund"] * 2


def length(prompts, responses):
    return [len(y) / 100 for y in responses]


def test_a_cell_trains_on_a_file_with_a_reward_of_its_own(quick, tmp_path):
    """Kinds are any words, and one that validation lacks is in the test prompts."""
    rows = [
        {"prompt": f"Question {i} of {split}?", "split": split, "kind": kind}
        for split, kinds in {
            "train": ("bug", "refund"),
            "validation": ("bug",),
            "test": ("bug", "refund"),
        }.items()
        for kind in kinds
        for i in ([*range(5)] if kind == "bug" else [*range(5, 10)])
    ]
    path = written(tmp_path / "tickets.csv", rows)
    cell = Cell(quick, str(path), 0, reward=length, root=tmp_path / "runs")
    table = cell.evaluate(progress=False)
    assert set(table["dataset"]) == {cell.dataset} and cell.dataset.startswith("tickets-")
    assert set(table["kind"]) == {"bug", "refund"}
    assert set(table["prompt"]) == {r["prompt"] for r in rows if r["split"] == "test"}
    folder = cell.export(tmp_path / "results")
    assert folder.parts[-3:] == (cell.dataset, "P1F1", "seed0")
    assert (folder / "evaluation.parquet").exists()
    card = (cell.run.folder / "prompter" / "README.md").read_text()
    assert f"10 of the dataset `{cell.dataset}`" in card and "length" in card


def test_what_a_file_lacks_shows_before_anything_is_trained(quick, tmp_path):
    path = written(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="a.csv/train has 1 prompts, 10 are asked for: see `data"):
        Cell(quick, str(path), 0, reward=length, root=tmp_path)
    small = dataclasses.replace(quick.data, train=1, validation=1, test=1)
    prompter = dataclasses.replace(quick.prompter, lora_centred=False)
    preset = dataclasses.replace(quick, data=small, prompter=prompter)
    with pytest.raises(ValueError, match="the rubric needs a prompt's kind .* got 'refund'. Give"):
        Cell(preset, str(path), 0, root=tmp_path)
    Cell(preset, str(path), 0, reward=length, root=tmp_path)
