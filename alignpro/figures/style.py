"""Colours, labels and the style that all figures share.

Each configuration has one colour throughout the book (the Okabe–Ito palette, which colour-blind
readers can tell apart). Figures have a white background in the light and in the dark theme.
"""

from __future__ import annotations

import ast
import sys

import seaborn as sns

COLORS = {
    "No Fine-Tuning": "#7f7f7f",
    "Untrained prompter": "#56B4E9",
    "Best constant suffix": "#E69F00",
    "Best suffix, told the kind": "#CC79A7",
    "Best of 4 rewrites": "#F0B27A",
    "Best of 16 rewrites": "#D55E00",
    "Align-Pro": "#0072B2",
    "RLHF": "#009E73",
}


KIND_LABELS = {
    "howto": "how-to",
    "definition": "definition",
    "choice": "choice",
    "reason": "reason",
    "yesno": "yes or no",
}


STEP_LABELS = {
    "rollout": "rollout",
    "frozen": "frozen LLM",
    "reward": "reward",
    "policy": "policy and values",
    "reference": "reference",
    "update": "update",
}


def verbatim(text: str, longest: int = 72) -> str:
    """Prepare a text that a model wrote for a label: on one line, cut short, never a formula.

    Matplotlib would typeset what is between two `$`, and stop where that is no formula.
    """
    line = " ".join(text.split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line.replace("$", r"\$")


def use_style() -> None:
    """Set the book's look for every figure drawn after this call.

    A notebook calls this before its first result. Raises ValueError where papermill was given a
    parameter that the notebook does not have, such as a misspelt one: it would run the default.
    """
    _require_known_parameters()
    sns.set_theme(
        style="whitegrid",
        context="notebook",
        rc={
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "grid.color": "#e6e6e6",
            "legend.frameon": False,
        },
    )


def _require_known_parameters() -> None:
    """Compare the cell that papermill adds below the cell of parameters with that cell."""
    cells = getattr(sys.modules["__main__"], "In", [])  # what IPython has run so far
    for before, cell in zip(cells, cells[1:]):
        if cell.startswith("# Parameters\n"):
            known, given = _assigned(before), _assigned(cell)
            if unknown := [name for name in given if name not in known]:
                raise ValueError(
                    f"no parameter {', '.join(unknown)}: this notebook takes {', '.join(known)}"
                )


def _assigned(cell: str) -> list[str]:
    """The names that a cell gives a value to."""
    found = (node.targets for node in ast.parse(cell).body if isinstance(node, ast.Assign))
    return [target.id for targets in found for target in targets if isinstance(target, ast.Name)]
