"""The project's own prompts: enough of them, varied, and split without overlap."""

import json
import re

import numpy as np
import pytest

from alignpro.data import KINDS, datasets, load_prompts, read_prompts
from alignpro.texts import PROMPTS

EVERYTHING = [p for name in datasets() for p in read_prompts(PROMPTS / f"{name}.jsonl")]


def test_at_least_600_prompts_in_three_sets():
    assert len(datasets()) == 3
    assert len(EVERYTHING) >= 600


@pytest.mark.parametrize("dataset", datasets())
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_has_every_kind_equally(dataset, split):
    kinds = [p.kind for p in load_prompts(dataset, split)]
    assert {kinds.count(kind) for kind in KINDS} == {len(kinds) // len(KINDS)}


def test_no_prompt_twice_over_all_sets_and_splits():
    assert len({p.id for p in EVERYTHING}) == len(EVERYTHING)


def test_options_of_a_choice_occur_in_it_and_differ():
    for prompt in EVERYTHING:
        assert bool(prompt.options) == (prompt.kind == "choice")
        if prompt.options:
            first, second = prompt.options
            assert first in prompt.lower() and second in prompt.lower()
            assert first not in second and second not in first


def test_no_near_duplicates_in_words():
    """No two prompts share half of their word trigrams: none is a template filled in."""
    grams = []
    for prompt in EVERYTHING:
        words = re.findall(r"\w+", prompt.lower())
        grams.append(set(zip(words, words[1:], words[2:])))
    for i, first in enumerate(grams):
        for j in range(i):
            shared = len(first & grams[j])
            assert shared / len(first | grams[j]) < 0.5, (EVERYTHING[i], EVERYTHING[j])


def test_no_near_duplicates_in_meaning():
    from alignpro.sources.weights import embed

    vectors = embed(EVERYTHING).numpy()
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, 0)
    i, j = np.unravel_index(cosine.argmax(), cosine.shape)
    assert cosine[i, j] < 0.9, (cosine[i, j], EVERYTHING[i], EVERYTHING[j])


def test_a_limit_takes_the_kinds_in_turns():
    assert [p.kind for p in load_prompts("help", "train", 7)] == [*KINDS, *KINDS[:2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("alpaca", "train"),
            "no dataset 'alpaca': use one of chat, help, reasoning, ultrafeedback",
        ),
        (("help", "dev"), "no split 'dev': use one of train, validation, test"),
        (("help", "test", 10_000), "help/test has 70 prompts, 10000 are asked for"),
    ],
)
def test_unknown_names_list_the_known_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(*arguments)


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0c", "\r"])
def test_only_a_line_feed_ends_a_row(tmp_path, inside):
    """JSON allows other line separators within a text."""
    path, text = tmp_path / "mine.jsonl", f"What is{inside}tea?"
    rows = [{"prompt": p, "split": "train"} for p in (text, "What is coffee?")]
    path.write_bytes("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode())
    assert read_prompts(path) == [text, "What is coffee?"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "mine.jsonl:2: not JSON"),
        ('{"prompt": " ", "split": "train"}', "mine.jsonl:2: `prompt` must be a non-empty text"),
        ('{"prompt": "Hi there", "split": "dev"}', "mine.jsonl:2: `split` must be one of"),
        ('{"prompt": "Hi", "split": "test", "kind": 5}', "mine.jsonl:2: `kind` must be a word"),
        ('{"prompt": "what IS  tea?", "split": "test"}', "the same prompt is on line 1"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "What is tea?", "split": "train"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_prompts(path)
