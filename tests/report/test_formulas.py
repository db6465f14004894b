r"""Formulas in tables: symbols of the text for the theory's names, and `\(...\)` for MathJax."""

import re
from pathlib import Path

import pandas as pd
import pytest

from alignpro.report.formulas import SYMBOLS, formula_table
from alignpro.theory.instances import coin

ROOT = Path(__file__).parents[2]


def test_each_symbol_is_in_the_table_of_symbols_beside_its_name():
    lines = (ROOT / "book" / "setting.md").read_text("utf-8").splitlines()
    solution = coin().solve(lam=0.5, beta=1.0)
    for name, label in SYMBOLS.items():
        assert isinstance(getattr(solution, name), float)
        symbol = re.match(r"\\\(([^ ]*)\\\),", label)
        if symbol and name not in ("bound_term3", "bound_paper"):
            rows = [line for line in lines if f"`{name}`" in line or f"`sol.{name}`" in line]
            assert any(symbol[1] in row for row in rows), (name, rows)


def test_a_table_is_marked_for_typesetting_and_keeps_its_formulas():
    html = formula_table(pd.DataFrame({r"\(J_0\)": [0.12345, 2]}, index=["a", "b"])).to_html()
    assert 'class="dataframe mathjax_process"' in html
    assert r"\(J_0\)" in html
    assert re.findall(r"<td[^>]*>([^<]*)</td>", html) == ["0.123", "2.000"]


@pytest.mark.parametrize("text", ["<b>", "a & b"])
def test_a_text_that_html_would_obey_is_refused(text):
    for frame in (pd.DataFrame({text: [1]}), pd.DataFrame([text]), pd.DataFrame([1], index=[text])):
        with pytest.raises(ValueError, match="HTML would not show"):
            formula_table(frame)


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "17"])
def test_prose_of_the_theory_notebooks_writes_symbols_as_formulas(number):
    """No `rho_sft` or "lambda" spelled out in what a reader reads: only code names things so."""
    (source,) = (ROOT / "notebooks").glob(f"{number}_*.py")
    cells = source.read_text("utf-8").split("\n# %%")
    prose = "\n".join(cell for cell in cells if cell.startswith(" [markdown]"))
    prose = re.sub(r"\$\$.*?\$\$|```.*?```|`[^`\n]*`|\$[^$]*\$", "", prose, flags=re.DOTALL)
    assert re.findall(r"\b(?:lambda|beta|epsilon|eta|rho_sft|rho\*|pi_F|e\^)\b", prose) == []
