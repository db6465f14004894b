"""The reduced form of an instance keeps what its solution needs."""

import json

import numpy as np
import pytest

from alignpro.theory.instances import coin, random_instance
from alignpro.theory.reduced import LEASHES, reduced


@pytest.mark.parametrize("seed", range(4))
def test_the_reduced_form_gives_values_and_the_mixture_bound(seed):
    instance = random_instance(np.random.default_rng(seed), 3, 4, 6)
    data = json.loads(json.dumps(reduced(instance, [0.1, 2.0])))
    solution = instance.solve(lam=0.5, beta=2.0)
    P, levels = np.array(data["P"]), np.array(data["levels"])
    assert P @ (np.array(data["pi_F"]) @ levels) == pytest.approx(solution.J_frozen)
    assert np.allclose(data["g"], solution.g)
    learned = 0.5 * (solution.kl + solution.kl_reverse)
    assert data["mixture"][1] - learned == pytest.approx(solution.bound_mixture)
    assert data["r_max"] * data["tv_rewrites"] == pytest.approx(solution.bound_term2)


def test_rewards_that_repeat_share_a_level():
    data = reduced(coin(), LEASHES)
    assert data["levels"] == [0.0, 1.0] and data["pi_F"] == [[0.5, 0.5]]
    assert len(data["mixture"]) == len(LEASHES) == 61
    assert (LEASHES[0], LEASHES[-1]) == (0.01, 10.0)
