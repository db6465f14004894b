"""The prompter ρ(x'|x): the meta-prompt, the rewriting x → x', and its LoRA adapter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel, get_peft_model

from alignpro.config import PrompterConfig
from alignpro.generation import Policy
from alignpro.texts import META_PROMPT


class Prompter:
    """Rewrites prompts with a policy. The suffix form keeps x and adds an instruction to it."""

    def __init__(self, policy: Policy, form: str):
        self.policy, self.form = policy, form

    def messages(self, prompts: Sequence[str]) -> list[list[dict]]:
        """What the prompter is asked: the meta-prompt, then each x as the user's message.

        Where its chat template has no system role, as Gemma's, the user's message opens with the
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
        """x' from the prompter's outputs, white space folded; an empty output leaves x as is."""
        folded = [re.sub(r"\s+", " ", o).strip() for o in outputs]
        if self.form == "suffix":
            return [f"{x} {s}" if s else str(x) for x, s in zip(prompts, folded, strict=True)]
        return [new or str(x) for x, new in zip(prompts, folded, strict=True)]

    def propose(self, prompts: Sequence[str], seed: int, progress: str | None = None):
        """The prompter's outputs themselves, one a prompt, drawn from ρ(·|x)."""
        return self.policy.generate(self.messages(prompts), seed, progress)

    def __call__(self, prompts: Sequence[str], seed: int, progress: str | None = None) -> list[str]:
        """One rewrite x' ~ ρ(·|x) for each prompt x."""
        return self.rewritten(prompts, self.propose(prompts, seed, progress))


def add_lora(model: torch.nn.Module, config: PrompterConfig, seed: int) -> PeftModel:
    """`model` with a fresh LoRA adapter (in fp32) on every linear map of its last layers.

    The adapter starts at zero, so that the policy starts as its reference.
    """
    layers = model.config.num_hidden_layers
    first = max(0, layers - config.lora_layers)
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=config.lora_rank,
                lora_alpha=2 * config.lora_rank,
                target_modules=sorted(linear),
                layers_to_transform=list(range(first, layers)),
                layers_pattern="layers",
                task_type="CAUSAL_LM",
            ),
        )
    return adapted.eval()


@torch.no_grad()
def adapter_inputs(policy: Policy, queries: Sequence[Sequence[int]]) -> dict:
    """What each adapted map of `policy` reads at the last token of `queries` (token ids).

    Returns, by the LoRA layer, a tensor [queries, width].
    """
    seen: dict = {m: [] for m in policy.model.modules() if hasattr(m, "lora_A")}
    hooks = [
        module.register_forward_pre_hook(lambda module, args: seen[module].append(args[0][0, -1]))
        for module in seen
    ]
    for query in queries:
        policy.model(torch.tensor([list(query)], device=policy.model.device), logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    return {module: torch.stack(states) for module, states in seen.items()}


@torch.no_grad()
def centre_adapter(policy: Policy, queries: Sequence[Sequence[int]]) -> None:
    """Point the fresh adapter of `policy` at what tells `queries` (token ids) apart, in place.

    A LoRA adapter adds B A h. What A h has in common for all prompts moves the policy the same way
    for all of them, and at the last token of a chat prompt that is nearly everything. So the rows
    of A become the first principal directions of h over the queries' last tokens, made orthogonal
    to their mean, about as long as a random start makes them. (The directions alone are those of
    EVA, arXiv 2410.07170.) B stays zero, and with it the policy its reference. There must be more
    queries than rows.
    """
    for module, states in adapter_inputs(policy, queries).items():
        states, weight = states.double(), module.lora_A["default"].weight
        mean = states.mean(0)
        directions = torch.linalg.svd(states - mean, full_matrices=False).Vh[: len(weight)]
        unit = mean / mean.norm()
        rows = directions - (directions @ unit)[:, None] * unit
        weight.copy_(rows * weight.norm(dim=-1).mean())


@torch.no_grad()
def adapter_similarity(policy: Policy, queries: Sequence[Sequence[int]]) -> torch.Tensor:
    """How alike `queries` (token ids) look to the adapter of `policy`: [N, N], each in [−1, 1].

    The cosine of A h at their last tokens, averaged over the adapted maps: while B is zero, the
    gradient of any log-probability is a product of A h and what comes down from the logits, so
    that a step for one prompt moves another the more, the more alike the two look.
    """
    views = [
        torch.nn.functional.normalize(states.float() @ module.lora_A["default"].weight.T.float())
        for module, states in adapter_inputs(policy, queries).items()
    ]
    return torch.stack([view @ view.T for view in views]).mean(0).cpu()


def merge_adapter(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """`model` with the adapter in `folder` merged into its weights."""
    return PeftModel.from_pretrained(model, folder).merge_and_unload().requires_grad_(False).eval()


def save_prompter(prompter: Prompter, folder: Path) -> None:
    """Save the adapter (safetensors) and the tokenizer; the base model is not copied."""
    prompter.policy.model.save_pretrained(folder, safe_serialization=True)
    prompter.policy.tokenizer.save_pretrained(folder)
