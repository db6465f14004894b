"""The texts of the project: prompts x, responses y, the meta-prompt, and menus of suffixes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from alignpro.sources.menus import BEST_SUFFIXES as BEST_SUFFIXES
from alignpro.sources.menus import NEUTRAL_MENU as NEUTRAL_MENU

PROMPTS = Path(__file__).parent / "prompts"


class Prompt(str):
    """A user's prompt x: a string, with facts about it."""

    id: str  # the hash of its text
    dataset: str  # where it comes from, with `split`
    split: str  # type: ignore[assignment]  # hides str.split
    kind: str | None  # the kind of question, None if unknown
    options: tuple[str, ...]  # the two keywords of a choice

    def __new__(
        cls,
        text: str,
        dataset: str,
        split: str,
        kind: str | None = None,
        options: Sequence[str] = (),
    ) -> Prompt:
        self = super().__new__(cls, text)
        self.id = text_id(text)
        self.dataset, self.split, self.kind, self.options = dataset, split, kind, tuple(options)
        return self


def text_id(text: str) -> str:
    """Return 12 hexadecimal digits that ignore the case and the white space of `text`."""
    return hashlib.sha256(" ".join(text.split()).lower().encode()).hexdigest()[:12]


class Response(str):
    """A sampled response y: a string, with facts about it."""

    ended: bool  # False if the length limit cut it off
    token_ids: tuple[int, ...]  # empty from an endpoint, which does not send them
    tokens: int  # their number
    filtered: bool  # True where a server's content filter withheld it: it is empty or cut

    def __new__(
        cls,
        text: str,
        ended: bool = True,
        token_ids: Sequence[int] = (),
        tokens: int | None = None,
        filtered: bool = False,
    ) -> Response:
        self = super().__new__(cls, text)
        self.ended, self.token_ids, self.filtered = ended, tuple(token_ids), filtered
        self.tokens = len(self.token_ids) if tokens is None else tokens
        return self


# A reward r(x, y): one finite number for each pair of an original prompt and a response.
Reward = Callable[[Sequence[Prompt], Sequence[Response]], Iterable[Any]]

# Without a meta-prompt, the prompter answers the prompt instead of rewriting it (the paper's
# App. C.1). The paper does not give its wording; this one is ours. It is a system message, so the
# prompter's last tokens are the user's own, and it asks for the form of the answer. Placed after
# the user's message, or asking only for a better answer, it makes the hidden states of different
# kinds of question more alike, and PPO then learns less to tell them apart.
META_PROMPT = {
    "suffix": (
        "Say in one short instruction what form the answer to the user's message should have."
    ),
    "rewrite": (
        "Rewrite the user's message into a clearer, more specific prompt for an assistant, "
        "keeping its meaning. Do not answer it; write only the new prompt."
    ),
}
