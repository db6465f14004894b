"""The contenders of `bench.py`: TRL's PPOTrainer, our trainer, and transformers.generate.

Both trainers get the same prompts, model, LoRA layers, lengths, minibatches, epochs and reward.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl.experimental.ppo import PPOConfig as TRLConfig
from trl.experimental.ppo import PPOTrainer, ppo_trainer
from trl_adapter import BlackBoxReward, ValueOnTrunk

from alignpro import devices, models, ppo, texts
from alignpro.config import Preset, load_preset
from alignpro.experiments import Cell
from alignpro.fast import linears
from alignpro.fast.cache import left_pad
from alignpro.generation import Policy
from alignpro.prompter import Prompter

BATCH, MINIBATCH = 32, 16
PARTS = ("rollout", "frozen", "reward", "policy", "reference", "update")


def settings(name: str) -> Preset:
    """The preset `name` at the benchmark's batch size."""
    preset = load_preset(name)
    return dataclasses.replace(
        preset,
        generation_batch=BATCH,
        prompter=dataclasses.replace(
            preset.prompter, warm_start=dataclasses.replace(preset.prompter.warm_start, steps=8)
        ),
        ppo=dataclasses.replace(preset.ppo, batch_size=BATCH, minibatch_size=MINIBATCH, steps=99),
        data=dataclasses.replace(preset.data, train=BATCH),
    )


@contextlib.contextmanager
def plain(precision: torch.dtype) -> Iterator[None]:
    """Load models in `precision` and with PyTorch's own Linear, as long as the context is open."""
    with (
        mock.patch.object(models, "dtype", lambda: precision),
        mock.patch.object(linears, "to_fast", lambda model, *_: model),
        mock.patch.object(linears, "to_bf16", lambda model, *_: model),
    ):
        yield


def loaded(cell: Cell) -> Prompter:
    """The untrained prompter of `cell`. Loads the frozen LLM too."""
    _ = cell.frozen
    return cell.untrained(progress=False)


class Ours:
    """This project's trainer, one step at a time. `exact` computes in float32 on every CPU."""

    def __init__(self, root: Path, preset: str, exact: bool):
        self.cell = Cell(settings(preset), "help", 0, root=root / f"exact-{exact}")
        with plain(torch.float32) if exact else contextlib.nullcontext():
            prompter = loaded(self.cell)
        self.trainer = ppo.Trainer(
            prompter.policy,
            self.cell.prompts("train"),
            prompter.messages,
            self.cell.score_rewrites(prompter),
            self.cell.preset.ppo,
            self.cell.run,
        )
        self.steps = 0

    def step(self) -> dict[str, float]:
        """Run one step; returns its seconds by part."""
        self.steps += 1
        metrics, _ = self.trainer.step(self.steps)
        return {name: metrics[f"time/{name}"] for name in PARTS}


class TRLs:
    """TRL's PPOTrainer on the same work. It asks the frozen LLM through transformers.generate.

    `best` turns off gradient checkpointing, puts the critic on the policy's own states, and uses
    bfloat16 where this machine is fast in it; without it, TRL's defaults stay.
    """

    def __init__(self, root: Path, preset: str, best: bool):
        cell = Cell(settings(preset), "help", 0, root=root / f"trl-{best}")
        precision = devices.dtype() if best else torch.float32
        with plain(precision):
            prompter = loaded(cell)
        policy, tokenizer = prompter.policy.model, prompter.policy.tokenizer
        prompts = cell.prompts("train")
        queries = prompter.policy.encode(prompter.messages(prompts))
        by_query = {tuple(q): x for q, x in zip(queries, prompts)}
        self.frozen, self.seconds = cell.frozen, dict.fromkeys(PARTS, 0.0)
        if best:
            value = ValueOnTrunk(
                policy, torch.nn.Linear(policy.config.hidden_size, 1, dtype=precision)
            )
            switches = {"gradient_checkpointing": False, "bf16": precision == torch.bfloat16}
        else:
            value = models.pretrained(
                AutoModelForSequenceClassification, cell.preset.models[cell.pair[0]], num_labels=1
            )
            switches = {}
        arguments = TRLConfig(
            output_dir=str(root / f"trl-{best}" / "trainer"),
            use_cpu=devices.device().type == "cpu",
            report_to="none",
            disable_tqdm=True,
            num_sample_generations=0,
            save_strategy="no",
            stop_token="eos",
            temperature=1.0,
            per_device_train_batch_size=BATCH,
            num_mini_batches=BATCH // MINIBATCH,
            num_ppo_epochs=cell.preset.ppo.epochs,
            total_episodes=BATCH,
            response_length=cell.preset.prompter.max_new_tokens,
            learning_rate=cell.preset.ppo.learning_rate,
            kl_coef=cell.preset.ppo.lam,
            **switches,
        )

        def reward(rows: list[list[int]]) -> torch.Tensor:
            started = time.perf_counter()
            asked, rewrites = [], []
            for ids in rows:
                query = next(q for q in by_query if tuple(ids[: len(q)]) == q)
                asked.append(by_query[query])
                rewrites.append(tokenizer.decode(ids[len(query) :], skip_special_tokens=True))
            answers = stock_generate(self.frozen, prompter.rewritten(asked, rewrites), seed=0)
            answered = time.perf_counter()
            scores = torch.as_tensor(cell.reward(asked, answers))
            self.seconds["frozen"] += answered - started
            self.seconds["reward"] += time.perf_counter() - answered
            return scores

        tokenizer.padding_side = "left"
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            self.trainer = PPOTrainer(
                arguments,
                tokenizer,
                policy,
                ref_model=None,
                reward_model=BlackBoxReward(reward),
                train_dataset=Dataset.from_dict({"input_ids": queries}),
                value_model=value,
            )
        self.trainer.log = lambda logs: None

    def step(self) -> dict[str, float]:
        """Run one batch; returns its seconds by part. Whatever is no other part is the update.

        TRL keeps the policy's log-probabilities from sampling, so that part is 0.
        """
        self.seconds = dict.fromkeys(PARTS, 0.0)

        def timed(name, function):
            def call(*arguments, **options):
                started = time.perf_counter()
                try:
                    return function(*arguments, **options)
                finally:
                    self.seconds[name] += time.perf_counter() - started

            return call

        @contextlib.contextmanager
        def reference():
            started = time.perf_counter()
            with original():
                yield
            self.seconds["reference"] += time.perf_counter() - started

        original = self.trainer.null_ref_context
        started = time.perf_counter()
        with (
            mock.patch.object(
                ppo_trainer, "batch_generation", timed("rollout", ppo_trainer.batch_generation)
            ),
            mock.patch.object(self.trainer, "null_ref_context", reference),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            self.trainer.train()
        self.seconds["update"] = time.perf_counter() - started - sum(self.seconds.values())
        return self.seconds


@torch.inference_mode()
def stock_generate(policy: Policy, prompts: list[str], seed: int) -> list[texts.Response]:
    """Answer `prompts` with transformers.generate, in one left-padded batch."""
    torch.manual_seed(seed)
    encoded = policy.encode([[{"role": "user", "content": x}] for x in prompts])
    ids, mask = left_pad(encoded, policy.tokenizer.pad_token_id, policy.model.device)
    drawn = policy.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=policy.sampling.temperature,
        top_k=policy.sampling.top_k,
        top_p=policy.sampling.top_p,
        max_new_tokens=policy.sampling.max_new_tokens,
        pad_token_id=policy.tokenizer.pad_token_id,
    )[:, ids.shape[1] :].tolist()
    responses = []
    for row in drawn:
        kept = [t for t in row if t != policy.tokenizer.pad_token_id]
        text = policy.tokenizer.decode(kept, skip_special_tokens=True).strip()
        responses.append(texts.Response(text, kept[-1:] == [policy.eos_ids[0]], kept))
    return responses


CONTENDERS = {
    "TRL, its defaults": lambda root, preset: TRLs(root, preset, best=False),
    "TRL, at its best": lambda root, preset: TRLs(root, preset, best=True),
    "alignpro, fp32": lambda root, preset: Ours(root, preset, exact=True),
    "alignpro": lambda root, preset: Ours(root, preset, exact=False),
}
