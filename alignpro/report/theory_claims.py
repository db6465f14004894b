"""The paper's theory, claim by claim: by how much random instances violate each statement.

Each check in `CHECKS` takes one solved random instance. It returns the violation of the statement
and that of its correction, or one number where there is nothing to correct. For a remark the two
are the statement `without` and `with` what must be read in (`claims.yaml`). For an inequality the
violation is the left side minus the right, for an identity it is the distance of the two sides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from alignpro import theory
from alignpro.theory import gibbs
from alignpro.theory.gibbs import Array
from alignpro.theory.instances import random_instance


def violations(instances: int, seed: int) -> dict[str, Array]:
    """By claim: the violation [2, instances] of the statement and of its corrected version.

    Sizes and leashes are drawn as in the chapter on the gap: up to five prompts, eight rewrites and
    eight responses, lam and beta from 0.01 to 10, rewards that fill [0, 1].
    """
    rng = np.random.default_rng(seed)
    solved = []
    for _ in range(instances):
        instance = random_instance(rng, *rng.integers([1, 2, 2], [6, 9, 9]))
        solved.append(instance.solve(lam=10 ** rng.uniform(-2, 1), beta=10 ** rng.uniform(-2, 1)))
    return {
        name: np.array([np.broadcast_to(check(s, rng), 2) for s in solved]).T
        for name, check in CHECKS.items()
    }


def _distance_to_optimum(q, f, temperature, formula) -> float:
    """How far `formula` lies from what an optimiser finds for max p·f − t KL(p ‖ q)."""

    def softmax(z):
        p = np.exp(z - z.max())
        return p / p.sum()

    def loss(z):
        p = softmax(z)
        score = f - temperature * (np.log(np.maximum(p, 1e-300)) - np.log(q))
        return -(p @ score), -p * (score - p @ score)

    found = minimize(loss, np.zeros(len(q)), jac=True, method="BFGS", options={"gtol": 1e-10})
    return float(np.abs(softmax(found.x) - formula).max())


def tilt(s, rng):
    i = s.instance
    return _distance_to_optimum(i.pi_F[0], i.reward[0], s.beta, s.pi_star[0])


def lemma(s, rng):
    return _distance_to_optimum(s.instance.rho_sft[0], s.g[0], s.lam, s.rho_star[0])


def split(s, rng):
    return abs(s.delta - s.delta1 - s.delta2)


def first_part(s, rng):
    return -s.delta1


def partition(s, rng):
    score = s.g - s.lam * np.log(s.rho_star / s.instance.rho_sft)  # the same for every rewrite
    stated = np.abs(1 - s.log_Z_x * np.exp(-s.log_Z_x)).max()  # Z against log Z, in units of Z
    return stated, np.abs(score - s.lam * s.log_Z_x[:, None]).max()


def reference(s, rng):
    i = s.instance
    other = gibbs.tilt(s.pi_sft_mix, i.reward, s.beta).p
    return s.J_frozen - i.P @ (other * i.reward).sum(axis=1), -s.delta1


def budget(s, rng):
    """As stated: some lam takes the bound to 0. Corrected: a prompter matches RLHF as C15 says."""
    i, lams = s.instance, np.geomspace(1e-3, 1e2, 41)
    missing = s.bound_term1 + s.bound_term2 - (lams * i.lambda_curve(lams).kl).max()
    at = i.lambda_c(s.beta)
    if at in (0, np.inf):  # no prompter matches it, or rho_sft does already
        return missing, s.J_rlhf - s.J_sft if at else -s.floor
    return missing, abs(s.J_rlhf - i.lambda_curve([at]).J_prompter[0])


def truncation(s, rng):
    top, second, beta = 0.6 + rng.uniform(0, 0.003), rng.uniform(0.13, 0.2), rng.uniform(5, 15)
    pi_F = np.array([top, second, *[(1 - top - second) / 2] * 2])
    r = np.array([0.5, 0, 1, 1])
    first, after = _nucleus(pi_F), _nucleus(gibbs.tilt(pi_F, r, beta).p)
    return first @ r - after @ r, first @ r - gibbs.tilt(first, r, beta).p @ r


def _nucleus(p, top_p=0.6):
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    return np.where(np.isin(np.arange(len(p)), kept), p, 0.0) / p[kept].sum()


def theorem(s, rng):
    return s.delta - s.bound_paper


def signed_reward(s, rng):
    """Subtracting ½ from every reward changes no policy and no gap, but halves r_max."""
    terms = s.bound_term1 + s.bound_term2
    return s.delta - (terms / 2 - s.bound_term3), s.delta - s.bound_paper


def second_term(s, rng):
    good = np.sort(rng.random(4))[::-1]  # P(the good answer): no rewrite is better than the prompt
    answers = np.stack([1 - good, good], axis=1)
    i = theory.Instance([1], rng.dirichlet(np.ones(4), size=1), answers[:1], answers, [[0, 1]])
    s = i.solve(s.lam, s.beta)
    trained = s.rho_star[0] @ gibbs.total_variation(answers[0], answers)
    return s.delta - (s.bound_term1 + trained - s.bound_term3), s.delta - s.bound_paper


def point_mass(s, rng):
    def stuck(at):  # random instances have the prompt itself as their first rewrite
        rho = np.zeros_like(s.instance.rho_sft)
        rho[:, at] = 1
        return replace(s.instance, rho_sft=rho).solve(s.lam, s.beta)

    here, elsewhere = stuck(0), stuck(1)
    return elsewhere.bound_term2, max(here.bound_term2, here.kl, elsewhere.kl)


def farther(s, rng):
    far = s.instance.solve(s.lam / 10, s.beta)
    return far.bound_paper - s.bound_paper, far.delta - s.delta


def negative_bound(s, rng):
    rare = 10 ** rng.uniform(-4, -1)  # a rewrite that always helps where the model never does
    gift = theory.Instance([1], [[1 - rare, rare]], [[1, 0]], np.eye(2), [[0, 1]])
    g = gift.solve(lam=0.1, beta=100)
    return -g.bound_paper, g.delta - g.bound_paper


def tightness(s, rng):
    slack = s.bound_paper - s.delta
    return slack, s.lam * s.kl_reverse - slack


def any_prompter(s, rng):
    def kl(p, q):
        return i.P @ gibbs.kl_divergence(p, q)

    i = s.instance
    rho = rng.dirichlet(np.full(i.rho_sft.shape[1], 0.3), size=len(i.P)) + 1e-12
    rho /= rho.sum(axis=1, keepdims=True)
    gap, terms = s.J_rlhf - i.value(rho), s.bound_term1 + s.bound_term2
    own = kl(rho, i.rho_sft)
    charged = own + kl(i.rho_sft, s.rho_star) - kl(rho, s.rho_star)
    return gap - (terms - s.lam * own), gap - (terms - s.lam * charged)


def ceiling(s, rng):
    return s.floor - s.delta


CHECKS = {
    check.__name__: check
    for check in (
        tilt, split, first_part, lemma, partition, theorem, point_mass, farther, budget, ceiling,
        signed_reward, second_term, reference, any_prompter, negative_bound, tightness, truncation,
    )
}  # fmt: skip
