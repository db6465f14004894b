"""Gibbs tilts p = q exp(f / t) / Z, and the divergences between p and q.

Both optima of the paper have this form. Everything is computed from the log-ratio log(p / q) and
never from logarithms of normalised numbers. So a KL or Jeffreys divergence of 1e-12 keeps its
digits, and temperatures of 1e-4 neither overflow nor lose support. Total variation (TV) is accurate
to rounding of 1, so a TV of 1e-12 has few digits.

Divergences are in nats. TV is half of the L1 distance, in [0, 1]. Labels such as C4 are the book's
results.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def exp_remainder(t: Array) -> Array:
    """e^t - 1 - t >= 0, elementwise, to full relative accuracy near 0."""
    with np.errstate(over="ignore"):
        direct = np.expm1(t) - t
    small = np.clip(t, -0.1, 0.1)
    series = np.ones_like(small)
    for k in range(12, 2, -1):
        series = 1 + series * small / k
    return np.where(np.abs(t) < 0.1, series * small**2 / 2, direct)


def _kl_term(log_ratio: Array) -> Array:
    """u log u - u + 1 >= 0 at u = e^log_ratio, to full relative accuracy near log_ratio = 0."""
    near = log_ratio * np.expm1(log_ratio) - exp_remainder(log_ratio)
    # e^-800 is 0 in float64, and the clip keeps -inf * 0 out.
    far = np.maximum(log_ratio, -800) * np.exp(log_ratio) - np.expm1(log_ratio)
    return np.where(np.abs(log_ratio) < 0.1, near, far)


def divergence_terms(p: Array, q: Array, log_ratio: Array) -> Array:
    """p log(p/q) - p + q >= 0: terms that sum to KL(p || q) without cancellation."""
    near = p * exp_remainder(-np.clip(log_ratio, -1, 1))
    return np.where(np.abs(log_ratio) < 1, near, p * log_ratio - p + q)


def kl_divergence(p: ArrayLike, q: ArrayLike) -> Array:
    """KL(p || q) in nats over the last axis; inf where p leaves the support of q.

    ``p`` and ``q`` broadcast to [..., K] and hold distributions (not checked).
    """
    p, q = np.broadcast_arrays(np.asarray(p, float), np.asarray(q, float))
    both = (p > 0) & (q > 0)
    p_in, q_in = np.where(both, p, 1.0), np.where(both, q, 1.0)
    with np.errstate(over="ignore"):
        near = np.clip((p_in - q_in) / q_in, -0.5, 0.5)
    log_ratio = np.where(np.abs(near) < 0.5, np.log1p(near), np.log(p_in) - np.log(q_in))
    terms = np.where(both, divergence_terms(p, q, log_ratio), q)
    return np.where((p > 0) & (q <= 0), np.inf, terms).sum(axis=-1)


def total_variation(p: ArrayLike, q: ArrayLike) -> Array:
    """TV(p, q) = half of the L1 distance over the last axis, in [0, 1]."""
    return 0.5 * np.abs(np.asarray(p, float) - np.asarray(q, float)).sum(axis=-1)


@dataclass(frozen=True, eq=False)
class Tilt:
    """p = q e^{f/t} / Z, row by row: the form of Eq. 4 and of Lemma 5.1.

    ``q``, ``p``, ``log_ratio`` = log(p / q) are [..., K], with log_ratio 0 off the support of q;
    ``log_Z`` is [...]. The properties are [...], in nats (TV in [0, 1]).
    """

    q: Array
    p: Array
    log_ratio: Array
    log_Z: Array

    @property
    def kl(self) -> Array:
        """KL(p || q)."""
        return (self.q * _kl_term(self.log_ratio)).sum(axis=-1)

    @property
    def kl_reverse(self) -> Array:
        """KL(q || p)."""
        return (self.q * exp_remainder(self.log_ratio)).sum(axis=-1)

    @property
    def jeffreys(self) -> Array:
        """Jeff(p, q) = KL(p || q) + KL(q || p)."""
        return (self.q * np.expm1(self.log_ratio) * self.log_ratio).sum(axis=-1)

    @property
    def tv(self) -> Array:
        """TV(p, q)."""
        return 0.5 * (self.q * np.abs(np.expm1(self.log_ratio))).sum(axis=-1)

    @property
    def jeffreys_floor(self) -> Array:
        """phi(TV) = 2 t log((1+t)/(1-t)) at t = TV(p, q): the least Jeff(p, q) can be (C4)."""
        # 1 - TV is summed by itself: at TV = 1 - 2^-60 the subtraction would give 0.
        overlap = (self.q * np.exp(np.minimum(self.log_ratio, 0))).sum(axis=-1)
        return 2 * self.tv * np.log((2 - overlap) / overlap)

    def variance(self, f: Array) -> Array:
        """Var_p(f)."""
        mean = (self.p * f).sum(axis=-1, keepdims=True)
        return (self.p * (f - mean) ** 2).sum(axis=-1)


def tilt(q: ArrayLike, f: ArrayLike, temperature: float) -> Tilt:
    """The Gibbs tilt of ``q`` [..., K] (distributions) by the scores ``f`` [..., K].

    ``temperature`` > 0 is lam or beta. Where q = 0, p = 0 for any f. The arguments are not checked.
    """
    q, f = np.broadcast_arrays(np.asarray(q, float), np.asarray(f, float))
    support = q > 0
    top = np.max(np.where(support, f, -np.inf), axis=-1, keepdims=True)
    score = np.where(support, (np.where(support, f, top) - top) / temperature, 0.0)
    weight = q * np.exp(score)
    total = weight.sum(axis=-1, keepdims=True)
    deficit = -(q * np.expm1(score)).sum(axis=-1, keepdims=True)
    # log1p keeps lam log Z accurate to rounding of f where lam is large and Z is nearly 1.
    log_Z = np.where(deficit < 0.5, np.log1p(-np.minimum(deficit, 0.5)), np.log(total))
    log_ratio = np.where(support, score - log_Z, 0.0)
    return Tilt(q, weight / total, log_ratio, (top / temperature + log_Z)[..., 0])


def kl_of_range(s: ArrayLike) -> Array:
    """h(s) = a - 1 - log a with a = s / (1 - e^-s): the largest KL of a tilt, either way (C6).

    ``s`` >= 0 [...] is the range of f / t on the support of q. h(s) is at most s^2 / 8 and at most
    s, and two points attain it.
    """
    s = np.asarray(s, dtype=float)
    small = np.minimum(s, 0.1)
    near = small / 2 - small**2 / 24 + small**4 / 2880 - small**6 / 181440
    safe = np.maximum(s, 0.1)
    log_a = np.where(s < 0.1, near, np.log(safe / -np.expm1(-safe)))
    return exp_remainder(log_a)


def osc(f: Array, support: Array) -> Array:
    """max f - min f over the support, along the last axis."""
    high = np.where(support, f, -np.inf).max(axis=-1)
    return high - np.where(support, f, np.inf).min(axis=-1)


def variance_bounds(q: Array, f: Array, width: Array, temperature: float) -> tuple[Array, Array]:
    """C5: Var_q(f) (1 - e^-s) / w and Var_q(f) (e^s - 1) / w; w = ``width`` of f, s = w / t."""
    mean = (q * f).sum(axis=1, keepdims=True)
    variance = (q * (f - mean) ** 2).sum(axis=1)
    per_osc = np.where(width > 0, variance / np.where(width > 0, width, 1.0), 0.0)
    scaled = width / temperature
    with np.errstate(over="ignore", invalid="ignore"):
        ceiling = np.where(per_osc > 0, per_osc * np.expm1(scaled), 0.0)
    return per_osc * -np.expm1(-scaled), ceiling


def best_of_n_row(q: Array, g: Array, n: int, rounding: float) -> Array:
    """Law [K] of the best by ``g`` of ``n`` draws from ``q``: G(v)^n - G(v-)^n by tied group (C12).

    Values of ``g`` closer than ``rounding`` count as tied. G is the distribution function of g.
    """
    support = np.flatnonzero(q > 0)
    order = support[np.argsort(g[support], kind="stable")]
    group = np.cumsum(np.diff(g[order], prepend=g[order[0]]) > rounding)
    mass = np.bincount(group, weights=q[order])
    log_G = np.log(np.cumsum(mass))
    # G(v-) = G(v) (1 - mass / G(v)): no difference of two numbers near 1 for a tiny mass.
    with np.errstate(divide="ignore"):
        log_without = np.log1p(-np.minimum(mass / np.exp(log_G), 1.0))
    wins = np.exp(n * log_G) * -np.expm1(n * log_without)
    rho = np.zeros_like(q)
    rho[order] = q[order] * (wins / mass)[group]
    return rho / rho.sum()


def decreasing_root(f: Callable[[float], float]) -> float:
    """The lam > 0 at which ``f``, decreasing in lam, crosses 0; 0 or inf if it never does."""
    from scipy.optimize import brentq

    low = high = 1.0
    while f(low) < 0:
        low /= 8
        if low < 1e-200:
            return 0.0
    while f(high) > 0:
        high *= 8
        if high > 1e200:
            return np.inf
    if low == high:
        return low
    return float(np.exp(brentq(lambda u: f(np.exp(u)), np.log(low), np.log(high), xtol=1e-14)))
