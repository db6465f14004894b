"""Models of a preset's shapes with random weights, and texts of known lengths for them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from alignpro.config import ModelSpec, Preset
from alignpro.runs import digest
from alignpro.scale.plan import meta_tokens
from alignpro.scale.step_costs import architecture
from alignpro.texts import META_PROMPT


def shrunk(preset: Preset, scale: float) -> Preset:
    """`preset` with its rows, tokens and adapter rank times √`scale`, each at least 1."""
    ppo, prompter, frozen = preset.ppo, preset.prompter, preset.frozen
    minibatch = times(ppo.minibatch_size, scale)
    batches = times(ppo.batch_size / minibatch, scale)
    return replace(
        preset,
        generation_batch=preset.generation_batch and times(preset.generation_batch, scale),
        ppo=replace(
            ppo,
            batch_size=batches * minibatch,
            minibatch_size=minibatch,
            accumulate=ppo.accumulate and times(ppo.accumulate, scale),
        ),
        prompter=replace(
            prompter,
            max_new_tokens=times(prompter.max_new_tokens, scale),
            lora_rank=times(prompter.lora_rank, scale),
        ),
        frozen=replace(frozen, max_new_tokens=times(frozen.max_new_tokens, scale)),
    )


def times(value: float, scale: float, unit: int = 1) -> int:
    """`value` times √`scale`, rounded to a multiple of `unit`, and at least one `unit`."""
    return max(1, round(value * math.sqrt(scale) / unit)) * unit


def shrunk_config(config: PreTrainedConfig, scale: float) -> PreTrainedConfig:
    """`config` with its layers, widths and vocabulary times √`scale`; the heads keep their number.

    A matrix of a layer then has about `scale` times as many entries as before.
    """
    config, heads = copy.deepcopy(config), config.num_attention_heads
    if scale == 1:
        return config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    square = heads * head_dim == config.hidden_size
    config.head_dim = times(head_dim, scale, 8)
    hidden = times(config.hidden_size, scale, 8)
    config.hidden_size = heads * config.head_dim if square else hidden
    config.intermediate_size = times(config.intermediate_size, scale, 8)
    config.vocab_size = times(config.vocab_size, scale, 8)
    config.num_hidden_layers = max(2, times(config.num_hidden_layers, scale))
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    return config


def word_tokenizer(vocabulary: int, form: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words t2, t3, …, so that texts have known lengths.

    Its end of sequence is no token of a model with this `vocabulary`, so no text ends by itself.
    The chat template adds nothing but what makes the meta-prompt of `form` as long as the plan
    takes it to be.
    """
    names = ["<pad>", "<unknown>", *(f"t{i}" for i in range(2, vocabulary)), "<end>"]
    words = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    filler = " t2" * (meta_tokens(form) - len(META_PROMPT[form].split()))
    system = "{% if m['role'] == 'system' %}" + filler + "{% endif %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unknown>",
        clean_up_tokenization_spaces=False,
        chat_template="{% for m in messages %}{{ m['content'] }}" + system + " {% endfor %}",
    )


def with_random_models(preset: Preset, scale: float, folder: Path) -> Preset:
    """`preset` with random models in place of its own, of the same shapes at `scale`.

    Their configs and tokenizers go to `folder`. The reward model has one output. A frozen LLM
    behind an endpoint stays there.
    """
    models = dict(preset.models)
    for role, spec in preset.models.items():
        if spec.endpoint is None:
            config = shrunk_config(architecture(spec), scale)
            config.num_labels = 1
            config.bos_token_id, config.eos_token_id, config.pad_token_id = None, None, 0
            # Roles that name the same model share a folder: their pairs are run once.
            target = folder / digest(spec.source, spec.revision)
            config.save_pretrained(target)
            word_tokenizer(config.vocab_size, preset.prompter.form).save_pretrained(target)
            models[role] = ModelSpec(source=f"random:{target}")
    return replace(preset, models=models)


def random_texts(count: int, tokens: int, seed: int) -> list[str]:
    """`count` texts of `tokens` tokens; the first is one shorter, so that batches have padding."""
    words = np.random.default_rng(seed).integers(2, 500, size=(count, tokens))
    words[0, :1] = -1
    return [" ".join(f"t{x}" for x in row if x >= 0) for row in words]
