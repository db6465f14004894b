"""alignpro.theory.from_samples against the exact theory, on instances that can be sampled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro import theory
from alignpro.theory import from_samples, gibbs

pytestmark = pytest.mark.filterwarnings("error")
LAMS = [0.05, 0.2, 1.0, 10.0]


def instance(X: int = 1) -> theory.Instance:
    rng = np.random.default_rng(0)
    return theory.Instance(
        P=np.full(X, 1 / X),
        rho_sft=rng.dirichlet(np.ones(6), X),
        pi_F=rng.dirichlet(np.ones(5), X),
        pi_F_rewrites=rng.dirichlet(np.ones(5), (X, 6)),
        reward=rng.random((X, 5)),
    )


def draw(inst: theory.Instance, repeats: int, N: int, M: int, seed: int = 0) -> np.ndarray:
    """``repeats`` independent reward arrays of prompt 0, stacked as if they were prompts."""
    rng = np.random.default_rng(seed)
    rewrites = rng.choice(inst.rho_sft.shape[1], size=(repeats, N), p=inst.rho_sft[0])
    edges = np.cumsum(inst.pi_F_rewrites[0], axis=1)[rewrites][..., None, :-1]
    responses = (rng.random((repeats, N, M, 1)) > edges).sum(axis=-1)
    return inst.reward[0][responses]


def test_prompter_front_converges_to_the_exact_curve():
    inst = instance()
    curve = inst.lambda_curve(LAMS)
    for split in (True, False):
        front = from_samples.prompter_front(draw(inst, 20, 500, 400), LAMS, split=split)
        # At the lowest lam the noise of g itself, 0.015, shows.
        assert front.reward[1:] == pytest.approx(curve.J_prompter[1:], abs=0.006)
        assert front.kl[1:] == pytest.approx(curve.kl[1:], abs=0.02)
        assert front.reward[0] == pytest.approx(curve.J_prompter[0], abs=0.02)
        assert front.log_Z[1:] == pytest.approx(curve.free_energy[1:] / LAMS[1:], abs=0.01)
    assert front.temperature.tolist() == LAMS


def test_splitting_removes_the_winners_curse():
    """All rewrites are equal, so no prompter gains: whatever the joint estimate gains is luck."""
    noise = np.random.default_rng(1).normal(size=(2000, 16, 4))
    split = from_samples.prompter_front(noise, [0.01, 0.3], resamples=200)
    joint = from_samples.prompter_front(noise, [0.01, 0.3], split=False, resamples=200)
    assert split.reward == pytest.approx([0, 0], abs=0.02)
    assert joint.reward[0] == pytest.approx(0.5 * 1.766, abs=0.02)  # E max of 16 normals
    assert joint.reward[1] > 0.4
    # The intervals speak of prompts: they do not know of the joint estimate's optimism.
    assert split.reward_interval[0, 0] < 0 < split.reward_interval[0, 1]
    assert joint.reward_interval[0, 0] > 0.8


def test_split_uses_both_halves_and_no_response_twice():
    rewards = np.array([[[1.0, 0.5], [0.0, 3.0]]])
    front = from_samples.prompter_front(rewards, [1e-3])
    # Even responses choose rewrite 0, whose odd one earns 0.5; odd ones rewrite 1, which earns 0.
    assert front.reward.tolist() == [0.25]
    assert from_samples.prompter_front(rewards, [1e-3], split=False).reward.tolist() == [1.5]


def test_C14_a_single_response_inside_the_exponential_seeks_risk():
    """Rewrite 0 earns 0.6 surely, rewrite 1 a fair 0 or 1: only averaging first prefers 0."""
    rng = np.random.default_rng(0)
    risky = rng.integers(0, 2, (400, 1, 200)).astype(float)
    rewards = np.concatenate([np.full((400, 1, 200), 0.6), risky], axis=1)
    averaged = from_samples.prompter_front(rewards, [0.1])
    one = from_samples.prompter_front(rewards[:, :, :1], [0.1], split=False)
    assert averaged.reward[0] == pytest.approx(0.5 + 0.1 / (1 + np.exp(-1)), abs=0.01)
    assert one.reward[0] > 0.75  # it believes in rewards that the risky rewrite does not have
    assert np.isnan(one.log_Z_noise[0])


@pytest.mark.parametrize("n", [5, 20, 80])
@pytest.mark.parametrize("lam", [0.1, 0.5, 2.0])
def test_C14_log_Z_is_low_by_at_most_its_bound(n, lam):
    inst = instance()
    sol, rng = inst.solve(lam, 1.0), np.random.default_rng(n)
    g = sol.g[0][rng.choice(6, size=(20_000, n), p=inst.rho_sft[0])]
    log_Z = gibbs.tilt(np.full(n, 1 / n), g, lam).log_Z
    bias, error = sol.log_Z_x[0] - log_Z.mean(), log_Z.std() / np.sqrt(len(g))
    ratio = sol.rho_star[0] / inst.rho_sft[0]
    chi2 = inst.rho_sft[0] @ (ratio - 1) ** 2
    low = ratio.min()
    bound = (low - 1 - np.log(low)) / (low - 1) ** 2 * chi2 / n
    assert -4 * error <= bias <= bound + 4 * error
    assert bias >= 0.2 * min(bound, chi2 / n / 2) - 4 * error
    # The plug-in estimates that bound from the sample.
    front = from_samples.prompter_front(g[:2000, :, None], [lam], split=False, resamples=2)
    assert front.log_Z[0] == pytest.approx(log_Z[:2000].mean())
    if n == 80:
        assert front.log_Z_bias[0] == pytest.approx(bound, rel=0.3)


def test_log_Z_noise_measures_what_finitely_many_responses_add():
    inst, lam = instance(), 0.5
    front = from_samples.prompter_front(draw(inst, 300, 400, 8), [lam], split=False)
    excess = front.log_Z[0] - inst.solve(lam, 1.0).log_Z_x[0]
    assert excess == pytest.approx(front.log_Z_noise[0], rel=0.3)
    assert excess > 5 * front.log_Z_bias[0]


def test_rlhf_front_converges_to_the_exact_optimum():
    inst = instance()
    edges = np.cumsum(inst.pi_F[0])[:-1]
    u = np.random.default_rng(3).random((50, 4000, 1))
    front = from_samples.rlhf_front(inst.reward[0][(u > edges).sum(-1)], LAMS)
    exact = [inst.solve(1.0, beta) for beta in LAMS]
    assert front.reward == pytest.approx([s.J_rlhf for s in exact], abs=0.005)
    assert front.kl == pytest.approx([s.kl_rlhf for s in exact], abs=0.02)
    assert front.log_Z == pytest.approx([s.log_Z_beta_x[0] for s in exact], abs=0.02)
    assert np.all(front.log_Z_noise == 0)
    chi2 = [((s.pi_star - inst.pi_F) ** 2 / inst.pi_F).sum() for s in exact]
    assert front.ess == pytest.approx(4000 / (1 + np.array(chi2)), rel=0.05)


@given(st.integers(0, 2**32), st.floats(-4, 4).map(lambda e: 10.0**e))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_ranges_and_shapes(seed, temperature):
    rng = np.random.default_rng(seed)
    X, N, M = rng.integers(1, 5), rng.integers(1, 6), rng.integers(2, 6)
    rewards, temperatures = rng.normal(size=(X, N, M)), [temperature, 2 * temperature]
    for split in (True, False):
        front = from_samples.prompter_front(rewards, temperatures, split=split, resamples=50)
        assert front.reward_x.shape == front.kl_x.shape == (X, 2)
        assert front.reward_interval.shape == front.kl_interval.shape == (2, 2)
        assert np.all(front.reward_interval[:, 0] <= front.reward_interval[:, 1])
        assert np.all((front.kl >= 0) & (front.kl <= np.log(N) + 1e-12))
        assert np.all((front.ess_min >= 1 - 1e-9) & (front.ess <= N * (1 + 1e-9)))
        assert np.all(front.ess_min <= front.ess + 1e-12)
        assert np.all(front.log_Z_bias >= 0) and np.all(front.log_Z_noise >= 0)
        assert front.reward == pytest.approx(front.reward_x.mean(axis=0))
        assert np.all(np.abs(front.reward) <= np.abs(rewards).max())
    # Without a split it is the exact optimum of the uniform law on the sample.
    means = rewards.mean(axis=2)
    t = gibbs.tilt(np.full(N, 1 / N), means, temperature)
    assert front.reward_x[:, 0] == pytest.approx((t.p * means).sum(axis=1))
    assert front.log_Z[0] == pytest.approx(np.mean(t.log_Z))
    assert front.ess_min[0] == pytest.approx((1 / (t.p**2).sum(axis=1)).min())


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: from_samples.prompter_front(np.zeros((2, 3)), [1]), "rewards"),
        (lambda: from_samples.prompter_front(np.zeros((2, 3, 1)), [1]), "rewards"),
        (lambda: from_samples.prompter_front(np.full((2, 3, 2), np.nan), [1]), "rewards"),
        (lambda: from_samples.prompter_front(np.zeros((2, 3, 2)), [1, 0]), "lams"),
        (lambda: from_samples.rlhf_front(np.zeros((2, 3, 2)), [1]), "rewards"),
        (lambda: from_samples.rlhf_front(np.zeros((2, 3)), [-1]), "betas"),
    ],
)
def test_invalid_calls_name_the_argument(call, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        call()
