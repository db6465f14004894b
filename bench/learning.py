"""Compare what is learned: our PPO and TRL's GRPO on held-out reward, by tokens and by seconds.

python bench/learning.py                        3 seeds of each on the set `help`: CPU hours
python bench/learning.py --seeds 0 --steps 20   less

Both train the same prompter (model, warm start, LoRA layers, prompts, lengths, completions per
step, epochs, learning rate) against the same callable, which asks the same frozen LLM and scores
its answer. A finished run is kept at once: the same command goes on with the next one. Runs of
other code or of other steps are never overwritten: the command then names the file to move away.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from alignpro import devices, ppo  # noqa: E402
from alignpro.config import Preset, load_preset  # noqa: E402
from alignpro.evaluation import evaluate  # noqa: E402
from alignpro.experiments import Cell  # noqa: E402
from alignpro.generation import Policy  # noqa: E402
from alignpro.prompter import Prompter  # noqa: E402
from alignpro.runs import code_digest, provenance, stage_seed, write_json  # noqa: E402

REWRITES = 8  # completions of one prompt that GRPO compares: TRL's default


class Progress:
    """The points of one run: held-out reward, and the tokens and seconds spent on training so far.

    `tokens` counts what the frozen LLM of `cell` writes in training. Evaluation is free of charge.
    """

    def __init__(self, cell: Cell, every: int):
        self.cell, self.every = cell, every
        self.points: list[dict] = []
        self.tokens, self.seconds, self.started = 0, 0.0, time.perf_counter()
        frozen = cell.frozen
        self.unbilled = Policy(frozen.model, frozen.tokenizer, frozen.sampling, frozen.batch_size)
        generate = frozen.generate

        def billed(*arguments, **options):
            responses = generate(*arguments, **options)
            self.tokens += sum(y.tokens for y in responses)
            return responses

        frozen.generate = billed

    def start(self, prompter: Prompter) -> None:
        """Evaluate the untrained `prompter`, and start the clock."""
        self.prompter = prompter
        self._evaluate(0)
        self.started = time.perf_counter()

    def step(self, step: int) -> None:
        """Stop the clock after PPO step or batch `step`, and evaluate where it is due."""
        self.seconds += time.perf_counter() - self.started
        if step % self.every == 0:
            self._evaluate(step)
        self.started = time.perf_counter()

    def _evaluate(self, step: int) -> None:
        preset, policy = self.cell.preset, self.prompter.policy
        length = policy.sampling.max_new_tokens
        sampling = dataclasses.replace(preset.frozen, max_new_tokens=length)
        held_out = Prompter(
            Policy(policy.model, policy.tokenizer, sampling, preset.generation_batch),
            self.prompter.form,
        )
        trains = policy.model.training
        policy.model.eval()
        table = evaluate(
            {"prompter": held_out},
            self.unbilled,
            self.cell.reward,
            self.cell.prompts("test"),
            preset.evaluation.samples,
            stage_seed(self.cell.seed, "learning"),
            progress=False,
        )
        policy.model.train(trains)
        reward = table["reward"].mean()
        point = {"step": step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}
        self.points.append({**point, "reward": round(float(reward), 4)})
        print(f"  step {step:4}: {reward:.3f} after {self.tokens} tokens", file=sys.stderr)


def ours(cell: Cell, every: int) -> list[dict]:
    """The points of our PPO."""
    progress = Progress(cell, every)

    class Trainer(ppo.Trainer):
        def train(self, show: bool = True) -> None:
            progress.start(Prompter(self.policy, cell.preset.prompter.form))
            super().train(show)

        def step(self, step: int):
            done = super().step(step)
            progress.step(step)
            return done

    cell.trainer = Trainer
    cell.train(progress=False)
    return progress.points


def grpo(cell: Cell, every: int) -> list[dict]:
    """The points of TRL's GRPOTrainer.

    Its batch has as many completions as a step of ours, `REWRITES` of each prompt, and goes through
    as many minibatches and epochs. TRL's defaults stay elsewhere, among them no KL penalty: its
    coefficient would weigh another term than our λ.
    """
    preset, prompter = cell.preset, cell.untrained(progress=False)
    progress, config = Progress(cell, every), preset.ppo
    prompts = cell.prompts("train")
    passes = config.epochs * config.batch_size // config.minibatch_size

    def reward(prompts_, completions, row, **columns):
        asked = [prompts[i] for i in row]
        texts = [turns[0]["content"] for turns in completions]
        seed = stage_seed(cell.seed, progress.tokens, "grpo")
        answers = cell.frozen.generate(prompter.rewritten(asked, texts), seed)
        return [float(r) for r in cell.reward(asked, answers)]

    class Batches(TrainerCallback):
        def on_step_end(self, arguments, state, control, **options):
            if state.global_step % passes == 0:
                progress.step(state.global_step // passes)

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=devices.device().type == "cpu",
            bf16=prompter.policy.model.dtype == torch.bfloat16,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            seed=cell.seed,
            per_device_train_batch_size=config.minibatch_size,
            generation_batch_size=config.batch_size,
            num_generations=REWRITES,
            num_iterations=config.epochs,
            max_steps=config.steps * passes,
            max_completion_length=preset.prompter.max_new_tokens,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type,
            max_grad_norm=config.max_grad_norm,
            weight_decay=0.0,
        )
        rows = zip(prompter.messages(prompts), range(len(prompts)))
        with contextlib.redirect_stdout(nowhere):
            trainer = GRPOTrainer(
                prompter.policy.model,
                reward_funcs=lambda prompts, **columns: reward(prompts, **columns),
                args=arguments,
                train_dataset=Dataset.from_list([{"prompt": m, "row": i} for m, i in rows]),
                processing_class=prompter.policy.tokenizer,
                callbacks=[Batches()],
            )
        progress.start(prompter)
        with contextlib.redirect_stdout(nowhere):
            trainer.train()
    return progress.points


LEARNERS: dict[str, Callable[[Cell, int], list[dict]]] = {"alignpro, PPO": ours, "TRL, GRPO": grpo}


def settings(name: str, steps: int | None) -> Preset:
    """The preset `name`, with `steps` PPO steps if given, and batches that hold whole groups."""
    preset = load_preset(name)
    config = dataclasses.replace(preset.ppo, steps=steps or preset.ppo.steps)
    if config.batch_size % REWRITES:
        raise SystemExit(f"ppo.batch_size must be a multiple of {REWRITES}, for GRPO's groups")
    return dataclasses.replace(preset, ppo=config)


def main() -> None:
    """Run what is missing, and keep each run when it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--dataset", default="help")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="PPO steps (default: the preset's)")
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "learning")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    preset, made = settings(arguments.preset, arguments.steps), provenance()
    identity = {
        "preset": preset.name,
        "dataset": arguments.dataset,
        "steps": preset.ppo.steps,
        "code": code_digest(),
        "hardware": made["hardware"],
    }
    found = made["hardware"]
    machine = found["gpu"] or f"{found['cpu']} {found['instructions']} {found['threads']} threads"
    name = re.sub("[^a-z0-9]+", "-", f"{machine} {preset.name} {arguments.dataset}".lower())
    path = arguments.results / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(path.read_text()) if path.exists() else {**made, **identity, "runs": []}
    if changed := [key for key, value in identity.items() if result.get(key) != value]:
        raise SystemExit(
            f"{path} holds {len(result['runs'])} runs of another {', '.join(changed)}: move it "
            "away to start again, or give another --results"
        )
    for seed in arguments.seeds:
        for learner, points in LEARNERS.items():
            if any(r["seed"] == seed and r["learner"] == learner for r in result["runs"]):
                continue
            print(f"{learner}, seed {seed}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                cell = Cell(preset, arguments.dataset, seed, root=folder)
                run = {"learner": learner, "seed": seed, "points": points(cell, arguments.every)}
            result["runs"].append(run)
            write_json(path, result)
    print(f"in {path}")


if __name__ == "__main__":
    main()
