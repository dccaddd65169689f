"""The log viewer: however long a log is and whatever is in it."""

from __future__ import annotations

from pathlib import Path

from looking import Site, complaints_in_both_colours, shell
from playwright.sync_api import Page, expect

from distci.process import WorkerProcess

LINES = 1_000_000
ROWS_MAX = 500
SEARCH_MAX_MS = 60_000
LOG = "/jobs/team/long/-/builds/1/tasks/test/log"


def rows(page: Page) -> int:
    return page.locator(".row").count()


def first_seen(page: Page) -> int:
    """The number of the topmost line that is on the screen."""
    found: int = page.evaluate(
        """() => {
            const top = document.querySelector(".log").getBoundingClientRect().top;
            const rows = [...document.querySelectorAll(".row")].filter((row) => row.getBoundingClientRect().bottom > top + 1);
            rows.sort((one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top);
            return Number(rows[0].querySelector(".number").textContent);
        }"""
    )
    return found


def test_a_log_of_a_million_lines_is_scrolled_searched_and_linked_into(
    site: Site, worker: WorkerProcess, page: Page
) -> None:
    site.build("team/long", shell(f"seq -f 'line %.0f' {LINES}"))

    # It follows: the end is what is seen first.
    page.goto(LOG)
    expect(page.get_by_text(f"line {LINES}", exact=True)).to_be_visible()
    expect(page.get_by_text("1,000,000 lines")).to_be_visible()
    assert rows(page) < ROWS_MAX

    # Home and End, by the keys that a browser scrolls with.
    page.get_by_role("region", name="Lines of the log").focus()
    page.keyboard.press("Control+Home")
    expect(page.get_by_text("line 1", exact=True)).to_be_visible()
    expect(page.get_by_label("Follow")).not_to_be_checked()

    # The wheel moves by lines, though the track is shorter than the log.
    page.mouse.move(600, 500)
    page.mouse.wheel(0, 360)
    expect(page.get_by_text("line 21", exact=True)).to_be_visible()
    page.wait_for_function("document.querySelector('.log').scrollTop > 0")
    assert 15 <= first_seen(page) <= 22

    # The bar in the middle is the middle of the log.
    page.evaluate(
        "() => { const log = document.querySelector('.log'); log.scrollTop = (log.scrollHeight - log.clientHeight) / 2; }"
    )
    expect(page.get_by_text("line 500000", exact=True)).to_be_visible()
    assert rows(page) < ROWS_MAX

    # Search is the front end's: every line of the log, not those in the page.
    page.keyboard.press("/")
    page.keyboard.type("line 77777")
    page.keyboard.press("Enter")
    expect(page.locator(".row.marked")).to_have_text("77777line 77777", timeout=SEARCH_MAX_MS)
    expect(page.get_by_text("1 of 11")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".row.marked")).to_have_text("777770line 777770")

    # A link to a line is the line's number.
    page.goto(f"{LOG}#L654321")
    expect(page.locator(".row.marked")).to_have_text("654321line 654321")
    expect(page.locator(".row.marked")).to_be_in_viewport()
    page.locator(".number", has_text="654322").click()
    expect(page).to_have_url(site.url(f"{LOG}#L654322"))
    expect(page.locator(".row.marked")).to_have_text("654322line 654322")
    assert rows(page) < ROWS_MAX


def test_whatever_bytes_a_log_has_they_are_text(site: Site, worker: WorkerProcess, page: Page, tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    printed.write_bytes(
        b"<script>alert(1)</script><img src=x onerror=alert(2)>\n"
        b"\x1b]8;;javascript:alert(3)\x07click\x1b]8;;\x07 \x1b]0;title\x1b\\after\n"
        b"\xff\xfe not utf-8 \x00 and \xe2\x80\xae turned\n"
        b"\x1b[38;2;1;2;3mtrue\x1b[48;5;196mcube\x1b[38;5;url(http://192.0.2.1/)m\x1b[0m plain\n"
        b"progress 1%\rprogress 99%\n" + b"x" * 100_000 + b"\n"
        b"\x1b[1;31mred goes on\nhere\x1b[m\n"
    )
    site.build("team/long", shell(f"cat {printed}"))

    page.goto(LOG)

    rows = page.locator(".row code")
    expect(rows).to_have_count(8)
    expect(rows.nth(0)).to_have_text("<script>alert(1)</script><img src=x onerror=alert(2)>")
    expect(rows.nth(1)).to_have_text("click after")
    expect(rows.nth(2)).to_contain_text("not utf-8")
    expect(rows.nth(3)).to_contain_text("plain")
    expect(rows.nth(3).locator("span").first).to_have_css("color", "rgb(1, 2, 3)")
    expect(rows.nth(4)).to_have_text("progress 99%")
    expect(rows.nth(7).locator(".bold.front-1")).to_have_text("here")
    assert page.locator("main script, main img, .row a:not(.number)").count() == 0
    assert page.evaluate("document.title").startswith("test")


def test_a_log_that_nobody_has_yet_says_so_and_begins_by_itself(site: Site, page: Page) -> None:
    site.save("team/long", shell("echo here"))
    build = site.ci.builds.trigger("team/long")
    page.goto(LOG)
    expect(page.get_by_role("alert")).to_be_visible()

    with site.worker():
        site.ci.builds.wait(build, 60)

    expect(page.get_by_text("here", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_what_a_command_printed_is_folded_below_it(site: Site, worker: WorkerProcess, page: Page) -> None:
    site.build("team/long", shell("set -x; : begin; seq -f 'line %.0f' 100000; : middle; echo last; : end"))
    page.goto(LOG)
    shown = page.locator(".row code")
    expect(page.get_by_text("100,006 lines")).to_be_visible()

    page.get_by_role("button", name="Fold all").click()
    expect(shown).to_have_text(["+ : begin", "+ seq -f line %.0f 100000", "+ : middle", "+ echo last", "+ : end"])
    assert complaints_in_both_colours(page) == []
    page.get_by_role("button", name="Lines below line 100004").click()
    expect(shown).to_have_count(6)
    expect(shown.nth(4)).to_have_text("last")

    # What is searched for is unfolded.
    page.get_by_label("Search this log").fill("line 77777")
    page.get_by_label("Search this log").press("Enter")
    expect(page.locator(".row.marked code")).to_have_text("line 77777")
    expect(page.locator(".row.marked")).to_be_in_viewport()
    assert rows(page) < ROWS_MAX


def test_a_log_without_commands_has_nothing_to_fold(site: Site, worker: WorkerProcess, page: Page) -> None:
    site.build("team/long", shell("seq 100"))
    with page.expect_response(lambda response: "limit=20" in response.url):
        page.goto(LOG)
    expect(page.get_by_text("100 lines", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Fold all")).to_have_count(0)
