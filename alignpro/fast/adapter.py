"""LoRA adapters: a fresh one, a kept one merged, and one that is centred to learn in fewer steps.

A LoRA adapter adds B A h to what a linear map makes of its input h. At the last token of a chat
prompt h is nearly the same for all prompts, and its common part moves the policy the same way for
all of them: centring takes it out. `queries` are token ids of prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from alignpro.config import PrompterConfig

Queries = Sequence[Sequence[int]]


def add_lora(model: torch.nn.Module, config: PrompterConfig, seed: int) -> PeftModel:
    """`model` with a fresh LoRA adapter (float32) on every linear map of its last layers.

    `seed` draws A. B starts at zero, so that the policy starts as its reference.
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
    # PEFT makes a set of them, which every process would write in an order of its own.
    adapted.peft_config["default"].target_modules = sorted(linear)
    return adapted.eval()


def merge_adapter(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """`model` with the adapter in `folder` merged into its weights."""
    return PeftModel.from_pretrained(model, folder).merge_and_unload().requires_grad_(False).eval()


def save_folded(
    model: PeftModel, folder: Path, base: str, revision: str | None, start: Path | None
) -> None:
    """Save in `folder` one adapter that does to the base model what `model` does to it.

    base, revision: the base model's name and commit, for adapter_config.json.
    start: the folder of the adapter that was merged into the base before `model` got its own, or
        None. It must be on the same maps.

    The two sum to one adapter whose rank is the sum of theirs:
    s₀ B₀ A₀ + s B A = s [s₀/s B₀, B] [A₀; A]. The sum is exact: no product is rounded here, as it
    is when an adapter is merged into the weights.
    """
    config = copy.copy(model.peft_config["default"])
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    if start is not None:
        first = LoraConfig.from_pretrained(start)
        scale = first.lora_alpha / first.r / (config.lora_alpha / config.r)
        before = load_file(start / "adapter_model.safetensors")
        for name, own in state.items():
            older = before[name].to(own)
            parts = [older, own] if "lora_A" in name else [scale * older, own]
            state[name] = torch.cat(parts, dim=0 if "lora_A" in name else 1)
        config.lora_alpha = config.lora_alpha / config.r * (config.r + first.r)
        config.r += first.r
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = True
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def load_adapter(model: torch.nn.Module, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder` beside its weights, which do not change."""
    # An adapter that can be trained stays in float32 when `to_bf16` rounds what cannot.
    return PeftModel.from_pretrained(model, folder, is_trainable=True).eval()


@torch.no_grad()
def adapter_inputs(model: torch.nn.Module, queries: Queries) -> dict[torch.nn.Module, torch.Tensor]:
    """What each adapted map reads at the last token of N queries: [N, width] by LoRA layer."""
    seen: dict = {m: [] for m in model.modules() if hasattr(m, "lora_A")}
    hooks = [
        module.register_forward_pre_hook(lambda module, args: seen[module].append(args[0][0, -1]))
        for module in seen
    ]
    for query in queries:
        model(torch.tensor([list(query)], device=model.device), logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    return {module: torch.stack(states) for module, states in seen.items()}


@torch.no_grad()
def centre_adapter(model: torch.nn.Module, queries: Queries) -> None:
    """Point the fresh adapter of `model` at what tells `queries` apart, in place.

    The rows of A become the first principal directions of h over the last tokens of the queries,
    made orthogonal to their mean and about as long as a random start makes them. (The directions
    alone are those of EVA, arXiv 2410.07170.) B stays zero, so that the policy stays at its
    reference. There must be more queries than rows of A.
    """
    for module, states in adapter_inputs(model, queries).items():
        states, weight = states.double(), module.lora_A["default"].weight
        mean = states.mean(0)
        directions = torch.linalg.svd(states - mean, full_matrices=False).Vh[: len(weight)]
        unit = mean / mean.norm()
        rows = directions - (directions @ unit)[:, None] * unit
        weight.copy_(rows * weight.norm(dim=-1).mean())


@torch.no_grad()
def adapter_similarity(model: torch.nn.Module, queries: Queries) -> torch.Tensor:
    """How alike N queries look to the adapter of `model`: [N, N], each in [−1, 1].

    This is the cosine of A h at their last tokens, averaged over the adapted maps. While B is zero,
    the gradient of a log-probability is a product of A h and what comes down from the logits, so
    that a step for one prompt moves another the more, the more alike the two look.
    """
    views = [
        torch.nn.functional.normalize(states.float() @ module.lora_A["default"].weight.T.float())
        for module, states in adapter_inputs(model, queries).items()
    ]
    return torch.stack([view @ view.T for view in views]).mean(0).cpu()
