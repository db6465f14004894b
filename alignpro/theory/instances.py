"""Finite instances to compute with: the coin, and random ones."""

from __future__ import annotations

import numpy as np

from alignpro.theory import instance


def coin() -> instance.Instance:
    """The coin of chapter 1: rewrites that hurt, keep and help; answers of reward 0 and 1."""
    return instance.Instance(
        P=[1.0],
        rho_sft=[[1 / 4, 1 / 2, 1 / 4]],
        pi_F=[[1 / 2, 1 / 2]],
        pi_F_rewrites=[[3 / 4, 1 / 4], [1 / 2, 1 / 2], [1 / 4, 3 / 4]],
        reward=[[0.0, 1.0]],
    )


def random_instance(
    rng: np.random.Generator, prompts: int, rewrites: int, responses: int
) -> instance.Instance:
    """Flat Dirichlet policies; rewards that fill [0, 1] for each prompt, best for Theorem 6.1.

    The first rewrite of each prompt is the prompt itself.
    """
    answers = rng.dirichlet(np.ones(responses), size=(prompts, rewrites))
    reward = rng.random((prompts, responses))
    reward = (reward - reward.min(axis=1, keepdims=True)) / np.ptp(reward, axis=1, keepdims=True)
    return instance.Instance(
        P=np.full(prompts, 1 / prompts),
        rho_sft=rng.dirichlet(np.ones(rewrites), size=prompts),
        pi_F=answers[:, 0],
        pi_F_rewrites=answers,
        reward=reward,
    )
