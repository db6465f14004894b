"""One-token answers: the exact distribution of a real model's next token, as a table.

If the answer is a single token, π_F(·|x') is a softmax over the vocabulary. Then nothing has to be
sampled, and `alignpro.theory.instance` applies to a language model unchanged. There are X prompts,
K suffixes and V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from alignpro.config import SamplingConfig
from alignpro.fast.cache import exceeds_reach, left_pad, shared_prefix
from alignpro.generation import filter_logits
from alignpro.sources.chat import Chat


@torch.inference_mode()
def next_token_logits(
    model, tokenizer, prompts: Sequence[str], suffixes: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Logits [X, K, V] of the answer's first token, and the log-likelihood [X, K] of each suffix.

    A rewrite is the prompt with a suffix after a space; the suffix "" is the prompt itself. The
    likelihood, in nats per token, is the model's own for a user's message that continues with the
    suffix and then ends. Prompts are computed one at a time: the shared tokens once, the rewrites
    as a batch. Where the model's window is shorter than a rewrite, every rewrite is computed whole.
    """
    logits, likelihoods = [], []
    for prompt in prompts:
        rewrites = [f"{prompt} {suffix}" if suffix else str(prompt) for suffix in suffixes]
        chats = [[{"role": "user", "content": text}] for text in rewrites]
        encoded = [Chat(tokenizer).encode(c) for c in chats]
        shared = shared_prefix(encoded)
        own = [row[shared:] for row in encoded]
        whole = exceeds_reach(model, shared + max(map(len, own)))
        rows = _logits_of(model, tokenizer.pad_token_id, encoded, 0 if whole else shared, own)
        logits.append(torch.stack([row[-1] for row in rows]).float().cpu().numpy())
        likelihoods.append([_mean_log_likelihood(*pair) for pair in zip(rows, own)])
    return np.stack(logits), np.array(likelihoods)


def _logits_of(
    model, pad_id: int, encoded: list[list[int]], shared: int, own: list[list[int]]
) -> list[torch.Tensor]:
    """For each row, the logits [1 + len(own), V] before each of its ``own`` tokens and at its end.

    The first ``shared`` tokens, at least one less than all of a row, are computed once.
    """
    ids, mask = left_pad([row[shared:] for row in encoded], pad_id, model.device)
    if shared == 0:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        out = model(ids, attention_mask=mask, position_ids=positions).logits
        return [row[-len(tokens) - 1 :] for row, tokens in zip(out, own)]
    cache = DynamicCache()
    first = model(ids.new_tensor([encoded[0][:shared]]), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(encoded))
    seen = torch.cat([mask.new_ones(len(encoded), shared), mask], dim=-1)
    positions = (seen.cumsum(-1) - 1)[:, shared:]
    out = model(ids, attention_mask=seen, position_ids=positions, past_key_values=cache).logits
    opening = first.logits[0, -1:]
    return [torch.cat([opening, row[-len(tokens) :]]) for row, tokens in zip(out, own)]


def _mean_log_likelihood(logits: torch.Tensor, tokens: list[int]) -> float:
    """Mean log-probability of ``tokens`` [T]; ``logits`` [1 + T, V] are those before and after."""
    before = logits[:-1].double().log_softmax(-1)
    return float(before[torch.arange(len(tokens)), tokens].mean())


def next_token_table(
    logits: NDArray[np.float32], sampling: SamplingConfig | None = None
) -> NDArray[np.float64]:
    """Probabilities [X, K, V] from ``logits``, by a softmax in float64.

    With ``sampling`` they are those of the policy with its temperature, top-k and top-p.
    """
    table = np.zeros(logits.shape)
    for x, rows in enumerate(torch.from_numpy(logits)):
        kept, ids = rows, None
        if sampling is not None:
            kept, ids = filter_logits(rows, sampling.temperature, sampling.top_k, sampling.top_p)
        p = kept.double().softmax(-1).numpy()
        if ids is None:
            table[x] = p
        else:
            np.put_along_axis(table[x], ids.numpy(), p, axis=-1)
    return table
