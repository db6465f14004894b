"""The texts that move through the project: prompts x, responses y, and the reward's type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"


class Prompt(str):
    """A user's prompt x: its text, and with it the row that it came from.

    Being a string, it can be passed to any function of strings, such as a reward of your own.
    `options` names the two keywords of a choice.
    """

    def __new__(cls, text: str, dataset: str, split: str, kind: str | None = None, options=()):
        self = super().__new__(cls, text)
        self.id = text_id(text)
        self.dataset, self.split, self.kind, self.options = dataset, split, kind, tuple(options)
        return self


def text_id(text: str) -> str:
    """A hash of `text` that looks past case and white space; 12 hexadecimal digits."""
    return hashlib.sha256(" ".join(text.split()).lower().encode()).hexdigest()[:12]


class Response(str):
    """A sampled text; `ended` is False where the length limit cut it off.

    `tokens` counts its tokens, whose ids an endpoint does not tell. Being a string, it can be
    passed to any function of strings, such as a reward of your own.
    """

    def __new__(
        cls,
        text: str,
        ended: bool = True,
        token_ids: Sequence[int] = (),
        tokens: int | None = None,
    ):
        self = super().__new__(cls, text)
        self.ended, self.token_ids = ended, tuple(token_ids)
        self.tokens = len(self.token_ids) if tokens is None else tokens
        return self


# A reward r(x, y): one finite number for each pair of an original prompt and a response.
Reward = Callable[[Sequence[Prompt], Sequence[Response]], Sequence[float]]


# Without a meta-prompt the prompter answers the prompt instead of rewriting it (the paper's
# App. C.1). The paper's wording is not available: this one is ours. It is a system message, so that
# the prompter's last tokens are the user's own, and it asks for the form of the answer: behind the
# user's message, or asking only that the answer gets better, it leaves the hidden states more alike
# between kinds of question, and PPO learns less to tell them apart.
META_PROMPT = {
    "suffix": (
        "Say in one short instruction what form the answer to the user's message should have."
    ),
    "rewrite": (
        "Rewrite the user's message into a clearer, more specific prompt for an assistant, "
        "keeping its meaning. Do not answer it; write only the new prompt."
    ),
}


# The warm start teaches the prompter to write *some* short instruction: these, whatever the prompt.
# PPO has to find who is served by what; the sentences written for a kind of question, below, are
# not among them. They differ in what they earn, since the spread of the reward under ρ_sft is all
# that prompting has to work with (C5), and each opens in its own way. Picked on training prompts.
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


# Written by hand for the kinds of question: baselines, and the warm start's other menu.
BEST_SUFFIXES = (
    "List three numbered steps.",
    "List three reasons.",
    "Use bullet points.",
    "In one sentence.",
    "Which one is better and why?",
    "Answer yes or no.",
)
