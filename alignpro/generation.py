"""Sampling from a policy: prompts in, completions out, nothing else seen.

A :class:`Policy` is the only way this project asks a language model for text. The frozen LLM
π_F is used through :meth:`Policy.generate` alone, so that an
:class:`alignpro.sources.endpoint.Endpoint` can take its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers.cache_utils import Cache

from alignpro.config import SamplingConfig
from alignpro.fast.cache import GrowingLayer, left_pad, shared_prefix
from alignpro.fast.linears import decoder
from alignpro.runs import row_seeds
from alignpro.texts import Response


def filter_logits(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scale `logits` [B, V] by temperature, then keep the top-k, then the nucleus top-p.

    The order is that of transformers: p counts the mass left after top-k. With `top_k` > 0 only
    [B, k] logits come back, with their token ids as the second value, so that the nucleus sorts k
    entries instead of the vocabulary; `top_k` = 0 keeps all and returns None for the ids.
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
    """Draw one token id per row of `logits` [B, V], each from its own one of `generators` [B].

    Temperature 0 is greedy.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    kept, ids = filter_logits(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    # One number a row, looked up among the cumulated probabilities: noise for every entry of the
    # vocabulary, as Gumbel-max needs it, costs more than the model's last layers.
    mass = kept.softmax(-1).cumsum(-1, dtype=torch.float64)
    drawn = [torch.rand(1, generator=g, device=mass.device, dtype=mass.dtype) for g in generators]
    choice = torch.searchsorted(mass, torch.stack(drawn) * mass[:, -1:], right=True)[:, 0]
    return choice if ids is None else ids.gather(-1, choice[:, None])[:, 0]


class Policy:
    """A causal language model with its tokenizer and sampling parameters.

    `generate` applies the chat template, left-pads batches of similar length, and stops each row
    at any of the model's end-of-sequence tokens.
    """

    def __init__(self, model, tokenizer, sampling: SamplingConfig, batch_size: int = 48):
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.batch_size = batch_size
        eos = model.generation_config.eos_token_id
        eos = eos if isinstance(eos, (list, tuple)) else [eos]
        self.eos_ids = torch.tensor(sorted({*eos, tokenizer.eos_token_id} - {None}))

    def encode(self, messages: Sequence[list[dict]]) -> list[list[int]]:
        """Token ids of chat messages, each ready for the assistant's turn."""
        return [
            self.tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False)
            for m in messages
        ]

    def generate(
        self,
        prompts: Sequence[str | list[dict]],
        seed: int,
        progress: str | None = None,
    ) -> list[Response]:
        """One completion for each prompt (a user's message, or a list of chat messages).

        A row's noise depends on `seed`, its prompt, and how often that prompt stood before it:
        not on the other rows, nor on the batches or processes that the list is cut into.
        `progress` names a progress bar.
        """
        messages = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
        return self.generate_ids(self.encode(messages), seed, progress)

    def generate_ids(
        self, encoded: Sequence[list[int]], seed: int, progress: str | None = None
    ) -> list[Response]:
        """As `generate`, from token ids that `encode` has made."""
        device = self.model.device
        seeds = row_seeds(seed, map(tuple, encoded))
        noise = [torch.Generator(device).manual_seed(s) for s in seeds]
        by_length = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        out: list[Response | None] = [None] * len(encoded)
        with tqdm(total=len(encoded), desc=progress, disable=progress is None, leave=False) as bar:
            for start in range(0, len(by_length), self.batch_size):
                rows = by_length[start : start + self.batch_size]
                drawn = self._decode([encoded[i] for i in rows], [noise[i] for i in rows])
                for i, ids in zip(rows, drawn):
                    ended = bool(ids) and ids[-1] in self.eos_ids
                    text = self.tokenizer.decode(ids, skip_special_tokens=True)
                    out[i] = Response(text.strip(), ended, ids)
                bar.update(len(rows))
        return out

    @torch.inference_mode()
    def _decode(self, encoded: list[list[int]], noise: list[torch.Generator]) -> list[list[int]]:
        device = self.model.device
        # Chat templates open every row alike: the shared part is computed once.
        cache = Cache(layer_class_to_replicate=GrowingLayer)
        shared = shared_prefix(encoded)
        if shared:
            prefix = torch.tensor([encoded[0][:shared]], device=device)
            decoder(self.model)(prefix, past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(encoded))
        ids, mask = left_pad([e[shared:] for e in encoded], self.tokenizer.pad_token_id, device)
        mask = torch.cat([mask.new_ones(len(mask), shared), mask], dim=-1)
        positions = mask.cumsum(-1) - 1
        step = {"input_ids": ids, "position_ids": positions[:, shared:]}
        position = positions[:, -1:]
        alive = torch.arange(len(encoded), device=device)
        tokens: list[list[int]] = [[] for _ in encoded]
        for _ in range(self.sampling.max_new_tokens):
            out = self.model(
                **step,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            drawn = sample_tokens(
                out.logits[:, -1], self.sampling, [noise[i] for i in alive.tolist()]
            )
            for row, token in zip(alive.tolist(), drawn.tolist()):
                tokens[row].append(token)
            running = ~torch.isin(drawn, self.eos_ids.to(device))
            if not running.any():
                break
            if not running.all():
                keep = running.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                alive, drawn, mask, position = (t[keep] for t in (alive, drawn, mask, position))
            position = position + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            step = {"input_ids": drawn[:, None], "position_ids": position}
        return tokens
