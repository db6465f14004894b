"""The rubric, against answers scored by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro.data import KINDS
from alignpro.rewards import complete_sentences, form_score, no_repetition, relevance, rubric
from alignpro.texts import Prompt, Response


def prompt(kind, text="Should I buy or rent a bicycle?"):
    return Prompt(text, "help", "train", kind, ("buy", "rent") if kind == "choice" else ())


@pytest.mark.parametrize(
    ("kind", "answer", "ended", "score"),
    [
        ("howto", "1. Mix.\n2. Bake.\n3. Cool.", False, 1.0),
        ("howto", "First: 1. Mix. 2. Bake it", False, 2 / 3),
        ("howto", "Mix 2 eggs and bake for 30 minutes.", True, 0.0),
        ("howto", "- Mix\n- Bake\n- Cool\n- Eat", True, 1.0),
        ("definition", "A fob is a small chain for a watch.", True, 1.0),
        ("definition", "A fob is a small chain for a watch.", False, 0.0),
        ("definition", "A fob is a chain. It holds a watch.", True, 0.5),
        ("definition", "A fob is a chain. It holds a watch. It is old.", True, 0.0),
        ("definition", "Yes.", True, 0.0),
        ("choice", "To buy is better, while to rent is cheaper.", True, 1.0),
        ("choice", "I would rent it.", True, 0.25),
        ("choice", "Buying or renting?", True, 0.5),
        ("reason", "It rains because the air cools.", True, 1 / 3),
        ("reason", "It rains due to the cooling, and because of the damp and", False, 2 / 3),
        ("reason", "1. Warm air rises.\n2. It cools.\n3. Drops form.", True, 1.0),
        ("reason", "- Warm air rises, because it is light.\n- It cools.", True, 1.0),
        ("reason", "It rains when the air cools down.", True, 0.0),
        ("yesno", "No, it does not float in water.", True, 1.0),
        ("yesno", "**Yes**, and the reason is that", False, 1.0),
        ("yesno", "Nobody knows whether it floats.", True, 0.0),
    ],
)
def test_the_form_of_an_answer(kind, answer, ended, score):
    assert form_score(prompt(kind), Response(answer, ended)) == pytest.approx(score)


def test_lists_and_cut_answers_are_no_complete_sentences():
    assert complete_sentences(Response("1. Mix the eggs well.", True)) == 0
    assert complete_sentences(Response("Mix the eggs well. Then bake", True)) == 0
    assert complete_sentences(Response("Mix the eggs well. Then bake.", True)) == 2


def test_repetition_by_hand():
    assert no_repetition("a b c d e") == 1.0
    assert no_repetition("a b c a b c") == pytest.approx(3 / 4)
    assert no_repetition("a b") == 1.0


def test_relevance_orders_answers_by_subject():
    question = "How do I boil an egg?"
    on, off = relevance(
        [question] * 2, ["Boil the egg in hot water.", "The moon orbits the earth."]
    )
    assert on > 0.9 > 0.4 > off


def test_the_rubric_is_the_product_of_its_terms():
    x, y = prompt("reason", "Why does it rain?"), Response("It rains because the air cools.", True)
    terms = relevance([x], [y]).item() * (0.25 + 0.75 * form_score(x, y)) * no_repetition(y)
    assert rubric([x], [y]).item() == pytest.approx(terms, rel=1e-6)


def test_no_answer_earns_nothing():
    assert rubric([prompt("howto")], [Response("  ", True)]).item() == 0.0


def test_a_prompt_without_a_kind_is_refused():
    with pytest.raises(ValueError, match="needs a prompt's kind .*howto.*, got None"):
        rubric([Prompt("Hi?", "mine", "test")], [Response("Hello there, you.")])
    with pytest.raises(ValueError, match="needs a prompt's kind"):
        rubric(["Hi?"], [Response("Hello there, you.")])


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), answer=st.text(max_size=200), ended=st.booleans())
def test_the_rubric_stays_between_0_and_1(kind, answer, ended):
    assert 0.0 <= rubric([prompt(kind)], [Response(answer, ended)]).item() <= 1.0 + 1e-6
