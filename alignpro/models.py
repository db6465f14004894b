"""Loads prompters, frozen LLMs and reward models, and never runs code that comes with one."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from alignpro.config import ModelSpec
from alignpro.devices import device, dtype
from alignpro.fast.linears import copy_head_input
from alignpro.sources import gemma
from alignpro.sources.chat import settle_template
from alignpro.sources.files import check_seal, file_hash
from alignpro.sources.weights import (
    SMOLLM2,
    ModelError,
    files_that_count,
    random_model,
    smollm2_folder,
    tiny_folder,
)

# A progress bar belongs in a terminal, not on a page of the book.
if not sys.stderr.isatty():
    transformers_logging.disable_progress_bar()


def load(
    spec: ModelSpec, auto: type = AutoModelForCausalLM, precision: torch.dtype | None = None
) -> tuple[torch.nn.Module, Any]:
    """Load a model and its tokenizer.

    spec: where the weights come from.
    auto: the `transformers` class that builds the model; by default a causal language model.
    precision: the type of its weights; by default `devices.dtype()`.

    Returns (model, tokenizer). The model is in evaluation mode, without gradients, on this
    process's device. Raises ModelError if the source is unavailable, with the ways to get it, or if
    it is a checkpoint of another kind of model.
    """
    check_seal(Path(location(spec)))
    random, precision = spec.source.startswith("random:"), precision or dtype()
    # AutoTokenizer reads any tokenizer of a Qwen2 as Qwen2's own.
    tokenizer = pretrained(PreTrainedTokenizerFast if random else AutoTokenizer, spec)
    if random:
        model = random_model(pretrained(AutoConfig, spec), auto, precision, device())
    else:
        model, report = pretrained(auto, spec, dtype=precision, output_loading_info=True)
        if missing := sorted(report["missing_keys"]):
            raise ModelError(
                f"{spec.source!r} is not a checkpoint of a {type(model).__name__}: it lacks "
                f"{', '.join(missing[:3])}, which would start at random. Check `source` of this "
                "role in the preset"
            )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    settle_template(tokenizer, spec)
    copy_head_input(model)
    return model.requires_grad_(False).eval().to(device()), tokenizer


def pretrained(auto: Any, spec: ModelSpec, **options: Any) -> Any:
    """Return `auto.from_pretrained` of the source and revision of `spec`, with `options`.

    Code that comes with a checkpoint is never run. Raises ModelError if the source is unavailable,
    is an adapter, or cannot be loaded without such code; the message says what to do.
    """
    adapter = auto is not AutoTokenizer and (Path(location(spec)) / "adapter_config.json").exists()
    try:
        loaded = adapter or auto.from_pretrained(
            location(spec), revision=spec.revision, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        raise _explained(spec, error) from error
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    if adapter or getattr(model, "_hf_peft_config_loaded", False):  # one of the Hub has a base
        raise ModelError(
            f"{spec.source!r} is an adapter, not a model. `Prompter.load` loads trained prompters. "
            "To train on top of one, merge it into its base model first (peft: `merge_and_unload`)"
        )
    return loaded


def _explained(spec: ModelSpec, error: Exception) -> ModelError:
    if isinstance(error.__cause__, GatedRepoError):
        return ModelError(
            f"{spec.source!r} is gated: accept its licence on https://huggingface.co/{spec.source} "
            "with your account, wait until access is granted, and log in on this machine with "
            "`hf auth login`"
        )
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{spec.source!r} needs code that comes with its checkpoint, and such code is never "
            "run here. Choose a model that `transformers` implements itself"
        )
    return ModelError(
        f"cannot load {spec.source!r}. Either download it where there is a network (`hf download "
        f"{spec.source}`, after accepting its licence on the Hub if it is gated), or set `source` "
        f"in the preset to a directory that holds it. The loader reported: "
        f"{str(error).splitlines()[0]}"
    )


def identity(spec: ModelSpec) -> str:
    """Return a short name that tells checkpoints apart.

    For a model of the Hub, it is the source and its commit; for a directory, the directory's name
    and a hash of its `weights.files_that_count`. Raises ModelError if the source is unavailable.
    """
    folder = Path(location(spec))
    if not folder.is_dir():
        try:  # the cache keeps each commit in a folder of that name
            config = cached_file(spec.source, "config.json", revision=spec.revision)
        except OSError as error:
            raise _explained(spec, error) from error
        return f"{spec.source}@{Path(config).parent.name}"
    found = hashlib.sha256()
    for path in files_that_count(folder):
        found.update(f"{path.name} {file_hash(path)}".encode())
    return f"{folder.name}@{found.hexdigest()[:10]}"


def location(spec: ModelSpec) -> str:
    """Return the directory of a model, or its id on the Hub. Raises ModelError as `load` does."""
    packaged = {SMOLLM2: smollm2_folder, gemma.SOURCE: gemma.gemma_folder}
    if spec.source in packaged:
        return str(packaged[spec.source]())
    if spec.source.startswith("tiny:"):
        return str(tiny_folder(spec.source.removeprefix("tiny:")))
    return spec.source.removeprefix("random:")
