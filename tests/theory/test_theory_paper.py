"""Lemma 5.1 by brute force, and where the paper's statements slip (DESIGN, section 5)."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from theory_cases import make

from alignpro import theory
from alignpro.theory import gibbs

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("seed", range(4))
def test_lemma_5_1_by_brute_force(seed):
    args = make(seed)
    inst, lam = theory.Instance(**args), 0.2
    sol = inst.solve(lam, 1.0)
    for x, q in enumerate(inst.rho_sft):
        g = np.array([pi @ inst.reward[x] for pi in np.asarray(args["pi_F_rewrites"])[x]])

        def loss(rho, q=q, g=g):
            return -(rho @ g) + lam * np.sum(rho * np.log(np.maximum(rho, 1e-300) / q))

        found = minimize(
            loss,
            np.full(len(q), 1 / len(q)),
            bounds=[(0, 1)] * len(q),
            method="SLSQP",
            constraints={"type": "eq", "fun": lambda rho: rho.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        assert found.x == pytest.approx(sol.rho_star[x], abs=1e-5)
        assert -found.fun == pytest.approx(lam * sol.log_Z_x[x], abs=1e-9)


def test_slip_1_signed_rewards_break_theorem_6_1():
    with pytest.warns(theory.SignedRewardWarning, match="row 0 .*r_max"):
        inst = theory.Instance([1], [[1]], [[0.5, 0.5]], [[0.5, 0.5]], [[1, -1]])
    sol = inst.solve(lam=1, beta=1)
    assert sol.delta == pytest.approx(math.tanh(1), rel=1e-14)  # 0.762
    assert sol.bound_paper == pytest.approx(math.tanh(1) / 2, rel=1e-14)  # 0.381
    assert sol.bound_mixture == pytest.approx(sol.delta, rel=1e-14)


def test_slip_1_tv_without_its_half_would_hide_it():
    shifted = theory.Instance([1], [[1]], [[0.5, 0.5]], [[0.5, 0.5]], [[2, 0]]).solve(1, 1)
    assert shifted.tv_rlhf == pytest.approx(math.tanh(1) / 2, rel=1e-14)
    assert shifted.bound_paper == pytest.approx(shifted.delta, rel=1e-14)


def test_slip_2_the_middle_expectation_is_under_rho_sft():
    """The identity rewrite is perfect, the other useless: under rho* the bound loses by lam KL."""
    inst = theory.Instance([1], [[0.5, 0.5]], [[1, 0]], [[1, 0], [0, 1]], [[1, 0]])
    sol = inst.solve(lam=0.5, beta=1)
    under_rho_star = sol.rho_star[0, 1]
    assert sol.tv_rewrites == 0.5
    assert sol.delta == pytest.approx(under_rho_star, rel=1e-13)
    assert sol.bound_term1 + under_rho_star - sol.bound_term3 < sol.delta - 0.1
    assert sol.delta <= sol.bound_paper


def test_slip_4_delta1_needs_pi_F_as_reference():
    pi_F, reward = np.array([0.9, 0.1]), np.array([1.0, 0.0])
    assert gibbs.tilt(pi_F[::-1], reward, 1.0).p @ reward < pi_F @ reward
    constant = theory.Instance(**make(3, "constant")).solve(0.1, 0.1)
    assert (constant.delta1, constant.kl, constant.kl_rlhf) == (0, 0, 0)


def test_slip_5_a_delta_learns_nothing():
    pool = [[0.5, 0.5], [0.9, 0.1]]
    at_x = theory.Instance([1], [[1, 0]], [[0.5, 0.5]], pool, [[1, 0]]).solve(0.1, 1)
    elsewhere = theory.Instance([1], [[0, 1]], [[0.5, 0.5]], pool, [[1, 0]]).solve(0.1, 1)
    assert (at_x.tv_rewrites, at_x.kl, at_x.rho_star.tolist()) == (0, 0, [[1, 0]])
    assert elsewhere.tv_rewrites == pytest.approx(0.4) and elsewhere.kl == 0


def test_slip_6_the_last_term_vanishes_at_both_ends():
    inst = theory.Instance([1], [[0.5, 0.5]], [[0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]], [[1, 0]])
    low, mid, high = (inst.solve(lam, 1) for lam in (1e-4, 0.3, 1e4))
    assert max(low.bound_term3, high.bound_term3) < 1e-3
    assert mid.bound_term3 > 0.1
    assert low.bound_paper > mid.bound_paper and low.delta < mid.delta


def test_slip_7_a_negative_bound_certifies_that_prompting_wins():
    pi_F = [0.01, 0.99]
    inst = theory.Instance([1], [[0.01, 0.99]], [pi_F], [[1, 0], pi_F], [[1, 0]])
    sol = inst.solve(lam=0.1, beta=1.0)
    assert sol.bound_mixture < sol.bound_jeffreys < sol.bound_paper < -0.3
    assert sol.delta == pytest.approx(sol.bound_mixture)  # two responses: no slack is left


def test_slip_7_lam_kl_can_have_two_peaks():
    """A likely good rewrite wins at moderate lam, a nearly impossible perfect one at small lam."""
    rho_sft, g = [[1e-30, 1e-3, 1 - 1e-3]], [1.0, 0.5, 0.0]
    inst = theory.Instance([1], rho_sft, [[0.5, 0.5]], [[v, 1 - v] for v in g], [[1, 0]])
    curve = inst.lambda_curve(np.geomspace(1e-3, 10, 400))
    rising = np.diff(curve.lam * curve.kl) > 0
    assert np.sum(rising[:-1] & ~rising[1:]) == 2
