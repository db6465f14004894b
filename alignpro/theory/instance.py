"""Align-Pro's theory, exact, on finite sets of prompts, rewrites and responses.

Shapes: X prompts, K rewrites, Y responses. Units: rewards in the reward's own unit, divergences in
nats, total variation (TV) in [0, 1], half of the L1 distance. ``lam`` and ``beta`` carry the
reward's unit. A P-average is a Python float; a per-prompt array ends in ``_x``. Equation, lemma and
theorem numbers are the paper's (arXiv 2501.03486); labels such as C9 are the book's own results.

``gibbs`` has the arithmetic of tilts and divergences, ``arguments`` the checks of arguments, and
``solution`` the records that the solver returns.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from alignpro.theory.arguments import as_array, as_number, distributions, reject
from alignpro.theory.gibbs import (
    Array,
    best_of_n_row,
    decreasing_root,
    divergence_terms,
    kl_divergence,
    kl_of_range,
    osc,
    tilt,
    total_variation,
    variance_bounds,
)
from alignpro.theory.solution import APriori, BestOfN, KLBudget, LambdaCurve, Solution


class SignedRewardWarning(UserWarning):
    """The reward table has a negative entry, and Theorem 6.1 assumes r in [0, r_max].

    Every field is still computed, but ``bound_paper`` and ``bound_jeffreys`` may be below the gap.
    ``bound_mixture`` uses the range of the reward instead of r_max, and stays valid.
    """


@dataclass(frozen=True, eq=False)
class Instance:
    """A finite alignment problem.

    P [X]: distribution of the prompts.
    rho_sft [X, K]: reference prompter. A zero removes the rewrite from the problem for that prompt.
    pi_F [X, Y]: frozen LLM at the original prompts.
    pi_F_rewrites [K, Y] (one pool for all prompts) or [X, K, Y]: frozen LLM at the rewrites.
    reward [X, Y]: r(x, y), scored at the original prompt; finite, of any sign.

    Every row of P, rho_sft, pi_F and pi_F_rewrites is a distribution: non-negative, with sum 1
    within 1e-9; it is then normalised exactly. A row of pi_F_rewrites that no prompt uses (rho_sft
    = 0) may be all zeros, as padding. Rewards where no policy has mass count in r_max alone.

    Raises ValueError naming the argument, the row and the reason. Warns ``SignedRewardWarning`` for
    a negative reward, which Theorem 6.1 does not cover.
    """

    P: Array
    rho_sft: Array
    pi_F: Array
    pi_F_rewrites: Array
    reward: Array

    def __post_init__(self) -> None:
        P = as_array("P", self.P, (None,))
        rho_sft = as_array("rho_sft", self.rho_sft, (len(P), None))
        pi_F = as_array("pi_F", self.pi_F, (len(P), None))
        pool = (rho_sft.shape[1], pi_F.shape[1])
        rewrites = as_array("pi_F_rewrites", self.pi_F_rewrites, pool, (len(P), *pool))
        reward = as_array("reward", self.reward, pi_F.shape)
        reward.flags.writeable = False
        rho_sft = distributions("rho_sft", rho_sft)
        unused = rho_sft == 0 if rewrites.ndim == 3 else np.all(rho_sft == 0, axis=0)
        for name, value in (
            ("P", distributions("P", P)),
            ("rho_sft", rho_sft),
            ("pi_F", distributions("pi_F", pi_F)),
            ("pi_F_rewrites", distributions("pi_F_rewrites", rewrites, unused)),
            ("reward", reward),
        ):
            object.__setattr__(self, name, value)
        if reward.min() < 0:
            row = int(np.argmin(reward.min(axis=1)))
            message = f"reward: row {row} has a negative entry; Theorem 6.1 needs r in [0, r_max]"
            warnings.warn(message, SignedRewardWarning, stacklevel=3)

    @property
    def r_max(self) -> float:
        """max |r| over the whole table."""
        return float(np.abs(self.reward).max())

    @cached_property
    def _mix(self) -> Array:
        """[X, Y] responses under rho_sft."""
        return self._responses(self.rho_sft)

    @cached_property
    def _reachable(self) -> Array:
        """[X, Y] bool: responses with mass under pi_F at x or at one of its rewrites."""
        return (self.pi_F > 0) | (self._mix > 0)

    @cached_property
    def _centre_x(self) -> Array:
        """[X] middle of the rewards in reach: subtracting it first keeps small differences of g."""
        low = np.where(self._reachable, self.reward, np.inf).min(axis=1)
        high = np.where(self._reachable, self.reward, -np.inf).max(axis=1)
        return low / 2 + high / 2

    @cached_property
    def _r(self) -> Array:
        """[X, Y] centred rewards."""
        return self.reward - self._centre_x[:, None]

    @cached_property
    def _g(self) -> Array:
        """[X, K] centred g."""
        return (self.pi_F_rewrites @ self._r[:, :, None])[:, :, 0]

    @cached_property
    def g(self) -> Array:
        """g(x, x') = E_{y ~ pi_F(.|x')} r(x, y), [X, K]; 0 for a padding row."""
        return np.where(self._padding, 0.0, self._centre_x[:, None] + self._g)

    @cached_property
    def _padding(self) -> Array:
        """[X, K] bool: all-zero rows of pi_F_rewrites."""
        return np.broadcast_to(self.pi_F_rewrites.sum(axis=-1) == 0, self.rho_sft.shape)

    @cached_property
    def tv_rewrites_x(self) -> Array:
        """E_{x' ~ rho_sft} TV(pi_F(.|x), pi_F(.|x')), [X]."""
        pairs = zip(self.rho_sft, self.pi_F, self._rewrites_x())
        return np.array([rho @ total_variation(pi, rewrites) for rho, pi, rewrites in pairs])

    def _rewrites_x(self) -> Array:
        return np.broadcast_to(self.pi_F_rewrites, (*self.rho_sft.shape, self.pi_F.shape[1]))

    def _responses(self, rho: Array) -> Array:
        """Eq. 3: [X, Y], responses of the frozen LLM when ``rho`` [X, K] writes the prompt."""
        return (rho[:, None, :] @ self.pi_F_rewrites)[:, 0, :]

    def _mean(self, value_x: Array) -> float:
        # A prompt of probability 0 must not turn an infinite term into NaN.
        return float(np.sum(self.P * np.where(self.P > 0, value_x, 0.0)))

    def _prompter(self, rho: ArrayLike) -> Array:
        rho = distributions("rho", as_array("rho", rho, self.rho_sft.shape))
        reject("rho", (rho > 0) & self._padding, rho, "uses a padding row of pi_F_rewrites")
        return rho

    def _best(self) -> tuple[Array, Array]:
        """max g - centre [X] and rho_sft restricted to the argmax [X, K], ties to rounding."""
        top = np.where(self.rho_sft > 0, self._g, -np.inf).max(axis=1)
        return top, self.rho_sft * (self._g >= top[:, None] - self._rounding)

    @cached_property
    def _rounding(self) -> float:
        """Differences of g below this are rounding: such rewrites count as tied."""
        return 16 * float(np.finfo(float).eps * np.abs(self._r[self._reachable]).max())

    def solve(self, lam: float, beta: float) -> Solution:
        """Both optima, the gap and its bounds, at the leashes ``lam`` > 0 and ``beta`` > 0.

        ``lam`` is the prompter's leash (Eq. 9), ``beta`` is RLHF's (Eq. 2), in the reward's unit.
        """
        lam, beta = as_number("lam", lam), as_number("beta", beta)
        r, centre, mean = self._r, self._centre_x, self._mean
        rho, pi = tilt(self.rho_sft, self._g, lam), tilt(self.pi_F, r, beta)
        rlhf_x, frozen_x = (pi.p * r).sum(axis=1), (self.pi_F * r).sum(axis=1)
        sft_x, prompter_x = ((p * self._g).sum(axis=1) for p in (self.rho_sft, rho.p))
        tv_rlhf, tv_rewrites = mean(pi.tv), mean(self.tv_rewrites_x)
        term1, term2, term3 = self.r_max * tv_rlhf, self.r_max * tv_rewrites, lam * mean(rho.kl)
        jeffreys = lam * mean(rho.jeffreys)
        osc_r = osc(r, self._reachable)
        return Solution(
            instance=self,
            lam=lam,
            beta=beta,
            g=self.g,
            log_Z_x=centre / lam + rho.log_Z,
            log_Z_beta_x=centre / beta + pi.log_Z,
            rho_star=rho.p,
            pi_star=pi.p,
            pi_prompter=self._responses(rho.p),
            pi_sft_mix=self._mix,
            J_rlhf=mean(centre + rlhf_x),
            J_frozen=mean(centre + frozen_x),
            J_sft=mean(centre + sft_x),
            J_prompter=mean(centre + prompter_x),
            delta=mean(rlhf_x - prompter_x),
            delta1=mean(rlhf_x - frozen_x),
            delta2=mean(frozen_x - prompter_x),
            kl=mean(rho.kl),
            kl_reverse=mean(rho.kl_reverse),
            kl_rlhf=mean(pi.kl),
            kl_rlhf_reverse=mean(pi.kl_reverse),
            tv_rlhf=tv_rlhf,
            tv_rewrites=tv_rewrites,
            r_max=self.r_max,
            bound_term1=term1,
            bound_term2=term2,
            bound_term3=term3,
            bound_paper=term1 + term2 - term3,
            bound_jeffreys=term1 + term2 - jeffreys,
            bound_mixture=mean(osc_r * total_variation(pi.p, self._mix)) - jeffreys,
            floor=mean(rlhf_x - self._best()[0]),
        )

    def value(self, rho: ArrayLike) -> float:
        """J(pi_rho) = E_P E_rho g of any prompter ``rho`` [X, K] (Eq. 3).

        ``rho`` may leave the support of rho_sft, but may not use a padding row of pi_F_rewrites.
        """
        return self._mean(self._centre_x + (self._prompter(rho) * self._g).sum(axis=1))

    def regret(self, rho: ArrayLike, lam: float) -> float:
        """F(rho*) - F(rho) = lam E KL(rho || rho*) >= 0, F(rho) = E_rho g - lam KL(rho || rho_sft).

        What an imperfectly trained prompter ``rho`` [X, K] loses (C1). inf where it leaves the
        support of rho_sft.
        """
        rho, lam = self._prompter(rho), as_number("lam", lam)
        optimum = tilt(self.rho_sft, self._g, lam)
        both = (rho > 0) & (self.rho_sft > 0)
        log_rho, log_sft = (np.log(np.where(both, p, 1.0)) for p in (rho, self.rho_sft))
        log_ratio = log_rho - log_sft - optimum.log_ratio
        terms = np.where(both, divergence_terms(rho, optimum.p, log_ratio), optimum.p)
        terms = np.where((rho > 0) & ~both, np.inf, terms)
        return lam * self._mean(terms.sum(axis=1))

    def lambda_curve(self, lams: ArrayLike) -> LambdaCurve:
        """J_lam, KL and free energy at each of ``lams`` [L], all > 0 (C8)."""
        lams = np.array([as_number("lams", lam) for lam in np.ravel(lams)])
        tilts = [tilt(self.rho_sft, self._g, lam) for lam in lams]
        centre = self._mean(self._centre_x)
        gain = [self._mean((t.p * self._g).sum(axis=1)) for t in tilts]
        return LambdaCurve(
            lam=lams,
            J_prompter=centre + np.array(gain),
            kl=np.array([self._mean(t.kl) for t in tilts]),
            kl_reverse=np.array([self._mean(t.kl_reverse) for t in tilts]),
            free_energy=centre + lams * np.array([self._mean(t.log_Z) for t in tilts]),
            dJ_dlam=-np.array([self._mean(t.variance(self._g)) for t in tilts]) / lams / lams,
        )

    def _needed_and_available(self, beta: float) -> tuple[float, float]:
        """J(pi*) - J_0 and E max g - J_0: what a prompter must gain to match RLHF, and can gain."""
        pi = tilt(self.pi_F, self._r, as_number("beta", beta))
        sft_x = (self.rho_sft * self._g).sum(axis=1)
        needed = self._mean((pi.p * self._r).sum(axis=1) - sft_x)
        return needed, self._mean(self._best()[0] - sft_x)

    def _kl_to_best_x(self) -> Array:
        """[X] log 1 / rho_sft(argmax g): the KL of the optimal prompter without a leash."""
        return -np.log(self._best()[1].sum(axis=1))

    def lambda_c(self, beta: float) -> float:
        """The critical lam: the optimal prompter has J_lam > J(pi*) exactly below it (C15).

        0 where no prompter beats RLHF at this ``beta`` > 0, inf where every lam does (J_0 >= J(pi*)
        and the prompter learns, or J_0 > J(pi*)). Grows with beta. Needs SciPy.
        """
        needed, available = self._needed_and_available(beta)
        if available - needed <= self._rounding:
            return 0.0
        if needed <= 0:
            return np.inf

        def surplus(lam: float) -> float:
            # J_lam - J_0 = lam Jeff (C2) keeps its digits where the difference is tiny.
            return lam * self._mean(tilt(self.rho_sft, self._g, lam).jeffreys) - needed

        return decreasing_root(surplus)

    def best_of_n(self, n: int) -> BestOfN:
        """Exact law of the best by g of ``n`` >= 1 independent rewrites from rho_sft (C12).

        Ties (to rounding) are broken at random, so tied rewrites keep their proportions.
        """
        if as_number("n", n, least=1, strict=False) != int(n):
            raise ValueError(f"n: not a whole number ({n!r})")
        rows = [best_of_n_row(q, g, int(n), self._rounding) for q, g in zip(self.rho_sft, self._g)]
        rho = np.array(rows)
        return BestOfN(
            n=int(n),
            rho=rho,
            value=self._mean(self._centre_x + (rho * self._g).sum(axis=1)),
            kl=self._mean(kl_divergence(rho, self.rho_sft)),
            kl_bound=float(np.log(n) - (n - 1) / n),
        )

    def kl_budget(self, kappa: float) -> KLBudget:
        """The largest E_rho g with E_P KL(rho || rho_sft) <= ``kappa`` (nats, >= 0), and its price.

        By duality (C9) the value is min over lam of lam kappa + lam E log Z. Needs SciPy.
        """
        kappa = as_number("kappa", kappa, strict=False)
        best = self._best()[1]
        best = best / best.sum(axis=1, keepdims=True)

        def excess(lam: float) -> float:
            return self._mean(tilt(self.rho_sft, self._g, lam).kl) - kappa

        if kappa * (1 + 1e-12) >= self._mean(kl_divergence(best, self.rho_sft)):
            lam = 0.0
        else:
            lam = decreasing_root(excess) if kappa > 0 else np.inf
        if 0 < lam < np.inf:
            rho = tilt(self.rho_sft, self._g, lam).p
        else:
            rho = best if lam == 0 else self.rho_sft
        kl = self._mean(kl_divergence(rho, self.rho_sft))
        return KLBudget(kappa=kappa, lam=lam, rho=rho, value=self.value(rho), kl=kl)

    def matching_budget(self, beta: float) -> float:
        """The least E_P KL(rho || rho_sft), in nats, at which a prompter earns J(pi*) (C15).

        0 where rho_sft itself does, inf where no prompter on its support does. ``beta`` > 0 is
        RLHF's leash. Needs SciPy.
        """
        needed, available = self._needed_and_available(beta)
        if needed <= 0:
            return 0.0
        if available < needed - self._rounding:
            return np.inf
        at = self.lambda_c(beta)
        # Where only the best rewrites match RLHF, lambda_c is 0.
        kl_x = tilt(self.rho_sft, self._g, at).kl if at > 0 else self._kl_to_best_x()
        return self._mean(kl_x)

    def _check_prompt(self, x: int) -> None:
        if x not in range(len(self.P)):
            raise ValueError(f"x: not a prompt index from 0 to {len(self.P) - 1} ({x!r})")

    def hull_projection(self, x: int, target: ArrayLike) -> tuple[float, Array]:
        """(TV, weights [K]) of the mixture of prompt ``x``'s rewrites nearest to ``target`` [Y].

        A linear program over the rewrites with rho_sft > 0. Needs SciPy. Raises ValueError for an
        ``x`` outside 0 to X - 1, RuntimeError where the solver fails.
        """
        from scipy.optimize import linprog

        self._check_prompt(x)
        target = as_array("target", target, (self.pi_F.shape[1],))
        used = np.flatnonzero(self.rho_sft[x] > 0)
        rows = self._rewrites_x()[x, used]
        # The dual, which has one row for each rewrite however many responses there are: the test
        # function f in [0, 1]^Y with the largest f . target - max_k f . rows_k. Its multipliers
        # are the weights.
        found = linprog(
            c=np.append(-target, 1.0),
            A_ub=np.hstack([rows, -np.ones((len(used), 1))]),
            b_ub=np.zeros(len(used)),
            bounds=[(0, 1)] * len(target) + [(None, None)],
            options={"dual_feasibility_tolerance": 1e-10},
        )
        if found.status != 0:
            raise RuntimeError(f"hull_projection: the linear program failed: {found.message}")
        weights = np.zeros(self.rho_sft.shape[1])
        weights[used] = np.maximum(-found.ineqlin.marginals, 0)
        weights /= weights.sum()
        return float(total_variation(weights @ self._rewrites_x()[x], target)), weights

    def in_convex_hull(self, x: int, beta: float, tol: float = 1e-9) -> bool:
        """Whether pi*(.|x) is a mixture of {pi_F(.|x')}, to ``tol`` in TV (C16). Needs SciPy.

        Exactly then some prompter on the support of rho_sft reproduces RLHF's optimum at prompt x.
        """
        self._check_prompt(x)
        pi_star = tilt(self.pi_F, self._r, as_number("beta", beta)).p
        return self.hull_projection(x, pi_star[x])[0] <= tol

    def apriori(self, lam: float, beta: float) -> APriori:
        """The a-priori bounds C4, C5 and C6 at ``lam`` > 0 and ``beta`` > 0."""
        lam, beta, mean = as_number("lam", lam), as_number("beta", beta), self._mean
        rho, pi = tilt(self.rho_sft, self._g, lam), tilt(self.pi_F, self._r, beta)
        osc_g, osc_r = osc(self._g, self.rho_sft > 0), osc(self._r, self.pi_F > 0)
        gain_x, rlhf_x = osc_g * np.tanh(osc_g / (4 * lam)), osc_r * np.tanh(osc_r / (4 * beta))
        gain = lam * mean(rho.jeffreys_floor), mean(gain_x)
        rlhf = beta * mean(pi.jeffreys_floor), mean(rlhf_x)
        frozen_x, sft_x = (self.pi_F * self._r).sum(axis=1), (self.rho_sft * self._g).sum(axis=1)
        gain_C5 = variance_bounds(self.rho_sft, self._g, osc_g, lam)
        rlhf_C5 = variance_bounds(self.pi_F, self._r, osc_r, beta)
        start = mean(frozen_x - sft_x)
        return APriori(
            tv=mean(np.tanh(osc_g / (4 * lam))),
            tv_rlhf=mean(np.tanh(osc_r / (4 * beta))),
            gain_floor=gain[0],
            gain_ceiling=gain[1],
            gain_rlhf_floor=rlhf[0],
            gain_rlhf_ceiling=rlhf[1],
            delta_floor=rlhf[0] + start - gain[1],
            delta_ceiling=rlhf[1] + start - gain[0],
            delta_floor_untrained=mean(rlhf_C5[0] - np.minimum(gain_x, gain_C5[1])) + start,
            delta_ceiling_untrained=mean(np.minimum(rlhf_x, rlhf_C5[1]) - gain_C5[0]) + start,
            gain_variance_floor=mean(gain_C5[0]),
            gain_variance_ceiling=mean(gain_C5[1]),
            gain_rlhf_variance_floor=mean(rlhf_C5[0]),
            gain_rlhf_variance_ceiling=mean(rlhf_C5[1]),
            kl=mean(kl_of_range(osc_g / lam)),
            kl_rlhf=mean(kl_of_range(osc_r / beta)),
            kl_support=mean(self._kl_to_best_x()),
        )
