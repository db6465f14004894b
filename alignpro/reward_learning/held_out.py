"""How good a learned reward is on held-out pairs: accuracy and calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from alignpro.reward_learning.preferences import noise_ceiling
from alignpro.statistics import bootstrap


def held_out(pairs: pd.DataFrame, margins: np.ndarray) -> pd.DataFrame:
    """How well `margins` [pairs], r(first) − r(second), order held-out pairs with known p_first.

    Rows: `accuracy` on the drawn labels; `expected accuracy` over all labels that could have been
    drawn; and `noise ceiling`, the expected accuracy of r* itself. Columns: value, low and high, a
    95 % interval over prompts. Each prompt counts alike.
    """
    ranks_first = np.asarray(margins) > 0
    p_first = pairs["p_first"].to_numpy()
    measures = {
        "accuracy": ranks_first == pairs["first_won"].to_numpy(),
        "expected accuracy": np.where(ranks_first, p_first, 1 - p_first),
        "noise ceiling": noise_ceiling(p_first),
    }
    by_prompt = pd.DataFrame(measures).astype(float).groupby(pairs["id"].to_numpy()).mean()
    low, high = bootstrap(by_prompt.to_numpy()[None]).T
    return pd.DataFrame({"value": by_prompt.mean(), "low": low, "high": high})


def reliability(predicted: np.ndarray, first_won: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Predicted P(first preferred) in [0, 1] and how often the first won, in equal-width bins.

    Columns: predicted (the mean), observed with its 95 % Wilson interval low and high, and pairs.
    Empty bins are left out.
    """
    where = np.minimum((np.asarray(predicted) * bins).astype(int), bins - 1)
    rows = []
    for number in np.unique(where):
        wins, count = int(np.sum(first_won[where == number])), int(np.sum(where == number))
        low, high = binomtest(wins, count).proportion_ci(0.95, method="wilson")
        rows.append((predicted[where == number].mean(), wins / count, low, high, count))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "pairs"])


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a reliability table: mean |observed − predicted| over pairs.

    The noise of finite bins puts it above 0 even for perfect probabilities.
    """
    off = (table["observed"] - table["predicted"]).abs()
    return float((off * table["pairs"]).sum() / table["pairs"].sum())
