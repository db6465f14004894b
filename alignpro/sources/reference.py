"""The reference ρ_sft: a supervised warm start that teaches a prompter the entries of a menu."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from alignpro.config import WarmStartConfig
from alignpro.fast.logprobs import forward, make_batch
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU

if TYPE_CHECKING:
    from alignpro.generation import Policy

COVERAGE_SAMPLES = 16  # for each entry of the menu, on average


def menu_of(config: WarmStartConfig) -> tuple[str, ...]:
    """The suffixes that the warm start teaches."""
    if isinstance(config.menu, tuple):
        return config.menu
    return NEUTRAL_MENU + (BEST_SUFFIXES if config.menu == "all" else ())


def candidates(config: WarmStartConfig) -> tuple[str, ...]:
    """The suffixes that the best constant one is chosen among: a menu of your own, or all."""
    own = isinstance(config.menu, tuple)
    return ("", *(config.menu if own else NEUTRAL_MENU + BEST_SUFFIXES))


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
        loss = -(logp * batch.mask).sum() / batch.mask.sum()
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


def sampled_coverage(
    policy: Policy, queries: list[list[int]], menu: Sequence[str], seed: int
) -> dict:
    """`menu_coverage` of what `policy` writes to `queries`. Prints a warning about rare entries."""
    repeats = math.ceil(COVERAGE_SAMPLES * len(menu) / len(queries))
    coverage = menu_coverage(policy.generate_ids(queries * repeats, seed), menu)
    if rare := rarely_written(coverage):
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        print(
            f"after the warm start {coverage['off_menu']:.0%} of the suffixes are off the menu and "
            f"these entries are hardly ever written: {', '.join(rare[:5])}{more}. PPO learns "
            "little about what it does not try; a warm start with more steps helps",
            file=sys.stderr,
        )
    return coverage


def rarely_written(coverage: dict) -> list[str]:
    """The entries with less than a fifth of an equal share: PPO can hardly learn to use them."""
    shares = coverage["shares"]
    return [entry for entry, share in shares.items() if share < 0.2 / len(shares)]
