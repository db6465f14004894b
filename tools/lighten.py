"""Make the built pages lighter and accessible, after Sphinx: what the themes have no setting for.

`lighten(folder)` edits a built book in place. It drops scripts that no page uses, keeps the CSS
rules and the icons that are used, gives each figure 128 colours, and mends two places that screen
readers stumbled over.
"""

from __future__ import annotations

import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

# The theme loads every icon twice, as fonts and as a script of 1.5 MB. The fonts are enough.
UNUSED = re.compile(
    r'\s*<script[^>]*src="[^"]*(?:fontawesome|sphinx-thebe)\.js[^>]*></script>'
    r"|\s*<script>const THEBE_JS_URL.*?</script>"
    r'|\s*<script type="text/x-thebe-config">.*?</script>'
    r"|\s*<script>kernelName = .*?</script>"
    r"|\s*<link[^>]*sphinx-thebe\.css[^>]*>",
    re.DOTALL,
)
SEARCH = re.compile(
    r'\s*<script src="\.\./(?:_static/searchtools|_static/language_data|searchindex)\.js[^>]*>'
    r"</script>"
)
EDITS = [
    (UNUSED, ""),
    # Only a search as one types would need these here; the search page loads its own.
    (SEARCH, ""),
    # A button that opens a part of the contents shows only an icon.
    (re.compile(r"<summary><span class=\"toctree-toggle\""),
     '<summary aria-label="show or hide its sections"><span class="toctree-toggle"'),
    # Sphinx gives a list's role to a box whose children are no list items.
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
]  # fmt: skip
# A rule without what encloses it, such as `@media`. A selector never holds a quote with a brace.
RULE = re.compile(r"([^{}@;/]+)\{([^{}]*)\}")
WORD = re.compile(r"[\w-]+")
# Scripts build these names from parts.
BUILT = ("bs-", "tippy-")


def lighten(folder: Path) -> None:
    """Edit the book built in `folder`, an HTML tree that Sphinx wrote."""
    pages = sorted(folder.rglob("*.html"))
    for page in pages:
        text = before = page.read_text(encoding="utf-8")
        for pattern, new in EDITS:
            text = pattern.sub(new, text)
        if not re.search(r'class="[^"]*\bsd-', text):
            text = re.sub(
                r"\s*<(?:link|script)[^>]*(?:sphinx-design|design-tabs)[^>]*>(?:</script>)?",
                "",
                text,
            )
        if text != before:
            page.write_text(text, encoding="utf-8")
    _keep_used_rules(folder, pages)
    _keep_used_icons(folder)
    for image in folder.glob("_images/*.png"):
        _fewer_colours(image)


def _fewer_colours(path: Path) -> None:
    """Store a figure with a palette of 128 colours, which its few hues and their edges fit in."""
    with Image.open(path) as image:
        if image.mode == "P":
            return
        small = image.convert("RGB").quantize(
            128, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
    small.save(path, optimize=True)


def _keep_used_rules(folder: Path, pages: list[Path]) -> None:
    """Drop the CSS rules for classes that neither a page nor a script names: most of Bootstrap."""
    scripts = (folder / "_static").rglob("*.js")
    texts = (path.read_text(encoding="utf-8") for path in [*pages, *scripts])
    words = {word for text in texts for word in WORD.findall(text)}

    def used(selector: str) -> bool:
        names = re.findall(r"\.(-?[A-Za-z_][\w-]*)", selector)
        return all(name in words or name.startswith(BUILT) for name in names)

    def keep(rule: re.Match) -> str:
        selectors = [selector for selector in rule[1].split(",") if used(selector)]
        return f"{','.join(selectors)}{{{rule[2]}}}" if selectors else ""

    for path in (folder / "_static").rglob("*.css"):
        css = path.read_text(encoding="utf-8")
        path.write_text(RULE.sub(keep, css), encoding="utf-8")


def _keep_used_icons(folder: Path) -> None:
    """Cut the icon fonts down to the characters that the CSS names, once its rules are cut."""
    styles = folder / "_static" / "styles" / "pydata-sphinx-theme.css"
    css = styles.read_text(encoding="utf-8")
    every = "".join(p.read_text(encoding="utf-8") for p in (folder / "_static").rglob("*.css"))
    codes = {int(code, 16) for code in re.findall(r"\\([ef][0-9a-f]{3})\b", every)}
    fonts = folder / "_static" / "vendor" / "fontawesome" / "webfonts"
    for path in sorted(fonts.glob("*.ttf")):
        font = TTFont(path, recalcTimestamp=False)
        subsetter = subset.Subsetter()
        subsetter.populate(unicodes=codes)
        subsetter.subset(font)
        font.flavor = "woff"
        font.save(path.with_suffix(".woff"))
        css = css.replace(
            f'{path.stem}.woff2) format("woff2")', f'{path.stem}.woff) format("woff")'
        )
        path.unlink()
        path.with_suffix(".woff2").unlink()
    css = re.sub(r',url\([^)]*\.ttf\) format\("truetype"\)', "", css)
    styles.write_text(css, encoding="utf-8")
