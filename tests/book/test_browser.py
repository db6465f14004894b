"""The built book in a real browser: every page, three widths, light and dark, without a network.

The tests need Debian's chromium (or Chrome) and a book in `_build/html`, which `make smoke` builds.
Without them every test is skipped, with the reason. Where REQUIRE_BROWSER is set, as in CI, they
fail instead.
"""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import sync_playwright

from alignpro.theory.instances import coin, random_instance
from alignpro.theory.reduced import LEASHES, reduced

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if "_static" not in path.parts and "http-equiv" not in path.read_text(encoding="utf-8")[:300]
)
MISSING = "" if CHROMIUM and PAGES else "needs chromium and a built book: run `make smoke`"
WIDTHS = (390, 820, 1440)
HEAVIEST = 1_500_000  # bytes of a page with all that it loads

pytestmark = pytest.mark.skipif(
    bool(MISSING) and "REQUIRE_BROWSER" not in os.environ, reason=MISSING
)

# What is wrong with the page at the present width, as a list of texts.
FAULTS = r"""() => {
  const faults = [], page = document.documentElement, main = document.querySelector("main");
  const told = e => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 40)}`;
  if (page.scrollWidth > page.clientWidth + 1) {
    const wide = [...main.querySelectorAll("*")].find(
      e => e.getBoundingClientRect().right > page.clientWidth + 1);
    faults.push("sideways scroll: " + (wide ? told(wide) : "outside main"));
  }
  for (const e of main.querySelectorAll("*")) {
    if (e.clientWidth < 2 || e.scrollWidth <= e.clientWidth + 1 || e.closest("mjx-container *"))
      continue;
    const overflow = getComputedStyle(e).overflowX;
    if (overflow === "hidden" || overflow === "clip") faults.push("cut off: " + told(e));
  }
  if (main.querySelector("mjx-merror")) faults.push("a formula that MathJax refuses");
  const texts = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (text.parentElement.closest("pre, code, script, style, mjx-container, table.mathjax_ignore"))
      continue;
    if (/\$[^$]+\$|\\[a-zA-Z]{2,}|\\[([]/.test(text.data))
      faults.push("raw TeX: " + text.data.trim());
  }
  return faults;
}"""
TYPESET = """() => Promise.resolve(window.MathJax && MathJax.startup.promise)
  .then(() => document.fonts.ready).then(() => new Promise(done => setTimeout(done, 50, true)))"""


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """A function that opens a page of the book, and the lists of what went wrong meanwhile."""
    contexts = []

    def open_page(name, scheme="light"):
        context = chromium.new_context(color_scheme=scheme, offline=True)
        context.set_default_timeout(180_000)  # for a machine that is busy with other work
        contexts.append(context)
        page = context.new_page()
        page.troubles, page.loaded = [], set()
        page.on("console", lambda m: m.type == "error" and page.troubles.append(m.text))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("requestfailed", lambda request: page.troubles.append(f"failed: {request.url}"))
        page.on("request", lambda request: page.loaded.add(request.url))
        page.set_viewport_size({"width": WIDTHS[-1], "height": 900})
        page.goto((HTML / name).as_uri())
        page.wait_for_function(TYPESET)
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_the_walk_covers_the_book():
    assert CHROMIUM, "no chromium"
    assert len(PAGES) > 25, f"only {len(PAGES)} pages in {HTML}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_at_every_width(name, opened):
    page = opened(name)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(FAULTS) == [], f"at {width} pixels"
    assert page.troubles == []
    outside = [url for url in page.loaded if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    files = {unquote(urlsplit(url).path) for url in page.loaded if url.startswith("file:")}
    assert sum(Path(file).stat().st_size for file in files) <= HEAVIEST


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_everyone_can_read_a_page(name, scheme, opened):
    """axe-core finds nothing serious or critical. Contrast is one of its serious rules."""
    page = opened(name, scheme)
    assert page.troubles == []
    page.evaluate(AXE_SCRIPT)
    # Only the colours differ between the two schemes.
    options = {"preload": False, "resultTypes": ["violations"]}
    options |= {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    bad = {
        rule["id"]: [node["target"][0] for node in rule["nodes"]][:3]
        for rule in found
        if rule["impact"] in ("serious", "critical")
    }
    assert bad == {}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_within_the_book_leads_somewhere(name):
    text = (HTML / name).read_text(encoding="utf-8")
    broken = []
    for href in set(re.findall(r'<a [^>]*href="([^"]*)"', text)):
        if re.match(r"[a-z]+:", href) or href == "#":
            continue
        path, _, anchor = href.partition("#")
        target = (HTML / name).parent / unquote(path) if path else HTML / name
        if not target.exists() or (anchor and f'id="{anchor}"' not in target.read_text("utf-8")):
            broken.append(href)
    assert broken == []


SOLVED = ("J_frozen", "J_sft", "J_prompter", "J_rlhf", "delta", "floor", "kl")
BOUNDS = ("bound_mixture", "bound_jeffreys", "bound_paper")


@pytest.mark.parametrize("name", ["the coin", "random"])
def test_the_page_on_leashes_computes_what_the_theory_computes(name, opened):
    """The closed forms in the page's script against `alignpro.theory`, in the browser."""
    rng = np.random.default_rng(3)
    instance = coin() if name == "the coin" else random_instance(rng, 3, 5, 7)
    page = opened("book/explore.html")
    for place, lam in ((0, 0.02), (20, 0.3), (43, 1 / (4 * np.log(2))), (60, 10.0)):
        solution = instance.solve(lam, LEASHES[place])
        data = reduced(instance, LEASHES)
        shown = page.evaluate("([data, l, b]) => explore.solve(data, l, b)", [data, lam, place])
        for key in SOLVED + BOUNDS:
            assert shown[key] == pytest.approx(getattr(solution, key), abs=1e-9), key
        parts = shown["fine_tuned"] + shown["J_frozen"] - shown["J_sft"] - shown["learned"]
        assert parts == pytest.approx(solution.delta, abs=1e-9)
        assert np.allclose(shown["rho_star"], solution.rho_star, atol=1e-9)


def test_the_leashes_move_by_keyboard_and_the_figure_is_for_readers_without_scripts(opened):
    page = opened("book/explore.html")
    cell = page.locator("#explore table").first.locator("tbody tr").nth(2).locator("td")
    before = cell.inner_text()
    page.focus("#explore-lam")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert float(cell.inner_text()) > float(before)  # a looser leash earns more on the coin
    assert not page.locator(".explore-figure").is_visible()


def test_an_answer_is_shown_with_terms_that_multiply_to_its_reward(opened):
    page = opened("book/answers.html")
    page.select_option("#answers-kind", "yesno")
    for configuration in ("Align-Pro", "Best constant suffix"):
        page.select_option("#answers-configuration", configuration)
        for side in (1, 2):
            cells = page.locator(f"#answers tbody td:nth-of-type({side})").all_inner_texts()
            relevance, form, fresh, reward = map(float, cells[-4:])
            assert reward == pytest.approx(relevance * (0.25 + 0.75 * form) * fresh, abs=0.02)
    prompt = page.locator("#answers-prompt option:checked").inner_text()
    assert page.locator("#answers tbody tr td").first.inner_text() == prompt


def test_a_kept_answer_is_shown_as_text(opened):
    page = opened("book/answers.html")
    nasty = "<img src=x onerror=\"document.body.id='hacked'\">"
    page.evaluate(
        "text => { const part = Object.values(ANSWERS)[0];"
        " for (const answers of Object.values(part.answers)) for (const a of answers) a[1] = text;"
        " document.getElementById('answers-dataset').dispatchEvent(new Event('change')); }",
        nasty,
    )
    assert nasty in page.locator("#answers tbody").inner_text()
    assert page.locator("#hacked").count() == 0
