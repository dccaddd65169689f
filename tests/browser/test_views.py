"""Every view: it shows what there is, is accessible in both colours, and fits on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from frontends import SECRET_KEY
from looking import DESK, PHONE, Site, Watched, complaints, looking, opened
from playwright.sync_api import Browser, Page, expect
from showcase import filled

from distci.app import connect
from distci.settings import Settings

IMAGES = Path(__file__).parents[2] / "docs" / "images"
IMAGE_BYTES_MAX = 120 * 1024
HELLO = "/jobs/team/hello"

VIEWS = {
    "jobs": ("/", "team/slow"),
    "job": (HELLO, "by ada"),
    "definition": (f"{HELLO}?tab=definition", "say that it is tested, too"),
    "edit": (f"{HELLO}?tab=edit", "It is valid."),
    "unreliable": ("/jobs/team/net?tab=tests", "net::put"),
    "badge": (f"{HELLO}?tab=badge", "In Markdown"),
    "start": (f"{HELLO}?tab=trigger", "how thoroughly it is tested"),
    "new-job": ("/jobs/-/new", "It is valid."),
    "build": (f"{HELLO}/-/builds/1", "hello-1.0.whl"),
    "failed-build": (f"{HELLO}/-/builds/2", "printer: expected 3"),
    "running-build": ("/jobs/team/slow/-/builds/1", "worker-1"),
    "waiting-build": ("/jobs/team/gpu/-/builds/1", "no live worker"),
    "log": (f"{HELLO}/-/builds/2/tasks/test%5B3.11%5D/log", "printer: expected 3"),
    "artifacts": (f"{HELLO}/-/builds/1/artifacts", "dist/docs/index.html"),
    "tests": ("/jobs/team/lib/-/builds/1/tests", "it went on"),
    "late-report": ("/jobs/team/lib/-/builds/1", "1 failed"),
    "queue": ("/queue", "the longest 25 min"),
    "held": ("/held", "no rights"),
    "workers": ("/workers", "worker-1"),
    "events": ("/events", "team/hello"),
    "tickets": ("/tickets", "the picture is no picture"),
    "tokens": ("/tokens", "was in a log"),
    "secrets": ("/secrets", "DEPLOY_TOKEN"),
    "ticket": ("/tickets/resize-cat.1", "distci ticket requeue"),
    "nothing": ("/jobs/team/nothing", "there is no job"),
}
"""Where each is, and what it says there."""

PICTURES = (
    "jobs",
    "job",
    "failed-build",
    "waiting-build",
    "log",
    "definition",
    "edit",
    "start",
    "unreliable",
    "badge",
    "artifacts",
    "queue",
    "held",
    "workers",
    "events",
    "tickets",
    "tokens",
)


@pytest.fixture(scope="module")
def showcase(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("showcase")
    settings = Settings(data=str(folder / "data"), actor="tester", secret_keys=SECRET_KEY)
    with connect(settings=settings) as ci, Site(ci, folder) as site, filled(site, folder / "gate"):
        ci.secrets.set("DEPLOY_TOKEN", "hunter2-s3same", "team")
        yield site


@pytest.fixture(scope="module")
def one_browser(browser: Browser, showcase: Site) -> Iterator[tuple[Page, Watched]]:
    """A new one fetches and compiles all of the page, which takes longer than all that is looked at here."""
    with opened(browser, showcase) as found:
        yield found


@pytest.fixture
def page(one_browser: tuple[Page, Watched]) -> Iterator[Page]:
    page, watched = one_browser
    yield page
    watched.check()


def open_view(page: Page, name: str) -> None:
    path, says = VIEWS[name]
    page.goto(path)
    expect(page.locator("main")).to_contain_text(says)


def take(page: Page, name: str) -> None:
    """The picture of a view for the documentation, without the empty rest of the screen."""
    picture = IMAGES / f"{name}.png"
    width, height = page.evaluate(
        """() => [innerWidth, Math.min(innerHeight, document.querySelector("main").lastElementChild.getBoundingClientRect().bottom + 20)]"""
    )
    page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": width, "height": height})
    assert picture.stat().st_size < IMAGE_BYTES_MAX


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shows_what_there_is_and_is_accessible(page: Page, name: str, request: pytest.FixtureRequest) -> None:
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    open_view(page, name)

    assert page.title().endswith("DistCI")
    assert complaints(page) == []

    if request.config.getoption("--pictures") and name in PICTURES:
        take(page, name)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_fits_on_a_phone_and_is_accessible_in_the_dark(
    page: Page, name: str, request: pytest.FixtureRequest
) -> None:
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    open_view(page, name)

    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(13, 17, 23)"
    assert complaints(page) == []

    if request.config.getoption("--pictures") and name == "failed-build":
        take(page, "phone")


def test_what_one_may_do_is_within_a_phone(browser: Browser, showcase: Site) -> None:
    with looking(browser, showcase, viewport=PHONE) as page:
        page.goto("/")
        page.get_by_role("banner").locator(".who summary").click()

        box = page.get_by_text("In the whole system you may").bounding_box()

        assert box
        assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]


def test_the_way_to_a_log_is_one_word_on_one_line(browser: Browser, showcase: Site) -> None:
    with looking(browser, showcase) as page:
        open_view(page, "failed-build")

        heights = page.locator(".tasks .line.dim").evaluate_all(
            """lines => lines.flatMap((line) => [...line.querySelectorAll("a")].map(
                (link) => link.getBoundingClientRect().height / parseFloat(getComputedStyle(link).lineHeight)))"""
        )

        assert heights
        assert max(heights) < 1.5


def test_the_search_and_the_button_beside_it_are_in_one_line(browser: Browser, showcase: Site) -> None:
    with looking(browser, showcase) as page:
        page.goto("/")

        search = page.get_by_role("searchbox", name="Search jobs").bounding_box()
        button = page.get_by_role("link", name="New job").bounding_box()

        assert search
        assert button
        assert abs(search["y"] - button["y"]) < search["height"] / 2
