"""The prompter ρ(x'|x): the meta-prompt and the rewriting x → x'."""

from __future__ import annotations

import copy
import dataclasses
import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from jinja2 import TemplateError

from alignpro.generation import Messages, Policy
from alignpro.sources import prompter_folder
from alignpro.texts import META_PROMPT, Response


class Prompter:
    """Rewrites prompts with a policy.

    `form` is "suffix", which keeps x and adds an instruction to it, or "rewrite". `meta_prompt` is
    by default the project's own for that form. `folder` is where a trained prompter is kept.
    """

    folder: Path | None = None

    def __init__(self, policy: Policy, form: str, meta_prompt: str | None = None):
        self.policy, self.form = policy, form
        self.meta_prompt = meta_prompt or META_PROMPT[form]

    @classmethod
    def load(cls, folder: str | Path, base: str | None = None) -> Prompter:
        """Load a trained prompter: on a CPU of the same kind, it gives what it gave in its run.

        folder: what `Cell.train` keeps or `save` has written, at any place; or its id on the Hub.
        base: where the base model is now, a Hub id or a folder; by default where it was then.

        Raises ModelError if the folder holds no prompter, or if the base model is unavailable or
        another than the one it was trained on.
        """
        folder, policy, facts = prompter_folder.read(folder, base)
        prompter = cls(policy, facts.form, facts.meta_prompt)
        prompter.folder = folder
        return prompter

    def messages(self, prompts: Sequence[str]) -> list[Messages]:
        """What the prompter is asked for each x: the meta-prompt, then x as the user's message.

        Where the chat template has no system role, as Gemma's, the user's message begins with the
        meta-prompt.
        """
        if not self._has_system_role:
            return [[{"role": "user", "content": f"{self.meta_prompt}\n\n{x}"}] for x in prompts]
        ask = {"role": "system", "content": self.meta_prompt}
        return [[ask, {"role": "user", "content": str(x)}] for x in prompts]

    @cached_property
    def _has_system_role(self) -> bool:
        meta = {"role": "system", "content": self.meta_prompt}
        chat = [meta, {"role": "user", "content": "x"}]
        try:  # some templates raise, others drop the message
            return self.meta_prompt in self.policy.chat.render(chat, reply=False)
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

    def rewrite(self, prompts: Sequence[str], seed: int | None = None) -> list[str]:
        """One rewrite x' for each prompt x: the greedy one, or with a `seed` one drawn from ρ."""
        if isinstance(prompts, str):
            raise TypeError("rewrite takes a list of prompts: put the single one in a list")
        if seed is not None:
            return self(prompts, seed)
        policy = copy.copy(self.policy)
        policy.sampling = dataclasses.replace(policy.sampling, temperature=0.0)
        return self.rewritten(prompts, policy.generate(self.messages(prompts), seed=0))

    def save(self, folder: str | Path) -> None:
        """Copy a trained prompter, with its cards, to `folder`, which must not exist yet."""
        shutil.copytree(prompter_folder.kept(self.folder), folder)

    def push_to_hub(self, repository: str, private: bool = True) -> str:
        """Upload a trained prompter, with its cards, to the Hub. Returns the commit's address.

        `repository` is OWNER/NAME. If it is new, `private` hides it from others. Log in before, by
        `hf auth login`.
        """
        return prompter_folder.push(prompter_folder.kept(self.folder), repository, private)
