"""The texts of the project: prompts x, responses y, the meta-prompt, and menus of suffixes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"


class Prompt(str):
    """A user's prompt x: a string, with facts about it.

    `dataset` and `split` are where it comes from, `kind` is its kind of question (None if unknown),
    `options` are the two keywords of a choice, and `id` is the hash of its text.
    """

    def __new__(cls, text: str, dataset: str, split: str, kind: str | None = None, options=()):
        self = super().__new__(cls, text)
        self.id = text_id(text)
        self.dataset, self.split, self.kind, self.options = dataset, split, kind, tuple(options)
        return self


def text_id(text: str) -> str:
    """Return 12 hexadecimal digits that ignore the case and the white space of `text`."""
    return hashlib.sha256(" ".join(text.split()).lower().encode()).hexdigest()[:12]


class Response(str):
    """A sampled response y: a string, with facts about it.

    `ended` is False if the length limit cut it off. `tokens` is the number of its tokens, and
    `token_ids` are their ids, which an endpoint does not send. `filtered` is True where a server's
    content filter withheld it, which leaves it empty or cut.
    """

    def __new__(
        cls,
        text: str,
        ended: bool = True,
        token_ids: Sequence[int] = (),
        tokens: int | None = None,
        filtered: bool = False,
    ):
        self = super().__new__(cls, text)
        self.ended, self.token_ids, self.filtered = ended, tuple(token_ids), filtered
        self.tokens = len(self.token_ids) if tokens is None else tokens
        return self


# A reward r(x, y): one finite number for each pair of an original prompt and a response.
Reward = Callable[[Sequence[Prompt], Sequence[Response]], Sequence[float]]

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

# The warm start teaches the prompter to write one of these short instructions, whatever the prompt.
# PPO has to find which prompt each of them helps; the sentences below, written for kinds of
# question, are not among them. Their rewards differ, because the spread of the reward under ρ_sft
# is all that prompting can use (C5), and no two begin alike. Chosen on training prompts.
NEUTRAL_MENU = (
    "Keep it short.",
    "Use simple words.",
    "Give an example.",
    "Answer briefly.",
    "Give me the steps.",
    "Give me a short list.",
    "Make a list.",
    "Name three things.",
    "Give three tips.",
    "Put it in one line.",
    "Say it in a few words.",
    "Recommend one.",
)

# Written by hand for the kinds of question. They are baselines, and part of the menu "all".
BEST_SUFFIXES = (
    "List three numbered steps.",
    "List three reasons.",
    "Use bullet points.",
    "In one sentence.",
    "Which one is better and why?",
    "Answer yes or no.",
)
