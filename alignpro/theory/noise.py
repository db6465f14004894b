"""Noise in the frozen LLM: what a prompter loses when its g was measured on another model (C17).

The true model gives a rewrite the mean reward g, the model that was asked gives it g_hat, and
e = g_hat - g. The prompter trained on g_hat is the tilt of the true optimum by e / lam, so its
losses are those of C1, C2 and C6. Divergences in nats, rewards in their own unit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alignpro.theory.arguments import as_array, as_number, distributions
from alignpro.theory.gibbs import Array, divergence_terms, kl_of_range, osc, tilt


@dataclass(frozen=True, eq=False)
class Noise:
    """Losses and ceilings per prompt, each [X], at one leash lam. "hat" is what training saw."""

    rho_hat: Array  # [X, K] the optimum for g_hat
    loss: Array  # F(rho*) - F(rho_hat) = lam KL(rho_hat || rho*), in the true objective
    regret_hat: Array  # F_hat(rho_hat) - F_hat(rho*) = lam KL(rho* || rho_hat)
    reward_change: Array  # E_{rho_hat} g - E_{rho*} g, of either sign
    loss_ceiling: Array  # lam h(osc(e) / lam), for loss and for regret_hat
    sum_ceiling: Array  # osc(e) tanh(osc(e) / 4 lam), for their sum
    reward_ceiling: Array  # osc(g) tanh(osc(e) / 4 lam), for |reward_change|


def noise(rho_sft: ArrayLike, g: ArrayLike, g_hat: ArrayLike, lam: float) -> Noise:
    """What training on ``g_hat`` [X, K] costs where ``g`` [X, K] is true, at the leash ``lam`` > 0.

    ``rho_sft`` [X, K] is the reference prompter. Entries of g and g_hat where it is 0 do not count.
    Raises ValueError naming the argument.
    """
    rho_sft = distributions("rho_sft", as_array("rho_sft", rho_sft, (None, None)))
    g = as_array("g", g, rho_sft.shape)
    error = as_array("g_hat", g_hat, rho_sft.shape) - g
    lam = as_number("lam", lam)
    true, hat = tilt(rho_sft, g, lam), tilt(rho_sft, g + error, lam)
    # From the log-ratios: at a loose leash the probabilities themselves can be 0 in float64.
    log_ratio = hat.log_ratio - true.log_ratio
    size = osc(error, rho_sft > 0)
    bend = np.tanh(size / (4 * lam))
    return Noise(
        rho_hat=hat.p,
        loss=lam * divergence_terms(hat.p, true.p, log_ratio).sum(axis=1),
        regret_hat=lam * divergence_terms(true.p, hat.p, -log_ratio).sum(axis=1),
        reward_change=((hat.p - true.p) * g).sum(axis=1),
        loss_ceiling=lam * kl_of_range(size / lam),
        sum_ceiling=size * bend,
        reward_ceiling=osc(g, rho_sft > 0) * bend,
    )


def rlhf_shift_ceiling(eta: ArrayLike, reward_range: float, beta: float) -> Array:
    """The largest TV between RLHF's optima for two models that are ``eta`` [...] apart in TV.

    eta W / (1 - eta + eta W) with W = e^(range / beta), attained (C17). ``reward_range`` is the
    range of the reward over all answers that one of the two models gives.
    """
    eta = np.asarray(eta, dtype=float)
    # Divided by W: no overflow at a loose leash.
    shrunk = np.exp(
        -as_number("reward_range", reward_range, strict=False) / as_number("beta", beta)
    )
    return eta / ((1 - eta) * shrunk + eta)
