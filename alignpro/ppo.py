"""PPO with a KL penalty against a black-box score, to be read from top to bottom.

The policy is a language model with a LoRA adapter. Its reference is the same model with the adapter
disabled. The value head reads the same hidden states. The score of a completion comes from a plain
function, so the same loop trains a prompter (score = the reward of the frozen LLM's answer) or the
frozen LLM itself (score = the reward of the completion).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object, reduce
from tqdm import tqdm

from alignpro.config import AdaptiveKLConfig, PPOConfig
from alignpro.devices import process
from alignpro.evaluation import checked_rewards
from alignpro.fast.clock import StageClock
from alignpro.fast.logprobs import Batch, forward, make_batch, with_trunk
from alignpro.generation import Messages, Policy
from alignpro.runs import Row, Run, RunError, Tensors, stage_seed
from alignpro.sources.health import warnings_for
from alignpro.texts import Prompt, Response


@dataclass
class Scored:
    """What a score function returns for B completions.

    `scores` [B] is what is trained on; `gold` [B], a second reward, is only reported. `texts` has
    one row per completion for the samples file. `seconds` is the time of each part. `tokens` counts
    what another model, the frozen LLM, generated.
    """

    scores: Iterable[Any]
    texts: list[Row]
    seconds: dict[str, float]
    tokens: int = 0
    gold: Iterable[Any] | None = None


Score = Callable[[Sequence[Prompt], Sequence[Response], int], Scored]


@dataclass
class Experience:
    """One batch of B sampled completions and what the update learns from it.

    Log-probabilities of the sampled tokens and values are those of the policy and the critic that
    sampled. All tensors are [B, T] and 0 on padding.
    """

    batch: Batch
    logp: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def rows(self, index: torch.Tensor) -> Experience:
        """The rows of `index`, their padding trimmed."""
        part = self.batch.rows(index)
        tensors = self.logp, self.values, self.advantages, self.returns
        return Experience(part, *(tensor[index, : part.tokens.shape[1]] for tensor in tensors))


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> torch.Tensor:
    """Generalized advantage estimates [B, T] (Schulman et al. 2016, Eq. 16), 0 on padding.

    The value after the last token is 0: a completion is an episode.
    """
    advantages = torch.zeros_like(rewards)
    running = next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        running = (delta + gamma * lam * running) * mask[:, t]
        advantages[:, t] = running
        next_value = values[:, t] * mask[:, t]
    return advantages


def token_rewards(
    scores: torch.Tensor, logp: torch.Tensor, ref_logp: torch.Tensor, mask: torch.Tensor, lam: float
) -> torch.Tensor:
    """Rewards [B, T]: −λ log(ρ/ρ_sft) at every token, and the score at the last one.

    Their sum over a sequence is r − λ log(ρ(x'|x)/ρ_sft(x'|x)), whose mean is the objective.
    """
    rewards = -lam * (logp - ref_logp) * mask
    last = mask.long().sum(-1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def adapted_lam(lam: float, kl: float, batch_size: int, config: AdaptiveKLConfig) -> float:
    """λ after a batch whose mean KL was `kl` nats a completion (Ziegler et al. 2019, Sec. 2.2).

    It grows where the KL is above the target and falls where it is below, by at most the factor
    0.2 × batch_size / horizon.
    """
    error = min(max(kl / config.target - 1, -0.2), 0.2)
    return lam * (1 + error * batch_size / config.horizon)


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `x` over the entries where `mask` is True."""
    return (x * mask).sum() / mask.sum()


def whiten(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`x` with mean 0 and unbiased variance 1 over the entries where `mask` is True, else 0."""
    centred = (x - masked_mean(x, mask)) * mask
    variance = (centred**2).sum() / (mask.sum() - 1).clamp(min=1)
    return centred * (variance + 1e-8).rsqrt()


def ppo_losses(
    logp: torch.Tensor, values: torch.Tensor, old: Experience, config: PPOConfig
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Clipped policy loss and clipped value loss (Schulman et al. 2017, Eq. 7), and statistics.

    `logp` and `values` [B, T] are of the policy and critic in training. Means are over the tokens
    that were sampled.
    """
    mask, advantages = old.batch.mask, old.advantages
    ratio = ((logp - old.logp) * mask).exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    free, held = -advantages * ratio, -advantages * clipped
    policy_loss = masked_mean(torch.max(free, held), mask)
    near = old.values + (values - old.values).clamp(-config.value_clip, config.value_clip)
    errors = torch.max((values - old.returns) ** 2, (near - old.returns) ** 2)
    value_loss = 0.5 * masked_mean(errors, mask)
    with torch.no_grad():
        stats = {
            "policy/approxkl_avg": 0.5 * masked_mean((logp - old.logp) ** 2, mask).item(),
            "policy/clipfrac_avg": masked_mean((held > free).float(), mask).item(),
            "loss/policy_avg": policy_loss.item(),
            "loss/value_avg": value_loss.item(),
            "val/ratio": masked_mean(ratio, mask).item(),
        }
    return policy_loss, value_loss, stats


class Trainer:
    """Trains the LoRA adapter of `policy` against `score`, step by step; a killed run resumes.

    `messages` turns prompts into what the policy is asked, as lists of chat messages. `score` maps
    prompts, their completions and a seed to a `Scored`. Raises ValueError for a policy that samples
    at another temperature than 1 or truncates, and where the processes do not divide a minibatch.
    """

    clock = StageClock

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        messages: Callable[[Sequence[Prompt]], list[Messages]],
        score: Score,
        config: PPOConfig,
        run: Run,
    ):
        sampling = policy.sampling
        if (sampling.temperature, sampling.top_p, sampling.top_k) != (1, 1, 0):
            raise ValueError(
                f"PPO needs a policy that samples at temperature 1 without truncation, got "
                f"{sampling}: its KL and ratios are otherwise those of another distribution"
            )
        self.process = process()
        if config.minibatch_size % self.process.num_processes:
            raise ValueError(
                f"{self.process.num_processes} processes cannot share out a minibatch of "
                f"{config.minibatch_size}: their number must divide it"
            )
        self.policy, self.model, self.score = policy, policy.model, score
        self.prompts, self.config, self.run = prompts, config, run
        self.lam = config.lam
        self.pad_id = policy.tokenizer.pad_token_id
        self.queries = policy.encode(messages(prompts))
        self.value_head = torch.nn.Linear(self.model.config.hidden_size, 1).to(self.model.device)
        torch.nn.init.zeros_(self.value_head.weight)
        torch.nn.init.zeros_(self.value_head.bias)
        self.adapter = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.adapter.values()), "lr": config.learning_rate},
                {"params": list(self.value_head.parameters()), "lr": config.value_learning_rate},
            ],
            weight_decay=0.0,
        )

    def train(self, progress: bool = True) -> None:
        """Run all steps that are left.

        Raises RewardError at a score that is not a finite number. Raises RunError at a loss or a
        gradient that is not finite; the state is saved first.
        """
        with self.process.main_process_first():
            done = self._resume()
        steps, writes = self.config.steps, self.process.is_main_process
        with tqdm(total=steps, initial=done, desc="PPO", disable=not (progress and writes)) as bar:
            for step in range(done + 1, steps + 1):
                metrics, samples = self.step(step)
                if writes:
                    self._record(step, metrics, samples)
                    for warning in warnings_for(self.run.read("metrics.jsonl")):
                        bar.write(f"step {step}: {warning}")
                bar.set_postfix(
                    reward=f"{metrics['objective/scores']:.3f}",
                    kl=f"{metrics['objective/kl']:.2f}",
                    entropy=f"{metrics['objective/entropy']:.1f}",
                )
                bar.update()

    def _record(self, step: int, metrics: Row, samples: list[Row]) -> None:
        config, last = self.config, step == self.config.steps
        self.run.append("metrics.jsonl", [metrics])
        if step % config.sample_every == 0 or step == 1 or last:
            self.run.append("samples.jsonl", [{"step": step, **s} for s in samples[:8]])
        if step % config.checkpoint_every == 0 or last:
            self.run.save_checkpoint(step, self._state())

    def step(self, step: int) -> tuple[Row, list[Row]]:
        """Run step number `step` (from 1). Returns its metrics and one row of texts for each x."""
        config, clock = self.config, self.clock()
        # 1. Draw prompts x.
        rows = self._rows(step)
        prompts, queries = [self.prompts[i] for i in rows], [self.queries[i] for i in rows]

        # 2. Sample one completion of each from the policy: for a prompter, x' ~ ρ(·|x). Each
        # process samples and scores its share; then every process knows the whole batch.
        share = slice(self.process.process_index, None, self.process.num_processes)
        seed = stage_seed(self.run.seed, step, "rollout")
        outputs = self.policy.generate_ids(queries[share], seed)
        clock.lap("rollout")

        # 3. Score the completions: for a prompter, r(x, y) of an answer y ~ π_F(·|x').
        scored = self.score(prompts[share], outputs, stage_seed(self.run.seed, step, "score"))
        scores = {
            name: gathered(checked_rewards(given, prompts[share], f"the {name} at step {step}"))
            for name, given in (("score", scored.scores), ("gold", scored.gold))
            if given is not None
        }
        outputs, texts, tokens = (gathered(x) for x in (outputs, scored.texts, [scored.tokens]))
        clock.lap("score")

        # 4. Log-probabilities of the sampled tokens under policy and reference, and their values.
        device = self.model.device
        batch = make_batch(queries, [o.token_ids for o in outputs], self.pad_id, device)
        batch = with_trunk(self.model, batch, self.pad_id)
        with torch.no_grad():
            logp, hidden, entropies = forward(self.model, batch, self.pad_id, entropy=True)
            assert entropies is not None
            values = self._values(hidden) * batch.mask
            clock.lap("policy")
            with self.model.disable_adapter():
                ref_logp, _, _ = forward(self.model, batch, self.pad_id)
            clock.lap("reference")

        # 5. Rewards less the KL penalty, token by token, and the advantages that follow from them.
        score = torch.tensor(scores["score"], dtype=torch.float32, device=device)
        rewards = token_rewards(score, logp, ref_logp, batch.mask, self.lam)
        advantages = gae(rewards, values, batch.mask, config.gamma, config.gae_lambda)
        returns = advantages + values
        advantages = whiten(advantages, batch.mask)

        # 6. Update the policy and the critic, `epochs` times through the batch in minibatches.
        stats = self._update(step, Experience(batch, logp, values, advantages, returns))
        clock.lap("update")

        # 7. Report, and let an adaptive λ follow the KL.
        log_ratio = (logp - ref_logp).sum(-1)
        metrics = {
            "step": step,
            "episode": step * config.batch_size,
            "objective/scores": score.mean().item(),
            "objective/scores_std": score.std().nan_to_num().item(),  # of a single one: 0
            "objective/kl": log_ratio.mean().item(),
            "objective/kl_coef": self.lam,
            "objective/entropy": entropies.sum(-1).mean().item(),
            "objective/non_score_reward": -self.lam * log_ratio.mean().item(),
            "objective/rlhf_reward": (score - self.lam * log_ratio).mean().item(),
            "val/num_eos_tokens": sum(o.ended for o in outputs),
            "val/generated_tokens": sum(len(o.token_ids) for o in outputs) + sum(tokens),
            "val/distinct_outputs": len({str(o) for o in outputs}) / len(outputs),
            **stats,
            **clock.seconds("time/"),
            **{f"time/{name}": spent for name, spent in scored.seconds.items()},
        }
        if "gold" in scores:
            metrics["objective/gold"] = sum(scores["gold"]) / len(outputs)
        if config.adaptive_kl:
            kl = metrics["objective/kl"]
            self.lam = adapted_lam(self.lam, kl, config.batch_size, config.adaptive_kl)
        for name, column in scores.items():
            texts = [{**row, name: round(value, 4)} for row, value in zip(texts, column)]
        return metrics, texts

    def _rows(self, step: int) -> list[int]:
        """Prompt indices of one batch: every prompt is used once before any is used again."""
        size, count = self.config.batch_size, len(self.prompts)
        first = (step - 1) * size
        rows = []
        for epoch in range(first // count, (first + size - 1) // count + 1):
            seed = stage_seed(self.run.seed, self.run.cell["dataset"], epoch, "order")
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
            start = max(first - epoch * count, 0)
            rows += order[start : first + size - epoch * count]
        return rows

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.squeeze(self.value_head(hidden), -1)

    def _update(self, step: int, experience: Experience) -> dict[str, float]:
        """Stage 6 of `step`. Returns the statistics of the losses, averaged over minibatches."""
        config, history, mask = self.config, [], experience.batch.mask
        decay = 1 - (step - 1) / config.steps if config.lr_scheduler_type == "linear" else 1.0
        for group, rate in zip(
            self.optimizer.param_groups, (config.learning_rate, config.value_learning_rate)
        ):
            group["lr"] = rate * decay
        for epoch in range(config.epochs):
            seed = stage_seed(self.run.seed, step, "minibatches", epoch)
            order = torch.randperm(
                config.batch_size, generator=torch.Generator().manual_seed(seed)
            ).to(mask.device)
            for whole in order.split(config.minibatch_size):
                index = whole[self.process.process_index :: self.process.num_processes]
                self.optimizer.zero_grad(set_to_none=True)
                total = loss = torch.zeros((), device=mask.device)
                for rows in index.split(config.accumulate or len(index)):
                    old = experience.rows(rows)
                    # Means are over the tokens of the whole minibatch.
                    share = old.batch.mask.sum() / mask[whole].sum()
                    logp, hidden, _ = forward(self.model, old.batch, self.pad_id)
                    values = self._values(hidden) * old.batch.mask
                    policy_loss, value_loss, stats = ppo_losses(logp, values, old, config)
                    part = (policy_loss + config.value_coefficient * value_loss) * share
                    part.backward()
                    loss = loss + part.detach()
                    # On the model's device: between GPUs nothing else can be summed.
                    total = total + torch.tensor([*stats.values()], device=share.device) * share
                for group in self.optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = reduce(parameter.grad, "sum")
                norms = [
                    torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm)
                    for group in self.optimizer.param_groups
                ]
                if not torch.isfinite(torch.stack([loss, *norms])).all():
                    self.run.save_checkpoint(step, self._state(), name="not-finite")
                    raise RunError(
                        f"the loss ({loss.item()}) or its gradient is not finite at step {step}. "
                        "The last good checkpoint and the state at the failure are kept in "
                        f"{self.run.folder}/checkpoints; a smaller learning_rate or clip usually "
                        "helps."
                    )
                self.optimizer.step()
                history.append(dict(zip(stats, reduce(total, "sum").tolist())))
        means = {k: sum(h[k] for h in history) / len(history) for k in history[0]}
        return {**means, "lr": self.optimizer.param_groups[0]["lr"]}

    def _state(self) -> dict[str, torch.Tensor]:
        tensors = {f"adapter/{n}": p for n, p in self.adapter.items()}
        tensors |= {f"value/{n}": p for n, p in self.value_head.state_dict().items()}
        tensors["lam"] = torch.tensor(self.lam, dtype=torch.float64)
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": t for name, t in state.items()}
        return tensors

    def _resume(self) -> int:
        """Restore the newest checkpoint. Returns its step, or 0 where there is none."""
        found = self.run.load_checkpoint()
        step, tensors = found if found else (0, {})
        if found:
            with torch.no_grad():
                for name, parameter in self.adapter.items():
                    parameter.copy_(tensors[f"adapter/{name}"])
            head = {n: tensors[f"value/{n}"] for n in self.value_head.state_dict()}
            self.value_head.load_state_dict(head)
            self.lam = tensors["lam"].item()
            state: dict[int, Tensors] = {}
            for key, tensor in tensors.items():
                if key.startswith("optimizer/"):
                    _, index, name = key.split("/")
                    state.setdefault(int(index), {})[name] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for name in ("metrics.jsonl", "samples.jsonl"):
            self.run.cut_back(name, step)
        return step


def gathered(share: Iterable[Any]) -> list[Any]:
    """The whole batch from each process's `share`, in the order in which it was dealt out."""
    return [item for cards in zip(*gather_object([list(share)]), strict=True) for item in cards]
