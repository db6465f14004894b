"""Sampling from a policy: prompts in, completions out, nothing else seen.

A :class:`Policy` is the only way in which this project asks a language model for text. The frozen
LLM π_F is used through :meth:`Policy.generate` alone, so that an
:class:`alignpro.sources.endpoint.Endpoint` can take its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alignpro.config import SamplingConfig
from alignpro.fast.decode import decode, rows_that_fit
from alignpro.runs import row_seeds
from alignpro.sources.chat import Chat, Messages, require_window
from alignpro.texts import Response


def filter_logits(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scale `logits` [B, V] by temperature, then keep the top-k, then the nucleus top-p.

    The order is that of transformers: p counts the mass left after top-k. With `top_k` > 0 the
    logits come back as [B, k] with their token ids, so that the nucleus sorts k entries instead of
    the vocabulary. `top_k` = 0 keeps all and returns None for the ids.
    """
    ids = None
    if top_k:
        logits, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    logits = logits.float() / temperature
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        mass_before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = (mass_before >= top_p).scatter(-1, order, mass_before >= top_p)
        logits = logits.masked_fill(dropped, float("-inf"))
    return logits, ids


def sample_tokens(
    logits: torch.Tensor, sampling: SamplingConfig, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """One token id for each row of `logits` [B, V], drawn with its own one of `generators` [B].

    Temperature 0 takes the most likely token.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    kept, ids = filter_logits(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    # One random number per row, looked up among the cumulative probabilities. Gumbel-max needs
    # noise for the whole vocabulary, which costs more than the model's last layers.
    mass = kept.softmax(-1).cumsum(-1, dtype=torch.float64)
    drawn = [torch.rand(1, generator=g, device=mass.device, dtype=mass.dtype) for g in generators]
    choice = torch.searchsorted(mass, torch.stack(drawn) * mass[:, -1:], right=True)[:, 0]
    return choice if ids is None else ids.gather(-1, choice[:, None])[:, 0]


class Policy:
    """A causal language model with its tokenizer and sampling parameters.

    `generate` applies the chat template, runs `batch_size` rows of similar length together (where
    it is None, as many as fit), and stops each row at any of the model's end-of-sequence tokens.
    """

    def __init__(
        self, model: Any, tokenizer: Any, sampling: SamplingConfig, batch_size: int | None = 48
    ):
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.chat, self.batch_size = Chat(tokenizer), batch_size
        eos = model.generation_config.eos_token_id
        eos = eos if isinstance(eos, (list, tuple)) else [eos]
        self.eos_ids = torch.tensor(sorted({*eos, tokenizer.eos_token_id} - {None}))

    def encode(self, messages: Sequence[Messages]) -> list[list[int]]:
        """Token ids of chat messages, each ready for the assistant's turn.

        Raises RunError for a chat that exceeds the model's window together with its answer.
        """
        encoded = [self.chat.encode(m) for m in messages]
        require_window(encoded, messages, self.model.config, self.sampling.max_new_tokens)
        return encoded

    def generate(self, prompts: Sequence[str | Messages], seed: int) -> list[Response]:
        """One completion for each prompt (a user's message, or a list of chat messages).

        The noise of a row depends on `seed`, its prompt, and how often that prompt occurs before
        it: not on the other rows, nor on how the rows are cut into batches or processes.
        """
        messages = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
        return self.generate_ids(self.encode(messages), seed)

    def generate_ids(self, encoded: Sequence[list[int]], seed: int) -> list[Response]:
        """As `generate`, from token ids that `encode` has made."""
        seeds = row_seeds(seed, map(tuple, encoded))
        noise = [torch.Generator(self.model.device).manual_seed(s) for s in seeds]
        by_length = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        out: dict[int, Response] = {}
        longest = max(map(len, encoded), default=0) + self.sampling.max_new_tokens
        size = self.batch_size or rows_that_fit(self.model, longest)
        for start in range(0, len(by_length), size):
            rows = by_length[start : start + size]

            def draw(logits: torch.Tensor, left: list[int], rows: list[int] = rows) -> torch.Tensor:
                return sample_tokens(logits, self.sampling, [noise[rows[i]] for i in left])

            queries, pad_id = [encoded[i] for i in rows], self.tokenizer.pad_token_id
            length = self.sampling.max_new_tokens
            drawn = decode(self.model, queries, pad_id, self.eos_ids, length, draw)
            for i, ids in zip(rows, drawn):
                ended = bool(ids) and ids[-1] in self.eos_ids
                # The end may be a word, as for a base model: it is no part of the answer.
                out[i] = Response(self.chat.answer(ids[: len(ids) - ended]), ended, ids)
        return [out[i] for i in range(len(encoded))]
