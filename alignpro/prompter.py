"""The prompter ρ(x'|x): the meta-prompt and the rewriting x → x'."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from jinja2 import TemplateError

from alignpro.generation import Policy
from alignpro.texts import META_PROMPT, Response


class Prompter:
    """Rewrites prompts with a policy.

    `form` is "suffix", which keeps x and adds an instruction to it, or "rewrite".
    """

    def __init__(self, policy: Policy, form: str):
        self.policy, self.form = policy, form

    def messages(self, prompts: Sequence[str]) -> list[list[dict]]:
        """What the prompter is asked for each x: the meta-prompt, then x as the user's message.

        Where the chat template has no system role, as Gemma's, the user's message begins with the
        meta-prompt.
        """
        meta = META_PROMPT[self.form]
        if not self._has_system_role:
            return [[{"role": "user", "content": f"{meta}\n\n{x}"}] for x in prompts]
        ask = {"role": "system", "content": meta}
        return [[ask, {"role": "user", "content": str(x)}] for x in prompts]

    @cached_property
    def _has_system_role(self) -> bool:
        meta = META_PROMPT[self.form]
        chat = [{"role": "system", "content": meta}, {"role": "user", "content": "x"}]
        try:  # some templates raise, others drop the message
            return meta in self.policy.tokenizer.apply_chat_template(chat, tokenize=False)
        except TemplateError:
            return False

    def rewritten(self, prompts: Sequence[str], outputs: Sequence[str]) -> list[str]:
        """x' from the prompter's outputs, white space folded; x itself where an output is empty."""
        folded = [re.sub(r"\s+", " ", o).strip() for o in outputs]
        if self.form == "suffix":
            return [f"{x} {s}" if s else str(x) for x, s in zip(prompts, folded, strict=True)]
        return [new or str(x) for x, new in zip(prompts, folded, strict=True)]

    def propose(self, prompts: Sequence[str], seed: int) -> list[Response]:
        """The prompter's own outputs, one for each prompt x, drawn from ρ(·|x)."""
        return self.policy.generate(self.messages(prompts), seed)

    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One rewrite x' ~ ρ(·|x) for each prompt x."""
        return self.rewritten(prompts, self.propose(prompts, seed))

    def save(self, folder: Path) -> None:
        """Save the adapter (safetensors) and the tokenizer; the base model is not copied."""
        self.policy.model.save_pretrained(folder, safe_serialization=True)
        self.policy.tokenizer.save_pretrained(folder)
