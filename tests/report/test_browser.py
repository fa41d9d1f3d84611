"""The page of a real report in a real browser: nothing fetched, nothing cut off, every link and figure at work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from small_report import small_report
from stress import stress

from intriguing import report
from intriguing.analysis import drawing

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not here")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

FLAGS = [  # without its own sandbox, which root cannot have, and without asking anyone for updates
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@dataclass
class Opened:
    """A page, and what it asked for and said while it was open."""

    page: sync_api.Page
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "pdf", lambda canvas: b"")  # the slowest file, which the page does not hold
        return small_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def _open(browser: sync_api.Browser, file: Path, width: int, scheme: str) -> Opened:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    page.set_default_timeout(5000)
    opened = Opened(page)
    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("console", lambda message: opened.said.append(message.text))
    page.on("pageerror", lambda error: opened.said.append(str(error)))
    page.goto(file.as_uri())
    return opened


@pytest.fixture(scope="module", params=SCREENS, ids=lambda screen: f"{screen[0]}-{screen[1]}")
def opened(request: pytest.FixtureRequest, browser: sync_api.Browser, file: Path) -> Iterator[Opened]:
    opened = _open(browser, file, *request.param)
    yield opened
    opened.page.close()


@pytest.fixture
def page(browser: sync_api.Browser, file: Path) -> Iterator[sync_api.Page]:
    page = _open(browser, file, 1280, "light").page
    yield page
    page.close()


def test_everything_is_in_the_file_and_nothing_goes_wrong(opened: Opened) -> None:
    opened.page.wait_for_load_state("networkidle")
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.page.url]
    assert opened.page.url.startswith("file:")
    assert opened.said == []


def test_the_page_holds_every_kind_of_result(page: sync_api.Page) -> None:
    tables = page.eval_on_selector_all("section.table", "all => all.map(one => one.id)")
    figures = page.eval_on_selector_all("figure", "all => all.map(one => one.id)")
    assert {"table1", "table2", "table3", "table4", "lambda", "stability", "units_tests", "back_feeding"} <= {*tables}
    assert {"figure-agreement", "figure-lambda", "figure-distortions", "figure-units_sweep"} <= {*figures}
    for state in ("met", "unmet", "own", "empty"):
        assert page.locator(f"td.{state}").count(), state


def test_every_table_and_figure_is_seen_whole_or_scrolls_in_its_own_box(opened: Opened) -> None:
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    seen = page.evaluate(
        """() => [...document.querySelectorAll("table, figure img, figure svg")].map(one => {
            const box = one.closest(".scroll") ?? one;
            const inner = one.getBoundingClientRect(), outer = box.getBoundingClientRect();
            const hint = box.parentElement.nextElementSibling;
            return {
                name: one.closest("[id]").id, width: inner.width, height: inner.height,
                left: outer.left, right: outer.right,
                wider: box.scrollWidth > box.clientWidth + 2, scrolls: getComputedStyle(box).overflowX,
                hinted: hint?.className === "hint" && getComputedStyle(hint).display !== "none",
            };
        })"""
    )
    assert len(seen) > 20
    for one in seen:
        assert one["width"] > 20 and one["height"] > 20, one
        assert one["left"] >= 0 and one["right"] <= page.viewport_size["width"], one
        assert not one["wider"] or (one["scrolls"] == "auto" and one["hinted"]), one
    if page.viewport_size["width"] < 500:
        assert any(one["wider"] for one in seen)


def test_the_first_column_stays_while_a_wide_table_scrolls(browser: sync_api.Browser, file: Path) -> None:
    page = _open(browser, file, 390, "light").page
    table = page.locator("#table2 .scroll")
    table.evaluate("box => box.scrollLeft = box.scrollWidth")
    page.wait_for_selector("#table2 .wide:not(.more)", state="attached")  # the hint is gone at the end
    first, last = table.locator("tbody tr").first.locator("th"), table.locator("tbody tr").first.locator("td").last
    assert first.bounding_box()["x"] >= 0
    assert last.bounding_box()["x"] + last.bounding_box()["width"] <= 391
    page.close()


def test_all_text_can_be_read_on_its_ground(opened: Opened) -> None:
    """WCAG AA: 4.5 to 1, and 3 to 1 for large text."""
    faint = opened.page.evaluate(
        """() => {
            const parts = colour => colour.match(/[\\d.]+/g).map(Number);
            const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
            const light = ([r, g, b]) => [[r, .2126], [g, .7152], [b, .0722]]
                .reduce((sum, [v, share]) => sum + share * linear(v / 255), 0);
            const ground = one => {
                for (; one; one = one.parentElement) {
                    const found = parts(getComputedStyle(one).backgroundColor);
                    if (found.length === 3 || found[3] === 1) return found;
                }
            };
            const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = new Set();
            let count = 0;
            while (walk.nextNode()) {
                const one = walk.currentNode.parentElement, style = getComputedStyle(one);
                if (!walk.currentNode.data.trim() || !one.checkVisibility() || one.closest("script, style")) continue;
                const colour = style[one.closest("svg") ? "fill" : "color"];
                const [high, low] = [light(parts(colour)), light(ground(one))].sort((a, b) => b - a);
                const size = parseFloat(style.fontSize);
                const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
                const enough = (high + .05) / (low + .05) >= (large ? 3 : 4.5);
                count += 1;
                if (!enough) faint.add(`${one.tagName}.${one.className}: ${colour}`);
            }
            return count > 500 ? [...faint] : ["too little text"];
        }"""
    )
    assert faint == []


@pytest.mark.parametrize("kind", ["svg:has(image)", "svg:not(:has(image))"])
def test_a_figure_is_enlarged_by_mouse_and_by_keyboard(page: sync_api.Page, kind: str) -> None:
    button, dialog = page.locator(f".zoom:has(> {kind})").first, page.locator("#enlarged")
    small, words = button.locator("svg").bounding_box(), button.locator("svg").first.get_attribute("aria-label")
    assert words
    button.click()
    large = dialog.locator("> div > svg")
    assert large.bounding_box()["width"] > small["width"]
    assert large.get_attribute("aria-label") == words
    assert (
        dialog.locator("strong").inner_text()
        == button.locator("xpath=ancestor::figure/*[self::h2 or self::h3]").inner_text()
    )
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    button.focus()
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    page.get_by_label("Close").click()
    assert not dialog.is_visible()
    assert button.evaluate("one => one === document.activeElement")


def test_every_link_leads_to_one_place(page: sync_api.Page) -> None:
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    links = page.eval_on_selector_all("a[href^='#']", "all => all.map(one => decodeURIComponent(one.hash.slice(1)))")
    runs = page.eval_on_selector_all("a.from", "all => all.flatMap(one => one.dataset.runs.split(' '))")
    assert len(ids) == len(set(ids))
    assert {*links, *runs} <= set(ids)
    cells = page.locator("table.cells td:not(.empty):not(.words)")
    assert cells.count() == page.locator("table.cells td b > a.from").count() > 100


def test_a_number_shows_its_runs_and_a_run_its_command_and_config(page: sync_api.Page) -> None:
    number = page.locator("#table2 tbody tr").first.locator("td.met a.from, td.unmet a.from").first
    runs = number.get_attribute("data-runs").split()
    assert len(runs) == 2  # the attack and its victim
    number.focus()
    page.keyboard.press("Enter")
    card = page.locator("#card")
    assert card.is_visible()
    assert card.locator("a").evaluate_all("all => all.map(one => one.hash.slice(1))") == runs
    assert "python attack.py" in card.inner_text() and "python train.py" in card.inner_text()
    page.keyboard.press("Escape")
    assert not card.is_visible()
    assert number.evaluate("one => one === document.activeElement")
    number.click()
    card.locator("a").last.click()
    run = page.locator(f"[id='{runs[-1]}']")
    assert not card.is_visible()
    assert page.evaluate("document.activeElement.id") != "card"
    assert run.get_attribute("open") is not None
    for text in ("python train.py", "0123abc", '"weight_decay"', "runs/train/"):
        assert text in run.inner_text()
    assert run.evaluate("one => one.getBoundingClientRect().top < innerHeight")


def test_a_reader_who_cannot_see_finds_headings_headers_and_names(page: sync_api.Page) -> None:
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => Number(one.tagName[1]))")
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == "A small report"
    assert page.locator("table:not(:has(> caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("img:not([alt]), svg:not([aria-label]), button:not([aria-label])").count() == 0


def test_on_paper_the_page_is_light_whole_and_names_its_commands(browser: sync_api.Browser, file: Path) -> None:
    page = _open(browser, file, 1032, "dark").page  # A4 across, less its margins
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    wide = "all => all.filter(one => one.getBoundingClientRect().right > 1033).map(one => one.className)"
    assert page.eval_on_selector_all("table, figure img, figure svg", wide) == []
    assert page.evaluate("[...document.querySelectorAll('.hint, dialog, #card')].every(one => !one.checkVisibility())")
    commands = page.locator(".run .command")
    assert commands.count() > 10
    assert commands.first.is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.close()


@pytest.fixture(scope="module")
def stress_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(stress(), tmp_path_factory.mktemp("stress"))[-1]


@pytest.fixture(scope="module", params=[1280, 390])
def stressed(request: pytest.FixtureRequest, browser: sync_api.Browser, stress_file: Path) -> Iterator[sync_api.Page]:
    page = _open(browser, stress_file, request.param, "light").page
    yield page
    page.close()


def test_long_labels_and_many_columns_stay_inside_the_window(stressed: sync_api.Page) -> None:
    assert stressed.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = stressed.eval_on_selector_all(".scroll", "all => all.map(one => one.getBoundingClientRect().right)")
    assert max(boxes) <= stressed.viewport_size["width"] + 1


def _covered(page: sync_api.Page) -> list[str]:
    """Names the rows whose label lies over one of their first two numbers."""
    return page.evaluate(
        """() => [...document.querySelectorAll("table.cells tr")].flatMap(row => {
            const words = document.createRange();
            words.selectNodeContents(row.cells[0]);
            const label = words.getBoundingClientRect();
            return [...row.cells].slice(1, 3).map(cell => cell.getBoundingClientRect()).filter(cell =>
                label.right > cell.left + 1 && label.left < cell.right && label.bottom > cell.top + 1
                && label.top < cell.bottom).map(() => row.cells[0].textContent);
        })"""
    )


def test_no_label_runs_over_a_number(opened: Opened) -> None:
    assert _covered(opened.page) == []


def test_no_label_of_any_length_runs_over_a_number(stressed: sync_api.Page) -> None:
    assert _covered(stressed) == []


def test_a_label_takes_few_lines_and_three_columns_are_seen(browser: sync_api.Browser, file: Path) -> None:
    page = _open(browser, file, 390, "light").page
    found = page.evaluate(
        """() => [...document.querySelectorAll("table.cells")].map(table => ({
            name: table.closest("[id]").id,
            lines: Math.max(...[...table.querySelectorAll("tbody th")].map(th => {
                const words = document.createRange();
                words.selectNodeContents(th);
                return new Set([...words.getClientRects()].map(one => Math.round(one.top))).size;
            })),
            columns: table.rows[0].cells.length - 1,
            seen: [...table.rows[1].cells].slice(1).filter(td => td.getBoundingClientRect().right <= innerWidth).length,
        }))"""
    )
    assert len(found) > 8
    for one in found:
        assert one["lines"] <= 2, one
        assert one["seen"] >= min(3, one["columns"]), one
    page.close()


def test_a_long_table_keeps_its_head_in_view(browser: sync_api.Browser, stress_file: Path) -> None:
    page = _open(browser, stress_file, 1280, "light").page
    box = page.locator("#matrix .scroll")
    box.evaluate("box => box.scrollTo(500, 2000)")
    top = box.bounding_box()
    corner, label = box.locator("thead th").first.bounding_box(), box.locator("tbody th").nth(30).bounding_box()
    assert abs(corner["x"] - top["x"]) < 4 and abs(corner["y"] - top["y"]) < 4
    assert abs(label["x"] - top["x"]) < 4
    page.close()


def test_images_keep_their_pixels_and_figures_the_colours_of_the_page(opened: Opened) -> None:
    page = opened.page
    assert page.locator("figure svg image").count() >= 5 and page.locator("figure img").count() == 0
    rendering = page.eval_on_selector_all(
        "figure svg image", "all => all.map(one => getComputedStyle(one).imageRendering)"
    )
    assert set(rendering) == {"pixelated"}
    ink = page.evaluate("getComputedStyle(document.body).color")
    text = page.locator("#figure-lambda svg text").first
    assert text.evaluate("one => getComputedStyle(one).fill") == ink
