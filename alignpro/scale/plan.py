"""A plan of a preset on a GPU: memory by stage, FLOPs, and a lower bound on the time.

The plan loads model configs and nothing else. Every figure is computed; `step_costs` explains how,
and the book's chapter on scale lists what the figures were checked against.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification

from alignpro.config import (
    ModelSpec,
    PPOConfig,
    Preset,
    PrompterConfig,
    SamplingConfig,
    distinct_pairs,
)
from alignpro.scale.step_costs import (
    Lengths,
    Stage,
    architecture,
    cache_bytes,
    generation,
    parameters,
    reference,
    scoring,
    trained_bytes,
    update,
    weight_bytes,
    without_weights,
)
from alignpro.sources.reward_model import RewardModel
from alignpro.texts import META_PROMPT

# Memory that PyTorch takes on a GPU beside its tensors: the CUDA context, workspaces of the
# libraries, gaps between blocks. An allowance, neither computed nor measured.
OVERHEAD = 3e9
PARTS = ("weights", "adapter", "optimizer", "gradients", "cache", "logits", "activations")
PROMPT_TOKENS = 256


@dataclass(frozen=True)
class GPU:
    """A GPU: `memory` in bytes, `flops` in FLOP/s, `bandwidth` in bytes/s.

    The defaults are the vendor's published figures for the H100 SXM: 80 GB, 989 TFLOP/s (bf16,
    dense), 3.35 TB/s.
    """

    memory: float = 80e9
    flops: float = 989e12
    bandwidth: float = 3.35e12

    def seconds(self, stage: Stage) -> float:
        """A lower bound on the time of `stage`, since no code reaches both published peaks."""
        return sum(max(f / self.flops, read / self.bandwidth) for f, read in stage.work)


@dataclass(frozen=True)
class ModelSize:
    """A model's number of parameters, and the bytes that it occupies while it is loaded.

    `weights` are its own; `cache_per_token` is what one token of one row adds to the key-value
    cache; `trained` is the adapter and the value head, 0 for a model that is not trained.
    """

    parameters: int
    weights: int
    cache_per_token: int = 0
    trained: int = 0


@dataclass(frozen=True)
class _Shared:
    """Settings that all stages of a preset share."""

    precision: torch.dtype
    batch: int  # rows generated together
    count: int  # completions of one PPO step


@cache
def _model(spec: ModelSpec, precision: torch.dtype, lora: PrompterConfig | None = None):
    return without_weights(architecture(spec), precision, lora)


# Each stage has its own cache, so a changed preset computes only the stages that it changes.
@cache
def _held(spec: ModelSpec, precision: torch.dtype, lora: PrompterConfig | None = None) -> ModelSize:
    model = _model(spec, precision, lora)
    trained = trained_bytes(model) if lora else 0
    return ModelSize(parameters(model), weight_bytes(model), cache_bytes(model), trained)


@cache
def _generation(
    name: str,
    spec: ModelSpec,
    sampling: SamplingConfig,
    lengths: Lengths,
    shared: _Shared,
    lora: PrompterConfig | None = None,
) -> Stage:
    model = _model(spec, shared.precision, lora)
    return generation(name, model, sampling, lengths, shared.batch, shared.count)


@cache
def _reference(spec: ModelSpec, lora: PrompterConfig, lengths: Lengths, shared: _Shared) -> Stage:
    return reference(_model(spec, shared.precision, lora), lengths, shared.count)


@cache
def _update(
    spec: ModelSpec,
    lora: PrompterConfig,
    lengths: Lengths,
    ppo: PPOConfig,
    precision: torch.dtype,
) -> Stage:
    return update(_model(spec, precision, lora), lengths, ppo)


@cache
def _reward(spec: ModelSpec, tokens: int, shared: _Shared) -> tuple[ModelSize, Stage]:
    """The reward model `spec`, a sequence classifier with one output, and its stage."""
    config = architecture(spec)
    config.num_labels = 1
    model = without_weights(config, shared.precision, auto=AutoModelForSequenceClassification)
    rows = RewardModel(spec).batch_size
    stage = scoring("reward", model, tokens, rows, shared.count)
    return ModelSize(parameters(model), weight_bytes(model)), stage


class Plan:
    """The memory and time of a preset on a GPU.

    `preset`: what to plan. Rewrites and answers have the full length that it allows.
    `gpu`: by default one H100.
    `prompt_tokens`: tokens of a user's prompt with its chat template, by default 256.
    `precision`: number format of all weights except the adapter's, by default bfloat16.
    `remote_frozen`: the frozen LLM runs on another machine. It then costs nothing here, and there
    is no oracle, because there are no weights to train.

    `pairs` holds the preset's architectures; those that name the same two models appear once. A
    reward without a model runs on the CPU and is left out. Without `generation_batch` the plan
    assumes that a whole batch of PPO is sampled at once, although a run takes only what fits.
    Raises PlanError for a model whose config is unavailable.
    """

    def __init__(
        self,
        preset: Preset,
        gpu: GPU | None = None,
        prompt_tokens: int = PROMPT_TOKENS,
        precision: torch.dtype = torch.bfloat16,
        remote_frozen: bool = False,
    ):
        self.preset, self.gpu, self.prompt = preset, gpu or GPU(), prompt_tokens
        count = preset.ppo.batch_size
        self.shared = _Shared(precision, preset.generation_batch or count, count)
        self.remote = remote_frozen
        self.pairs = list(dict.fromkeys(distinct_pairs(preset).values()))

    def here(self, role: str) -> bool:
        """Whether the frozen LLM in `role` is loaded on this GPU."""
        return not (self.remote or self.preset.models[role].endpoint)

    def _local(self) -> list[str]:
        roles = dict.fromkeys(frozen for _, frozen in self.pairs)
        return [role for role in roles if self.here(role)]

    def prompter(self, role: str) -> tuple[ModelSize, list[Stage]]:
        """The prompter in `role`, and the stages in which PPO trains it."""
        prompter = self.preset.prompter
        lengths = Lengths(meta_tokens(prompter.form), self.prompt, prompter.max_new_tokens)
        return self._policy(role, lengths)

    def oracle(self, role: str) -> tuple[ModelSize, list[Stage]]:
        """The frozen LLM in `role`, and the stages in which PPO trains it as the oracle."""
        return self._policy(role, Lengths(0, self.prompt, self.preset.frozen.max_new_tokens))

    def _policy(self, role: str, lengths: Lengths) -> tuple[ModelSize, list[Stage]]:
        preset, shared = self.preset, self.shared
        spec, lora = preset.models[role], preset.prompter
        sampling = SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=lengths.new)
        return _held(spec, shared.precision, lora), [
            _generation("rollout", spec, sampling, lengths, shared, lora),
            _reference(spec, lora, lengths, shared),
            _update(spec, lora, lengths, preset.ppo, shared.precision),
        ]

    def frozen(self, role: str) -> tuple[ModelSize, Stage]:
        """The frozen LLM in `role`, and the stage in which it answers rewrites."""
        return self._asked(role, self._rewritten())

    def _rewritten(self) -> int:
        """Tokens of the text that the frozen LLM is asked in place of a prompt."""
        rewrite = self.preset.prompter.max_new_tokens
        return rewrite if self.preset.prompter.form == "rewrite" else self.prompt + rewrite

    def _asked(self, role: str, own: int) -> tuple[ModelSize, Stage]:
        lengths = Lengths(0, own, self.preset.frozen.max_new_tokens)
        spec, precision = self.preset.models[role], self.shared.precision
        answer = _generation("frozen", spec, self.preset.frozen, lengths, self.shared)
        return _held(spec, precision), answer

    def reward(self) -> tuple[list[ModelSize], list[Stage]]:
        """The reward model and its stage; two empty lists if the preset names no reward model."""
        role = self.preset.reward
        if role is None:
            return [], []
        tokens = self.prompt + self.preset.frozen.max_new_tokens
        held, stage = _reward(self.preset.models[role], tokens, self.shared)
        return [held], [stage]

    def models(self) -> pd.DataFrame:
        """One row per role: its model, parameters, and bytes of weights, cache and checkpoint."""
        held = {p: self.prompter(p)[0] for p, _ in self.pairs}
        held |= {f: self.frozen(f)[0] for f in self._local()}
        if self.reward()[0]:
            held[self.preset.reward] = self.reward()[0][0]
        rows = {
            role: {
                "model": self.preset.models[role].source,
                "parameters": h.parameters,
                "weights": h.weights,
                "cache a token": h.cache_per_token,
                "trained": h.trained // 4,
                "checkpoint": 3 * h.trained,
            }
            for role, h in held.items()
        }
        return pd.DataFrame(rows).T.rename_axis("role").infer_objects()

    def stages(self) -> pd.DataFrame:
        """One row per stage of each architecture and each oracle.

        Columns: bytes by part and in `total`, `flops` of one PPO step, and `seconds`, a lower bound
        on its time. The parts of a stage need not peak together, so `total` is an upper bound.
        """
        tables = [self._aligned(*pair) for pair in self.pairs]
        tables += [self._oracle(f) for f in self._local()]
        return pd.concat(tables, ignore_index=True)

    def _aligned(self, prompter: str, frozen: str) -> pd.DataFrame:
        held, (rollout, *train) = self.prompter(prompter)
        rewards, scores = self.reward()
        others, answers, baselines = rewards, [], []
        if self.here(frozen):
            black_box, answer = self.frozen(frozen)
            others, answers = [*rewards, black_box], [answer]
            # Evaluation also asks it the prompts themselves, which may be longer than rewrites.
            baselines = [self._asked(frozen, max(self.prompt, self._rewritten()))[1]]
        stages = [rollout, *answers, *scores, *train]
        asked = [rollout, *baselines, *scores]
        return self._table(f"{prompter}-{frozen}", "Align-Pro", held, others, stages, asked)

    def _oracle(self, frozen: str) -> pd.DataFrame:
        held, (rollout, *train) = self.oracle(frozen)
        rewards, scores = self.reward()
        stages = [rollout, *scores, *train]
        asked = [self._asked(frozen, self.prompt)[1], *scores]
        return self._table(frozen, "RLHF", held, rewards, stages, asked)

    def _table(self, name, configuration, held, others, stages, asked) -> pd.DataFrame:
        weights = held.weights + sum(o.weights for o in others)
        rows = [
            {
                "stage": stage.name,
                "weights": weights,
                "adapter": held.trained,
                "optimizer": 2 * held.trained,
                **_transient(stage),
                "flops": sum(f for f, _ in stage.work),
                "seconds": self.gpu.seconds(stage),
            }
            for stage in stages
        ]
        # Align-Pro's evaluation holds the untrained prompter beside the trained one.
        prompters = 2 if configuration == "Align-Pro" else 1
        largest = max(asked, key=lambda stage: sum(_transient(stage).values()))
        rows.append(
            {
                "stage": "evaluation",
                "weights": weights + (prompters - 1) * held.weights,
                "adapter": prompters * held.trained,
                "optimizer": 0,
                **_transient(largest),
            }
        )
        table = pd.DataFrame(rows)
        table.insert(0, "architecture", name)
        table.insert(1, "configuration", configuration)
        table["total"] = table[list(PARTS)].sum(axis=1)
        return table

    def summary(self) -> pd.DataFrame:
        """One row per architecture and oracle: whether it fits, and the least time it takes.

        `peak` is in bytes and includes OVERHEAD. `hours` is the time of all the preset's PPO steps
        on one dataset with one seed, without evaluation.
        """
        rows = []
        steps = {"Align-Pro": self.preset.ppo.steps, "RLHF": self.preset.rlhf.steps}
        keys = ["architecture", "configuration"]
        for (name, configuration), part in self.stages().groupby(keys, sort=False):
            top = part.loc[part["total"].idxmax()]
            rows.append(
                {
                    "architecture": name,
                    "configuration": configuration,
                    "peak": top["total"] + OVERHEAD,
                    "at stage": top["stage"],
                    "fits": bool(top["total"] + OVERHEAD <= self.gpu.memory),
                    "flops a step": part["flops"].sum(),
                    "seconds a step": part["seconds"].sum(),
                    "hours": part["seconds"].sum() * steps[configuration] / 3600,
                }
            )
        return pd.DataFrame(rows)

    def report(self) -> str:
        """The tables of models, stages and peaks as text, in GB (10⁹ bytes)."""
        gpu, preset, summary = self.gpu, self.preset, self.summary()
        hours = summary["hours"].sum() * len(preset.datasets) * len(preset.seeds)
        return "\n".join(
            [
                f"Plan of preset {preset.name!r}, computed from the models' configs, not measured.",
                f"GPU: {gpu.memory / 1e9:g} GB, {gpu.flops / 1e12:g} TFLOP/s, "
                f"{gpu.bandwidth / 1e9:g} GB/s at its published peaks. "
                f"Tokens: prompt {self.prompt}, rewrite {preset.prompter.max_new_tokens}, "
                f"answer {preset.frozen.max_new_tokens}.",
                *(
                    f"{'-'.join(pair)} has the same models as {'-'.join(same)} and is not repeated."
                    for pair, same in distinct_pairs(preset).items()
                    if pair != same
                ),
                "",
                in_gb(self.models(), ["weights", "checkpoint"]).to_string(),
                "",
                "GB by stage (a stage's seconds are a lower bound, its total an upper one):",
                in_gb(self.stages(), [*PARTS, "total"]).to_string(index=False, na_rep=""),
                "",
                f"Peaks with {OVERHEAD / 1e9:g} GB allowed for CUDA and fragmentation:",
                in_gb(summary, ["peak"]).to_string(index=False),
                "",
                f"The whole preset ({_counted(len(preset.datasets), 'dataset')} with "
                f"{_counted(len(preset.seeds), 'seed')}): at least {_duration(hours)} of PPO "
                "steps, without evaluation.",
            ]
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.1f} seconds"


def meta_tokens(form: str) -> int:
    """Tokens of the meta-prompt of `form`, at 4/3 tokens per word."""
    return len(META_PROMPT[form].split()) * 4 // 3


def _transient(stage: Stage) -> dict[str, int]:
    return {part: getattr(stage, part) for part in ("gradients", "cache", "logits", "activations")}


def in_gb(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """`table` for display: `columns` in GB, FLOPs in TFLOP, seconds and hours rounded."""
    out = table.copy()
    out[columns] = (out[columns].astype(float) / 1e9).round(2)
    for name in [c for c in out if "flops" in c]:
        out[name] = (out[name].astype(float) / 1e12).round(1)
    out = out.rename(columns={c: c.replace("flops", "TFLOP") for c in out})
    for name in [c for c in out if "seconds" in c or c == "hours"]:
        out[name] = out[name].astype(float).round(3)
    return out
