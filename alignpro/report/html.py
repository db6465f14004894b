"""Tables of texts that people read: escaped, in full, in the light and the dark theme."""

from __future__ import annotations

from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

CELL = (
    "text-align: left; vertical-align: top; padding: 0.2em 0.6em; "
    "white-space: pre-wrap; overflow-wrap: break-word"
)


def text_table(frame: pd.DataFrame, caption: str = "", links: list[str] | None = None) -> Styler:
    """`frame` as HTML, its cells as they are: line breaks kept, markup and formulas not obeyed.

    `links`, an address a row, turns the cells of the last column into links.
    """
    plain = list(frame.columns)
    if links is not None:
        last = plain.pop()
        texts = [escape(text) for text in frame[last]]
        anchors = [f'<a href="{escape(to)}">{text}</a>' for to, text in zip(links, texts)]
        frame = frame.assign(**{last: anchors})
    styles = [
        {"selector": "td, th", "props": CELL},
        {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"},
    ]
    # The theme colours tables of the class `dataframe`; formulas are left alone under the others.
    classes = 'class="dataframe tex2jax_ignore mathjax_ignore"'
    look = 'style="width: 100%; font-size: 0.9em; margin-bottom: 1.5em"'
    styler = frame.style.format(escape="html", subset=plain).set_table_styles(styles)
    return styler.set_caption(escape(caption)).set_table_attributes(f"{classes} {look}")
