"""The book's results C1 to C16 on random instances: identities, inequalities, solvers."""

import dataclasses
import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from theory_cases import TEMPERATURES, instances, make, osc, random_rho, rounding

from alignpro import theory
from alignpro.theory import gibbs

pytestmark = pytest.mark.filterwarnings("error")


@given(instances(), TEMPERATURES, st.integers(0, 99))
def test_C1_three_points_and_regret(inst, lam, seed):
    sol, rho = inst.solve(lam, 1.0), random_rho(inst, seed)
    kl_sft = inst.P @ gibbs.kl_divergence(rho, inst.rho_sft)
    gain = inst.value(rho) - sol.J_sft
    regret = sol.regret(rho)
    scale = max(1.0, inst.r_max, lam * kl_sft)
    assert gain == pytest.approx(lam * (kl_sft + sol.kl_reverse) - regret, abs=1e-10 * scale)
    objective = inst.value(rho) - lam * kl_sft
    optimum = inst.lambda_curve([lam]).free_energy[0]
    assert regret == pytest.approx(optimum - objective, abs=1e-10 * scale)
    assert regret >= 0
    assert sol.regret(sol.rho_star) <= 1e-20 * max(1, lam)
    assert inst.value(sol.rho_star) == pytest.approx(sol.J_prompter, abs=rounding(inst))
    assert inst.regret(inst.rho_sft, lam) == pytest.approx(
        lam * sol.kl_reverse, rel=1e-6, abs=1e-20
    )


@given(instances(), TEMPERATURES, TEMPERATURES)
def test_C2_C3_exact_gains_and_the_chain_of_bounds(inst, lam, beta):
    s, tol = inst.solve(lam, beta), rounding(inst)
    assert s.J_prompter - s.J_sft == pytest.approx(lam * (s.kl + s.kl_reverse), abs=tol)
    assert s.delta1 == pytest.approx(beta * (s.kl_rlhf + s.kl_rlhf_reverse), abs=tol)
    exact = s.delta1 + s.J_frozen - s.J_sft - lam * (s.kl + s.kl_reverse)
    assert s.delta == pytest.approx(exact, abs=tol)
    assert s.delta == pytest.approx(s.delta1 + s.delta2, abs=tol)
    assert s.delta == pytest.approx(s.J_rlhf - s.J_prompter, abs=tol)
    chain = [s.floor, s.delta, s.bound_mixture, s.bound_jeffreys, s.bound_paper]
    assert all(a <= b + tol for a, b in itertools.pairwise(chain)), chain
    assert s.bound_paper - s.delta >= lam * s.kl_reverse - tol  # L2
    assert s.bound_paper - s.bound_jeffreys == pytest.approx(lam * s.kl_reverse, abs=tol)


@given(instances(), TEMPERATURES, TEMPERATURES)
def test_C4_C5_C6_a_priori_bounds(inst, lam, beta):
    s, b, tol = inst.solve(lam, beta), inst.apriori(lam, beta), rounding(inst)
    gain = s.J_prompter - s.J_sft
    assert inst.P @ gibbs.total_variation(s.rho_star, inst.rho_sft) <= b.tv + tol
    assert s.tv_rlhf <= b.tv_rlhf + tol
    assert b.gain_floor - tol <= gain <= b.gain_ceiling + tol
    assert b.gain_rlhf_floor - tol <= s.delta1 <= b.gain_rlhf_ceiling + tol
    assert b.delta_floor - tol <= s.delta <= b.delta_ceiling + tol
    assert b.delta_floor_untrained - tol <= s.delta <= b.delta_ceiling_untrained + tol
    assert b.gain_variance_floor - tol <= gain <= b.gain_variance_ceiling + tol
    assert b.gain_rlhf_variance_floor - tol <= s.delta1 <= b.gain_rlhf_variance_ceiling + tol
    assert max(s.kl, s.kl_reverse) <= b.kl * (1 + 1e-9) + 1e-25
    assert max(s.kl_rlhf, s.kl_rlhf_reverse) <= b.kl_rlhf * (1 + 1e-9) + 1e-25
    assert b.kl <= inst.P @ osc(s.g, inst.rho_sft > 0) / lam * (1 + 1e-9)
    assert s.kl <= b.kl_support + tol
    assert dataclasses.astuple(s.apriori()) == dataclasses.astuple(b)


@given(instances(), TEMPERATURES, TEMPERATURES)
def test_signed_rewards_keep_all_but_the_bounds_in_r_max(inst, lam, beta):
    with pytest.warns(theory.SignedRewardWarning):
        signed = dataclasses.replace(inst, reward=inst.reward - 2 * inst.r_max)
    s, b, tol = signed.solve(lam, beta), signed.apriori(lam, beta), rounding(signed)
    assert s.floor - tol <= s.delta <= s.bound_mixture + tol
    assert b.delta_floor - tol <= s.delta <= b.delta_ceiling + tol
    plain = inst.solve(lam, beta)
    for name in ("delta", "delta1", "delta2", "bound_mixture", "floor"):
        assert getattr(s, name) == pytest.approx(getattr(plain, name), abs=tol)


@given(instances(("plain", "sparse")), TEMPERATURES, TEMPERATURES)
def test_apriori_bounds_are_their_formulas(inst, lam, beta):
    s, b = inst.solve(lam, beta), inst.apriori(lam, beta)
    f, h = osc(s.g, inst.rho_sft > 0), osc(inst.reward, inst.pi_F > 0)
    mean = (inst.rho_sft * s.g).sum(1, keepdims=True)
    var = (inst.rho_sft * (s.g - mean) ** 2).sum(1)
    near = {"rel": 1e-6, "abs": rounding(inst)}
    assert b.tv == pytest.approx(inst.P @ np.tanh(f / lam / 4), **near)
    assert b.gain_ceiling == pytest.approx(inst.P @ (f * np.tanh(f / lam / 4)), **near)
    assert b.gain_rlhf_ceiling == pytest.approx(inst.P @ (h * np.tanh(h / beta / 4)), **near)
    largest = [mp_largest_kl(size / lam) for size in f]
    assert b.kl == pytest.approx(inst.P @ largest, rel=1e-6, abs=1e-20)
    assert b.kl <= inst.P @ f**2 / 8 / lam**2 * (1 + 1e-12)
    if f.min() > 0 and f.max() / lam < 500:
        assert b.gain_variance_floor == pytest.approx(
            inst.P @ (var * -np.expm1(-f / lam) / f), **near
        )
        assert b.gain_variance_ceiling == pytest.approx(
            inst.P @ (var * np.expm1(f / lam) / f), **near
        )
    t = gibbs.total_variation(s.rho_star, inst.rho_sft)
    if t.max() < 0.999:
        phi = 2 * t * np.log((1 + t) / (1 - t))
        assert b.gain_floor == pytest.approx(lam * inst.P @ phi, rel=1e-6, abs=1e-9)
    difference = b.gain_rlhf_floor + s.J_frozen - s.J_sft - b.gain_ceiling
    assert b.delta_floor == pytest.approx(difference, **near)
    assert b.delta_ceiling == pytest.approx(
        b.gain_rlhf_ceiling + s.J_frozen - s.J_sft - b.gain_floor, **near
    )
    spread, start = (inst.pi_F * inst.reward).sum(1, keepdims=True), s.J_frozen - s.J_sft
    var_r = (inst.pi_F * (inst.reward - spread) ** 2).sum(1)
    if min(f.min(), h.min()) > 0 and max(f.max() / lam, h.max() / beta) < 500:
        rlhf = var_r * -np.expm1(-h / beta) / h
        most = np.minimum(f * np.tanh(f / lam / 4), var * np.expm1(f / lam) / f)
        assert b.delta_floor_untrained == pytest.approx(inst.P @ (rlhf - most) + start, **near)
        least = var * -np.expm1(-f / lam) / f
        most = np.minimum(h * np.tanh(h / beta / 4), var_r * np.expm1(h / beta) / h)
        assert b.delta_ceiling_untrained == pytest.approx(inst.P @ (most - least) + start, **near)


@pytest.mark.parametrize("lam", [0.4, 1 / (120 * math.log(2))])
def test_C4_is_attained_by_a_mirrored_pair(lam):
    """rho_sft = (a, 1 - a) becomes (1 - a, a): every inequality of C4 is then an equality.

    At the second lam a is 2^-60, and TV is 1 in float64.
    """
    a = 1 / (1 + math.exp(1 / lam / 2))
    inst = theory.Instance([1], [[a, 1 - a]], [[a, 1 - a]], np.eye(2), [[1, 0]])
    s, b = inst.solve(lam, lam), inst.apriori(lam, lam)
    tv, gain = 1 - 2 * a, s.J_prompter - s.J_sft
    assert s.rho_star[0] == pytest.approx([1 - a, a], rel=1e-13)
    assert (b.tv, b.tv_rlhf, s.tv_rlhf) == pytest.approx((tv, tv, tv), rel=1e-13)
    assert (b.gain_floor, gain, b.gain_ceiling) == pytest.approx((tv, tv, tv), rel=1e-13)
    assert (b.gain_rlhf_floor, s.delta1, b.gain_rlhf_ceiling) == pytest.approx((tv,) * 3, rel=1e-13)
    assert (b.delta_floor, s.delta, b.delta_ceiling) == pytest.approx((0, 0, 0), abs=1e-14)
    assert b.kl_support == pytest.approx(-math.log(a), rel=1e-14)


@given(instances(), TEMPERATURES)
def test_C7_floor_is_reached_as_lam_vanishes(inst, beta):
    assert inst.solve(1e-9, beta).delta == pytest.approx(
        inst.solve(1.0, beta).floor, abs=1e-6 * max(1, inst.r_max)
    )


@given(instances(("plain", "tiny")), st.floats(-1, 3).map(lambda e: 10.0**e))
def test_C8_finite_differences_and_monotone_curve(inst, lam):
    lam *= inst.r_max
    step = 1e-5 * lam
    low, mid, high = (np.array(c) for c in zip(*_columns(inst, [lam - step, lam, lam + step])))
    slope = (high - low) / (2 * step)
    assert slope[0] == pytest.approx(mid[4], rel=1e-5, abs=1e-9)  # dJ/dlam
    assert slope[3] == pytest.approx(-mid[1], rel=1e-5, abs=1e-9)  # d(lam log Z)/dlam = -KL
    curve = inst.lambda_curve(np.geomspace(1e-4, 1e4, 30))
    for column in (curve.J_prompter, curve.kl, curve.kl_reverse, curve.free_energy):
        assert np.all(np.diff(column) <= rounding(inst) * (1 + np.abs(column[1:])))


def mp_largest_kl(s):
    """h(s) of C6 in 40 digits: the KL of two points, maximised over their odds by calculus."""
    if s == 0:
        return 0.0
    with mp.workdps(40):
        a = mp.mpf(float(s)) / -mp.expm1(-mp.mpf(float(s)))
        return float(a - 1 - mp.log(a))


def _columns(inst, lams):
    c = inst.lambda_curve(lams)
    return c.J_prompter, c.kl, c.kl_reverse, c.free_energy, c.dJ_dlam


@given(instances(), TEMPERATURES)
def test_lambda_curve_agrees_with_solve(inst, lam):
    curve, sol = inst.lambda_curve([lam, 2 * lam]), inst.solve(lam, 1.0)
    assert curve.lam.tolist() == [lam, 2 * lam]
    assert (curve.kl[0], curve.kl_reverse[0]) == (sol.kl, sol.kl_reverse)
    assert curve.J_prompter[0] == pytest.approx(sol.J_prompter, abs=rounding(inst))
    assert curve.free_energy[0] == pytest.approx(lam * inst.P @ sol.log_Z_x, abs=rounding(inst))
    mean = (sol.rho_star * sol.g).sum(1, keepdims=True)
    variance = inst.P @ (sol.rho_star * (sol.g - mean) ** 2).sum(1)
    assert curve.dJ_dlam[0] * lam**2 == pytest.approx(-variance, abs=rounding(inst) * inst.r_max)


@given(instances(), st.floats(0, 3), st.integers(0, 99))
def test_C9_budget_duality_and_optimality(inst, kappa, seed):
    best, tol = inst.kl_budget(kappa), rounding(inst)
    assert best.kl <= kappa + 1e-9
    assert inst.value(best.rho) == best.value
    if 0 < best.lam < np.inf:
        dual = best.lam * kappa + inst.lambda_curve([best.lam]).free_energy[0]
        assert best.value == pytest.approx(dual, abs=tol)
        around = inst.lambda_curve(best.lam * np.array([0.5, 0.9, 1.1, 2]))
        assert np.all(around.lam * kappa + around.free_energy >= best.value - tol)
    mix = random_rho(inst, seed)
    for share in np.linspace(0, 1, 9):
        rho = share * mix + (1 - share) * inst.rho_sft
        if inst.P @ gibbs.kl_divergence(rho, inst.rho_sft) <= kappa:
            assert inst.value(rho) <= best.value + tol


def test_divergences_survive_denormal_masses():
    p, q = np.array([[1e-320, 1.0]]), np.array([[0.5, 0.5]])
    assert gibbs.kl_divergence(p, q)[0] == pytest.approx(math.log(2), rel=1e-14)
    assert gibbs.kl_divergence(q, p)[0] == pytest.approx(0.5 * 320 * math.log(10), rel=0.01)
    inst = theory.Instance([1], q, [[1, 0]], np.eye(2), [[0.5, 0.5]])
    assert inst.regret(p, 1.0) == pytest.approx(math.log(2), rel=1e-14)


def test_C9_ends():
    inst = theory.Instance(
        [1], [[0.5, 0.25, 0.25]], [[0.5, 0.5]], [[0, 1], [1, 0], [1, 0]], [[1, 0]]
    )
    free, bound = inst.kl_budget(math.log(2)), inst.kl_budget(0)
    assert (free.lam, free.value, free.rho.tolist()) == (0.0, 1.0, [[0, 0.5, 0.5]])
    assert free.kl == pytest.approx(math.log(2), rel=1e-14)
    assert (bound.lam, bound.value, bound.kl) == (math.inf, 0.5, 0.0)
    constant = theory.Instance(**make(3, "constant"))
    for kappa in (0.0, 1e-300, 1e-34, 1.0):
        assert constant.kl_budget(kappa).value == pytest.approx(0.7, rel=1e-15)


@given(instances(), st.integers(0, 99), TEMPERATURES)
def test_C10_no_free_lunch_at_a_matched_reference(inst, seed, lam):
    rho, mix = random_rho(inst, seed), inst.solve(1.0, 1.0).pi_sft_mix
    made = np.einsum(
        "xk,xky->xy", rho, np.broadcast_to(inst.pi_F_rewrites, (*rho.shape, mix.shape[1]))
    )
    kl_rho = inst.P @ gibbs.kl_divergence(rho, inst.rho_sft)
    kl_made = inst.P @ gibbs.kl_divergence(made, mix)
    assert kl_made <= kl_rho + 1e-12
    # Donsker-Varadhan from the mixture: fine-tuning it reaches this value within the same KL.
    t = gibbs.tilt(mix, inst.reward, lam)
    assert inst.value(rho) <= lam * inst.P @ t.log_Z + lam * kl_rho + rounding(inst) * max(1, lam)


@given(instances(), st.integers(0, 99), TEMPERATURES)
def test_C11_the_square_root_of_kl_bounds_any_gain(inst, seed, lam):
    sol = inst.solve(lam, 1.0)
    width = osc(sol.g, inst.rho_sft > 0)
    for rho in (random_rho(inst, seed), sol.rho_star):
        kl = theory.kl_divergence(rho, inst.rho_sft)
        ceiling = inst.P @ (width * np.sqrt(kl / 2))
        assert inst.value(rho) - sol.J_sft <= ceiling + rounding(inst)
        # One KL for all prompts is enough, at the price of the Cauchy-Schwarz inequality.
        assert ceiling <= np.sqrt(inst.P @ width**2 * (inst.P @ kl) / 2) * (1 + 1e-9) + 1e-25


def test_C11_is_attained_in_the_limit():
    inst = theory.Instance([1], [[0.5, 0.5]], [[0.5, 0.5]], np.eye(2), [[0, 1]])
    sol = inst.solve(1e3, 1.0)
    assert sol.J_prompter - sol.J_sft == pytest.approx(math.sqrt(sol.kl / 2), rel=1e-6)


@given(instances(), st.integers(1, 60))
def test_C12_best_of_n_bounds(inst, n):
    best, tol = inst.best_of_n(n), rounding(inst)
    assert best.rho.sum(axis=1) == pytest.approx(np.ones(len(inst.P)))
    assert best.kl <= best.kl_bound + 1e-12 == pytest.approx(math.log(n) - (n - 1) / n + 1e-12)
    assert best.kl == pytest.approx(inst.P @ gibbs.kl_divergence(best.rho, inst.rho_sft))
    assert best.value == pytest.approx(inst.value(best.rho), abs=tol)
    assert best.value <= inst.kl_budget(best.kl).value + tol
    assert best.value >= inst.solve(1.0, 1.0).J_sft - tol


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_C12_law_by_enumeration_with_ties(n):
    q, g = [0.1, 0.2, 0.3, 0.4], [1.0, 0.25, 0.25, 0.75]
    rewrites = [[value, 1 - value] for value in g]
    law = np.zeros(4)
    for draw in itertools.product(range(4), repeat=n):
        top = [k for k in draw if g[k] == max(g[j] for j in draw)]
        for k in top:
            law[k] += math.prod(q[j] for j in draw) / len(top)
    got = theory.Instance([1], [q], [[0.5, 0.5]], rewrites, [[1, 0]]).best_of_n(n)
    assert got.rho[0] == pytest.approx(law, rel=1e-12)


def test_C12_tiny_masses_keep_their_digits():
    q = [2.0**-40, 1 - 2.0**-40]
    got = theory.Instance([1], [q], [[1, 0]], np.eye(2), [[1, 0]]).best_of_n(1000)
    assert got.rho[0, 0] == pytest.approx(-math.expm1(1000 * math.log1p(-(2.0**-40))), rel=1e-14)


@given(instances(), TEMPERATURES, st.integers(0, 99))
def test_C13_a_wrong_reward_costs_little(inst, lam, seed):
    error = np.random.default_rng(seed).uniform(-1, 1, inst.rho_sft.shape) * inst.r_max / 10
    sol = inst.solve(lam, 1.0)
    misled = gibbs.tilt(inst.rho_sft, sol.g + error, lam).p
    cost = sol.regret(misled / misled.sum(axis=1, keepdims=True))
    assert cost <= np.abs(error).max() ** 2 / (2 * lam) + rounding(inst)


@given(instances(("plain", "sparse", "tiny")), st.floats(-3, 3).map(lambda e: 10.0**e))
def test_C15_critical_lam(inst, beta):
    at, tol = inst.lambda_c(beta), rounding(inst)
    sol = inst.solve(1.0, beta)
    assert at <= inst.lambda_c(2 * beta) * (1 + 1e-9)
    if at == 0:
        assert sol.floor >= -tol
    elif at == math.inf:
        assert sol.J_sft >= sol.J_rlhf - tol
    else:
        assert sol.floor < 0 < sol.J_rlhf - sol.J_sft
        assert inst.solve(at, beta).delta == pytest.approx(0, abs=tol)
        assert inst.solve(0.9 * at, beta).delta <= tol
        assert inst.solve(1.1 * at, beta).delta >= -tol


@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
def test_C15_closed_form_for_two_rewrites_and_two_responses(beta):
    q, g, pi = 0.2, (0.9, 0.3), 0.4
    inst = theory.Instance([1], [[q, 1 - q]], [[pi, 1 - pi]], [[v, 1 - v] for v in g], [[1, 0]])
    rlhf = pi * math.exp(1 / beta) / (pi * math.exp(1 / beta) + 1 - pi)
    share = (rlhf - g[1]) / (g[0] - g[1])  # of the better rewrite, where J_lam = J(pi*)
    if share >= 1:
        expected = 0.0
    elif share <= q:
        expected = math.inf
    else:
        expected = (g[0] - g[1]) / math.log(share / (1 - share) * (1 - q) / q)
    assert inst.lambda_c(beta) == pytest.approx(expected, rel=1e-11)


@given(instances(("plain", "sparse", "tiny")), st.floats(-3, 3).map(lambda e: 10.0**e))
def test_C15_the_kl_budget_that_matches_rlhf(inst, beta):
    budget, sol, tol = inst.matching_budget(beta), inst.solve(1.0, beta), rounding(inst)
    if budget == math.inf:
        assert sol.floor > 0
    elif budget == 0:
        assert sol.J_sft >= sol.J_rlhf - tol
    else:
        assert inst.kl_budget(budget).value == pytest.approx(sol.J_rlhf, abs=10 * tol)
        assert inst.kl_budget(0.9 * budget).value < sol.J_rlhf + tol
    # What Theorem 6.1 can certify is less: lam KL stays below max g - J_0.
    lams = np.geomspace(1e-3, 1e3, 61) * inst.r_max
    curve = inst.lambda_curve(lams)
    assert (lams * curve.kl).max() <= sol.J_rlhf - sol.floor - sol.J_sft + tol
    if (lams * curve.kl).max() > sol.bound_term1 + sol.bound_term2 + tol:
        assert budget < math.inf


def test_C15_budget_ends():
    def budget(rewrites, beta, rho=(0.5, 0.5)):
        pool = [[v, 1 - v] for v in rewrites]
        return theory.Instance([1], [rho], [[0.5, 0.5]], pool, [[1, 0]]).matching_budget(beta)

    assert budget([0.4, 0.5], 1.0) == math.inf
    assert budget([0.9, 0.9], 1.0) == 0
    good = 1 / (1 + math.exp(-1))  # J(pi*) at beta = 1: only the best rewrite matches it
    assert budget([good, 0.1], 1.0, (0.2, 0.8)) == pytest.approx(math.log(5), rel=1e-12)


@given(instances(("plain",)))
def test_C9_the_front_starts_vertically(inst):
    sol, kappa = inst.solve(1.0, 1.0), 1e-8
    mean = (inst.rho_sft * sol.g).sum(1, keepdims=True)
    variance = inst.P @ (inst.rho_sft * (sol.g - mean) ** 2).sum(1)
    gain = inst.kl_budget(kappa).value - sol.J_sft
    assert gain == pytest.approx(math.sqrt(2 * kappa * variance), rel=1e-3)


def test_C15_ends():
    def critical(rewrites, beta):
        pool = [[v, 1 - v] for v in rewrites]
        return theory.Instance([1], [[0.5, 0.5]], [[0.5, 0.5]], pool, [[1, 0]]).lambda_c(beta)

    assert critical([0.4, 0.5], 1.0) == 0  # no rewrite is good enough
    assert critical([0.5, 0.5], 1e4) == 0  # nothing to learn, and RLHF gains a little
    assert critical([0.9, 0.8], 1.0) == math.inf  # rho_sft itself beats RLHF
    assert critical([0.9, 0.9], 1.0) == math.inf
    tied = theory.Instance([1], [[0.5, 0.5]], [[0, 0, 1]], np.eye(3)[:2], [[1, 0, 0.5]])
    assert tied.lambda_c(1.0) == math.inf  # J_0 = J(pi*), and the prompter still learns


def test_C16_linear_program_against_a_known_hull():
    corners = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0, 0, 1.0]])
    weights = np.array([0.2, 0.5, 0.3])
    beta, pi = 0.7, np.array([0.3, 0.3, 0.4])

    def instance(target, rho=(0.3, 0.3, 0.4, 0.0)):
        reward = beta * np.log(target / pi)
        args = [1.0], [rho], [pi], corners, [reward - reward.min()]
        return theory.Instance(*args)  # pi* is the target, by Eq. 4

    inside, outside = weights @ corners[:3], np.array([0.05, 0.35, 0.6])
    inst = instance(inside)
    assert inst.in_convex_hull(0, beta)
    distance, found = inst.hull_projection(0, inside)
    assert distance <= 1e-12 and found[:3] == pytest.approx(weights, abs=1e-9)
    # Every corner in use has at least 0.1 on the first response, so 0.05 must move.
    inst = instance(outside)
    assert not inst.in_convex_hull(0, beta)
    assert inst.hull_projection(0, outside)[0] == pytest.approx(0.05, abs=1e-9)
    # The fourth rewrite would reach it, once it is on the support.
    assert instance(outside, (0.25, 0.25, 0.25, 0.25)).in_convex_hull(0, beta)


@given(instances(), st.integers(0, 99))
def test_C16_every_prompter_lies_in_the_hull_and_reaches_its_value(inst, seed):
    rho = random_rho(inst, seed)
    target = (rho[:, None, :] @ inst.pi_F_rewrites)[:, 0]
    x = len(inst.P) - 1
    assert inst.hull_projection(x, target[x])[0] <= 1e-9
