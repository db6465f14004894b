"""A reward from a checkpoint: a reward model from the Hub, from a directory, or learned here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from transformers import AutoModelForSequenceClassification

from alignpro import devices, models
from alignpro.config import ModelSpec
from alignpro.sources.chat import Chat, require_window
from alignpro.sources.weights import ModelError


class RewardModel:
    """A reward model from a checkpoint: scores [B] of responses y to prompts x, in float32.

    `batch_size` pairs are scored together. A checkpoint with a chat template reads the two turns as
    the card of RM-Gemma-2B has it: the template without a generation prompt, and BOS once. One
    without a template, such as an encoder, reads its tokenizer's text pair (x, y), cut to the
    tokenizer's limit. The weights are loaded at the first score. Raises ModelError where they are
    unavailable, where the checkpoint has more than one output, or reads neither turns nor pairs;
    RunError where two turns exceed its window.
    """

    def __init__(self, spec: ModelSpec, batch_size: int = 16):
        self.spec, self.batch_size = spec, batch_size

    @cached_property
    def name(self) -> str:
        """The name under which runs with this reward are kept."""
        return models.identity(self.spec)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        """One score for each pair."""
        model, _ = self._loaded
        lengths = [len(x) + len(y) for x, y in zip(prompts, responses, strict=True)]
        by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
        scores = torch.empty(len(lengths))
        for start in range(0, len(by_length), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            inputs = self._inputs(
                [str(prompts[i]) for i in rows], [str(responses[i]) for i in rows]
            )
            with torch.inference_mode():
                scores[rows] = model(**inputs.to(model.device)).logits[:, 0].float().cpu()
        return scores

    @cached_property
    def _loaded(self) -> tuple[torch.nn.Module, object]:
        # On a CPU, where a reward model is small, its scores need not be rounded to bfloat16.
        precision = torch.float32 if devices.device().type == "cpu" else None
        model, tokenizer = models.load(self.spec, AutoModelForSequenceClassification, precision)
        if model.config.num_labels != 1:
            raise ModelError(
                f"{self.spec.source!r} has {model.config.num_labels} outputs, a reward model has "
                "one; check `reward` and `models` in the preset"
            )
        if tokenizer.chat_template is None and tokenizer.cls_token is None:
            raise ModelError(
                f"{self.spec.source!r} has no chat template, and is no encoder of text pairs: use "
                "a copy of it with the template that it was trained with"
            )
        # The model reads its score at the last token that is not padding: both must agree on it.
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        tokenizer.pad_token_id = model.config.pad_token_id
        return model, tokenizer

    def _inputs(self, prompts: list[str], responses: list[str]):
        model, tokenizer = self._loaded
        padded = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        if tokenizer.chat_template is None:
            text = {"truncation": True, "split_special_tokens": True}  # what is spelled stays text
            return tokenizer(prompts, responses, **text, **padded)
        chats = [
            [{"role": "user", "content": x}, {"role": "assistant", "content": y}]
            for x, y in zip(prompts, responses)
        ]
        # The template writes BOS. The card removes that one and lets the tokenizer add its own,
        # which is the same as long as the tokenizer does.
        encode = Chat(tokenizer).encode
        encoded = [encode(chat, reply=False) for chat in chats]
        require_window(encoded, chats, model.config, 0)
        return tokenizer.pad({"input_ids": encoded}, **padded)
