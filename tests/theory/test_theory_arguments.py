"""Conventions, masks and errors of alignpro.theory."""

import math
import warnings

import numpy as np
import pytest
from theory_cases import SCALARS, make

from alignpro import theory
from alignpro.theory import gibbs

pytestmark = pytest.mark.filterwarnings("error")


def test_off_support_rewrites_are_never_used():
    args = make(5)
    X, K = args["rho_sft"].shape
    base = theory.Instance(**args)
    blank = np.zeros((X, 1, args["pi_F"].shape[1]))
    padded = args | {
        "rho_sft": np.hstack([args["rho_sft"], np.zeros((X, 1))]),
        "pi_F_rewrites": np.concatenate([args["pi_F_rewrites"], blank], axis=1),
    }
    inst = theory.Instance(**padded)
    a, b = base.solve(0.3, 0.4), inst.solve(0.3, 0.4)
    assert b.rho_star[:, K].tolist() == b.g[:, K].tolist() == [0] * X
    for name in SCALARS:
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-14)
    assert inst.best_of_n(3).rho[:, K].tolist() == [0] * X
    with pytest.raises(ValueError, match="rho: row 0 .*padding"):
        inst.value(np.eye(K + 1)[[K] * X])


def test_leaving_the_support_of_rho_sft_costs_infinitely_much():
    inst = theory.Instance([1, 0], [[1, 0]] * 2, [[0.5, 0.5]] * 2, np.eye(2), [[1, 3]] * 2)
    off = [[0, 1], [0, 1]]
    assert inst.value(off) == 3 and inst.regret(off, 1.0) == math.inf
    assert inst.regret([[1, 0], [0, 1]], 1.0) == 0  # the second prompt has probability 0


def test_reward_out_of_reach_counts_in_r_max_alone():
    args = {"P": [1], "rho_sft": [[0.5, 0.5]], "pi_F": [[0.5, 0.5, 0]]}
    pool, rewards = [[0.9, 0.1, 0], [0.3, 0.7, 0]], [1.0, 0.0, 1e6]
    sol = theory.Instance(**args, pi_F_rewrites=pool, reward=[rewards]).solve(0.1, 0.1)
    plain = theory.Instance(**args, pi_F_rewrites=pool, reward=[[1.0, 0.0, 0.5]]).solve(0.1, 0.1)
    assert (sol.r_max, plain.r_max) == (1e6, 1.0)
    assert sol.delta == pytest.approx(plain.delta, rel=1e-13)
    assert sol.bound_mixture == pytest.approx(plain.bound_mixture, rel=1e-13)
    # In the reach of a rewrite but not of pi_F: the mixture bound must count it.
    pool = [[0.9, 0.1, 0], [0.2, 0.7, 0.1]]
    reached = theory.Instance(**args, pi_F_rewrites=pool, reward=[[1.0, 0.0, 5.0]]).solve(1, 1)
    mix_tv = gibbs.total_variation(reached.pi_star, reached.pi_sft_mix)[0]
    gain = reached.J_prompter - reached.J_sft
    assert reached.bound_mixture == pytest.approx(5 * mix_tv - gain, rel=1e-12)


def test_rows_are_normalised_and_inputs_left_alone():
    args = make(2)
    args["rho_sft"] = args["rho_sft"] * (1 + 5e-10)
    before = args["rho_sft"].copy()
    inst = theory.Instance(**args)
    assert np.array_equal(args["rho_sft"], before)
    assert inst.rho_sft.sum(axis=1) == pytest.approx(np.ones(len(inst.P)), abs=1e-15)
    with pytest.raises(ValueError, match="read-only"):
        inst.rho_sft[0, 0] = 1


def test_a_solution_answers_like_its_instance():
    inst = theory.Instance([1], [[0.2, 0.8]], [[0.4, 0.6]], [[0.9, 0.1], [0.3, 0.7]], [[1, 0]])
    sol, rho = inst.solve(0.3, 2.0), [[0.5, 0.5]]
    assert sol.regret(rho) == inst.regret(rho, 0.3) != inst.regret(rho, 0.4)
    assert sol.apriori() == inst.apriori(0.3, 2.0) != inst.apriori(0.4, 2.0)


def test_non_negative_rewards_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theory.Instance(**make(0)).solve(1e-4, 1e-4)


VALID = {
    "P": [0.5, 0.5],
    "rho_sft": [[0.5, 0.5]] * 2,
    "pi_F": [[0.5, 0.5]] * 2,
    "pi_F_rewrites": [[0.2, 0.8]] * 2,
    "reward": [[1, 0]] * 2,
}


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("P", [0.5, 0.4], "P: row 0 does not sum to 1"),
        ("P", [1.1, -0.1], "P: row 1 has a negative probability"),
        ("P", [0.5, 0.25, 0.25], "rho_sft: shape"),
        ("P", [[0.5, 0.5]], "P: shape"),
        ("P", [], "P: shape"),
        ("P", "half", "P: not a rectangular array"),
        ("rho_sft", [[0.5, 0.5], [0.5, 0.4]], "rho_sft: row 1 does not sum to 1"),
        ("rho_sft", [[0.5, 0.5], [0.5, 0.5 + 1e-8]], "rho_sft: row 1 does not sum to 1"),
        ("rho_sft", [[0.5, 0.5], [1.5, -0.5]], "rho_sft: row 1 has a negative probability"),
        ("rho_sft", [[0.5, 0.5], [0, 0]], "rho_sft: row 1 has no support"),
        ("rho_sft", [[np.nan, 0.5], [0.5, 0.5]], "rho_sft: row 0 has an entry that is not finite"),
        ("rho_sft", [[1], [0.5, 0.5]], "rho_sft: not a rectangular array"),
        ("pi_F", [[0.5, 0.5], [0.5, 0.6]], "pi_F: row 1 does not sum to 1"),
        ("pi_F", [[0.5, 0.5]], "pi_F: shape"),
        ("pi_F_rewrites", [[0.2, 0.8], [0, 0]], "pi_F_rewrites: row 1 has no support"),
        (
            "pi_F_rewrites",
            [[[0.2, 0.8]] * 2, [[1, 0], [0.5, 0.6]]],
            "pi_F_rewrites: row 1, 1 does not",
        ),
        ("pi_F_rewrites", [[0.2, 0.8]] * 3, "pi_F_rewrites: shape"),
        ("reward", [[1, 0], [np.inf, 0]], "reward: row 1 has an entry that is not finite"),
        ("reward", [[1, 0, 0]] * 2, "reward: shape"),
    ],
)
def test_invalid_instances_name_argument_row_and_reason(name, value, message):
    with pytest.raises(ValueError) as error:
        theory.Instance(**{**VALID, name: value})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda inst: inst.solve(lam=0, beta=1), "lam"),
        (lambda inst: inst.solve(lam=1, beta=-1), "beta"),
        (lambda inst: inst.solve(lam=1, beta=math.nan), "beta"),
        (lambda inst: inst.solve(lam=math.inf, beta=1), "lam"),
        (lambda inst: inst.solve(lam=[1, 2], beta=1), "lam"),
        (lambda inst: inst.lambda_curve([1, 0]), "lams"),
        (lambda inst: inst.lambda_c(0), "beta"),
        (lambda inst: inst.apriori(0, 1), "lam"),
        (lambda inst: inst.best_of_n(0), "n"),
        (lambda inst: inst.best_of_n(1.5), "n"),
        (lambda inst: inst.kl_budget(-0.1), "kappa"),
        (lambda inst: inst.in_convex_hull(2, 1), "x"),
        (lambda inst: inst.in_convex_hull(-1, 1), "x"),
        (lambda inst: inst.hull_projection(0, [1, 0, 0]), "target"),
        (lambda inst: inst.value([[1, 0]]), "rho"),
        (lambda inst: inst.regret([[1, 0], [0.5, 0.6]], 1), "rho"),
        (lambda inst: inst.regret(inst.rho_sft, 0), "lam"),
    ],
)
def test_invalid_calls_name_the_argument(call, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        call(theory.Instance(**VALID))
