"""Exact results on finite sets of prompts, rewrites and responses, with NumPy and SciPy alone.

Start with `instance`: an `Instance` holds P, ρ_sft, π_F and r, and `Instance.solve` returns the
closed forms, gaps and bounds of the paper. `noise`, `chains` and `variance` are the fifth chapter.
"""

from alignpro.theory.gibbs import Tilt, kl_divergence, tilt, total_variation
from alignpro.theory.instance import Instance, SignedRewardWarning
from alignpro.theory.solution import Solution

__all__ = [
    "Instance",
    "SignedRewardWarning",
    "Solution",
    "Tilt",
    "kl_divergence",
    "tilt",
    "total_variation",
]
