"""PPO learns toys with a known optimum, with every seed, within a stated number of calls.

A test of learning must not depend on one random trajectory: each toy is learned with ten seeds.
What makes that possible is exploration. A policy that starts from 600 random tokens meets a reward
by luck; one that starts with equal shares of a few words meets each of them in every batch.
"""

import dataclasses

import pytest
import torch

from alignpro import ppo
from alignpro.config import SamplingConfig, WarmStartConfig
from alignpro.fast.adapter import add_lora, centre_adapter
from alignpro.generation import Policy
from alignpro.runs import Run
from alignpro.sources import reference

SEEDS = range(10)
STEPS, BATCH = 14, 72  # 1,008 calls
# Each is one token of the tiny models' tokenizer.
ANSWERS = {"reason": "Why is {}?", "yes": "Is it {}?", "one": "{} or not?"}
SUBJECTS = ("the sky blue", "ice cold", "it dark", "snow white")
LETTERS = ("eel", "ear", "one", "ant", "art", "all")


def messages(prompts):
    return [[{"role": "user", "content": p}] for p in prompts]


def learned(load_tiny, smoke, folder, seed, menu, prompts, reward) -> tuple[dict, float, float]:
    """Coverage of `menu` after the warm start, mean reward before and after PPO.

    `reward` is a function of a prompt and an output. Both means are over 240 fresh outputs.
    """
    model, tokenizer = load_tiny("qwen2")
    # A tiny model's hidden states are short: without this no token gets more than half of the mass.
    model.lm_head.weight.data.mul_(6)
    prompter = dataclasses.replace(smoke.prompter, lora_rank=8, lora_layers=1)
    sampling = SamplingConfig(1.0, 1.0, 0, 4)

    def policy(base, seed):
        return Policy(add_lora(base, prompter, seed), tokenizer, sampling, batch_size=BATCH)

    first = policy(model, seed)
    queries = first.encode(messages(prompts))
    config = WarmStartConfig("all", 40, 2 * len(menu), 2e-2)
    reference.warm_start(first, queries, menu, config, seed, progress=False)
    second = policy(first.model.merge_and_unload().requires_grad_(False).eval(), seed + 100)
    centre_adapter(second.model, queries)

    def sampled(seed):
        many = -(-240 // len(queries))
        return prompts * many, second.generate_ids(queries * many, seed)

    def mean_reward(prompts, outputs):
        return sum(map(reward, prompts, outputs)) / len(outputs)

    def score(prompts, outputs, seed):
        scores = torch.tensor([float(r) for r in map(reward, prompts, outputs)])
        return ppo.Scored(scores, [{"output": str(o)} for o in outputs], {})

    asked, before = sampled(1)
    config = dataclasses.replace(
        smoke.ppo,
        **{"steps": STEPS, "batch_size": BATCH, "minibatch_size": BATCH // 2, "lam": 0.02},
        **{"learning_rate": 5e-3, "value_learning_rate": 1e-2, "gae_lambda": 1.0},
        **{"checkpoint_every": STEPS, "sample_every": STEPS, "lr_scheduler_type": "linear"},
    )
    run = Run(folder, smoke, "help", ("P1", "F1"), "toy", seed)
    ppo.Trainer(second, prompts, messages, score, config, run).train(progress=False)
    coverage = reference.menu_coverage(before, menu)
    return coverage, mean_reward(asked, before), mean_reward(*sampled(2))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_contextual_bandit_is_learned(load_tiny, smoke, tmp_path, seed):
    """Three words, each of which earns 1 for a third of the prompts: only reading earns 1."""
    answers = {form.format(s): word for word, form in ANSWERS.items() for s in SUBJECTS}
    coverage, before, after = learned(
        *(load_tiny, smoke, tmp_path, seed, list(ANSWERS), list(answers)),
        lambda prompt, output: output == answers[prompt],
    )
    assert min(coverage["shares"].values()) > 0.2 and coverage["off_menu"] < 0.15, coverage
    assert before < 0.45, "the start must not know the answer"
    assert after > 0.8, "a constant word earns a third, the optimum 1"


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_constant_word_is_learned(load_tiny, smoke, tmp_path, seed):
    """The reward is the share of the letter e: two thirds for "eel", the best of six words."""
    prompts = [form.format("it so") for form in ANSWERS.values()] * 4
    _, before, after = learned(
        *(load_tiny, smoke, tmp_path, seed, LETTERS, prompts),
        lambda prompt, output: output.count("e") / max(len(output), 1),
    )
    assert before < 0.25
    assert after > 0.6, "the best word earns two thirds, an average one less than a quarter"
