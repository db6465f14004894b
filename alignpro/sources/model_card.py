"""The model card of a trained prompter, README.md, written from the files of its run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from alignpro.runs import atomic_write
from alignpro.sources.files import read_json, read_table
from alignpro.sources.prompter_folder import HUB_ID
from alignpro.statistics import paired_gain

CARD = """\
---
{metadata}
---

# A prompter for {frozen}

A LoRA adapter for {base}. It rewrites a user's prompt before **{frozen}**, which is not
changed, answers it. It was trained by Align-Pro ([arXiv 2501.03486](https://arxiv.org/abs/2501.03486))
with PPO on the reward of those answers.

## Use

```python
from alignpro.prompter import Prompter

prompter = Prompter.load("{name}")  # this folder, or its id on the Hub
print(prompter.rewrite(["How do I boil an egg?"]))
```

`peft.PeftModel.from_pretrained(base, folder)` loads it too. Give it the chat template of this
folder's tokenizer and the meta-prompt of `prompter.json` as the system message. Where the template
has no system role, the user's message begins with the meta-prompt.
{appended}
## Training

| | |
|---|---|
| base model | {base} |
| SHA-256 of its weights | `{base_sha256}` |
| frozen LLM | {frozen} |
| reward | {reward} |
| prompts | {train} of the dataset {dataset} |
| PPO | {steps} steps of {batch} answers, KL penalty λ = {lam}, seed {seed} |
| date | {date} |

`card.json` has the versions, the hardware and the commit; `prompter.json` the meta-prompt and the
sampling.

## Held-out reward

{evaluation}

## Limits

- It was trained for one frozen LLM and one reward. For another of either, its gain is unknown.
- The gain is measured in the reward it was trained on, by prompts of the same dataset. A reward can
  be earned in ways that nobody wants: read some answers.
- It can only ask for what the frozen LLM can already do.
- The rewrite is not checked. Text in a user's prompt can change what it writes.
- This is one run. Another seed gives another prompter.
"""
NOT_EVALUATED = "This run has no held-out evaluation: nothing is known about the gain."
APPENDED = "\nThe output is an instruction, which is appended to the user's prompt after a space.\n"


def write_model_card(run: Path, resamples: int) -> None:
    """Write README.md and card.json beside the prompter that the run in the folder `run` trained.

    The card has the held-out gains if the run has an evaluation, with intervals from so many
    `resamples`.
    """
    folder, gains = run / "prompter", {}
    if (run / "evaluation.parquet").exists():
        table = read_table(run / "evaluation.parquet")
        for base in ("No Fine-Tuning", "Best constant suffix"):
            gains[base] = paired_gain(table, "Align-Pro", base, resamples)
    config, card, facts = (
        read_json(path)
        for path in (run / "config.json", run / "card.json", folder / "prompter.json")
    )
    preset, (_, frozen) = config["preset"], card["architecture"]
    base, frozen = facts["base_model"]["source"], preset["models"][frozen]
    metadata = ["library_name: peft", "pipeline_tag: text-generation", "tags: [align-pro, lora]"]
    if HUB_ID.fullmatch(base):
        metadata.insert(0, f"base_model: {base}")
    text = CARD.format(
        metadata="\n".join(metadata),
        name=folder.name,
        frozen=_shown(frozen["source"]) + (" behind an endpoint" if "endpoint" in frozen else ""),
        base=_shown(base),
        base_sha256=facts["base_sha256"],
        appended=APPENDED if facts["form"] == "suffix" else "",
        reward=f"`{card['reward']}`",
        train=preset["data"]["train"],
        dataset=f"`{card['dataset']}`",
        steps=preset["ppo"]["steps"],
        batch=preset["ppo"]["batch_size"],
        lam=preset["ppo"]["lam"],
        seed=card["seed"],
        date=card["date"],
        evaluation=_evaluation(gains, preset) if gains else NOT_EVALUATED,
    )
    shutil.copyfile(run / "card.json", folder / "card.json")
    with atomic_write(folder / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")


def _shown(source: str) -> str:
    """A model's name without the place of a folder, which tells others nothing."""
    return f"`{Path(source).name if Path(source).is_dir() else source}`"


def _evaluation(gains: Mapping[str, Mapping[str, float]], preset: dict) -> str:
    """A table of gains, and how they were measured."""
    one = next(iter(gains.values()))
    rows = [
        f"| {name} | {g['gain']:+.3f} | [{g['low']:+.3f}, {g['high']:+.3f}] |"
        for name, g in gains.items()
    ]
    unclear = [name for name, g in gains.items() if g["low"] <= 0 <= g["high"]]
    told = [f"The interval contains 0 for: {', '.join(unclear)}."] if unclear else []
    how = preset["frozen"]
    return "\n".join(
        [
            "| gain over | mean | 95 % interval |",
            "|---|---|---|",
            *rows,
            "",
            *told,
            f"Differences of the mean reward on {one['prompts']} prompts that training has not "
            f"seen, with {preset['evaluation']['samples']} answers to each. Rewrites and answers "
            f"were sampled at temperature {how['temperature']}, top-p {how['top_p']}, top-k "
            f"{how['top_k']}. The interval is over prompts, not over training runs. The constant "
            "suffix was chosen on validation prompts.",
        ]
    )
