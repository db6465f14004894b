"""The study of discovery: its menus, and the flatter prompter."""

import discovery_study
import torch
from discovery_study import FlatterCell

from alignpro.config import load_preset
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU


def test_the_menu_of_words_holds_no_hand_written_suffix_nor_one_without_a_word():
    menu = discovery_study.words_menu()
    assert len(set(menu)) == discovery_study.WORDS_SHOWN
    assert not set(menu) & {*NEUTRAL_MENU, *BEST_SUFFIXES}
    assert "List three steps." not in menu, "one of them without a word"
    assert discovery_study.words_menu() == menu


def test_the_pairs_are_of_two_different_sentences():
    menu = discovery_study.pairs_menu()
    assert len(set(menu)) == len(menu) == len(NEUTRAL_MENU) * (len(NEUTRAL_MENU) - 1)
    assert "Keep it short. Make a list." in menu and "Make a list. Make a list." not in menu


def test_every_trial_trains_with_the_frozen_calls_that_it_names():
    calls = {
        t.name: t.preset().ppo.steps * t.preset().ppo.batch_size for t in discovery_study.TRIALS
    }
    assert calls.pop("words, twice the steps") == 2 * 2880
    assert set(calls.values()) == {2880}


def first_logits(prompter, reference):
    """The logits of the first token after one prompt, of the prompter or of its reference."""
    ids = torch.tensor([prompter.policy.encode(prompter.messages(["Why is the sky blue?"]))[0]])
    with torch.no_grad():
        if not reference:
            return prompter.policy.model(ids).logits[0, -1].float()
        with prompter.policy.model.disable_adapter():
            return prompter.policy.model(ids).logits[0, -1].float()


def test_a_flatter_cell_divides_all_logits_before_and_after_training(tmp_path):
    plain, flat = (FlatterCell(load_preset("smoke"), "help", 0, root=tmp_path) for _ in range(2))
    flat.temperature = 2.0
    for stage in ("untrained", "train"):
        for reference in (True, False):
            ours, theirs = (
                first_logits(getattr(cell, stage)(False), reference) for cell in (flat, plain)
            )
            torch.testing.assert_close(ours, theirs / 2, rtol=1e-5, atol=1e-6)
