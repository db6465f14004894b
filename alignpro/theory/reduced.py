"""What a page needs to solve an instance at any leash, without its table of responses.

Both optima and the bounds depend on the responses through few numbers only: rewards repeat, so the
optimum of RLHF needs the probability of each *level* of reward; two terms of the bounds do not
depend on the leashes at all. One term depends on beta alone, and is tabulated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignpro.theory.gibbs import osc, tilt, total_variation
from alignpro.theory.instance import Instance

# The positions of both sliders: equal ratios from 0.01 to 10.
LEASHES = [float(f"{10 ** (i / 20 - 2):.6g}") for i in range(61)]


def reduced(instance: Instance, betas: Sequence[float]) -> dict:
    """`instance` as numbers for JSON: what its solution needs at any lam and at each of `betas`.

    P [X], rho_sft and g [X, K]; `levels` [L], the distinct rewards, and `pi_F` [X, L], their
    probabilities under the frozen model at the prompt. `tv_rewrites` is E TV between the frozen
    model's responses to the prompt and to its rewrites, `r_max` the largest reward, `mixture` [B]
    the first term of the mixture bound at each of `betas` [B].
    """
    r, pi_F, mix = instance.reward, instance.pi_F, instance._mix
    levels = np.unique(r)
    shares = [[float(p[row == level].sum()) for level in levels] for p, row in zip(pi_F, r)]
    width = osc(r, instance._reachable)
    optima = (tilt(pi_F, r, beta).p for beta in betas)
    mixture = [float(instance.P @ (width * total_variation(pi, mix))) for pi in optima]
    return {
        "P": instance.P.tolist(),
        "rho_sft": instance.rho_sft.tolist(),
        "g": instance.g.tolist(),
        "levels": levels.tolist(),
        "pi_F": shares,
        "tv_rewrites": float(instance.P @ instance.tv_rewrites_x),
        "r_max": instance.r_max,
        "betas": list(betas),
        "mixture": mixture,
    }
