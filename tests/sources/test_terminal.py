"""A text from outside does not steer the terminal that shows it."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from alignpro.sources.terminal import inert


def test_the_usual_attacks_are_spelled_out():
    """Red text, a new title, the 8-bit form of CSI, a line overwritten, a reversed one."""
    attacks = "\x1b[31mred \x1b]0;title\x07 \x9b2J ok\rfailed \u202edeknil \x7f"
    shown = inert(attacks)
    assert shown == (
        "\\u001b[31mred \\u001b]0;title\\u0007 \\u009b2J ok\\u000dfailed \\u202edeknil \\u007f"
    )
    assert inert("Zürich\tis a city.\n  Ask: 你好?") == "Zürich\tis a city.\n  Ask: 你好?"


@given(st.text())
def test_no_control_character_is_left_and_json_stays_the_same(text):
    left = {c for c in inert(text) if unicodedata.category(c) == "Cc"}
    assert left <= {"\t", "\n"}
    line = inert(json.dumps(text, ensure_ascii=False))
    assert json.loads(line) == text and "\n" not in line
