"""Rewards r(x, y): plain functions of original prompts and responses, one number per pair.

A reward never sees the rewrite. The rubric is this project's gold reward r*: transparent, in
[0, 1], and made so that no constant instruction serves every kind of question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from alignpro.data import KINDS
from alignpro.sources.weights import embed
from alignpro.texts import Prompt, Response

STEP = re.compile(r"(?:^|\n|(?<=[.:;!?] ))\s*(?:\**(?:step\s+)?\d+[.):]|[-*•]\s)", re.IGNORECASE)
CONTRAST = re.compile(
    r"\b(while|whereas|but|however|although|on the other hand|in contrast|compared)\b", re.I
)
VERDICT = re.compile(
    r"\b(i(?:'d| would)? (?:recommend|suggest|choose|pick|prefer|go (?:for|with))|better|best"
    r"|the winner|go (?:for|with)|choose|pick|opt for)\b",
    re.I,
)
CAUSE = re.compile(
    r"\b(because|due to|since|as a result|that is why|this is why|therefore|caused by)\b", re.I
)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def form_score(prompt: Prompt, response: Response) -> float:
    """How far the answer has the form that this kind of question asks for, in [0, 1].

    how-to: a third for each step, up to three. definition: one complete sentence (two: a half).
    choice: a quarter each for naming either option, weighing them, and a verdict. reason: a third
    for each reason, up to three, which is in a list or marked by "because" or the like. yes-no: it
    begins with Yes or No. Raises ValueError for a prompt without a kind.
    """
    kind = getattr(prompt, "kind", None)
    if kind == "howto":
        return min(len(STEP.findall(response)), 3) / 3
    if kind == "definition":
        return {1: 1.0, 2: 0.5}.get(complete_sentences(response), 0.0)
    if kind == "choice":
        text = response.lower()
        named = sum(option in text for option in prompt.options)
        return (named + bool(CONTRAST.search(text)) + bool(VERDICT.search(text))) / 4
    if kind == "reason":
        reasons = len(STEP.findall(response)) + len(CAUSE.findall(response))
        return min(reasons, 3) / 3
    if kind == "yesno":
        return float(bool(re.match(r"\W*(yes|no)\b", response, re.IGNORECASE)))
    needed = f"the rubric needs a prompt's kind ({', '.join(KINDS)}), got {kind!r}"
    raise ValueError(f"{needed}. Give your own reward for prompts of other kinds")


def complete_sentences(response: Response) -> int:
    """The number of sentences of a response that ended by itself with a full stop; else 0.

    A list is not a sentence, and neither is a text of fewer than four words.
    """
    long_enough = len(response.split()) >= 4
    if not (response.ended and long_enough and response.endswith((".", "!"))):
        return 0
    return 0 if STEP.search(response) else len(SENTENCE_END.findall(response))


def no_repetition(response: str) -> float:
    """Share of distinct word trigrams, in (0, 1]; 1 for texts of fewer than three words."""
    words = re.findall(r"\w+", response.lower())
    trigrams = list(zip(words, words[1:], words[2:]))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def relevance(prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
    """How far responses stay on the subject of their prompts: [B] in [0, 1].

    This is twice the cosine of their embeddings, at most 1. Above a cosine of ½ a response is on
    the subject, and the rest depends more on the wording of the prompt than on the response.
    """
    return (2 * (embed(prompts) * embed(responses)).sum(-1)).clamp(0, 1)


def rubric(prompts: Sequence[Prompt], responses: Sequence[Response]) -> torch.Tensor:
    """The gold reward r*(x, y) = relevance × (0.25 + 0.75 form) × no repetition; [B] in [0, 1].

    An empty response scores 0. Raises ValueError for prompts that carry no kind.
    """
    form = torch.tensor([form_score(x, y) for x, y in zip(prompts, responses, strict=True)])
    fresh = torch.tensor([no_repetition(y) for y in responses])
    present = torch.tensor([bool(y.strip()) for y in responses])
    return relevance(prompts, responses) * (0.25 + 0.75 * form) * fresh * present


rubric.name = "rubric"  # type: ignore[attr-defined]  # its name on the cards, as any reward may have
