"""A rehearsal: every stage of a preset on this machine, with random weights, and measured.

:func:`rehearse` builds the preset's models from their configs and draws their weights on the
device, so nothing is downloaded. It then runs the code of `reproduce` itself: two PPO steps of each
prompter, with an interruption and a resumption between them, two of each oracle, and an evaluation
of both. The memory and time of each stage are put beside the plan's.

Prompts, rewrites and answers have their full length: random weights never end a text, so the times
are those of the longest case.
"""

from __future__ import annotations

import gc
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from alignpro import devices, ppo
from alignpro.config import ConfigError, Preset, distinct_pairs
from alignpro.experiments import BEST_OF, Cell, preset_reward
from alignpro.fast.clock import StageClock
from alignpro.runs import RESULTS, Run, provenance, stage_seed, write_json
from alignpro.scale.memory_meter import MemoryMeter
from alignpro.scale.plan import GPU, PROMPT_TOKENS, Plan
from alignpro.scale.random_models import random_texts, shrunk, times, with_random_models
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU, Prompt

FOLDER = RESULTS / "rehearsal"
STEPS = 2  # one before the interruption, one after it


class Interrupted(Exception):
    """Raised in place of a killed process."""


class RehearsedCell(Cell):
    """A cell of `reproduce` that asks synthetic prompts and measures the memory of its stages.

    `prompt_tokens`: tokens of each prompt. `meter`: what measures. `interrupted`: whether training
    stops after its first step, with :class:`Interrupted`. `lap` counts the memory since the last
    lap for a stage, or for `within` where that is set; `steps` are the PPO steps that were run.
    """

    within = ""

    def __init__(
        self,
        preset: Preset,
        dataset: str,
        seed: int,
        *,
        meter: MemoryMeter,
        prompt_tokens: int,
        interrupted: bool = False,
        **options,
    ):
        self.meter, self.prompt_tokens, self.steps = meter, prompt_tokens, []
        self.trainer = self._measured_trainer(interrupted)
        reward = self._measured_reward(preset_reward(preset))
        super().__init__(preset, dataset, seed, reward=reward, **options)

    def lap(self, stage: str) -> None:
        # The plan takes the log-probabilities of policy and reference for one stage.
        self.meter.lap(self.within or {"policy": "reference"}.get(stage, stage))

    def _measured_trainer(cell, interrupted: bool) -> type[ppo.Trainer]:
        class Clock(StageClock):
            def lap(self, name):
                super().lap(name)
                cell.lap(name)

        class Trainer(ppo.Trainer):
            clock = Clock

            def step(self, step):
                cell.lap("between steps")
                if interrupted and step == STEPS:
                    raise Interrupted
                cell.steps.append(step)
                return super().step(step)

        return Trainer

    def _measured_reward(self, reward: Callable) -> Callable:
        def measured(prompts, responses):
            self.lap("frozen")
            scores = reward(prompts, responses)
            self.lap("reward")
            return scores

        measured.name = reward.name
        return measured

    @property
    def kind(self) -> str | None:
        """A kind of question for all prompts, where the reward is the rubric, which needs one."""
        return None if self.preset.reward else "reason"

    def prompts(self, split: str) -> list[Prompt]:
        """Synthetic prompts in place of the dataset's."""
        count = getattr(self.preset.data, split)
        texts = random_texts(count, self.prompt_tokens, stage_seed("rehearsal", split))
        return [Prompt(text, self.dataset, split, self.kind) for text in texts]

    def suffix_table(self, progress: bool = True) -> pd.DataFrame:
        """No table: choosing a suffix is many batches of what evaluation measures anyway."""
        return pd.DataFrame({"configuration": ["(nothing)"], "kind": [self.kind], "reward": [0.0]})


def rehearse(
    preset: Preset,
    scale: float = 1.0,
    prompt_tokens: int = PROMPT_TOKENS,
    pairs: Sequence[tuple[str, str]] = (),
    gpu: GPU | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Run every stage of `preset` with random weights, and measure it.

    `preset`: what to rehearse; where its frozen LLM is an endpoint, the server has to run.
    `scale`: at 1, the default, everything has its full size. A smaller one multiplies the models'
    layers, widths and vocabularies, and the preset's rows, tokens and adapter rank, by √`scale`.
    `prompt_tokens`: tokens of a prompt at full size, by default 256.
    `pairs`: the architectures to run, by default all that differ in their models.
    `gpu`: the published peaks behind the plan's lower bound on times, by default an H100's.
    `say`: called with a line of text before each training starts.

    Returns plain values, which :func:`save` keeps and :func:`report` shows. Raises ConfigError for
    a pair or a scale that is out of range, and PlanError for a model whose config is unavailable.
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"the scale of a rehearsal must be above 0 and at most 1, got {scale:g}")
    known = distinct_pairs(preset)
    for pair in pairs:
        if pair not in known:
            names = ", ".join("-".join(p) for p in known)
            raise ConfigError(f"no pair {'-'.join(pair)} in preset {preset.name!r}: use {names}")
    distinct = dict.fromkeys(known[pair] for pair in pairs or known)
    started = time.perf_counter()
    full = shrunk(preset, scale) if scale < 1 else preset
    tokens, precision = times(prompt_tokens, scale), devices.dtype()
    with tempfile.TemporaryDirectory() as folder, MemoryMeter() as meter:
        root = Path(folder)
        full = with_random_models(full, scale, root / "models")
        short = shortened(full)
        plans = [_by_part(Plan(p, gpu, tokens, precision)) for p in (full, short)]
        parts, oracles = [], set()
        for pair in distinct:
            options = {"meter": meter, "prompt_tokens": tokens, "pair": pair, "root": root}
            say(f"{'-'.join(pair)}: {STEPS} PPO steps of {short.ppo.batch_size} completions")
            parts.append(_rehearse_prompter(short, options))
            if full.models[pair[1]].endpoint is None and pair[1] not in oracles:
                oracles.add(pair[1])
                say(f"{pair[1]}, the oracle: {STEPS} PPO steps")
                parts.append(_rehearse_oracle(short, options))
        overhead, memory = meter.overhead(), meter.total
    for part in parts:
        _beside_the_plan(part, full, short, *plans)
    return {
        **provenance(),
        "preset": preset.name,
        "scale": scale,
        "tokens": {
            "prompt": tokens,
            "rewrite": full.prompter.max_new_tokens,
            "answer": full.frozen.max_new_tokens,
        },
        "rows": short.ppo.batch_size,
        "batch_size": full.ppo.batch_size,
        "precision": str(precision).removeprefix("torch."),
        "memory": memory,
        "overhead": overhead,
        "whole_preset": not pairs,
        "cells": len(preset.datasets) * len(preset.seeds),
        "seconds": round(time.perf_counter() - started, 1),
        "parts": parts,
    }


def _by_part(plan: Plan) -> dict[tuple[str, str], pd.DataFrame]:
    """The stages of each architecture and oracle of `plan`."""
    parts = plan.stages().groupby(["architecture", "configuration"])
    return {name: part.set_index("stage") for name, part in parts}


def shortened(preset: Preset) -> Preset:
    """`preset` with two PPO steps of one generation batch and one epoch each, and little data.

    Every stage still runs at its full width; a step of `preset` only repeats it more often.
    """
    minibatch = preset.ppo.minibatch_size
    generated = preset.generation_batch or preset.ppo.batch_size
    batch = min(minibatch * math.ceil(generated / minibatch), preset.ppo.batch_size)
    train = max(batch, preset.prompter.lora_rank + 1)
    test = math.ceil(generated / preset.evaluation.samples)
    return replace(
        preset,
        ppo=replace(preset.ppo, steps=STEPS, batch_size=batch, epochs=1, checkpoint_every=1),
        rlhf=replace(preset.rlhf, steps=STEPS),
        data=replace(preset.data, train=train, validation=1, test=test),
    )


def _rehearse_prompter(preset: Preset, options: dict) -> dict:
    """Train a prompter, killed once and resumed, and evaluate it."""
    gc.collect()  # what was rehearsed before must not count
    cell = RehearsedCell(preset, preset.datasets[0], 0, interrupted=True, **options)
    try:
        cell.train(progress=False)
    except Interrupted:
        pass
    first = cell.steps
    del cell
    gc.collect()
    cell = RehearsedCell(preset, preset.datasets[0], 0, **options)
    # The weights are loaded first, so that their loading counts for no stage.
    cell.reward(cell.prompts("train")[:1], cell.frozen.generate(["t2"], seed=0))
    cell.lap("loading")
    cell.train(progress=False)
    if (first, cell.steps) != ([1], [2]):
        raise RuntimeError(f"the run was not resumed where it stopped: {first}, {cell.steps}")
    cell.lap("saving")
    cell.within = "evaluation"
    cell.evaluate(progress=False)
    return _measured(cell, cell.run, "Align-Pro", "-".join(cell.pair))


def _rehearse_oracle(preset: Preset, options: dict) -> dict:
    """Train an oracle and evaluate it."""
    gc.collect()
    cell = RehearsedCell(preset, preset.datasets[0], 0, **options)
    cell.lap("between")
    cell.train_oracle(progress=False)
    cell.lap("saving")
    cell.within = "evaluation"
    cell.evaluate_oracle(progress=False)
    return _measured(cell, cell.oracle_run, "RLHF", cell.pair[1])


def _measured(cell: RehearsedCell, run: Run, configuration: str, architecture: str) -> dict:
    """What the meter and the run's own files hold: peaks, seconds of the last step, checkpoint."""
    last = run.read("metrics.jsonl")[-1]
    spent = {name: last.get(f"time/{name}", 0.0) for name in ("rollout", "frozen", "reward")}
    spent["reference"] = last["time/policy"] + last["time/reference"]
    spent["update"] = last["time/update"]
    checkpoint = max((run.folder / "checkpoints").glob("step-*.safetensors"))
    part = {
        "architecture": architecture,
        "configuration": configuration,
        "peaks": cell.meter.peaks,
        "spent": spent,
        "checkpoint_bytes": checkpoint.stat().st_size,
    }
    cell.meter.peaks = {}
    return part


def _beside_the_plan(part: dict, full: Preset, short: Preset, planned: dict, small: dict) -> None:
    """Add to `part`, in place, its stages beside the plan's, and the times of a step and a cell.

    `planned` is the plan of `full`, and `small` that of `short`, which was measured.
    """
    where = part["architecture"], part["configuration"]
    peaks, spent, rows = part.pop("peaks"), part.pop("spent"), short.ppo.batch_size
    more = full.ppo.batch_size / rows
    step = {
        name: seconds * more * (full.ppo.epochs if name == "update" else 1)
        for name, seconds in spent.items()
    }
    part["stages"] = []
    for stage, plan in small[where].iterrows():
        whole, timed = planned[where].loc[stage], stage in spent
        part["stages"].append(
            {
                "stage": stage,
                "planned": int(plan["total"]),
                "measured": peaks[stage].allocated,
                "reserved": peaks[stage].reserved,
                "projected": peaks[stage].reserved + int(whole["total"] - plan["total"]),
                "seconds": round(spent[stage], 3) if timed else None,
                "step_seconds": round(step[stage], 3) if timed else None,
                "least_seconds": round(whole["seconds"], 3) if timed else None,
            }
        )
    part["checkpoint_planned"] = 3 * int(small[where]["adapter"].iloc[0])
    steps = full.ppo.steps if part["configuration"] == "Align-Pro" else full.rlhf.steps
    rewrites, answers = _asked(full, part["configuration"])
    evaluation = rewrites * spent["rollout"] + answers * (spent["frozen"] + spent["reward"])
    part["step_seconds"] = round(sum(step.values()), 1)
    part["evaluation_seconds"] = round(evaluation / rows, 1)
    part["hours"] = round((steps * part["step_seconds"] + part["evaluation_seconds"]) / 3600, 3)


def _asked(preset: Preset, configuration: str) -> tuple[int, int]:
    """Rewrites and answers that evaluating one cell of `preset` takes, best-of-n and all.

    The oracle's own answers count as rewrites: they are drawn like its rollouts.
    """
    test, samples = preset.data.test, preset.evaluation.samples
    few = preset.evaluation.validation_samples
    if configuration == "RLHF":
        return test * samples, 0
    suffixes = 1 + len(NEUTRAL_MENU) + len(BEST_SUFFIXES)
    rewriters = 4 if preset.reward else 5  # without a reward model, the suffix per kind as well
    rewrites = 2 * test * samples + sum(BEST_OF) * test * few
    answers = rewriters * test * samples + suffixes * preset.data.validation * few
    return rewrites, answers + sum(n + 1 for n in BEST_OF) * test * few


def save(result: dict, folder: Path = FOLDER) -> Path:
    """Keep `result` in `folder`, under the names of its device and preset; returns the file."""
    hardware = result["hardware"]
    size = "" if result["scale"] == 1 else f" {result['scale']:g}"
    name = f"{hardware['gpu'] or hardware['cpu']} {result['preset']}{size}"
    path = folder / f"{re.sub('[^a-z0-9.]+', '-', name.lower()).strip('-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def kept(folder: Path = FOLDER) -> list[dict]:
    """The results in `folder`, the newest first; none where there is no folder."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda result: result["date"], reverse=True)


def stage_table(result: dict) -> pd.DataFrame:
    """One row per stage: GB planned, measured and reserved, their ratio, seconds of a step.

    `least s` is the plan's lower bound, `step s` the time measured, scaled to a whole step. Both
    are empty for a CPU.
    """
    rows = [
        {
            "architecture": part["architecture"],
            "configuration": part["configuration"],
            "stage": stage["stage"],
            "planned GB": stage["planned"] / 1e9,
            "measured GB": stage["measured"] / 1e9,
            "measured / planned": stage["measured"] / stage["planned"],
            "reserved GB": stage["reserved"] / 1e9,
            # On a CPU the profiler runs, and the plan's peaks are a GPU's.
            "least s": stage["least_seconds"] if result["memory"] else None,
            "step s": stage["step_seconds"] if result["memory"] else None,
        }
        for part in result["parts"]
        for stage in part["stages"]
    ]
    return pd.DataFrame(rows)


def time_table(result: dict) -> pd.DataFrame:
    """One row per architecture and oracle: its peak, whether it fits, and how long it takes.

    `peak GB` is the largest stage as reserved, with a full batch's difference from the plan, and
    the CUDA context; `hours` are those of one cell: one dataset, one seed.
    """
    rows = []
    for part in result["parts"]:
        top = max(part["stages"], key=lambda stage: stage["projected"])
        slow = max(part["stages"], key=lambda stage: stage["step_seconds"] or 0)
        peak = top["projected"] + result["overhead"]
        rows.append(
            {
                "architecture": part["architecture"],
                "configuration": part["configuration"],
                "peak GB": peak / 1e9,
                "at stage": top["stage"],
                "fits": None if result["memory"] is None else peak <= result["memory"],
                "seconds a step": part["step_seconds"],
                "slowest stage": slow["stage"],
                "its share": slow["step_seconds"] / part["step_seconds"],
                "evaluation s": part["evaluation_seconds"],
                "hours a cell": part["hours"],
            }
        )
    return pd.DataFrame(rows)


def report(result: dict) -> str:
    """The result as text; without a GPU, of memory alone, since the profiler slows a CPU down."""
    hardware, tokens = result["hardware"], result["tokens"]
    lines = [
        f"Rehearsal of preset {result['preset']!r} at scale {result['scale']:g}, measured on "
        f"{hardware['gpu'] or hardware['cpu']} with random weights in {result['precision']}.",
        f"Tokens: prompt {tokens['prompt']}, rewrite {tokens['rewrite']}, answer "
        f"{tokens['answer']}. Random weights never end a text: the times are those of the longest "
        "case.",
        f"Each step had {result['rows']} completions; one of the preset has "
        f"{result['batch_size']}, and times and peaks are scaled up to that.",
        "",
        stage_table(result).dropna(axis=1, how="all").round(3).to_string(index=False, na_rep=""),
        "",
    ]
    for part in result["parts"]:
        found, planned = part["checkpoint_bytes"] / 1e6, part["checkpoint_planned"] / 1e6
        lines.append(
            f"{part['architecture']} {part['configuration']}: checkpoint of {found:.1f} MB "
            f"(planned: {planned:.1f} MB)"
        )
    if result["memory"] is None:
        return "\n".join([*lines, "", "No GPU: neither times nor the fit can be judged here."])
    times_ = time_table(result)
    lines += ["", times_.round(3).to_string(index=False)]
    if result["whole_preset"]:
        hours = times_["hours a cell"].sum() * result["cells"]
        lines.append(f"The whole preset: about {hours:.1f} hours, at most.")
    return "\n".join(lines)
