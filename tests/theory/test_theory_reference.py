"""Every field of a solution against a second implementation in 50 digits."""

import dataclasses
import itertools
import math
import subprocess
import sys
import warnings

import mpmath as mp
import numpy as np
import pytest
from theory_cases import ARRAYS, FIELDS, KINDS, SCALARS, make

from alignpro import theory

pytestmark = pytest.mark.filterwarnings("error")


# A second implementation, in 50 digits and scalar loops, straight from the definitions.


def reference(P, rho_sft, pi_F, pi_F_rewrites, reward, lam, beta) -> dict:
    X, K = np.shape(rho_sft)
    Y = np.shape(pi_F)[1]
    lam, beta = mp.mpf(lam), mp.mpf(beta)

    def row(values):
        values = [mp.mpf(float(v)) for v in values]
        total = sum(values)
        return [v / total for v in values] if total else values

    def gibbs(q, f, t):
        w = [a * mp.exp(b / t) for a, b in zip(q, f)]
        return [a / sum(w) for a in w], mp.log(sum(w))

    def kl(p, q):
        return sum((a * mp.log(a / b) for a, b in zip(p, q) if a > 0), mp.mpf(0))

    def tv(p, q):
        return sum(abs(a - b) for a, b in zip(p, q)) / 2

    def dot(p, f):
        return sum((a * b for a, b in zip(p, f)), mp.mpf(0))

    weight = row(P)
    out = {name: [] for name in ARRAYS} | {name: mp.mpf(0) for name in SCALARS}
    jeffreys, osc_tv = mp.mpf(0), mp.mpf(0)
    for x in range(X):
        own = pi_F_rewrites[x] if np.ndim(pi_F_rewrites) == 3 else pi_F_rewrites
        pool, pi, q = [row(own[k]) for k in range(K)], row(pi_F[x]), row(rho_sft[x])
        r = [mp.mpf(float(v)) for v in reward[x]]
        g = [dot(pool[k], r) for k in range(K)]
        rho, log_Z = gibbs(q, g, lam)
        star, log_Z_beta = gibbs(pi, r, beta)
        made = [sum(rho[k] * pool[k][y] for k in range(K)) for y in range(Y)]
        mix = [sum(q[k] * pool[k][y] for k in range(K)) for y in range(Y)]
        for name, value in zip(ARRAYS, (g, log_Z, log_Z_beta, rho, star, made, mix)):
            out[name].append(value)
        reach = [r[y] for y in range(Y) if pi[y] > 0 or mix[y] > 0]
        best = max(g[k] for k in range(K) if q[k] > 0)
        osc_tv += weight[x] * (max(reach) - min(reach)) * tv(star, mix)
        jeffreys += weight[x] * (kl(rho, q) + kl(q, rho))
        for name, value in {
            "J_rlhf": dot(star, r),
            "J_frozen": dot(pi, r),
            "J_sft": dot(q, g),
            "J_prompter": dot(made, r),
            "kl": kl(rho, q),
            "kl_reverse": kl(q, rho),
            "kl_rlhf": kl(star, pi),
            "kl_rlhf_reverse": kl(pi, star),
            "tv_rlhf": tv(star, pi),
            "tv_rewrites": dot(q, [tv(pi, pool[k]) for k in range(K)]),
            "floor": dot(star, r) - best,
        }.items():
            out[name] += weight[x] * value
    out["delta"] = out["J_rlhf"] - out["J_prompter"]
    out["delta1"] = out["J_rlhf"] - out["J_frozen"]
    out["delta2"] = out["J_frozen"] - out["J_prompter"]
    out["r_max"] = mp.mpf(float(np.abs(reward).max()))
    out["bound_term1"] = out["r_max"] * out["tv_rlhf"]
    out["bound_term2"] = out["r_max"] * out["tv_rewrites"]
    out["bound_term3"] = lam * out["kl"]
    out["bound_paper"] = out["bound_term1"] + out["bound_term2"] - out["bound_term3"]
    out["bound_jeffreys"] = out["bound_term1"] + out["bound_term2"] - lam * jeffreys
    out["bound_mixture"] = osc_tv - lam * jeffreys
    return out


@pytest.mark.parametrize("kind", KINDS + ("pool", "signed", "offset", "large", "small"))
@pytest.mark.parametrize("lam, beta", list(itertools.product((1e-4, 0.3, 1e4), repeat=2)))
def test_every_field_matches_a_50_digit_reference(kind, lam, beta):
    scale = {"large": 300.0, "small": 1e-6}.get(kind, 1.0)
    args = make(7, kind, own=kind != "pool", scale=scale)
    if kind == "signed":
        args["reward"] -= 0.6
    if kind == "offset":
        args["reward"] = 1000 + np.round(args["reward"], 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", theory.SignedRewardWarning)
        sol = theory.Instance(**args).solve(lam=lam, beta=beta)
    with mp.workdps(50 + 2):
        # exp(g / lam) needs no extra digits: mpmath's exponents are unbounded.
        expected = reference(**args, lam=lam, beta=beta)
    r_max = np.abs(args["reward"]).max()
    for name in FIELDS:
        got, want = np.asarray(getattr(sol, name)), np.array(expected[name]).astype(float)
        assert got.shape == want.shape, name
        error = np.abs(got - want)
        assert np.all(error <= 1e-10 * np.maximum(max(1, r_max), np.abs(want))), (name, error)
        if name.startswith("kl") and want > 1e-40:
            # Digits of g are lost to the offset, never to the smallness of the divergence.
            digits = 1e-7 if kind == "offset" else 1e-10
            assert error <= digits * want, (name, got, want)


def test_solution_is_a_frozen_record_of_the_named_fields():
    sol = theory.Instance(**make(1)).solve(lam=0.5, beta=0.5)
    assert [f.name for f in dataclasses.fields(sol)] == FIELDS
    assert all(type(getattr(sol, n)) is float for n in SCALARS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sol.delta = 0.0
    assert (sol.lam, sol.beta) == (0.5, 0.5)


def test_import_needs_numpy_alone():
    code = "import sys, alignpro.theory; print([m for m in ('scipy', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_worked_by_hand():
    """One prompt, r = (1, 0), rewrites that answer right with 3/4 and 1/4, lam = beta = 1."""
    inst = theory.Instance([1], [[0.5, 0.5]], [[0.5, 0.5]], [[0.75, 0.25], [0.25, 0.75]], [[1, 0]])
    sol = inst.solve(lam=1, beta=1)
    right = math.exp(0.5) / (1 + math.exp(0.5))
    assert sol.rho_star[0] == pytest.approx([right, 1 - right], rel=1e-14)
    assert sol.J_rlhf == pytest.approx(math.e / (1 + math.e), rel=1e-14)
    assert sol.J_prompter == pytest.approx(0.25 + 0.5 * right, rel=1e-14)
    assert (sol.J_sft, sol.J_frozen, sol.tv_rewrites) == (0.5, 0.5, 0.25)
