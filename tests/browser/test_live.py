"""What happens is seen when it happens: from the list of jobs to a build and to what it prints."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pytest
from looking import Site, shell, waits_for
from playwright.sync_api import Page, Request, expect
from program import Home
from waiting import wait_until

from distci.process import WorkerProcess

NEWS_MAX_S = 1.0
ROUNDS = 5


def test_a_visitor_gets_from_the_jobs_to_a_build_and_to_its_live_log(
    site: Site, worker: WorkerProcess, page: Page, tmp_path: Path
) -> None:
    more, end = tmp_path / "more", tmp_path / "end"
    script = f"echo first line; {waits_for(more)}; printf '\\033[32mgreen line\\033[0m\\n'; {waits_for(end)}"
    site.save("team/hello", shell(script))

    page.goto("/")
    expect(page.get_by_role("row", name="team/hello")).to_contain_text("not built yet")

    site.ci.builds.trigger("team/hello")
    expect(page.get_by_role("row", name="team/hello")).to_contain_text("running")

    page.get_by_role("link", name="#1", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("team/hello #1")
    expect(page).to_have_url(site.url("/jobs/team/hello/-/builds/1"))

    page.get_by_role("link", name="Log of test").click()
    expect(page.get_by_text("first line")).to_be_visible()

    more.touch()
    expect(page.locator(".row .front-2")).to_have_text("green line")

    end.touch()
    expect(page.get_by_role("heading", level=1)).to_contain_text("passed")


def test_news_of_a_build_are_seen_within_a_second(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"))
    page.goto("/jobs/team/hello")
    expect(page.get_by_text("It has not been built yet.")).to_be_visible()
    took_s = []
    for number in range(1, ROUNDS + 1):
        site.ci.builds.trigger("team/hello")
        began = time.monotonic()
        page.wait_for_selector(f"th >> text='#{number}'", state="visible")
        took_s.append(time.monotonic() - began)

    assert median(took_s) < NEWS_MAX_S, took_s


def test_a_line_is_seen_within_a_second_of_being_printed(
    site: Site, worker: WorkerProcess, page: Page, tmp_path: Path
) -> None:
    gates = [tmp_path / f"gate-{number}" for number in range(ROUNDS)]
    script = "\n".join(f"{waits_for(gate)}; echo printed {number} $(date +%s%N)" for number, gate in enumerate(gates))
    site.save("team/hello", shell(script))
    build = site.ci.builds.trigger("team/hello")
    wait_until(lambda: [task.state.value for task in site.ci.builds.get(build).tasks] == ["running"])
    page.goto("/jobs/team/hello/-/builds/1/tasks/test/log")
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")

    took_s = []
    for number, gate in enumerate(gates):
        gate.touch()
        row = page.wait_for_selector(f".row >> text=/printed {number}/")
        seen_ns = time.time_ns()
        printed = re.search(rf"printed {number} (\d+)", row.inner_text() if row else "")
        assert printed
        took_s.append((seen_ns - int(printed[1])) / 1e9)

    assert median(took_s) < NEWS_MAX_S, took_s


@pytest.fixture
def gates(worker: WorkerProcess, tmp_path: Path) -> Iterator[list[Path]]:
    """Files that a task waits for. They are there in the end, or the worker could not come to its own."""
    files = [tmp_path / f"gate-{number}" for number in range(3)]
    yield files
    for file in files:
        file.touch()


def test_a_log_goes_on_where_it_was_when_its_front_end_is_killed(
    site: Site, page: Page, gates: list[Path], tmp_path: Path
) -> None:
    # Given a front end of its own process, and somebody who looks at a log that grows
    script = "\n".join(f"{waits_for(gate)}; for i in 1 2 3; do echo line {n} $i; done" for n, gate in enumerate(gates))
    site.save("team/hello", shell(script))
    build = site.ci.builds.trigger("team/hello")
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))

    def asked(what: str) -> list[Request]:
        return [request for request in requests if what in request.url]

    rows = page.locator(".row code")
    listen = site.address.removeprefix("http://")
    front_end = partial(
        Home(tmp_path).running, "frontend", "--data", str(tmp_path / "data"), "--listen", listen, until="Ctrl-C"
    )
    site.stop_front_end()
    with front_end() as first:
        wait_until(lambda: [task.state.value for task in site.ci.builds.get(build).tasks] == ["running"])
        page.goto("/jobs/team/hello/-/builds/1/tasks/test/log")
        gates[0].touch()
        expect(rows).to_have_count(3)
        fetched = len(asked("limit=200"))
        # When that is killed, and what is printed meanwhile is told by another one
        first.kill()
        gates[1].touch()
    with front_end():
        expect(rows).to_have_count(6)
        gates[2].touch()
        expect(rows).to_have_count(9)
        expect(page.get_by_role("heading", level=1)).to_contain_text("passed")
    # Then each line has come once, over a stream that went on behind what it had told, and nothing was fetched again
    assert rows.all_inner_texts() == [f"line {n} {i}" for n in range(3) for i in (1, 2, 3)]
    assert any(request.header_value("last-event-id") for request in asked("/log/events"))
    assert len(asked("limit=200")) == fetched


def test_what_happens_in_the_whole_system_is_seen_within_a_second(
    site: Site, worker: WorkerProcess, page: Page
) -> None:
    site.save("team/hello", shell("true"))
    page.goto("/events")
    expect(page.get_by_text("Nothing has happened yet.")).to_be_visible()
    took_s = []
    for _ in range(ROUNDS):
        number = site.ci.builds.trigger("team/hello").number
        row = f"tr:has(a[href='/jobs/team/hello/-/builds/{number}']):has-text('passed')"
        wait_until(lambda: site.ci.events.last() == 2 * number, 30)  # noqa: B023 - it is called here
        began = time.monotonic()
        page.wait_for_selector(row, state="visible")
        took_s.append(time.monotonic() - began)

    assert median(took_s) < NEWS_MAX_S, took_s
    page.get_by_role("link", name="team/hello#1", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("team/hello #1")


def test_a_page_goes_on_when_its_front_end_comes_back(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"))
    page.goto("/jobs/team/hello")
    expect(page.get_by_text("It has not been built yet.")).to_be_visible()

    site.stop_front_end()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    # What was seen last stays to be read.
    expect(page.get_by_text("It has not been built yet.")).to_be_visible()

    site.start_front_end()
    site.ci.builds.trigger("team/hello")
    expect(page.locator("th").get_by_text("#1")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
