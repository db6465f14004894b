"""Tables of the theory's quantities, under the symbols that the text of the book uses.

Start with `SYMBOLS`, then `formula_table`.
"""

from __future__ import annotations

import pandas as pd
from pandas.io.formats.style import Styler

# The attributes of a solution (`alignpro.theory`), as a reader meets them in the chapters.
SYMBOLS = {
    "J_rlhf": r"\(J(\pi^*)\), RLHF optimum",
    "J_frozen": r"\(J(\pi_F)\), frozen model",
    "J_sft": r"\(J_0\), untrained prompter",
    "J_prompter": r"\(J_\lambda\), optimal prompter",
    "delta": r"\(\Delta\), the gap",
    "delta1": r"\(\Delta_1\), gain of fine-tuning",
    "delta2": r"\(\Delta_2\), minus the gain of rewriting",
    "tv_rlhf": r"\(A\), total variation of RLHF",
    "tv_rewrites": r"\(B\), total variation of the rewrites",
    "bound_term1": r"\(T_1\), term 1",
    "bound_term2": r"\(T_2\), term 2",
    "bound_term3": r"\(\lambda\,\mathrm{KL}(\rho^*\Vert\rho_{\rm sft})\), term 3",
    "bound_paper": r"\(T_1+T_2-\lambda\,\mathrm{KL}\), Theorem 6.1",
    "bound_jeffreys": "Jeffreys bound",
    "bound_mixture": "mixture bound",
    "floor": "floor (no leash)",
}


def formula_table(frame: pd.DataFrame) -> Styler:
    r"""Show `frame` with the formulas in it, written `\(...\)`, typeset.

    For labels and cells that this project wrote: a text by a model or a user is for
    `report.html.text_table`, which typesets nothing. Raises ValueError for a `<` or an `&` in a
    label or a text, which HTML would obey.
    """
    labels = [*frame.index, *frame.columns, *frame.index.names, *frame.columns.names]
    cells = [cell for _, column in frame.items() for cell in column]
    for text in [*labels, *cells]:
        if isinstance(text, str) and ("<" in text or "&" in text):
            raise ValueError(f"HTML would not show this as it is written: {text!r}")
    shown = frame.map(lambda cell: f"{cell:z.3f}" if isinstance(cell, float) else str(cell))
    return shown.style.set_table_attributes('class="dataframe mathjax_process"')
