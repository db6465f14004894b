"""Texts of a model or a server on a terminal: shown, and obeyed by nothing."""

from __future__ import annotations

import re

# Control characters but for tab and line feed, and those that turn the direction of reading.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    r"""Return `text` with what steers a terminal spelled out, as in `\u001b`.

    A terminal obeys such characters: they recolour or overwrite lines, and some terminals let them
    set the title or the clipboard. JSON stays the same JSON.
    """
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
