"""A trained prompter in a folder: one adapter on its base model, with all that it needs.

The folder holds the adapter (adapter_config.json, adapter_model.safetensors), the tokenizer with
its chat template, `prompter.json` (:class:`Facts`), and the run's `card.json` and README.md. None
of it is executable. Its layout is that of the Hub, so `peft` loads it too.

What is exact. Training merges the warm start into the base weights and learns a second adapter on
top. The folder holds the sum of both as one adapter. In float32 the kept prompter and the one in
training differ by the rounding of sums. Where the base weights are in bfloat16, the merged ones
were rounded once more than the kept ones are. So that all numbers are about one prompter, the kept
one *is* the trained prompter: `Cell.train` loads it from its folder, and evaluates that.

The tokens also depend on the number formats of the products (`fast.linears`). `read` chooses them
as training did: on a CPU of the same kind they are the same. `peft` alone multiplies in the base
model's own format. It gives the same tokens where that is what `read` chooses, as in float32.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, snapshot_download
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from transformers import AutoTokenizer
from transformers.utils import cached_file

from alignpro import models
from alignpro.config import CHECKED, Count, ModelSpec, SamplingConfig
from alignpro.fast import linears
from alignpro.fast.adapter import load_adapter, save_folded
from alignpro.generation import Policy
from alignpro.runs import atomic_write, write_json
from alignpro.sources.files import check_seal, seal
from alignpro.sources.weights import ModelError, weights_hash

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, config=CHECKED)
class Facts:
    """What `prompter.json` holds: all that a trained prompter needs beside its adapter.

    `sampling` is that of training, which is of ρ itself. `base_sha256` is the hash of the base
    model's weights. `batch_size` and `lora_layers` decide how its products are computed.
    """

    form: Literal["suffix", "rewrite"]
    meta_prompt: str
    sampling: SamplingConfig
    batch_size: Count | None
    base_model: ModelSpec
    base_sha256: str
    lora_layers: Count


FACTS = TypeAdapter(Facts)


def write(
    folder: Path,
    policy: Policy,
    form: str,
    meta_prompt: str,
    base: ModelSpec,
    lora_layers: int,
    start: Path | None,
) -> None:
    """Write a prompter to the new `folder`, in safetensors and JSON.

    base: the model that the policy's adapter is trained on, as the preset gives it.
    lora_layers: how many of its last layers have the adapter.
    start: the folder of the warm start that was merged into the base, or None.
    """
    place = _base_folder(base)
    if not Path(models.location(base)).is_dir():  # the Hub's cache names the folder by its commit
        base = dataclasses.replace(base, revision=place.name)
    sampling, batch_size = policy.sampling, policy.batch_size
    facts = Facts(form, meta_prompt, sampling, batch_size, base, weights_hash(place), lora_layers)
    with atomic_write(folder) as partial:
        save_folded(policy.model, partial, base.source, base.revision, start)
        policy.tokenizer.save_pretrained(partial, save_jinja_files=False)
        write_json(partial / "prompter.json", FACTS.dump_python(facts, mode="json"))
        seal(partial)


def read(folder: str | Path, base: str | None) -> tuple[Path, Policy, Facts]:
    """Load a prompter: its folder on this disk, its policy, and its facts.

    The arguments and errors are those of `Prompter.load`.
    """
    folder = _downloaded(folder)
    try:
        facts = FACTS.validate_json((folder / "prompter.json").read_bytes())
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ModelError(f"{folder} holds no trained prompter: prompter.json: {why}") from None
    check_seal(folder)
    spec, trained_on = facts.base_model, facts.base_model.source
    if base is not None:
        spec = dataclasses.replace(spec, source=base)
    try:
        model, _ = models.load(spec)
    except ModelError as error:
        needs = f"the prompter in {folder} needs its base model {trained_on!r}"
        raise ModelError(f"{needs}: pass its place as `base`. {error}") from error
    if weights_hash(_base_folder(spec)) != facts.base_sha256:
        raise ModelError(
            f"{spec.source!r} is not the model that the prompter in {folder} was trained on, "
            f"{trained_on!r}: its weights have another SHA-256 than prompter.json names. On other "
            "weights, the adapter would write something else: pass the place of the right model as "
            "`base`"
        )
    model = linears.to_fast(model, spec, facts.lora_layers)
    model = linears.to_bf16(load_adapter(model, folder), spec).requires_grad_(False)
    tokenizer = models.pretrained(AutoTokenizer, ModelSpec(str(folder)))
    return folder, Policy(model, tokenizer, facts.sampling, facts.batch_size), facts


def kept(folder: Path | None) -> Path:
    """Return `folder`. Raises ValueError for None, which stands for a prompter in memory alone."""
    if folder is None:
        raise ValueError(
            "this prompter has no folder to copy: get one from `Cell.train` or `Prompter.load`"
        )
    return folder


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload the folder of a prompter to the Hub. Returns the commit's address."""
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    what = {"folder_path": folder, "commit_message": "Upload a prompter"}
    return api.upload_folder(repo_id=repository, **what).commit_url


def _downloaded(folder: str | Path) -> Path:
    """The folder itself, or the folder of a repository of the Hub of this name."""
    if Path(folder).is_dir() or not HUB_ID.fullmatch(str(folder)):
        return Path(folder)
    try:
        return Path(snapshot_download(str(folder)))
    except OSError as error:
        why = str(error).partition("\n")[0]
        raise ModelError(f"{folder} is no folder, nor available on the Hub: {why}") from error


def _base_folder(spec: ModelSpec) -> Path:
    """The folder of a model that has been loaded: its own, or its commit's in the Hub's cache."""
    folder = Path(models.location(spec))
    if folder.is_dir():
        return folder
    return Path(cached_file(spec.source, "config.json", revision=spec.revision)).parent
