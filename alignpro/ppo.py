"""PPO with a KL leash against a black-box score, read top to bottom.

The policy is a language model with a LoRA adapter; its reference is the same model with the
adapter disabled; the value head sits on the shared trunk. The score of a completion comes from a
plain function, so the same loop trains a prompter (score = the reward of the frozen LLM's answer)
or the frozen LLM itself (score = the reward of the completion).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import gather_object, reduce
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from alignpro.config import AdaptiveKLConfig, PPOConfig, WarmStartConfig
from alignpro.devices import process
from alignpro.fast.logprobs import forward, make_batch, with_trunk
from alignpro.generation import Policy
from alignpro.runs import Run, RunError, stage_seed
from alignpro.texts import Response


@dataclass
class Scored:
    """Scores [B] of completions, the texts behind them, and what they cost.

    `tokens` counts what another model, the frozen LLM, generated for them.
    """

    scores: torch.Tensor
    texts: list[dict]
    seconds: dict[str, float]
    tokens: int = 0


Score = Callable[[Sequence[str], Sequence[Response], int], Scored]

# A run is called frozen where over this many steps hardly any ratio reaches the clip range, while
# the policy still has more than half of the entropy that it began with.
FROZEN_STEPS, FROZEN_CLIP_FRACTION = 5, 0.005


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

    It grows where the KL is above the target and falls where it is below, by at most
    0.2 × batch_size / horizon of itself.
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
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    config: PPOConfig,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Clipped policy loss and clipped value loss (Schulman et al. 2017, Eq. 7), and statistics.

    All arguments are [B, T]; means are over the tokens where `mask` is True.
    """
    ratio = ((logp - old_logp) * mask).exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    free, held = -advantages * ratio, -advantages * clipped
    policy_loss = masked_mean(torch.max(free, held), mask)
    near = old_values + (values - old_values).clamp(-config.value_clip, config.value_clip)
    errors = torch.max((values - returns) ** 2, (near - returns) ** 2)
    value_loss = 0.5 * masked_mean(errors, mask)
    with torch.no_grad():
        stats = {
            "policy/approxkl_avg": 0.5 * masked_mean((logp - old_logp) ** 2, mask).item(),
            "policy/clipfrac_avg": masked_mean((held > free).float(), mask).item(),
            "loss/policy_avg": policy_loss.item(),
            "loss/value_avg": value_loss.item(),
            "val/ratio": masked_mean(ratio, mask).item(),
        }
    return policy_loss, value_loss, stats


class StageClock:
    """Seconds of each stage of a step, measured from one `lap` to the next."""

    def __init__(self):
        self.start, self.laps = time.perf_counter(), {}

    def lap(self, name: str) -> None:
        if torch.cuda.is_available():  # kernels run on after the call that starts them returns
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[name], self.start = now - self.start, now

    def seconds(self, prefix: str) -> dict[str, float]:
        return {prefix + name: round(value, 3) for name, value in self.laps.items()}


def warnings_for(history: Sequence[dict]) -> list[str]:
    """What to warn of after the last step of `history`, a run's metrics, one row per step."""
    last, found = history[-1], []
    # The k1 estimate of a small KL may be slightly negative by chance.
    if last["objective/kl"] < -0.5:
        found.append(
            f"KL is {last['objective/kl']:.2f} < 0: sampling and scoring of the policy disagree"
        )
    if last["val/distinct_outputs"] < 0.05:
        found.append(
            "nearly all outputs are equal: the policy has collapsed; a larger lam or a smaller "
            "learning_rate prevents it"
        )
    if is_frozen(history) and not is_frozen(history[:-1]):
        found.append(
            f"the policy is frozen: for {FROZEN_STEPS} steps its updates have been too small to be "
            f"clipped, and its entropy is still {last['objective/entropy']:.1f} nats; a larger "
            "learning_rate, or one that does not decay, lets it go on"
        )
    return found


def is_frozen(history: Sequence[dict]) -> bool:
    """Whether the policy has stopped moving before it has made up its mind: see FROZEN_STEPS."""
    if len(history) < FROZEN_STEPS:
        return False
    window = history[-FROZEN_STEPS:]
    clipped = sum(row["policy/clipfrac_avg"] for row in window) / FROZEN_STEPS
    entropy = sum(row["objective/entropy"] for row in window) / FROZEN_STEPS
    return clipped < FROZEN_CLIP_FRACTION and entropy > history[0]["objective/entropy"] / 2


class Trainer:
    """Trains the LoRA adapter of `policy` against `score`, step by step, resumably.

    Raises ValueError for a policy that samples at another temperature than 1, or truncates.
    """

    clock = StageClock

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[str],
        messages: Callable,
        score: Score,
        config: PPOConfig,
        run: Run,
    ):
        sampling = policy.sampling
        if (sampling.temperature, sampling.top_p, sampling.top_k) != (1, 1, 0):
            raise ValueError(
                f"PPO needs a policy that samples as it is, got {sampling}: with any other "
                "temperature or truncation its KL and ratios are those of another distribution"
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
        """Run (or go on with) all steps; raises RunError at a non-finite loss, state saved."""
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

    def _record(self, step: int, metrics: dict, samples: list[dict]) -> None:
        config, last = self.config, step == self.config.steps
        self.run.append("metrics.jsonl", [metrics])
        if step % config.sample_every == 0 or step == 1 or last:
            self.run.append("samples.jsonl", [{"step": step, **s} for s in samples[:8]])
        if step % config.checkpoint_every == 0 or last:
            self.run.save_checkpoint(step, self._state())

    def step(self, step: int) -> tuple[dict, list[dict]]:
        """Run step number `step` (from 1); its metrics, and one row of texts per completion."""
        config, clock = self.config, self.clock()
        rows = self._rows(step)
        prompts = [self.prompts[i] for i in rows]
        messages_ids = [self.queries[i] for i in rows]
        # Each process samples and scores its share; every one then knows the whole batch.
        share = slice(self.process.process_index, None, self.process.num_processes)
        seed = stage_seed(self.run.seed, step, "rollout")
        outputs = self.policy.generate_ids(messages_ids[share], seed)
        clock.lap("rollout")

        scored = self.score(prompts[share], outputs, stage_seed(self.run.seed, step, "score"))
        outputs, scored = self._gathered(outputs, scored)
        clock.lap("score")

        device = self.model.device
        batch = make_batch(messages_ids, [o.token_ids for o in outputs], self.pad_id, device)
        batch = with_trunk(self.model, batch, self.pad_id)
        with torch.no_grad():
            old_logp, hidden, entropies = forward(self.model, batch, self.pad_id, entropy=True)
            old_values = self._values(hidden) * batch.mask
            clock.lap("policy")
            with self.model.disable_adapter():
                ref_logp, _, _ = forward(self.model, batch, self.pad_id)
            clock.lap("reference")

        scores = scored.scores.to(device).float()
        rewards = token_rewards(scores, old_logp, ref_logp, batch.mask, self.lam)
        advantages = gae(rewards, old_values, batch.mask, config.gamma, config.gae_lambda)
        returns = advantages + old_values
        advantages = whiten(advantages, batch.mask)

        stats = self._update(step, batch, old_logp, old_values, advantages, returns)
        clock.lap("update")

        log_ratio = (old_logp - ref_logp).sum(-1)
        metrics = {
            "step": step,
            "episode": step * config.batch_size,
            "objective/scores": scores.mean().item(),
            "objective/scores_std": scores.std().item(),
            "objective/kl": log_ratio.mean().item(),
            "objective/kl_coef": self.lam,
            "objective/entropy": entropies.sum(-1).mean().item(),
            "objective/non_score_reward": -self.lam * log_ratio.mean().item(),
            "objective/rlhf_reward": (scores - self.lam * log_ratio).mean().item(),
            "val/num_eos_tokens": sum(o.ended for o in outputs),
            "val/generated_tokens": sum(len(o.token_ids) for o in outputs) + scored.tokens,
            "val/distinct_outputs": len({str(o) for o in outputs}) / len(outputs),
            **stats,
            **clock.seconds("time/"),
            **{f"time/{name}": spent for name, spent in scored.seconds.items()},
        }
        gold = [row["gold"] for row in scored.texts if "gold" in row]
        if gold:
            metrics["objective/gold"] = sum(gold) / len(gold)
        if config.adaptive_kl:
            kl = metrics["objective/kl"]
            self.lam = adapted_lam(self.lam, kl, config.batch_size, config.adaptive_kl)
        return metrics, scored.texts

    def _gathered(self, outputs: list[Response], scored: Scored) -> tuple[list[Response], Scored]:
        """The shares of all processes, in the order of the batch; times are this process's own."""
        if self.process.num_processes == 1:
            return outputs, scored
        mine = [(outputs, torch.as_tensor(scored.scores).cpu(), scored.texts, scored.tokens)]
        outputs, scores, texts, tokens = zip(*gather_object(mine))
        whole = Scored(torch.stack(scores, 1).flatten(), _dealt(texts), scored.seconds, sum(tokens))
        return _dealt(outputs), whole

    def _rows(self, step: int) -> list[int]:
        """Prompt indices of one batch: every prompt once before any comes again."""
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
        return self.value_head(hidden)[..., 0]

    def _update(self, step, batch, old_logp, old_values, advantages, returns) -> dict[str, float]:
        config, history = self.config, []
        decay = 1 - (step - 1) / config.steps if config.lr_scheduler_type == "linear" else 1.0
        for group, rate in zip(
            self.optimizer.param_groups, (config.learning_rate, config.value_learning_rate)
        ):
            group["lr"] = rate * decay
        for epoch in range(config.epochs):
            seed = stage_seed(self.run.seed, step, "minibatches", epoch)
            order = torch.randperm(
                config.batch_size, generator=torch.Generator().manual_seed(seed)
            ).to(batch.mask.device)
            for whole in order.split(config.minibatch_size):
                index = whole[self.process.process_index :: self.process.num_processes]
                part = batch.rows(index)
                # Means are over the tokens of the whole minibatch.
                share = part.mask.sum() / batch.mask[whole].sum()
                width = part.tokens.shape[1]
                logp, hidden, _ = forward(self.model, part, self.pad_id)
                policy_loss, value_loss, stats = ppo_losses(
                    logp,
                    old_logp[index, :width],
                    advantages[index, :width],
                    self._values(hidden) * part.mask,
                    old_values[index, :width],
                    returns[index, :width],
                    part.mask,
                    config,
                )
                loss = (policy_loss + config.value_coefficient * value_loss) * share
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                for group in self.optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = reduce(parameter.grad, "sum")
                norms = [
                    torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm)
                    for group in self.optimizer.param_groups
                ]
                if not torch.isfinite(torch.stack([loss.detach(), *norms])).all():
                    self.run.save_checkpoint(step, self._state(), name="not-finite")
                    raise RunError(
                        f"the loss ({loss.item()}) or its gradient is not finite at step {step}. "
                        "The last good checkpoint and the state at the failure are kept in "
                        f"{self.run.folder}/checkpoints; a smaller learning_rate or clip usually "
                        "helps."
                    )
                self.optimizer.step()
                # On the model's device: between GPUs nothing else can be summed.
                shares = torch.tensor(list(stats.values()), device=share.device) * share
                history.append(dict(zip(stats, reduce(shares, "sum").tolist())))
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
        """Restore the newest checkpoint; the step it was taken after, 0 where there is none."""
        found = self.run.load_checkpoint()
        step, tensors = found if found else (0, {})
        if found:
            with torch.no_grad():
                for name, parameter in self.adapter.items():
                    parameter.copy_(tensors[f"adapter/{name}"])
            head = {n: tensors[f"value/{n}"] for n in self.value_head.state_dict()}
            self.value_head.load_state_dict(head)
            self.lam = tensors["lam"].item()
            state: dict[int, dict] = {}
            for key, tensor in tensors.items():
                if key.startswith("optimizer/"):
                    _, index, name = key.split("/")
                    state.setdefault(int(index), {})[name] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for name in ("metrics.jsonl", "samples.jsonl"):
            self.run.cut_back(name, step)
        return step


def _dealt(shares: Sequence[Sequence]) -> list:
    """One list from the shares that it was dealt into, card by card."""
    return [item for cards in zip(*shares, strict=True) for item in cards]


def balanced_pairs(rows: int, entries: int, count: int, seed: int) -> np.ndarray:
    """`count` pairs of a row and an entry [count, 2] in random order, as evenly as can be.

    Any `entries` pairs from a multiple of `entries` on name each entry once, any `rows` pairs from
    a multiple of `rows` on name each row once, and as far as that allows a row meets an entry again
    only after it has met all others.
    """
    rng, blocks = np.random.default_rng(seed), -(-count // entries)
    passes = -(-blocks * entries // rows)
    order = np.concatenate([rng.permutation(rows) for _ in range(passes)])
    met, pairs = np.zeros((rows, entries)), []
    for block in order[: blocks * entries].reshape(blocks, entries):
        # The assignment with the fewest repeated pairs; the noise decides among equals.
        noise = rng.random((entries, entries)) / (2 * entries)
        _, picks = linear_sum_assignment(met[block] + noise)
        np.add.at(met, (block, picks), 1)
        pairs.append(np.stack([block, picks], axis=1))
    return np.concatenate(pairs)[:count]


def warm_start(
    policy: Policy,
    queries: list[list[int]],
    menu: Sequence[str],
    config: WarmStartConfig,
    seed: int,
    progress: bool = True,
) -> float:
    """Supervised start: teach the adapter of `policy` to write an entry of `menu` for any query.

    Each entry comes equally often, and with each query (`balanced_pairs`), and the rate falls
    linearly to 0: at a constant rate the last batches decide which entries ρ_sft writes, and what
    it never writes PPO never learns. Returns the mean loss (nats per token) of the last ten steps.
    """
    model, tokenizer = policy.model, policy.tokenizer
    entries = [tokenizer.encode(s, add_special_tokens=False) for s in menu]
    entries = [e + [tokenizer.eos_token_id] for e in entries]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / config.steps)
    count, losses = config.steps * config.batch_size, []
    pairs = balanced_pairs(len(queries), len(entries), count, seed)
    batches = np.split(pairs, config.steps)
    for pairs in tqdm(batches, desc="warm start", disable=not progress, leave=False):
        batch = make_batch(
            [queries[i] for i, _ in pairs],
            [entries[k] for _, k in pairs],
            tokenizer.pad_token_id,
            model.device,
        )
        logp, _, _ = forward(model, batch, tokenizer.pad_token_id)
        loss = -masked_mean(logp, batch.mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / len(losses[-10:])


def menu_coverage(outputs: Sequence[str], menu: Sequence[str]) -> dict:
    """Which share of sampled `outputs` is each entry of `menu`, and which is none of them."""
    written = Counter(outputs)
    shares = {entry: written[entry] / len(outputs) for entry in menu}
    return {"samples": len(outputs), "off_menu": 1 - sum(shares.values()), "shares": shares}


def rarely_written(coverage: dict) -> list[str]:
    """The entries with less than a fifth of an equal share: PPO can hardly learn to use them."""
    shares = coverage["shares"]
    return [entry for entry, share in shares.items() if share < 0.2 / len(shares)]
