"""What the exact solver returns: frozen records, one for each question that it answers.

``alignpro.theory.instance.Instance`` makes them; its module explains the symbols. A P-average is a
Python float; a per-prompt array ends in ``_x``.
"""

from dataclasses import InitVar, dataclass
from typing import Any

from numpy.typing import ArrayLike

from alignpro.theory.gibbs import Array


@dataclass(frozen=True)
class APriori:
    """Bounds from the range or the variance of g and r (C4, C5, C6), as P-averages.

    "gain" is the prompter's J_lam - J_0, "gain_rlhf" is J(pi*) - J(pi_F). The floors of C4 also use
    the TV of the solution, and so do delta_floor and delta_ceiling. The "untrained" bounds on delta
    need moments of rho_sft and pi_F alone. All bounds on delta contain J(pi_F) - J_0. The ceilings
    of C5 are inf where exp(osc / temperature) overflows.
    """

    tv: float  # C4: TV(rho*, rho_sft) <= tanh(osc(g) / 4 lam)
    tv_rlhf: float  # C4: TV(pi*, pi_F) <= tanh(osc(r) / 4 beta)
    gain_floor: float  # C4: lam phi(TV(rho*, rho_sft)) <= gain
    gain_ceiling: float  # C4: gain <= osc(g) tanh(osc(g) / 4 lam)
    gain_rlhf_floor: float  # C4, with r and beta
    gain_rlhf_ceiling: float
    delta_floor: float  # C4: gain_rlhf_floor + J(pi_F) - J_0 - gain_ceiling <= delta
    delta_ceiling: float  # C4: delta <= gain_rlhf_ceiling + J(pi_F) - J_0 - gain_floor
    delta_floor_untrained: float  # C5 floor of r + J(pi_F) - J_0 - min(C4, C5 ceiling of g)
    delta_ceiling_untrained: float  # min(C4, C5 ceiling of r) + J(pi_F) - J_0 - C5 floor of g
    gain_variance_floor: float  # C5: Var(g) (1 - e^{-osc(g)/lam}) / osc(g) <= gain
    gain_variance_ceiling: float  # C5: gain <= Var(g) (e^{osc(g)/lam} - 1) / osc(g)
    gain_rlhf_variance_floor: float  # C5, with r and beta
    gain_rlhf_variance_ceiling: float
    kl: float  # C6: both KLs between rho* and rho_sft <= h(osc(g) / lam) <= osc(g)^2 / (8 lam^2)
    kl_rlhf: float  # C6, with r and beta
    kl_support: float  # C6: KL(rho* || rho_sft) <= log 1 / rho_sft(argmax g)


@dataclass(frozen=True, eq=False)
class LambdaCurve:
    """The front of optimal prompters against lam; every array is [L], P-averaged."""

    lam: Array
    J_prompter: Array  # J_lam
    kl: Array  # KL(rho* || rho_sft)
    kl_reverse: Array  # KL(rho_sft || rho*)
    free_energy: Array  # lam log Z = J_lam - lam kl
    dJ_dlam: Array  # C8: -Var_{rho*}(g) / lam^2; the slope of free_energy is -kl


@dataclass(frozen=True, eq=False)
class BestOfN:
    """The exact law of the best of n rewrites (C12)."""

    n: int
    rho: Array  # [X, K]
    value: float  # E_rho g
    kl: float  # KL(rho || rho_sft)
    kl_bound: float  # log n - (n - 1) / n


@dataclass(frozen=True, eq=False)
class KLBudget:
    """The best prompter within a P-averaged KL budget (C9)."""

    kappa: float
    lam: float  # the price of KL: 0 where the budget does not bind, inf where kappa = 0
    rho: Array  # [X, K]
    value: float  # E_rho g
    kl: float  # KL(rho || rho_sft) <= kappa


@dataclass(frozen=True, eq=False)
class Solution:
    """Both optima of an instance at one (lam, beta), the gap between them, and its bounds.

    Shapes: g, rho_star [X, K]; pi_star, pi_prompter, pi_sft_mix [X, Y]; ``_x`` [X]; the rest are
    P-averages. ``instance``, ``lam`` and ``beta`` keep what was solved. They are not fields, so
    ``dataclasses.asdict`` gives the results alone. The two methods are the instance's, with ``lam``
    and ``beta`` filled in.
    """

    instance: InitVar[Any]  # a theory.Instance
    lam: InitVar[float]
    beta: InitVar[float]

    g: Array  # g(x, x') = E_{y ~ pi_F(.|x')} r(x, y); 0 for a padding row
    log_Z_x: Array  # log E_{rho_sft} e^{g/lam}
    log_Z_beta_x: Array  # log E_{pi_F} e^{r/beta}
    rho_star: Array  # the optimal prompter, Lemma 5.1
    pi_star: Array  # the RLHF optimum, Eq. 4
    pi_prompter: Array  # responses under rho_star, Eq. 3
    pi_sft_mix: Array  # responses under rho_sft
    J_rlhf: float  # J(pi*)
    J_frozen: float  # J(pi_F) at the original prompts
    J_sft: float  # J_0 = E_{rho_sft} g
    J_prompter: float  # J_lam = E_{rho*} g
    delta: float  # J(pi*) - J(pi_prompter), Eq. 5; written out in Eq. 6
    delta1: float  # J(pi*) - J(pi_F), Eq. 7
    delta2: float  # J(pi_F) - J(pi_prompter), Eq. 7
    kl: float  # KL(rho* || rho_sft)
    kl_reverse: float  # KL(rho_sft || rho*)
    kl_rlhf: float  # KL(pi* || pi_F)
    kl_rlhf_reverse: float  # KL(pi_F || pi*)
    tv_rlhf: float  # E TV(pi*, pi_F)
    tv_rewrites: float  # E E_{x' ~ rho_sft} TV(pi_F(.|x), pi_F(.|x'))
    r_max: float  # max |r| over the whole table
    bound_term1: float  # r_max tv_rlhf
    bound_term2: float  # r_max tv_rewrites
    bound_term3: float  # lam kl
    bound_paper: float  # Theorem 6.1, Eq. 11: term1 + term2 - term3
    bound_jeffreys: float  # C3: term1 + term2 - lam Jeff(rho*, rho_sft)
    bound_mixture: float  # C3: E[osc_r TV(pi*, pi_sft_mix)] - lam Jeff(rho*, rho_sft)
    floor: float  # C7: J(pi*) - E max_{supp rho_sft} g, below every gap

    def __post_init__(self, instance: Any, lam: float, beta: float) -> None:
        for name, value in (("instance", instance), ("lam", lam), ("beta", beta)):
            object.__setattr__(self, name, value)

    def regret(self, rho: ArrayLike) -> float:
        """F(rho*) - F(rho) at this lam: ``Instance.regret``."""
        return self.instance.regret(rho, self.lam)

    def apriori(self) -> APriori:
        """The bounds of C4, C5 and C6: ``Instance.apriori`` at this (lam, beta)."""
        return self.instance.apriori(self.lam, self.beta)
