"""Tables of texts that a model or a user wrote: shown in full, and obeyed by nothing.

Such a text may hold HTML, a formula or a link. Show it through `text_table`, never through a plain
`DataFrame` or `Styler`: a browser would run the first, and MathJax would typeset the second.
"""

from __future__ import annotations

import re
from html import escape

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pandas.io.formats.style import Styler

CELL = (
    "text-align: left; vertical-align: top; padding: 0.2em 0.6em; "
    "white-space: pre-wrap; overflow-wrap: break-word; "
    "border-bottom: 1px solid rgba(128, 128, 128, 0.35)"
)
NUMBER = "text-align: right; font-variant-numeric: tabular-nums"
# A page of the book, a place on this page, or a page of the web.
LINK = re.compile(r"https?://|#|(\.\./)*[\w./-]+\.html(#|$)")


def text_table(
    frame: pd.DataFrame,
    caption: str = "",
    links: list[str] | None = None,
    columns: dict[str, str] | None = None,
    decimals: int = 3,
) -> Styler:
    """Show `frame` as HTML, with every cell, label and name as the text that it is.

    Line breaks are kept. Floats are shown with `decimals`, a missing number as an empty cell, all
    else as `str` has it. Columns of numbers are aligned on the right. `columns` gives each column
    its CSS width, such as "40%". `links`, one address per row, makes links of the cells in the last
    column. Raises ValueError for an address that is neither a page of the book nor one of the web:
    `javascript:` and its like run code when a reader clicks.
    """
    shown = frame.map(lambda value: _inert(value, decimals))
    labels = [_inert_labels(labels, decimals) for labels in (frame.index, frame.columns)]
    shown.index, shown.columns = labels
    if links is not None:
        last = shown.columns[-1]
        shown[last] = [_anchor(to, text) for to, text in zip(links, shown[last], strict=True)]
    styles = [
        {"selector": "td, th", "props": CELL},
        {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"},
    ]
    for place, kind in enumerate(frame.dtypes):
        if is_numeric_dtype(kind) and not is_bool_dtype(kind):
            styles.append({"selector": f".col{place}", "props": NUMBER})
    for name, width in (columns or {}).items():
        place = frame.columns.get_loc(name)
        styles.append({"selector": f"th.col{place}", "props": f"width: {width}"})
    # The theme colours tables of the class `dataframe`; MathJax skips those of the other two.
    classes = 'class="dataframe tex2jax_ignore mathjax_ignore"'
    look = 'style="width: 100%; font-size: 0.9em; margin-bottom: 1.5em"'
    styler = shown.style.set_table_styles(styles).set_caption(escape(caption))
    return styler.set_table_attributes(f"{classes} {look}")


def _inert(value: object, decimals: int) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.{decimals}f}"
    return escape(str(value))


def _inert_labels(labels: pd.Index, decimals: int) -> pd.Index:
    names = [None if name is None else escape(str(name)) for name in labels.names]
    if isinstance(labels, pd.MultiIndex):
        keys = [tuple(_inert(part, decimals) for part in key) for key in labels]
        return pd.MultiIndex.from_tuples(keys, names=names)
    return pd.Index([_inert(label, decimals) for label in labels], name=names[0])


def _anchor(address: str, text: str) -> str:
    if not LINK.match(address):
        raise ValueError(f"not an address of a page: {address!r}")
    return f'<a href="{escape(address)}">{text}</a>'
