"""The fifth chapter: C17 (noise), C18 (chains) and C19 (variance), against independent truths."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from theory_cases import TEMPERATURES, instances, osc, rounding

from alignpro.theory import chains, kl_divergence, noise, tilt, total_variation, variance
from alignpro.theory.gibbs import kl_of_range
from alignpro.theory.instances import coin

pytestmark = pytest.mark.filterwarnings("error")
SEEDS = st.integers(0, 2**32)


def objective(rho, rho_sft, g, lam):
    return (rho * g).sum(axis=1) - lam * kl_divergence(rho, rho_sft)


# --- C6, sharp --------------------------------------------------------------------------------


@given(SEEDS, st.floats(-6, 2).map(lambda e: 10.0**e))
def test_C6_no_tilt_has_a_larger_kl(seed, size):
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(5, rng.choice([0.2, 1.0])))
    f = rng.random(5)
    f = size * (f - f.min()) / np.ptp(f)
    t = tilt(q, f, 1.0)
    assert max(t.kl, t.kl_reverse) <= kl_of_range(np.ptp(f[q > 0])) * (1 + 1e-9)


@pytest.mark.parametrize("s", [0.01, 1.0, 6.0])
def test_C6_is_attained_by_two_points(s):
    share = np.linspace(0, 1, 200_001)[1:-1]
    t = tilt(np.stack([share, 1 - share], axis=1), np.array([s, 0.0]), 1.0)
    assert t.kl.max() == pytest.approx(kl_of_range(s), rel=1e-6)
    assert t.kl_reverse.max() == pytest.approx(kl_of_range(s), rel=1e-6)


# --- C17: noise in the frozen model -----------------------------------------------------------


@given(instances(), TEMPERATURES, SEEDS, st.floats(-6, 1).map(lambda e: 10.0**e))
def test_C17_the_identity_and_the_ceilings(inst, lam, seed, size):
    rng = np.random.default_rng(seed)
    error = size * inst.r_max * rng.normal(size=inst.g.shape)
    n = noise.noise(inst.rho_sft, inst.g, inst.g + error, lam)
    star = tilt(inst.rho_sft, inst.g, lam).p
    hat = tilt(inst.rho_sft, inst.g + error, lam).p
    tol = rounding(inst) * max(1.0, size)
    assert n.rho_hat == pytest.approx(hat, abs=1e-9)

    def values(g):
        return [objective(rho, inst.rho_sft, g, lam) for rho in (star, hat)]

    (true_star, true_hat), (seen_star, seen_hat) = values(inst.g), values(inst.g + error)
    assert n.loss == pytest.approx(true_star - true_hat, abs=tol * max(1, lam))
    assert n.regret_hat == pytest.approx(seen_hat - seen_star, abs=tol * max(1, lam))
    assert n.loss + n.regret_hat == pytest.approx(((hat - star) * error).sum(1), abs=tol)
    assert n.reward_change == pytest.approx(((hat - star) * inst.g).sum(1), abs=tol)
    assert (n.loss >= 0).all() and (n.regret_hat >= 0).all()
    near = 1 + 1e-9
    for bracket in (n.loss, n.regret_hat):
        assert (bracket <= n.loss_ceiling * near + 1e-25).all()
    assert (n.loss + n.regret_hat <= n.sum_ceiling * near + 1e-25).all()
    assert (np.abs(n.reward_change) <= n.reward_ceiling * near + tol).all()
    width = osc(error, inst.rho_sft > 0)
    assert (n.loss_ceiling <= width**2 / (8 * lam) * near).all()
    assert (n.loss_ceiling <= width * near).all()


@given(instances(("plain", "sparse")), TEMPERATURES, st.floats(0.0, 0.95), SEEDS)
def test_C17_harmless_noise_and_contamination(inst, lam, eta, seed):
    """Noise common to all rewrites costs nothing; contamination is a leash lam / (1 - eta)."""
    shift = np.random.default_rng(seed).normal(size=(len(inst.P), 1))
    common = noise.noise(inst.rho_sft, inst.g, inst.g + inst.r_max * shift, lam)
    assert common.loss == pytest.approx(np.zeros(len(inst.P)), abs=rounding(inst))
    nu = np.random.default_rng(seed).dirichlet(np.ones(inst.reward.shape[1]), len(inst.P))
    pool = np.broadcast_to(inst.pi_F_rewrites, (*inst.rho_sft.shape, nu.shape[1]))
    mixed = (1 - eta) * pool + eta * nu[:, None]
    g_hat = np.einsum("xky,xy->xk", mixed, inst.reward)
    got = noise.noise(inst.rho_sft, inst.g, g_hat, lam).rho_hat
    assert got == pytest.approx(tilt(inst.rho_sft, inst.g, lam / (1 - eta)).p, abs=1e-9)


def test_C17_ceilings_are_attained_by_two_rewrites():
    lam, size = 0.3, 0.8
    odds = np.exp(size / lam / 2)
    star = np.array([[1 / (1 + odds), odds / (1 + odds)]])  # rho*, tilted towards the first
    g = np.array([[0.0, 0.7]])
    rho_sft = tilt(star, -g, lam).p
    n = noise.noise(rho_sft, g, g + [[size, 0.0]], lam)
    assert n.loss + n.regret_hat == pytest.approx(n.sum_ceiling, rel=1e-12)
    assert -n.reward_change == pytest.approx(n.reward_ceiling, rel=1e-12)


@given(SEEDS, st.floats(-2, 1).map(lambda e: 10.0**e), st.floats(-4, 0).map(lambda e: 10.0**e))
def test_C17_rlhf_moves_by_no_more_than_its_ceiling(seed, beta, size):
    rng = np.random.default_rng(seed)
    p, other = rng.dirichlet(np.full(4, 0.4), 2)
    p_hat, r = (1 - size) * p + size * other, rng.random(4)
    eta, moved = (
        total_variation(p, p_hat),
        total_variation(tilt(p, r, beta).p, tilt(p_hat, r, beta).p),
    )
    assert moved <= noise.rlhf_shift_ceiling(eta, np.ptp(r), beta) + 1e-12


@pytest.mark.parametrize("eta", [1e-4, 0.1, 0.9])
def test_C17_the_ceiling_on_rlhf_is_attained(eta):
    r, beta = np.array([0.0, 1.0]), 0.1
    moved = tilt([1 - eta, eta], r, beta).p[1]  # the true model never gives the good answer
    assert moved == pytest.approx(noise.rlhf_shift_ceiling(eta, 1.0, beta), rel=1e-13)
    assert noise.rlhf_shift_ceiling(eta, 1.0, 1e-4) == 1.0  # no overflow
    assert noise.rlhf_shift_ceiling(eta, 0.0, beta) == pytest.approx(eta)


@given(instances(("plain", "sparse")), TEMPERATURES, SEEDS, st.floats(0.0, 1.0))
def test_C17_a_prompter_moves_with_its_noise(inst, lam, seed, size):
    """Without retraining the reward moves by osc_r E eta; retrained answers by no more than C17."""
    rng = np.random.default_rng(seed)
    pool = np.broadcast_to(inst.pi_F_rewrites, (*inst.rho_sft.shape, inst.reward.shape[1]))
    noisy = (1 - size) * pool + size * rng.dirichlet(np.ones(pool.shape[2]), pool.shape[:2])
    eta, g_hat = total_variation(pool, noisy), np.einsum("xky,xy->xk", noisy, inst.reward)
    star = tilt(inst.rho_sft, inst.g, lam).p
    n = noise.noise(inst.rho_sft, inst.g, g_hat, lam)
    stays = (star * (g_hat - inst.g)).sum(axis=1)
    used = (star * eta).sum(axis=1)
    assert (np.abs(stays) <= np.ptp(inst.reward, axis=1) * used + rounding(inst)).all()
    answers = [np.einsum("xk,xky->xy", *pair) for pair in ((star, pool), (n.rho_hat, noisy))]
    width = osc(g_hat - inst.g, inst.rho_sft > 0)
    assert (total_variation(*answers) <= used + np.tanh(width / (4 * lam)) + 1e-12).all()


def expected_loss(good, rho_sft, lam, M):
    """Exact expectations over M binary answers to each rewrite: of the loss and the optimism."""
    counts = np.array(list(itertools.product(range(M + 1), repeat=len(good))))
    ways = np.array([math.comb(M, c) for c in range(M + 1)], dtype=float)
    chance = (ways[counts] * good**counts * (1 - good) ** (M - counts)).prod(axis=1)
    rows = np.ones((len(counts), 1))
    n = noise.noise(rho_sft * rows, good * rows, counts / M, lam)
    optimism = lam * (tilt(rho_sft, counts / M, lam).log_Z - tilt(rho_sft, good, lam).log_Z)
    return chance @ n.loss, chance @ optimism


@pytest.mark.parametrize("lam", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("M", [1, 2, 5])
def test_C17_the_price_of_few_answers(lam, M):
    loss, optimism = expected_loss(np.array([0.2, 0.5, 0.9]), np.array([0.5, 0.3, 0.2]), lam, M)
    assert 0 <= loss <= 1 / (2 * lam * M)
    assert 0 <= optimism <= 1 / (8 * lam * M)


def test_C17_the_price_of_many_answers():
    good, rho_sft, lam, M = np.array([0.3, 0.8]), np.array([0.6, 0.4]), 0.5, 200
    star = tilt(rho_sft, good, lam).p
    leading = (star * (1 - star) * good * (1 - good)).sum() / (2 * lam * M)
    assert expected_loss(good, rho_sft, lam, M)[0] == pytest.approx(leading, rel=0.02)


def test_noise_names_the_wrong_argument():
    for arguments, name in [
        (([[0.5, 0.4]], [[0, 1]], [[0, 1]], 1), "rho_sft"),
        (([[0.5, 0.5]], [[0, 1, 2]], [[0, 1]], 1), "g"),
        (([[0.5, 0.5]], [[0, 1]], [[0, np.nan]], 1), "g_hat"),
        (([[0.5, 0.5]], [[0, 1]], [[0, 1]], 0), "lam"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: "):
            noise.noise(*arguments)
    with pytest.raises(ValueError, match="^beta: "):
        noise.rlhf_shift_ceiling(0.1, 1.0, 0.0)


# --- C18: prompters in sequence ---------------------------------------------------------------


@st.composite
def chain_cases(draw):
    """References of one to three stages with zeros, g, leashes, and any other policies."""
    rng = np.random.default_rng(draw(SEEDS))
    n, X = draw(st.integers(1, 3)), 2
    sizes = [1, *rng.integers(2, 5, n)]
    references, policies = [], []
    for incoming, outgoing in itertools.pairwise(sizes):
        R = rng.dirichlet(np.full(outgoing, 0.7), (X, incoming))
        R[R < 0.1] = 0
        R /= R.sum(axis=-1, keepdims=True)
        rho = (rng.random(R.shape) + 0.01) * (R > 0)
        references.append(R)
        policies.append(rho / rho.sum(axis=-1, keepdims=True))
    lams = 10 ** rng.uniform(-1.5, 1.5, n)
    return references, rng.random((X, sizes[-1])), lams, policies


def by_paths(references, g, lams, policies):
    """The objective as a sum over paths, in plain loops."""
    total = np.zeros(len(g))
    for x in range(len(g)):
        for path in itertools.product(*(range(R.shape[2]) for R in references)):
            steps = list(zip((0, *path), path))
            chance = math.prod(rho[x, a, b] for rho, (a, b) in zip(policies, steps))
            if chance > 0:
                tax = sum(
                    lam * math.log(rho[x, a, b] / R[x, a, b])
                    for lam, rho, R, (a, b) in zip(lams, policies, references, steps)
                )
                total[x] += chance * (g[x, path[-1]] - tax)
    return total


@given(chain_cases())
def test_C18_the_value_and_the_regret_of_any_chain(case):
    references, g, lams, policies = case
    best = chains.solve_chain(references, g, lams)
    paths = by_paths(references, g, lams, policies)
    tol = 1e-12 * max(1, *lams)
    assert best.objective(policies) == pytest.approx(paths, abs=tol)
    assert best.value - best.regret(policies) == pytest.approx(paths, abs=tol)
    assert by_paths(references, g, lams, best.policies) == pytest.approx(best.value, abs=tol)
    assert best.regret(best.policies) == pytest.approx(np.zeros(2), abs=1e-13 * max(1, *lams))
    assert (best.regret(policies) >= 0).all()


@given(chain_cases())
def test_C18_one_leash_makes_one_prompter_and_others_lie_between(case):
    references, g, lams, _ = case
    composed = chains.last_rewrite(references)[:, 0]
    same = chains.solve_chain(references, g, [lams[0]] * len(lams))
    one = tilt(composed, g, lams[0])
    assert same.value == pytest.approx(lams[0] * one.log_Z, abs=1e-12 * max(1, lams[0]))
    assert chains.last_rewrite(same.policies)[:, 0] == pytest.approx(one.p, abs=1e-12)
    stiff, loose = (
        chains.solve_chain(references, g, [pick(lams)] * len(lams)).value for pick in (max, min)
    )
    middle = chains.solve_chain(references, g, lams).value
    assert (stiff <= middle + 1e-12).all() and (middle <= loose + 1e-12).all()


def test_C18_against_an_optimiser_that_knows_no_recursion():
    rng = np.random.default_rng(3)
    references = [rng.dirichlet(np.ones(2), (1, 1)), rng.dirichlet(np.ones(3), (1, 2))]
    g, lams = rng.random((1, 3)), [0.2, 0.5]

    def policies(z):
        first, second = np.exp(z[:2]).reshape(1, 1, 2), np.exp(z[2:]).reshape(1, 2, 3)
        return [p / p.sum(axis=-1, keepdims=True) for p in (first, second)]

    found = minimize(
        lambda z: -by_paths(references, g, lams, policies(z))[0], np.zeros(8), tol=1e-12
    )
    best = chains.solve_chain(references, g, lams)
    assert -found.fun == pytest.approx(best.value[0], abs=1e-8)
    for mine, theirs in zip(best.policies, policies(found.x)):
        assert mine == pytest.approx(theirs, abs=1e-4)


@given(chain_cases())
def test_C18_the_wrong_order(case):
    references, g, lams, _ = case
    best, untrained = chains.solve_chain(references, g, lams), g
    for R in reversed(references[1:]):
        untrained = (R @ untrained[:, :, None])[..., 0]
    first = tilt(references[0][:, 0], untrained, lams[0])
    width, later = np.ptp(g, axis=1), [chains.dobrushin(R) for R in references[1:]]
    w = width * np.prod(later, axis=0) if later else width
    gain = (first.p * untrained).sum(axis=1) - (references[0][:, 0] * untrained).sum(axis=1)
    assert (gain <= w * np.tanh(w / (4 * lams[0])) + 1e-12).all()
    if len(lams) == 2:
        loss = best.regret([first.p[:, None], best.policies[1]])
        d = lams[1] * kl_of_range(width / lams[1])
        ceiling = lams[0] * kl_of_range(d / lams[0])
        assert (loss <= ceiling * (1 + 1e-9) + 1e-15).all()
        assert (ceiling <= width**4 / (512 * lams[0] * lams[1] ** 2) * (1 + 1e-9)).all()
        assert (ceiling <= width * (1 + 1e-9)).all()


def test_C18_the_constant_512_is_attained_at_a_stiff_leash():
    references = [np.array([[[0.5, 0.5]]]), np.array([[[0.5, 0.5, 0], [0, 0, 1]]])]
    lam = 100.0
    best = chains.solve_chain(references, [[0, 1, 0.5]], [lam, lam])
    loss = best.regret([references[0], best.policies[1]])[0]  # stage 1 sees 1/2 both ways
    assert loss * 512 * lam**3 == pytest.approx(1, rel=1e-4)


def test_C18_a_stage_that_does_not_see_the_prompt_loses_everything():
    """The coin for two prompts of opposite rewards: 7/12 where stage 2 sees x, 1/2 where not."""
    i, lam = coin(), 1 / (4 * np.log(2))
    g = np.concatenate([i.g, i.g[:, ::-1]])
    stage = np.repeat(i.rho_sft[:, None], 2, axis=0)
    erase = np.ones((2, 1, 1))
    best = chains.solve_chain([erase, stage], g, [lam, lam])
    earned = (chains.last_rewrite(best.policies)[:, 0] * g).sum(axis=1)
    assert earned == pytest.approx([7 / 12] * 2, rel=1e-14)
    blind = tilt(i.rho_sft, g.mean(axis=0, keepdims=True), lam).p  # one rule for both prompts
    assert (blind * g).sum(axis=1).mean() == pytest.approx(1 / 2, rel=1e-14)


def test_C18_first_only_and_last_only_add_up_at_a_stiff_leash():
    rng, lam = np.random.default_rng(5), 1e4
    references = [rng.dirichlet(np.ones(3), (1, 1)), rng.dirichlet(np.ones(4), (1, 3))]
    g = rng.random((1, 4))
    best = chains.solve_chain(references, g, [lam, lam])
    start = (chains.last_rewrite(references)[:, 0] * g).sum()
    middle = (references[1] @ g[:, :, None])[..., 0]
    first = tilt(references[0][:, 0], middle, lam).p[:, None]

    def gain(policies):
        return (chains.last_rewrite(policies)[:, 0] * g).sum() - start

    alone = gain([first, references[1]]) + gain([references[0], best.policies[1]])
    assert alone == pytest.approx(gain(best.policies), rel=1e-3)
    variance = (chains.last_rewrite(references)[0, 0] * (g - start) ** 2).sum()
    assert gain(best.policies) == pytest.approx(variance / lam, rel=1e-3)


def test_dobrushin_and_wrong_chains():
    assert chains.dobrushin([[[0.5, 0.5], [0.9, 0.1]], [[1, 0], [0, 1]]]) == pytest.approx([0.4, 1])
    one, two = np.ones((1, 1, 1)), np.full((1, 1, 2), 0.5)
    for arguments, name in [
        (([two], [[0, 1]], [1, 1]), "lams"),
        (([two], [[0, 1]], [0]), "lams"),
        (([two], [[0, 1, 2]], [1]), "references"),
        (([np.full((1, 2, 2), 0.5)], [[0, 1]], [1]), "references"),
        (([one, two], [[0, np.inf]], [1, 1]), "g"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: "):
            chains.solve_chain(*arguments)
    with pytest.raises(ValueError, match="^policies: "):
        chains.solve_chain([two], [[0, 1]], [1]).regret([np.full((1, 1, 3), 1 / 3)])


# --- C19: the variance of the reward ----------------------------------------------------------


def variance_of_all(P, answers, reward):
    """The variance of the reward of one answer to one prompt from P, from the whole law."""
    law = P[:, None] * answers
    return (law * reward**2).sum() - (law * reward).sum() ** 2


@given(instances(("plain", "tiny")), st.floats(-0.5, 2).map(lambda e: 10.0**e))
def test_C19_the_drift_is_the_slope_of_the_variance(inst, lam):
    lam, pool = lam * inst.r_max, inst.pi_F_rewrites
    pool = np.broadcast_to(pool, (*inst.rho_sft.shape, inst.reward.shape[1]))
    v = np.einsum("xky,xy->xk", pool, inst.reward**2) - inst.g**2

    def at(t):
        rho, pi = tilt(inst.rho_sft, inst.g, 1 / t).p, tilt(inst.pi_F, inst.reward, 1 / t).p
        return rho, pi, np.einsum("xk,xky->xy", rho, pool)

    t, step = 1 / lam, 1e-4 / lam
    rho, pi, _ = at(t)
    ahead, back = at(t + step), at(t - step)
    near = {"rel": 1e-5, "abs": 1e-7 * inst.r_max**3}
    for place, drift in [
        (2, variance.variance_drift(inst.P, rho, inst.g, v)),
        (1, variance.variance_drift(inst.P, pi, inst.reward, np.zeros_like(inst.reward))),
    ]:
        slope = [variance_of_all(inst.P, side[place], inst.reward) for side in (ahead, back)]
        assert inst.P @ drift.total == pytest.approx((slope[0] - slope[1]) / (2 * step), **near)
        mean = [inst.P @ (side[place] * inst.reward).sum(axis=1) for side in (ahead, back)]
        assert inst.P @ drift.gain == pytest.approx((mean[0] - mean[1]) / (2 * step), **near)


@given(SEEDS)
def test_C19_rewards_of_0_and_1(seed):
    rng = np.random.default_rng(seed)
    rho, g = rng.dirichlet(np.ones(5), 3), rng.random((3, 5))
    drift = variance.variance_drift(np.full(3, 1 / 3), rho, g, g * (1 - g))
    expected = (1 - 2 * (rho * g).sum(axis=1)) * drift.gain
    assert drift.within + drift.skew == pytest.approx(expected, abs=1e-14)


def test_C19_the_sign_follows_the_longer_tail():
    P, rho = [1.0], [[0.1, 0.9]]
    low_tail = variance.variance_drift(P, rho, [[0.1, 0.9]], [[0.0, 0.0]])
    high_tail = variance.variance_drift(P, rho, [[0.9, 0.1]], [[0.0, 0.0]])
    assert low_tail.total[0] < 0 < high_tail.total[0]
    assert low_tail.skew[0] == pytest.approx(-0.1 * 0.9 * 0.8 * 0.8**3, rel=1e-12)
    noisy = variance.variance_drift(P, [[0.5, 0.5]], [[0.2, 0.8]], [[0.1, 0.3]])
    assert noisy.within[0] == pytest.approx(0.03, rel=1e-12)
    assert noisy.skew[0] == pytest.approx(0, abs=1e-16)


def test_C19_estimates_have_no_bias():
    """The exact expectation, over every outcome of three binary answers to each rewrite."""
    good, rho = np.array([[0.3, 0.8], [0.6, 0.1]]), np.array([[0.25, 0.75], [0.6, 0.4]])
    expected = dict.fromkeys(("within", "skew", "across", "gain"), 0.0)
    for outcome in itertools.product((0.0, 1.0), repeat=12):
        rewards = np.array(outcome).reshape(2, 2, 3)
        chance = np.where(rewards == 1, good[..., None], 1 - good[..., None]).prod()
        found = variance.variance_drift_from_samples(rewards, rho)
        for name in expected:
            expected[name] += chance * getattr(found, name).mean()
    exact = variance.variance_drift([0.5, 0.5], rho, good, good * (1 - good))
    for name in ("within", "skew", "gain"):
        assert expected[name] == pytest.approx(getattr(exact, name).mean(), abs=1e-14), name
    # Two prompts are all of them here; a sample of two from more would spread twice as far.
    assert expected["across"] == pytest.approx(2 * exact.across.mean(), abs=1e-14)


def test_C19_equal_weights_are_the_default_and_wrong_shapes_are_named():
    rewards = np.random.default_rng(0).random((3, 2, 4))
    plain = variance.variance_drift_from_samples(rewards)
    weighted = variance.variance_drift_from_samples(rewards, np.full((3, 2), 0.5))
    assert plain.total == pytest.approx(weighted.total, abs=1e-16)
    with pytest.raises(ValueError, match="^rewards: .*M >= 3"):
        variance.variance_drift_from_samples(rewards[:, :, :2])
    with pytest.raises(ValueError, match="^rewards: .*X >= 2"):
        variance.variance_drift_from_samples(rewards[:1])
    with pytest.raises(ValueError, match="^rho: "):
        variance.variance_drift_from_samples(rewards, np.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match="^v: "):
        variance.variance_drift([1.0], [[1.0]], [[1.0]], [[1.0, 2.0]])
