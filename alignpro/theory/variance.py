"""Whether prompting lowers the variance of the reward, the claim of the paper's Figure 3 (C19).

With t = 1 / lam, v(x') the variance of the reward of answers to one rewrite and g(x') its mean,
the variance over all answers moves as

    d/dt Var = E_x [ Cov_rho(g, v) + kappa_3(g) ] + 2 Cov_x(J_x, Var_rho(g)),

all under the optimal prompter at t; kappa_3 is the third central moment. The mean moves as
d/dt J = E_x Var_rho(g).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alignpro.theory.arguments import as_array, distributions
from alignpro.theory.gibbs import Array


@dataclass(frozen=True, eq=False)
class VarianceDrift:
    """The terms of d/dt Var, one per prompt [X]: their P-averages are the terms of the formula."""

    within: Array  # Cov_rho(g, v): do the rewrites that earn more vary less?
    skew: Array  # kappa_3(g): are the rewards of the rewrites skewed?
    across: Array  # 2 (J_x - J) (Var_rho(g) - its mean): the part of the variance across prompts
    gain: Array  # Var_rho(g) = d/dt J_x

    @property
    def total(self) -> Array:
        """The sum of the three terms."""
        return self.within + self.skew + self.across


def variance_drift(P: ArrayLike, rho: ArrayLike, g: ArrayLike, v: ArrayLike) -> VarianceDrift:
    """The drift at the prompter ``rho`` [X, K], from ``P`` [X] and the moments ``g``, ``v`` [X, K].

    At rho_sft it is the drift of a stiff leash, at rho* that of its own lam. For RLHF put answers
    in the place of rewrites: rho = pi*, g = r and v = 0. Raises ValueError naming the argument.
    """
    rho = distributions("rho", as_array("rho", rho, (None, None)))
    P = distributions("P", as_array("P", P, (len(rho),)))
    g, v = as_array("g", g, rho.shape), as_array("v", v, rho.shape)
    J = (rho * g).sum(axis=1)
    d = g - J[:, None]
    gain = (rho * d**2).sum(axis=1)
    return VarianceDrift(
        within=(rho * d * v).sum(axis=1),
        skew=(rho * d**3).sum(axis=1),
        across=2 * (J - P @ J) * (gain - P @ gain),
        gain=gain,
    )


def variance_drift_from_samples(rewards: ArrayLike, rho: ArrayLike | None = None) -> VarianceDrift:
    """Unbiased estimates of the same from ``rewards`` [X, K, M] of M >= 3 answers to each rewrite.

    ``rho`` [X, K] weights the rewrites (None: all alike). A product of two or three moments takes
    each from answers of its own, so that noise shared between factors adds nothing; every way to
    deal out the M answers counts alike. X >= 2 prompts, drawn from P. Raises ValueError.
    """
    rewards = as_array("rewards", rewards, (None, None, None))
    X, K, M = rewards.shape
    if M < 3 or X < 2:
        raise ValueError(f"rewards: shape {[X, K, M]}, need X >= 2 prompts and M >= 3 answers")
    rho = np.full((X, K), 1 / K) if rho is None else as_array("rho", rho, (X, K))
    rho = distributions("rho", rho)
    J = np.einsum("xk,xkm->xm", rho, rewards)
    d = rewards - J[:, None, :]
    within, across = np.zeros(X), np.zeros(X)
    for m in range(M):
        others = np.delete(np.arange(M), m)
        v = rewards[..., others].var(axis=2, ddof=1)
        within += (rho * d[..., m] * v).sum(axis=1) / M
        gain = (rho * _products(d[..., others], 2)).sum(axis=1)
        # X / (X - 1): the means over prompts are estimates as well.
        scale = 2 * X / (X - 1) / M
        across += scale * (J[:, m] - J[:, m].mean()) * (gain - gain.mean())
    skew, gain = ((rho * _products(d, order)).sum(axis=1) for order in (3, 2))
    return VarianceDrift(within=within, skew=skew, across=across, gain=gain)


def _products(d: Array, order: int) -> Array:
    """[X, K] mean of the product of ``order`` (2 or 3) different answers' ``d`` [X, K, M]."""
    M = d.shape[2]
    one, two = d.sum(axis=2), (d**2).sum(axis=2)
    if order == 2:
        return (one**2 - two) / (M * (M - 1))
    return (one**3 - 3 * one * two + 2 * (d**3).sum(axis=2)) / (M * (M - 1) * (M - 2))
