"""Every view: it shows what there is, is accessible in both colours, and fits on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from looking import PHONE, Site, looking
from playwright.sync_api import Browser, Page, expect
from showcase import filled

from distci.app import connect

IMAGES = Path(__file__).parents[2] / "docs" / "images"
IMAGE_BYTES_MAX = 100 * 1024
HELLO = "/jobs/team/hello"

VIEWS = {
    "jobs": ("/", "team/slow"),
    "job": (HELLO, "by ada"),
    "definition": (f"{HELLO}?tab=definition", "say that it is tested, too"),
    "edit": (f"{HELLO}?tab=edit", "It is valid."),
    "start": (f"{HELLO}?tab=trigger", "how thoroughly it is tested"),
    "new-job": ("/jobs/-/new", "It is valid."),
    "build": (f"{HELLO}/-/builds/1", "hello-1.0.whl"),
    "failed-build": (f"{HELLO}/-/builds/2", "test[3.11], test[3.12] went wrong"),
    "running-build": ("/jobs/team/slow/-/builds/1", "worker-1"),
    "waiting-build": ("/jobs/team/gpu/-/builds/1", "no live worker"),
    "log": (f"{HELLO}/-/builds/2/tasks/test%5B3.11%5D/log", "printer: expected 3"),
    "artifacts": (f"{HELLO}/-/builds/1/artifacts", "dist/docs/index.html"),
    "queue": ("/queue", "no live worker"),
    "workers": ("/workers", "worker-1"),
    "events": ("/events", "team/hello"),
    "tickets": ("/tickets", "the picture is no picture"),
    "ticket": ("/tickets/resize-cat.1", "distci ticket requeue"),
    "nothing": ("/jobs/team/nothing", "there is no job"),
}
"""Where each is, and what it says there."""

PICTURES = ("jobs", "build", "log", "definition", "queue")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def showcase(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("showcase")
    with connect(folder / "data", actor="tester") as ci, Site(ci, folder) as site, filled(site, folder / "gate"):
        yield site


def open_view(page: Page, name: str) -> None:
    path, says = VIEWS[name]
    page.goto(path)
    expect(page.locator("main")).to_contain_text(says)


def complaints(page: Page) -> list[str]:
    """What axe finds wrong."""
    found: Any = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    return [
        f"{rule['id']} at {node['target']}: {node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shows_what_there_is_and_is_accessible(
    browser: Browser, showcase: Site, name: str, request: pytest.FixtureRequest
) -> None:
    with looking(browser, showcase) as page:
        open_view(page, name)

        assert page.title().endswith("DistCI")
        assert complaints(page) == []

        if request.config.getoption("--pictures") and name in PICTURES:
            picture = IMAGES / f"{name}.png"
            page.screenshot(path=picture)
            assert picture.stat().st_size < IMAGE_BYTES_MAX


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_fits_on_a_phone_and_is_accessible_in_the_dark(
    browser: Browser, showcase: Site, name: str, request: pytest.FixtureRequest
) -> None:
    with looking(browser, showcase, viewport=PHONE, color_scheme="dark") as page:
        open_view(page, name)

        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(13, 17, 23)"
        assert complaints(page) == []

        if request.config.getoption("--pictures") and name == "build":
            page.screenshot(path=IMAGES / "phone.png")
