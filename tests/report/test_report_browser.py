"""The report in headless Chromium, at the width of a phone and of a desk, in light, dark and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, sync_playwright

from aft_ray.report.report import report
from tests.helpers.report import recipe_at, write_everything

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
BOXES = """all => all.map(e => {
  const place = e.getBoundingClientRect(), drawn = e.getBBox();
  return [place.width, place.height, place.right, drawn.width, drawn.height];
})"""
"""Each picture: size and right edge on the page, size of what is drawn in it."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, chromium_sandbox=False)
        yield started
        started.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    recipe = recipe_at(tmp_path_factory.mktemp("searched"))
    write_everything(recipe)
    return Path(report(recipe)).resolve().as_uri()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_fits_draws_everything_and_asks_for_nothing(
    url: str, browser: Browser, width: int, colours: Literal["light", "dark"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=colours)
    told: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    assert (told, requests) == ([], [url])
    boxes = page.eval_on_selector_all("svg", BOXES)
    assert len(boxes) == 15
    for place_width, place_height, right, drawn_width, drawn_height in boxes:
        assert place_width > 200 and place_height > 80 and right <= width
        assert drawn_width > 100 and drawn_height > 50
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # tables scroll in themselves
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = {name: sum(map(int, value[4:-1].split(","))) for name, value in (("paper", paper), ("ink", ink))}
    assert abs(brightness["paper"] - brightness["ink"]) > 500
    assert (brightness["paper"] > brightness["ink"]) == (colours == "light")
    page.close()


def test_it_can_be_printed(url: str, browser: Browser) -> None:
    """On paper nothing is cut off at the side and colours are those of the light page."""
    page = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme="dark")
    page.goto(url)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.close()
