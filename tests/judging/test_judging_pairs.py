"""Pairs from files: whatever a file holds is read as it is, or refused by file and row."""

import json

import pandas as pd
import pytest

from alignpro.judging.pairs import read_human_preferences, read_pairs
from alignpro.judging.protocol import Pair


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_response_files_meet_by_prompt_and_turn(tmp_path):
    a = [("q", "q1"), ("p", "p1"), ("p", "p2")]
    b = [("p", "P1"), ("q", "Q1"), ("p", "P2")]
    files = [
        write(tmp_path / f"{name}.jsonl", [{"prompt": p, "response": r} for p, r in rows])
        for name, rows in (("a", a), ("b", b))
    ]
    expected = [("q", "q1", "Q1"), ("p", "p1", "P1"), ("p", "p2", "P2")]
    assert read_pairs(*files) == [Pair(*row) for row in expected]
    frame = pd.DataFrame(b, columns=["prompt", "response"])
    frame.to_csv(tmp_path / "b.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    frame.to_json(tmp_path / "b.json", orient="records")
    for suffix in ("csv", "parquet", "json"):
        assert read_pairs(files[0], tmp_path / f"b.{suffix}") == [Pair(*row) for row in expected]


def test_responses_without_a_partner_are_refused_by_their_prompt(tmp_path):
    rows = [{"prompt": "p", "response": "x"}, {"prompt": "alone", "response": "y"}]
    a, b = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[:1])
    with pytest.raises(ValueError, match="1 responses .* 'alone'"):
        read_pairs(a, b)
    with pytest.raises(ValueError, match="no partner"):
        read_pairs(b, a)


def test_texts_that_look_like_nothing_or_like_numbers_stay_texts(tmp_path):
    frame = pd.DataFrame({"prompt": ["1", "2024-01-01"], "response": ["NA", "null"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    file = write(tmp_path / "b.jsonl", frame.to_dict("records"))
    expected = [Pair("1", "NA", "NA"), Pair("2024-01-01", "null", "null")]
    assert read_pairs(tmp_path / "a.csv", file) == expected


HUMAN = [
    {"instruction": "p", "response1": "x", "response2": "y", "label": 1},
    {"instruction": "q", "response1": "x", "response2": "y", "label": "2"},
    {"instruction": "r", "response1": "x", "response2": "y", "label": "Tie"},
]


def test_human_preferences_are_read_with_their_labels(tmp_path):
    pairs, labels = read_human_preferences(write(tmp_path / "human.jsonl", HUMAN))
    assert labels == [1.0, 0.0, 0.5] and pairs[1] == Pair("q", "x", "y")
    pd.DataFrame(HUMAN).to_csv(tmp_path / "human.csv", index=False)
    assert read_human_preferences(tmp_path / "human.csv") == (pairs, labels)


def test_missing_columns_and_unknown_labels_are_named(tmp_path):
    cut = [{k: v for k, v in row.items() if k not in ("label", "response2")} for row in HUMAN]
    with pytest.raises(ValueError, match="no column response2, label; it has instruction, resp"):
        read_human_preferences(write(tmp_path / "cut.jsonl", cut))
    odd = [*HUMAN, {**HUMAN[0], "label": "B"}]
    with pytest.raises(ValueError, match="row 3: the label 'b' is none of 1, 2, tie"):
        read_human_preferences(write(tmp_path / "odd.jsonl", odd))
    with pytest.raises(ValueError, match=r"must end in one of \.jsonl"):
        read_human_preferences(tmp_path / "human.txt")


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.json", "labels.parquet", "labels.csv"])
def test_a_gap_among_the_labels_is_the_row_that_is_named(tmp_path, name):
    rows = [{**HUMAN[0], "label": label} for label in (1, None, 2)]
    frame, path = pd.DataFrame(rows), tmp_path / name
    save = {
        ".jsonl": lambda: write(path, rows),
        ".json": lambda: path.write_text(json.dumps(rows)),
        ".parquet": lambda: frame.to_parquet(path),
        ".csv": lambda: frame.to_csv(path, index=False),
    }
    save[path.suffix]()
    with pytest.raises(ValueError, match=f"{name}: row 1 has no label"):
        read_human_preferences(path)


def test_labels_that_pandas_made_floats_of_are_read(tmp_path):
    for label, preference in ((1.0, 1.0), (2.0, 0.0)):
        frame = pd.DataFrame([{**HUMAN[0], "label": label}])
        frame.to_parquet(tmp_path / "labels.parquet")
        frame.to_csv(tmp_path / "labels.csv", index=False)
        for name in ("labels.parquet", "labels.csv"):
            assert read_human_preferences(tmp_path / name)[1] == [preference]


@pytest.mark.parametrize("label", [True, False, 1.5, 3, 0, [1, 2], "both"])
def test_a_label_of_another_kind_is_refused_by_its_row(tmp_path, label):
    path = write(tmp_path / "labels.jsonl", [HUMAN[0], {**HUMAN[0], "label": label}])
    with pytest.raises(ValueError, match="row 1: the label .* is none of 1, 2, tie"):
        read_human_preferences(path)


@pytest.mark.parametrize("value", [None, 3, True, ["x"]])
def test_a_response_that_is_no_text_is_refused_by_its_row(tmp_path, value):
    good = {"prompt": "p", "response": "x"}
    path = write(tmp_path / "a.jsonl", [good, {**good, "response": value}])
    with pytest.raises(ValueError, match="a.jsonl: row 1: `response` must be a text"):
        read_pairs(path, path)
    path = write(tmp_path / "human.jsonl", [HUMAN[0], {**HUMAN[0], "response2": value}])
    with pytest.raises(ValueError, match="human.jsonl: row 1: `response2` must be a text"):
        read_human_preferences(path)


def test_line_separators_and_blank_lines_do_not_break_rows(tmp_path):
    rows = [{"prompt": f"p{c}q", "response": f"x{c}y"} for c in "\u2028\u2029\x85\x0b\x0c"]
    path = tmp_path / "a.jsonl"
    lines = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes(("\ufeff" + lines).encode())
    expected = [Pair(row["prompt"], row["response"], row["response"]) for row in rows]
    assert read_pairs(path, path) == expected


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"prompt": "p", "response": "x"}\n{"prom', "line 2 is not JSON"),
        ("a.jsonl", b"", "no column prompt, response; it has none"),
        ("a.jsonl", b"[1]", "must be a list of objects"),
        ("a.json", b'{"prompt": "p"}', "must be a list of objects"),
        ("a.json", b"{", "Expecting property name"),
        ("a.csv", b"", "No columns to parse"),
        ("a.parquet", b"PAR1", "Parquet"),
        ("a.jsonl", '{"prompt": "é"}'.encode("latin-1"), "is not UTF-8"),
        ("a.csv", "prompt,response\np,é".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: .*{reason}"):
        read_pairs(path, path)
