"""Exact results on finite sets of prompts, rewrites and responses, with NumPy and SciPy alone.

Start with `instance`: an `Instance` holds P, ρ_sft, π_F and r, and `Instance.solve` returns the
closed forms, gaps and bounds of the paper.
"""

from alignpro.theory.instance import (
    ROW_SUM_TOLERANCE,
    APriori,
    Array,
    BestOfN,
    Instance,
    KLBudget,
    LambdaCurve,
    SignedRewardWarning,
    Solution,
    Tilt,
    as_array,
    as_number,
    exp_remainder,
    kl_divergence,
    tilt,
    total_variation,
)

__all__ = [
    "APriori",
    "Array",
    "BestOfN",
    "Instance",
    "KLBudget",
    "LambdaCurve",
    "ROW_SUM_TOLERANCE",
    "SignedRewardWarning",
    "Solution",
    "Tilt",
    "as_array",
    "as_number",
    "exp_remainder",
    "kl_divergence",
    "tilt",
    "total_variation",
]
