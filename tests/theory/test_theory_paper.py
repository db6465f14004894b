"""Lemma 5.1 by brute force, and the paper's errors, readings and limits of use (chapter 3)."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from theory_cases import make

from alignpro import theory
from alignpro.theory import gibbs
from alignpro.theory.instances import coin

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


def test_R1_signed_rewards_break_theorem_6_1():
    with pytest.warns(theory.SignedRewardWarning, match="row 0 .*r_max"):
        inst = theory.Instance([1], [[1]], [[0.5, 0.5]], [[0.5, 0.5]], [[1, -1]])
    sol = inst.solve(lam=1, beta=1)
    assert sol.delta == pytest.approx(math.tanh(1), rel=1e-14)  # 0.762
    assert sol.bound_paper == pytest.approx(math.tanh(1) / 2, rel=1e-14)  # 0.381
    assert sol.bound_mixture == pytest.approx(sol.delta, rel=1e-14)


def test_R1_tv_without_its_half_would_hide_it():
    shifted = theory.Instance([1], [[1]], [[0.5, 0.5]], [[0.5, 0.5]], [[2, 0]]).solve(1, 1)
    assert shifted.tv_rlhf == pytest.approx(math.tanh(1) / 2, rel=1e-14)
    assert shifted.bound_paper == pytest.approx(shifted.delta, rel=1e-14)


def test_R2_the_middle_expectation_is_under_rho_sft():
    """The identity rewrite is perfect, the other useless: under rho* the bound loses by lam KL."""
    inst = theory.Instance([1], [[0.5, 0.5]], [[1, 0]], [[1, 0], [0, 1]], [[1, 0]])
    sol = inst.solve(lam=0.5, beta=1)
    under_rho_star = sol.rho_star[0, 1]
    assert sol.tv_rewrites == 0.5
    assert sol.delta == pytest.approx(under_rho_star, rel=1e-13)
    assert sol.bound_term1 + under_rho_star - sol.bound_term3 < sol.delta - 0.1
    assert sol.delta <= sol.bound_paper


def test_R3_delta1_needs_pi_F_as_reference():
    pi_F, reward = np.array([0.9, 0.1]), np.array([1.0, 0.0])
    assert gibbs.tilt(pi_F[::-1], reward, 1.0).p @ reward < pi_F @ reward
    constant = theory.Instance(**make(3, "constant")).solve(0.1, 0.1)
    assert (constant.delta1, constant.kl, constant.kl_rlhf) == (0, 0, 0)


def test_E2_a_delta_learns_nothing():
    pool = [[0.5, 0.5], [0.9, 0.1]]
    at_x = theory.Instance([1], [[1, 0]], [[0.5, 0.5]], pool, [[1, 0]]).solve(0.1, 1)
    elsewhere = theory.Instance([1], [[0, 1]], [[0.5, 0.5]], pool, [[1, 0]]).solve(0.1, 1)
    assert (at_x.tv_rewrites, at_x.kl, at_x.rho_star.tolist()) == (0, 0, [[1, 0]])
    assert elsewhere.tv_rewrites == pytest.approx(0.4) and elsewhere.kl == 0


def test_E3_the_last_term_vanishes_at_both_ends():
    inst = theory.Instance([1], [[0.5, 0.5]], [[0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]], [[1, 0]])
    low, mid, high = (inst.solve(lam, 1) for lam in (1e-4, 0.3, 1e4))
    assert max(low.bound_term3, high.bound_term3) < 1e-3
    assert mid.bound_term3 > 0.1
    assert low.bound_paper > mid.bound_paper and low.delta < mid.delta


def test_L1_a_negative_bound_certifies_that_prompting_wins():
    pi_F = [0.01, 0.99]
    inst = theory.Instance([1], [[0.01, 0.99]], [pi_F], [[1, 0], pi_F], [[1, 0]])
    sol = inst.solve(lam=0.1, beta=1.0)
    assert sol.bound_mixture < sol.bound_jeffreys < sol.bound_paper < -0.3
    assert sol.delta == pytest.approx(sol.bound_mixture)  # two responses: no slack is left


def test_L1_the_bound_can_be_non_negative_on_three_ranges_of_lam():
    """A common good rewrite wins at moderate lam, a nearly impossible perfect one at small lam."""
    rare, pi_F = 1e-30, [0.98, 0.02, 0]
    pool = [pi_F, [0, 1, 0], [0, 0, 1]]
    inst = theory.Instance([1], [[1 - 1e-3 - rare, 1e-3, rare]], [pi_F], pool, [[0, 0.9, 1]])
    assert inst.g[0] == pytest.approx([0.018, 0.9, 1])
    lams = np.geomspace(1e-5, 100, 2001)
    sol, curve = inst.solve(1.0, 1.0), inst.lambda_curve(lams)
    holds = sol.bound_term1 + sol.bound_term2 - lams * curve.kl >= 0
    assert holds[0] and holds[-1]
    assert (np.diff(holds.astype(int)) == 1).sum() == 2  # three ranges, apart
    rising = np.diff(lams * curve.kl) > 0
    assert np.sum(rising[:-1] & ~rising[1:]) == 2  # two maxima


def nucleus(p, top_p):
    """`p` restricted to the likeliest answers that together reach `top_p`."""
    order = np.argsort(-p, kind="stable")
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    cut = np.zeros_like(p)
    cut[kept] = p[kept]
    return cut / cut.sum()


def test_L3_a_model_trained_and_then_truncated_is_no_tilt_of_the_truncated_one():
    pi_F, r = np.array([0.601, 0.15, 0.1245, 0.1245]), np.array([0.5, 0, 1, 1])
    trained = theory.tilt(pi_F, r, 10.0).p
    assert trained @ r > pi_F @ r
    first, after = nucleus(pi_F, 0.6), nucleus(trained, 0.6)
    assert first @ r == 0.5 and (after > 0).sum() == 2
    assert after @ r - first @ r < -0.09  # Delta_1, although RLHF is leashed to pi_F


def test_C10_holds_at_equal_kl_and_not_at_equal_lam():
    rho_sft, pool = np.array([[0.99, 0.01]]), np.array([[0.75, 0.25, 0], [0, 0, 1]])
    inst = theory.Instance([1], rho_sft, rho_sft @ pool, pool, [[0, 0.8, 1]])
    sol = inst.solve(0.1, 0.1)
    assert sol.J_prompter == pytest.approx(0.974, abs=5e-4)
    assert sol.J_rlhf == pytest.approx(0.845, abs=5e-4)  # the same number for lam and beta
    equal_kl = theory.Instance([1], [rho_sft[0] @ pool], inst.pi_F, np.eye(3), inst.reward)
    assert equal_kl.kl_budget(sol.kl).value >= sol.J_prompter


def test_C13_reward_is_lost_in_the_first_order():
    """The coin, error 0.05: the objective loses eps^2 / 2 lam at most, the reward far more."""
    inst, lam, epsilon = coin(), 1 / (4 * math.log(2)), 0.05
    star = inst.solve(lam, 1.0).rho_star
    misled = theory.tilt(inst.rho_sft, inst.g + epsilon * np.array([1, 0, -1]), lam).p
    lost = ((star - misled) * inst.g).sum()
    assert inst.regret(misled, lam) <= epsilon**2 / (2 * lam) < lost / 4
    assert lost <= 0.5 * math.tanh(2 * epsilon / (4 * lam))


def test_C16_enough_rewrites_imitate_anything():
    """With one rewrite for each answer the hull is the whole simplex."""
    inst = theory.Instance(
        [1], [np.full(4, 1 / 4)], [[0.4, 0.3, 0.2, 0.1]], np.eye(4), [[0, 1, 2, 3]]
    )
    assert all(inst.in_convex_hull(0, beta) for beta in (0.05, 1.0, 20.0))
