"""The report in a real browser: it opens in silence, fits every screen, sorts by keyboard, and nothing in it acts.

Headless Chromium, Debian's, installed where it is missing; playwright drives it and downloads none.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Dialog, Locator, Page, sync_playwright

from bench.report.page.page import render
from bench.report.table import NOTHING
from bench.store import Store
from tests.debian import Cannot, provide, skip_unless_ci
from tests.pages import (
    HOSTILE,
    hostile_content,
    make_content,
    make_drawing,
    make_table,
    page_of,
    pictured,
    with_section,
)

pytestmark = [pytest.mark.slow, pytest.mark.browser]
ROOT = Path(__file__).parents[4]
SILENT = (  # what Chromium would otherwise ask its maker's servers for
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)
WIDTHS = (400, 1400)
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; where it cannot be had a test skips, but never in CI."""
    try:
        path = provide("chromium", "chromium", "fonts-dejavu-core")
    except Cannot as reason:
        skip_unless_ci(reason)
        raise
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*SILENT, *sandbox])
        yield started
        started.close()


class Opened:
    """A page in a window of its own, and all that it said or asked for."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: Scheme) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def _refuse(self, dialog: Dialog) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def show(browser, tmp_path):
    """Open a page's bytes: `show(content, width=400, scheme="dark")`."""
    opened: list[Opened] = []

    def open_page(content: bytes, width: int = 1400, scheme: Scheme = "light") -> Opened:
        path = tmp_path / f"{len(opened)}.html"
        path.write_bytes(content)
        opened.append(Opened(browser, path, width, scheme))
        return opened[-1]

    yield open_page
    for each in opened:
        each.page.close()


@pytest.fixture(scope="module")
def committed() -> bytes:
    """The report of what was measured."""
    return page_of(Store(ROOT / "results"))


def hostile() -> bytes:
    return render(hostile_content(" ".join(HOSTILE)))


def open_all(page: Page) -> None:
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_silence_and_asks_for_nothing(scheme, committed, show):
    opened = show(committed, scheme=scheme)
    open_all(opened.page)
    opened.page.wait_for_load_state("networkidle")
    assert opened.said == []
    assert len(opened.asked) == 1  # itself
    assert opened.page.title()


def test_every_figure_is_there_to_be_seen(committed, show):
    page = show(committed).page
    open_all(page)
    drawings = page.locator("figure img")
    assert drawings.count() > 0
    for drawing in drawings.all():
        box = drawing.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert len(Image.open(io.BytesIO(drawing.screenshot())).convert("RGB").getcolors(1 << 24) or []) > 10


def test_a_figure_in_the_page_looks_as_its_file_does(show):
    drawn = make_drawing()
    picture = SimpleNamespace(name="a", title="A", caption="", alt="", svg=drawn, narrow=None)
    looks = []
    for content, tag in (
        (render(with_section(pictures=(picture,))), "figure img"),
        (drawn[drawn.find(b"<svg") :], "svg"),
    ):
        figure = show(content).page.locator(tag)
        figure.evaluate(
            "figure => { figure.style = 'position: fixed; left: 0; top: 0; width: 720px; height: 360px;"
            " max-width: none; background: white; z-index: 9' }"
        )
        looks.append(seen(figure))
    assert looks[0].size == (720, 360)
    assert ImageChops.difference(*looks).getbbox() is None


def seen(what: Locator) -> Image.Image:
    return Image.open(io.BytesIO(what.screenshot())).convert("RGB")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["committed", "hostile", "wide"])
def test_the_page_never_scrolls_sideways(kind, width, committed, show):
    long = "a-label-without-a-place-to-break-" * 8
    wide = make_table(columns=tuple(f"column {n}" for n in range(40)), rows=(tuple(f"{long}{n}" for n in range(40)),))
    pages = {
        "committed": committed,
        "hostile": hostile(),
        "wide": render(with_section(tables=(wide,), lines=(long,))),
    }
    page = show(pages[kind], width=width).page
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width
    page.evaluate("window.scrollTo(1000, 0)")
    assert page.evaluate("window.scrollX") == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_does_nothing_and_can_be_read(text, show):
    opened = show(render(hostile_content(text)))
    page = opened.page
    open_all(page)
    for button in page.locator("th button").all()[:4]:
        button.click()
        button.hover()
    page.wait_for_load_state("networkidle")
    assert opened.said == []
    assert len(opened.asked) == 1
    assert page.evaluate("window.pwned") is None
    assert page.locator("img:not([src^='data:image/svg+xml;base64,']), iframe, object, embed, form").count() == 0
    assert page.locator("script").count() == 1
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).display") == "block"


def test_the_policy_stops_what_would_slip_through(show):
    page = render(make_content()).decode()
    smuggled = (
        "<script>window.pwned = 1</script><p id=loud onclick='window.pwned = 1' style='color: red'>x</p>"
        "<style>h1 { display: none }</style><img src='https://example.org/x.png'>"
    )
    opened = show(page.replace("<footer>", f"{smuggled}<footer>").encode())
    opened.page.click("#loud")
    assert opened.page.evaluate("window.pwned") is None
    assert opened.page.evaluate("getComputedStyle(document.querySelector('h1')).display") == "block"
    assert opened.page.evaluate("getComputedStyle(document.querySelector('#loud')).color") != "rgb(255, 0, 0)"
    assert sum("Content Security Policy" in line for line in opened.said) == 5


# sorting -------------------------------------------------------------------------------------------------------------

ROWS = (
    ("arm-10", "4.431 ± 0.020", "1,137,869", "5"),
    ("arm-9", "10.2", "942,029", "exact"),
    ("arm-2", NOTHING, "\u22127", "3 of 5"),
    ("arm-1", "4.5 ± 0.1", "3.2e+14", "12"),
)


def order(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#headline ~ .scroll tbody th").all_text_contents()]


@pytest.mark.parametrize(
    ("column", "ascending", "descending"),
    [
        (0, [1, 2, 9, 10], [10, 9, 2, 1]),
        (1, [10, 1, 9, 2], [9, 1, 10, 2]),  # what is missing stays last
        (2, [2, 9, 10, 1], [1, 10, 9, 2]),
        (3, [2, 10, 1, 9], [1, 10, 2, 9]),  # numbers before words
    ],
)
def test_a_column_sorts_by_its_numbers_and_back(column, ascending, descending, show):
    table = make_table(columns=("arm", "perplexity", "parameters", "n"), rows=ROWS)
    page = show(render(with_section(tables=(table,)))).page
    heading = page.locator("#headline ~ .scroll thead th").nth(column)
    for wanted, state in ((ascending, "ascending"), (descending, "descending"), ([10, 9, 2, 1], None)):
        heading.locator("button").press("Enter" if column % 2 else "Space")
        assert order(page) == [f"arm-{n}" for n in wanted]
        assert heading.get_attribute("aria-sort") == state
    assert page.locator("[aria-sort]").count() == 0


def test_sorting_is_told_to_a_screen_reader(show):
    page = show(render(make_content())).page
    page.locator("#headline ~ .scroll th button").nth(1).click()
    assert page.get_by_role("status").text_content() == "sorted by sweep, best, ascending"
    assert page.get_by_role("columnheader", name="sweep, best").first.get_attribute("aria-sort") == "ascending"


# a reader without a mouse, in the dark, or on paper ------------------------------------------------------------------


def test_the_keyboard_finds_the_report_first_and_sees_where_it_is(show):
    page = show(render(make_content())).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_wide_table_scrolls_by_keyboard_inside_its_own_region(show):
    wide = make_table(columns=tuple(f"column {n}" for n in range(60)), rows=(tuple("x" for _ in range(60)),))
    page = show(render(with_section(tables=(wide,)))).page
    region = page.locator("#headline ~ .scroll").first
    region.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # it scrolls smoothly; wait_for_function would need the eval that the policy forbids
        if region.evaluate("region => region.scrollLeft") > 0:
            break
        page.wait_for_timeout(50)
    assert region.evaluate("region => region.scrollLeft") > 0


def test_a_figure_has_a_name_and_a_description(show):
    page = show(render(pictured())).page
    assert page.get_by_role("img", name="Curves Two lines fall.").count() == 2


def test_dark_is_dark_and_figures_stand_on_the_page(committed, show):
    grounds = {}
    for scheme in ("light", "dark"):
        page = show(committed, scheme=scheme).page
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.drawing')).backgroundColor") == "rgba(0, 0, 0, 0)"
        )
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}


def test_paper_shows_what_is_folded_in_seven_sections_and_no_button(committed, show):
    page = show(committed, scheme="dark").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    sections = page.locator("main > section")
    shown = [table for section in sections.all()[:7] for table in section.locator("table").all()]
    assert shown
    assert all(table.is_visible() for table in shown)
    assert page.locator("#appendix ~ details[open]").count() == 0
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


PAPER = 703  # pixels between the margins of A4
SMALL_LETTERS = """() => {
    const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const inside = texts.currentNode.parentElement, small = parseFloat(getComputedStyle(inside).fontSize) < 12;
        if (small && texts.currentNode.textContent.trim() && inside.checkVisibility()) found.push(inside.outerHTML);
    }
    return found;
}"""


def test_on_paper_letters_have_nine_points_and_no_table_is_cut(committed, show):
    page = show(committed, width=PAPER).page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(SMALL_LETTERS) == []  # 12 pixels are 9 points
    for section in page.locator("main > section").all()[:7]:
        for table in section.locator(".scroll").all():
            assert table.evaluate("each => each.scrollWidth <= each.clientWidth"), table.inner_text()[:80]


def test_without_its_script_the_page_still_reads(browser, committed, tmp_path):
    (tmp_path / "page.html").write_bytes(committed)
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("table").count() > 3
        assert page.locator("th button").count() == 0
        page.locator("summary").first.click()
        assert page.locator("details[open]").count() == 1
        page.emulate_media(media="print")
        boxes = [table.bounding_box() for table in page.locator("#size ~ .scroll table, #laptop ~ .scroll table").all()]
        assert boxes
        assert all(box is not None and box["height"] > 20 for box in boxes)
    finally:
        context.close()


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_checker_of_accessibility_finds_nothing(scheme, opened, committed, show):
    page = show(committed, scheme=scheme).page
    if opened:
        open_all(page)
    found = Axe().run(page).response["violations"]
    assert {one["id"]: [node["target"] for node in one["nodes"]][:3] for one in found} == {}


@pytest.mark.parametrize("width", [1400, 800, 400])
def test_the_answer_is_on_the_first_screen(width, committed, show):
    page = show(committed, width=width).page
    box = page.locator(".answers li strong").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900


def test_the_page_is_short_before_anything_is_opened_and_its_contents_stay(committed, show):
    page = show(committed).page
    assert page.evaluate("document.documentElement.scrollHeight") < 15_000
    page.evaluate("window.scrollTo(0, 5000)")
    box = page.locator("nav").bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 5


def test_no_column_of_a_table_that_is_not_folded_is_cut(committed, show):
    cut = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.ariaLabel)"
    assert show(committed).page.locator("section > .scroll").evaluate_all(cut) == []


def test_panels_stand_side_by_side_on_a_wide_screen_and_below_each_other_on_a_narrow_one(committed, show):
    taller = {}
    for width in WIDTHS:
        page = show(committed, width).page
        taller[width] = page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('figure:has(source)')].map("
            "each => [each.id, each.querySelector('img').naturalHeight > each.querySelector('img').naturalWidth]))"
        )
    assert {"figure-hero", "figure-frontier"} <= set(taller[400])
    assert all(taller[400].values())
    assert not taller[1400]["figure-hero"]
