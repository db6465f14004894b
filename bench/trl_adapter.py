"""Run TRL's own PPOTrainer with a black-box reward, and record every number of its `train`.

TRL runs as it is installed. Its numbers are read from the local variables of `PPOTrainer.train` at
each backward pass, so no formula of TRL is repeated here.
"""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from datasets import Dataset  # noqa: E402
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # noqa: E402


class BlackBoxReward(torch.nn.Module):
    """Wraps a function of token ids (B rows → scores [B]) as the reward model that TRL expects.

    TRL splits a reward model into a backbone and a `score` head, and reads the head at each row's
    last token. This backbone writes a row's score at every position.
    """

    base_model_prefix = "backbone"

    def __init__(self, function: Callable[[Sequence[list[int]]], torch.Tensor]):
        super().__init__()
        self.function = function

    def backbone(self, input_ids, attention_mask, **options):
        rows = [ids[mask].tolist() for ids, mask in zip(input_ids, attention_mask)]
        scores = self.function(rows)[:, None, None].expand(*input_ids.shape, 1)
        return SimpleNamespace(hidden_states=[scores])

    def score(self, hidden):
        return hidden


class ValueOnTrunk(torch.nn.Module):
    """Wraps a linear `head` on the policy's detached last states as TRL's value model.

    TRL's own value model has a backbone of its own. With this one, its critic equals ours.
    """

    base_model_prefix = "backbone"

    def __init__(self, policy: torch.nn.Module, head: torch.nn.Linear):
        super().__init__()
        self.score = head
        # A tuple keeps the policy's parameters from being registered twice.
        self.shared = (policy,)

    def backbone(self, **inputs):
        with torch.no_grad():
            return self.shared[0](**inputs)


def run_trl(
    policy: torch.nn.Module,
    tokenizer,
    queries: Sequence[Sequence[int]],
    reward: Callable[[Sequence[list[int]]], torch.Tensor],
    head: torch.nn.Linear,
    responses: torch.Tensor | None = None,
    **settings,
) -> SimpleNamespace:
    """Train `policy`, a PEFT model whose reference is itself without the adapter, with TRL.

    `responses` [B, T] replace what TRL would sample in every batch. `settings` go to TRL's
    PPOConfig. Returns `backward`, the tensors among the local variables of `PPOTrainer.train` at
    each backward pass; `parameters`, the trained ones by name after each optimizer step (the value
    head's as `value/...`); and `logs`, TRL's metrics of each batch.
    """
    seen = SimpleNamespace(backward=[], parameters=[], logs=[])
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    trained |= {f"value/{n}": p for n, p in head.named_parameters()}
    tokenizer.padding_side = "left"
    with tempfile.TemporaryDirectory() as folder, _own_random_state(), _quiet():
        arguments = PPOConfig(
            **{
                "output_dir": folder,
                "use_cpu": True,
                "bf16": False,
                "gradient_checkpointing": False,
                "report_to": "none",
                "disable_tqdm": True,
                "num_sample_generations": 0,
                "save_strategy": "no",
                "stop_token": "eos",
                "temperature": 1.0,
                **settings,
            }
        )
        trainer = PPOTrainer(
            arguments,
            tokenizer,
            policy,
            ref_model=None,
            reward_model=BlackBoxReward(reward),
            train_dataset=Dataset.from_dict({"input_ids": [list(q) for q in queries]}),
            value_model=ValueOnTrunk(policy, head),
        )
        backward = trainer.accelerator.backward

        def record_backward(loss, **options):
            local = sys._getframe(1).f_locals
            tensors = {k: v.detach().clone() for k, v in local.items() if torch.is_tensor(v)}
            rows = torch.as_tensor(local["micro_batch_inds"].copy())
            seen.backward.append({**tensors, "update": local["update"], "rows": rows})
            backward(loss, **options)

        def record_step(*_):
            seen.parameters.append({n: p.detach().clone() for n, p in trained.items()})

        trainer.accelerator.backward = record_backward
        trainer.optimizer.optimizer.register_step_post_hook(record_step)
        trainer.log = lambda logs: seen.logs.append(dict(logs))
        with _given(responses):
            trainer.train()
    return seen


@contextlib.contextmanager
def _own_random_state():
    state = np.random.get_state()
    # TRL's `seed` does not reach NumPy's global generator, which shuffles its minibatches.
    np.random.seed(0)
    with torch.random.fork_rng():
        yield
    np.random.set_state(state)


@contextlib.contextmanager
def _quiet():
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


def _given(responses: torch.Tensor | None):
    """Make TRL's rollout return `responses`, with the policy's own logits of them."""
    if responses is None:
        return contextlib.nullcontext()

    def rollout(model, queries, batch_size, pad_token_id, generation_config):
        whole = torch.cat([queries, responses], dim=1)
        out = ppo_trainer.forward(model, whole, pad_token_id)
        return whole, out.logits[:, queries.shape[1] - 1 : -1] / generation_config.temperature

    return mock.patch.object(ppo_trainer, "batch_generation", rollout)
