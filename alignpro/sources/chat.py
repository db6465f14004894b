"""Chats as token ids. Text stays text: only the chat template itself writes control tokens.

A chat template marks the turns of a chat by control tokens such as `<|im_start|>`. A tokenizer that
reads the rendered chat finds them wherever they are spelled, so a prompt, or a rewrite by the
prompter, could open turns of its own. `Chat.encode` reads what is spelled in a message as ordinary
characters. A chat without such a spelling has the token ids of `tokenizer.apply_chat_template`.

A server that answers for the frozen LLM or the judge reads its chats by itself: whether text is
text there is for the server to decide.
"""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from alignpro.config import ModelSpec
from alignpro.runs import RunError
from alignpro.sources.weights import ModelError

Messages = list[dict[str, str]]  # of one chat: the role and the content of each turn

# What `date` is by default: the date that Llama's template writes where it is told none.
DATE = datetime.date(2024, 7, 26)
NOW = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
THOUGHT = ("<think>", "</think>")
# Nobody can write this into a prompt, because it is drawn anew by every process.
NONCE = secrets.token_hex(16)


def settle_template(tokenizer, spec: ModelSpec) -> None:
    """Let the chat template of `tokenizer` write the same for the same chat on any day, in place.

    Today's date becomes `spec.date`, and a template that can ask for thoughts asks for them only
    where `spec.thinking` says so. Raises ModelError where the template cannot do what `spec` says.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template["default"]
    if "enable_thinking" in (template or ""):
        thinking = str(bool(spec.thinking)).lower()
        template = f"{{% set enable_thinking = {thinking} %}}{template}"
    elif spec.thinking:
        raise ModelError(
            f"{spec.source!r} has no `enable_thinking` in its chat template: leave out `thinking`"
        )
    if template is None:
        return
    day = spec.date or DATE
    template = NOW.sub(lambda call: json.dumps(day.strftime(call[2])), template)
    if re.search(r"strftime_now\s*\(", template):
        raise ModelError(
            f"the chat template of {spec.source!r} writes today's date in a form that cannot be "
            "fixed, so that a run would change overnight: write a date into a copy of it"
        )
    tokenizer.chat_template = template


class Chat:
    """The chat template of `tokenizer`, for texts that nobody has checked."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def encode(self, messages: Sequence[dict], reply: bool = True) -> list[int]:
        """Token ids of the `messages` of one chat; with `reply`, the assistant's turn begins.

        Raises ModelError for a tokenizer without a backend, which cannot keep text apart.
        """
        if not any(self._spells_control(m["content"]) for m in messages):
            return self.tokenizer.apply_chat_template(
                self._as_read(messages), add_generation_prompt=reply, return_dict=False
            )
        spelled: list[str] = []

        def hide(found: re.Match) -> str:
            spelled.append(found[0])
            return f"\uf8ff{NONCE}.{len(spelled) - 1}\uf8ff"

        hidden = [{**m, "content": self._control.sub(hide, m["content"])} for m in messages]
        text = self._control.sub(lambda found: _alias(found[0]), self.render(hidden, reply))
        text = re.sub(f"\uf8ff{NONCE}\\.(\\d+)\uf8ff", lambda found: spelled[int(found[1])], text)
        return self._reader.encode(text, add_special_tokens=False).ids

    def render(self, messages: Sequence[dict], reply: bool = True) -> str:
        """The text that the template makes of `messages`."""
        return self.tokenizer.apply_chat_template(
            self._as_read(messages), tokenize=False, add_generation_prompt=reply
        )

    def answer(self, ids: Sequence[int]) -> str:
        """The text of a completion, without its thoughts; "" where it has only begun to think."""
        if "</think>" not in (self.tokenizer.chat_template or ""):
            return self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        # A tag is one token or several. Where it is a special one, a decoded text lacks it.
        begin, end = self._thought_ids
        if end in ids:
            ids = ids[len(ids) - ids[::-1].index(end) :]
        elif end is not None and (begin in ids or self._opens_thought):
            ids = []
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if THOUGHT[1] in text:
            text = text.rpartition(THOUGHT[1])[2]
        elif end is None and (THOUGHT[0] in text or self._opens_thought):
            text = ""
        return text.strip()

    @cached_property
    def _control(self) -> re.Pattern:
        """Finds the control tokens: added ones that are special, or that the template names."""
        template = self.tokenizer.chat_template or ""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {t.content for t in added if t.special or t.content in template}
        names = {name for name in names if name.strip()}
        return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")

    def _spells_control(self, text: str) -> bool:
        if self._control.search(text):
            return True
        # Where the tokenizer changes text before it looks for tokens, look-alikes become tokens.
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        normal = backend and backend.normalizer
        return bool(normal and self._control.search(normal.normalize_str(text)))

    @cached_property
    def _reader(self) -> Tokenizer:
        """A copy of the tokenizer that knows its control tokens under names nobody can guess."""
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            raise ModelError(
                f"a prompt spells a control token of {self.tokenizer.name_or_path!r}, and this "
                "kind of tokenizer cannot read it as text: take the prompt out, or use a copy of "
                "the model with a tokenizer.json"
            )
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        names = {
            t["content"] for t in state["added_tokens"] if self._control.fullmatch(t["content"])
        }
        for token in state["added_tokens"]:
            if token["content"] in names:
                token["content"] = _alias(token["content"])
        model = state["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {_alias(w) if w in names else w: i for w, i in model["vocab"].items()}
        else:
            model["vocab"] = [[_alias(w) if w in names else w, p] for w, p in model["vocab"]]
        if model.get("unk_token") in names:
            model["unk_token"] = _alias(model["unk_token"])
        state["truncation"] = state["padding"] = state["post_processor"] = None
        return Tokenizer.from_str(json.dumps(state))

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template reads a message as a list of parts, and drops one that is a text."""
        probe = "Which text arrives?"
        for parts in (False, True):
            content = [{"type": "text", "text": probe}] if parts else probe
            try:
                text = self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False
                )
            except (TemplateError, TypeError):
                continue
            if probe in text:
                return parts
        raise ModelError(
            f"the chat template of {self.tokenizer.name_or_path!r} drops the user's message: use a "
            "copy of the model with a template for chats of text"
        )

    def _as_read(self, messages: Sequence[dict]) -> list[dict]:
        if not self._takes_parts:
            return list(messages)
        return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]

    @cached_property
    def _thought_ids(self) -> tuple[int | None, int | None]:
        added = self.tokenizer.get_added_vocab()
        return added.get(THOUGHT[0]), added.get(THOUGHT[1])

    @cached_property
    def _opens_thought(self) -> bool:
        """Whether the template itself begins the answer with a thought."""
        chat = [{"role": "user", "content": "x"}]
        opening = self.render(chat)[len(self.render(chat, reply=False)) :]
        return opening.rfind(THOUGHT[0]) > opening.rfind(THOUGHT[1])


def _alias(token: str) -> str:
    return f"\uf8ff{NONCE}{token.encode().hex()}\uf8ff"


def require_window(
    encoded: Sequence[Sequence[int]], messages: Sequence[Sequence[dict]], config, new_tokens: int
) -> None:
    """Raise RunError, with the prompt, if a chat and `new_tokens` exceed the model's window.

    Nothing is cut: beyond its window a model answers with noise, and a cut prompt is another one.
    """
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    for ids, chat in zip(encoded, messages):
        if window and len(ids) + new_tokens > window:
            raise RunError(
                f"a prompt is too long: {len(ids):,} tokens and {new_tokens:,} for the answer "
                f"exceed the window of {window:,} tokens of {config.name_or_path!r}. Leave out or "
                f"shorten the prompt that begins {chat[-1]['content'][:80]!r}"
            )
