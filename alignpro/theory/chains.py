"""Prompters in sequence: each stage rewrites what the stage before it wrote (C18).

Stage i = 1, ..., n sees the original prompt and the previous rewrite. Its reference R_i is
[X, K_{i-1}, K_i]: prompt, rewrite that comes in, rewrite that goes out; K_0 = 1, since the first
stage sees the prompt alone. g [X, K_n] is the mean reward of the last rewrite. Every stage has its
own leash lam_i > 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alignpro.theory.arguments import as_array, as_number, distributions
from alignpro.theory.gibbs import Array, Tilt, kl_divergence, tilt, total_variation


@dataclass(frozen=True, eq=False)
class Chain:
    """The optimal chain: V_{i-1} = lam_i log E_{R_i} e^(V_i / lam_i), rho_i* ~ R_i e^(V_i / lam_i).

    The methods take any chain: ``policies`` rho_1, ..., rho_n, each of the shape of its reference.
    """

    references: tuple[Array, ...]  # R_i [X, K_{i-1}, K_i]
    lams: tuple[float, ...]
    values: tuple[Array, ...]  # V_0 [X, 1], ..., V_n = g [X, K_n]
    stages: tuple[Tilt, ...]  # rho_i* = stages[i - 1].p [X, K_{i-1}, K_i]

    @property
    def policies(self) -> tuple[Array, ...]:
        """rho_1*, ..., rho_n*."""
        return tuple(stage.p for stage in self.stages)

    @property
    def value(self) -> Array:
        """[X] the largest objective of any chain, V_0."""
        return self.values[0][:, 0]

    def objective(self, policies: Sequence[ArrayLike]) -> Array:
        """[X] E g - sum of lam_i E KL(rho_i || R_i)."""
        reward = (last_rewrite(policies)[:, 0] * self.values[-1]).sum(axis=1)
        return reward - self._paid(policies, self.references)

    def regret(self, policies: Sequence[ArrayLike]) -> Array:
        """[X] sum of lam_i E KL(rho_i || rho_i*) >= 0: the value that ``policies`` lose."""
        return self._paid(policies, self.policies)

    def _paid(self, policies: Sequence[ArrayLike], to: Sequence[Array]) -> Array:
        """[X] sum of lam_i E KL(rho_i || to_i), the expectations along ``policies``."""
        arriving, paid = np.ones(self.values[0].shape), np.zeros(len(self.value))
        for rho, reference, lam in zip(policies, to, self.lams, strict=True):
            rho = distributions("policies", as_array("policies", rho, reference.shape))
            kl = kl_divergence(rho, reference)
            # A rewrite that never arrives must not turn an infinite term into NaN.
            paid += lam * (arriving * np.where(arriving > 0, kl, 0.0)).sum(axis=1)
            arriving = np.einsum("xk,xkl->xl", arriving, rho)
        return paid


def solve_chain(references: Sequence[ArrayLike], g: ArrayLike, lams: Sequence[float]) -> Chain:
    """The optimal chain, last stage first, for ``references`` R_1, ..., R_n and ``lams``.

    ``g`` [X, K_n]. Raises ValueError naming the argument.
    """
    g = as_array("g", g, (None, None))
    if len(references) != len(lams) or not references:
        raise ValueError(f"lams: {len(lams)} leashes for {len(references)} references")
    sources: list[np.ndarray] = []
    stages: list[Tilt] = []
    values = [g]
    for R, lam in zip(reversed(references), reversed(lams), strict=True):
        after = values[0]
        R = distributions("references", as_array("references", R, (len(g), None, after.shape[1])))
        lam = as_number("lams", lam)
        stage = tilt(R, after[:, None, :], lam)
        sources.insert(0, R)
        stages.insert(0, stage)
        values.insert(0, lam * stage.log_Z)
    if values[0].shape[1] != 1:
        raise ValueError(
            f"references: the first has {values[0].shape[1]} rows a prompt, expected 1"
        )
    return Chain(tuple(sources), tuple(float(lam) for lam in lams), tuple(values), tuple(stages))


def last_rewrite(policies: Sequence[ArrayLike]) -> Array:
    """[X, 1, K_n] the law of the last rewrite: the stages composed."""
    law, *later = (np.asarray(rho, dtype=float) for rho in policies)
    for rho in later:
        law = law @ rho
    return law


def dobrushin(R: ArrayLike) -> Array:
    """[X] Dobrushin's coefficient of ``R`` [X, K, L]: the largest TV between two of its K rows."""
    R = np.asarray(R, dtype=float)
    return total_variation(R[:, :, None, :], R[:, None, :, :]).max(axis=(1, 2))
