"""Random instances of the theory, shared by its tests."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from alignpro import theory

settings.register_profile("theory", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("theory")

KINDS = ("plain", "sparse", "tiny", "deterministic", "constant")
TEMPERATURES = st.floats(-4, 4).map(lambda e: 10.0**e)
ARRAYS = ["g", "log_Z_x", "log_Z_beta_x", "rho_star", "pi_star", "pi_prompter", "pi_sft_mix"]
SCALARS = [
    *("J_rlhf", "J_frozen", "J_sft", "J_prompter", "delta", "delta1", "delta2", "kl", "kl_reverse"),
    *("kl_rlhf", "kl_rlhf_reverse", "tv_rlhf", "tv_rewrites", "r_max", "bound_term1"),
    *("bound_term2", "bound_term3", "bound_paper", "bound_jeffreys", "bound_mixture", "floor"),
]
FIELDS = ARRAYS + SCALARS


def make(seed: int, kind: str = "plain", own: bool = True, scale: float = 1.0) -> dict:
    """Keyword arguments of an Instance."""
    rng = np.random.default_rng(seed)
    X, K, Y = rng.integers(1, 4), rng.integers(2, 6), rng.integers(2, 6)
    spread = 0.3 if kind == "sparse" else 1.0
    rho = rng.dirichlet(np.full(K, spread), X)
    pi = rng.dirichlet(np.full(Y, spread), X)
    rewrites = rng.dirichlet(np.full(Y, spread), (X, K) if own else K)
    reward = scale * rng.random((X, Y))
    if kind == "sparse":
        for rows in (rho, pi, rewrites):
            rows[rows < 0.1] = 0
            rows /= rows.sum(axis=-1, keepdims=True)
    if kind == "tiny":
        for rows in (rho, pi):
            rows[:, 0] = 2.0**-40
            rows[:, 1:] *= (1 - 2.0**-40) / rows[:, 1:].sum(axis=-1, keepdims=True)
    if kind == "deterministic":
        rewrites = np.eye(Y)[rng.integers(0, Y, rewrites.shape[:-1])]
        pi = np.eye(Y)[rng.integers(0, Y, X)]
    if kind == "constant":
        reward[:] = scale * 0.7
    P = rng.dirichlet(np.ones(X))
    return {"P": P, "rho_sft": rho, "pi_F": pi, "pi_F_rewrites": rewrites, "reward": reward}


@st.composite
def instances(draw, kinds=KINDS) -> theory.Instance:
    seed, kind = draw(st.integers(0, 2**32)), draw(st.sampled_from(kinds))
    own, scale = draw(st.booleans()), draw(st.sampled_from([1.0, 0.01, 50.0]))
    return theory.Instance(**make(seed, kind, own, scale))


def random_rho(inst: theory.Instance, seed: int) -> np.ndarray:
    """A prompter on the support of rho_sft."""
    rho = np.random.default_rng(seed).random(inst.rho_sft.shape) * (inst.rho_sft > 0)
    return rho / rho.sum(axis=1, keepdims=True)


def rounding(inst: theory.Instance) -> float:
    return 1e-11 * max(1.0, inst.r_max)


def osc(f, support):
    return np.array([np.ptp(row[mask]) for row, mask in zip(f, support)])
