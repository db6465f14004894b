"""The estimated optima: both optima of the paper, estimated from samples, without any training.

Both optima are Gibbs tilts (Eq. 4, Lemma 5.1). So samples of the reference, reweighted by
exp(reward / temperature), estimate them: the best that any prompter can do at each KL, and J(pi*).
The functions take plain arrays and return a small record. There are X prompts (the average over
them estimates the P-average), N rewrites drawn from rho_sft, and M responses drawn from pi_F.
Divergences are in nats.

Reweighting cannot see what was never drawn: N rewrites represent no KL above log N. Read ``ess``,
the effective sample size, beside every value.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from alignpro.statistics import bootstrap
from alignpro.theory.arguments import as_array, as_number
from alignpro.theory.gibbs import Array, exp_remainder, tilt


@dataclass(frozen=True, eq=False)
class Front:
    """Estimates at L temperatures (lam for a prompter, beta for RLHF), averaged over X prompts."""

    temperature: Array  # [L]
    reward: Array  # [L] J_lam, or J(pi*)
    kl: Array  # [L] KL of the reweighted sample from the sample; at most log N, or log M
    log_Z: Array  # [L] log of the mean weight; biased, see the next two
    log_Z_bias: Array  # [L] C14: in expectation log_Z is too low by at most about this
    log_Z_noise: Array  # [L] too high by about this, from averaging finitely many responses
    ess: Array  # [L] effective sample size, 1 to N (or M), mean over prompts
    ess_min: Array  # [L] the same at the worst prompt
    reward_interval: Array  # [L, 2] bootstrap over prompts
    kl_interval: Array  # [L, 2]
    reward_x: Array  # [X, L] per prompt, for paired comparisons between fronts
    kl_x: Array  # [X, L]


def prompter_front(
    rewards: ArrayLike,
    lams: ArrayLike,
    *,
    split: bool = True,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Front:
    """The (KL, reward) front of the optimal prompters of Lemma 5.1, at each of ``lams`` [L] > 0.

    ``rewards`` [X, N, M]: r(x, y) of M responses y ~ pi_F(.|x') to each of N rewrites
    x' ~ rho_sft(.|x), repeats included. Responses are averaged before the exponential: a single
    sampled reward inside it would favour rewrites with a noisy reward (C14).

    With ``split`` (the default; M >= 2) half of the responses sets the weights and the other half
    the value; both directions are averaged. With the same responses for both, lucky noise wins: at
    small lam the value would be the maximum of N noisy means. The split value has no such optimism.
    In expectation it is the reward of a prompter (draw N rewrites, pick one by the noisy weights)
    whose KL is at most the one reported (data processing, as in C12). So it is never above the true
    front. ``split=False`` gives the optimistic twin. The truth tends to be between the two.

    ``resamples``, ``level`` and ``seed`` set the bootstrap over prompts. Raises ValueError naming
    the argument.
    """
    rewards = as_array("rewards", rewards, (None, None, None))
    draws = rewards.shape[2]
    if split and draws < 2:
        raise ValueError("rewards: shape [X, N, 1] cannot be split, need M >= 2 responses")
    # np.var of a single response would be 0, which claims that there is no noise.
    variance = rewards.var(axis=2, ddof=1) if draws > 1 else np.full(rewards.shape[:2], np.nan)
    folds = [rewards[:, :, ::2], rewards[:, :, 1::2]] if split else [rewards, rewards]
    means = [fold.mean(axis=2) for fold in folds]
    both = [
        _reweigh(means[i], means[1 - i], variance / folds[i].shape[2], lams, "lams")
        for i in range(2 if split else 1)
    ]
    columns = {name: np.mean([one[name] for one in both], axis=0) for name in both[0]}
    return _front(lams, columns, resamples, level, seed)


def rlhf_front(
    rewards: ArrayLike,
    betas: ArrayLike,
    *,
    values: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Front:
    """J(pi*) and KL(pi* || pi_F) of Eq. 4 at each of ``betas`` [L] > 0, without fine-tuning.

    ``rewards`` [X, M]: r(x, y) of M responses y ~ pi_F(.|x) to each original prompt. The method is
    self-normalised importance weighting. A response's reward is known exactly, so nothing needs
    splitting. The value is biased low by O(1 / ess), since no unseen response can be weighted up.

    With ``values`` [X, M], another reward of the same responses, the front's reward is theirs:
    what the policy that is optimal for ``rewards`` earns by a measure that it does not know.

    ``resamples``, ``level`` and ``seed`` set the bootstrap over prompts. Raises ValueError naming
    the argument.
    """
    rewards = as_array("rewards", rewards, (None, None))
    valued = rewards if values is None else as_array("values", values, rewards.shape)
    columns = _reweigh(rewards, valued, np.zeros_like(rewards), betas, "betas")
    return _front(betas, columns, resamples, level, seed)


def best_of_n(scores: ArrayLike, values: ArrayLike, n: int) -> Array:
    """Expected value [X] of the best by ``scores`` of n responses; both arrays are [X, M], n <= M.

    Exact over all choices of n of the M responses, hence without bias where those are independent
    draws of pi_F. Its KL from pi_F is at most log n - (n - 1) / n (C12). Raises ValueError.
    """
    scores = as_array("scores", scores, (None, None))
    values = as_array("values", values, scores.shape)
    draws = scores.shape[1]
    if not 1 <= n <= draws:
        raise ValueError(f"n: must be between 1 and the {draws} responses, got {n!r}")
    # The i-th smallest is the best of n if the other n - 1 are among the i - 1 below it.
    weight = np.array([comb(i, n - 1) / comb(draws, n) for i in range(draws)])
    return np.take_along_axis(values, scores.argsort(axis=1, kind="stable"), axis=1) @ weight


def _reweigh(
    scores: Array, values: Array, noise: Array, temperatures: ArrayLike, name: str
) -> dict[str, Array]:
    """Per-prompt columns [X, L]: ``values`` [X, N] under weights from ``scores`` [X, N].

    ``noise`` [X, N] is the variance of each score's own estimate.
    """
    n = scores.shape[1]
    columns: dict[str, list[Array]] = {}
    for temperature in np.ravel(temperatures):
        t = tilt(np.full(n, 1 / n), scores, as_number(name, temperature))
        ess = 1 / (t.p**2).sum(axis=1)
        row = {
            "reward": (t.p * values).sum(axis=1),
            "kl": t.kl,
            "log_Z": t.log_Z,
            "log_Z_bias": _jensen_constant(t.log_ratio.min(axis=1)) * (n / ess - 1) / n,
            "log_Z_noise": (t.p * noise).sum(axis=1) / (2 * temperature**2),
            "ess": ess,
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return {key: np.stack(value, axis=1) for key, value in columns.items()}


def _jensen_constant(lowest: Array) -> Array:
    """c(a) of C14 at a = e^lowest: the least c with u - 1 - log u <= c (u - 1)^2 for all u >= a.

    The function (u - 1 - log u) / (u - 1)^2 falls in u and is 1/2 at u = 1.
    """
    square = np.expm1(lowest) ** 2
    # Where every weight is the same there is no bias, whatever the constant.
    return np.where(square > 0, exp_remainder(lowest) / np.where(square > 0, square, 1.0), 0.5)


def _front(
    temperatures: ArrayLike, columns: dict[str, Array], resamples: int, level: float, seed: int
) -> Front:
    boot = {"resamples": resamples, "level": level, "seed": seed}
    return Front(
        temperature=np.ravel(np.asarray(temperatures, dtype=float)),
        **{name: value.mean(axis=0) for name, value in columns.items()},
        ess_min=columns["ess"].min(axis=0),
        reward_interval=bootstrap(columns["reward"][None], **boot),
        kl_interval=bootstrap(columns["kl"][None], **boot),
        reward_x=columns["reward"],
        kl_x=columns["kl"],
    )
