"""The tests of a build on the page: what failed first, the others when they are asked for, and nothing of it is more than text."""

from __future__ import annotations

from frontends import shell
from looking import BUILD_TIME_MAX_S, Site, complaints_in_both_colours, looking
from playwright.sync_api import Browser, Page, expect

from distci.access import Role
from distci.process import WorkerProcess
from distci.quarantine import Quarantine

NASTY = "<img src=x onerror=alert(1)>\u202e"
XML = """<testsuite name="s"><testcase name="good"/><testcase name="bad"><failure message="NASTY">NASTY</failure></testcase>
<testcase name="known"><failure/></testcase></testsuite>""".replace("NASTY", "&lt;img src=x onerror=alert(1)>\u202e")
REPORTS = {
    "junit": ["r.xml", "none.xml"],
    "coverage": r"(?P<percent>\d+)%",
    "annotations": r"^(?P<file>\S+?):(?P<line>\d+): (?P<level>\w+): (?P<text>.*)",
    "exit_statuses": [1],
}

ONCE = {"log": {"result": r"^(?P<result>ok|not ok) (?P<name>.+)"}}
JOB = "/jobs/team/net"
DAY_MS = 24 * 3600 * 1000


def test_failed_tests_come_first_and_others_when_they_are_asked_for(
    site: Site, worker: WorkerProcess, page: Page
) -> None:
    site.ci.jobs.put({"job": "team/hello", "tasks": [shell("true")]})
    site.ci.quarantine.put("team/hello", "s::known", owner="ada@example.org")
    script = f"cat > r.xml <<'END'\n{XML}\nEND\necho 'x.c:7: error: {NASTY}'; echo 81%; exit 1"
    site.build("team/hello", shell(script, "test", reports=REPORTS))

    page.goto("/jobs/team/hello/-/builds/1")
    main = page.locator("main")
    expect(main).to_contain_text("3 tests, 1 failed, 1 failed in quarantine, coverage 81 %")
    expect(main).to_contain_text("x.c:7 error: <img src=x onerror=alert(1)>\N{REPLACEMENT CHARACTER}")
    expect(main).to_contain_text("not read: no file matches 'none.xml'")
    page.get_by_role("link", name="failed tests with what they said").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody")).to_contain_text("quarantined")
    page.get_by_label("Show").select_option("passed")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("s::good")
    page.get_by_label("Show").select_option("skipped")
    expect(main).to_contain_text("There are none that were skipped.")
    assert page.locator("main img, main script").count() == 0


def flaky_tests(site: Site, *names: str) -> None:
    """Two builds of the job with the same inputs: in one of them these tests fail."""
    lines = "".join(f"$word {name}\n" for name in names)
    script = f"word=ok; [ $((DISTCI_BUILD % 2)) = 0 ] || word='not ok'\ncat <<END\n{lines}END\necho 'ok steady'"
    site.save("team/net", shell(script, "test", reports=ONCE))
    for _ in range(2):
        assert site.ci.builds.wait(site.ci.builds.trigger("team/net"), BUILD_TIME_MAX_S).is_archived


def test_flaky_tests_are_shown_with_their_evidence_and_put_in_quarantine(
    site: Site, worker: WorkerProcess, page: Page
) -> None:
    flaky_tests(site, "net::put", NASTY)

    page.goto(JOB)
    page.get_by_role("link", name="Tests", exact=True).click()
    flaky = page.locator("section", has=page.get_by_role("heading", name="Flaky tests"))
    row = flaky.locator("tbody tr", has_text="net::put")
    expect(flaky.locator("tbody tr")).to_have_count(2)
    expect(row.locator("td")).to_have_text(["test", "1×", "1×", "#1", "Quarantine …"])
    expect(row.get_by_role("link", name="#1")).to_have_attribute("href", f"{JOB}/-/builds/1/tests")
    row.get_by_role("button", name="Quarantine").click()
    expect(page.get_by_label("Test", exact=True)).to_have_value("net::put")
    expect(page.get_by_label("Owner")).to_be_focused()
    assert complaints_in_both_colours(page) == []
    page.keyboard.type("grace@example.org")
    page.get_by_label("For").select_option("7 days")
    page.get_by_label("Why").fill("<b>the proxy moves</b>")
    page.get_by_role("button", name="Put in quarantine").click()

    expect(page.get_by_text("net::put is in quarantine until")).to_be_visible()
    expect(row).to_contain_text("quarantined")
    expect(row.get_by_role("button")).to_have_count(0)
    kept = page.locator("section", has=page.get_by_role("heading", name="Quarantine")).locator("tbody tr")
    expect(kept).to_contain_text(["grace@example.org"])
    expect(kept).to_contain_text(["<b>the proxy moves</b>"])
    [put] = site.ci.quarantine.list("team/net")
    assert (put.test, put.owner, put.until_ms - put.set_ms) == ("net::put", "grace@example.org", 7 * DAY_MS)
    assert put.set_by == "tester"

    page.get_by_role("button", name="Release").click()
    page.get_by_role("button", name="Really release?").click()
    expect(page.get_by_text("No test is in quarantine.")).to_be_visible()
    expect(row.get_by_role("button", name="Quarantine")).to_be_visible()
    assert site.ci.quarantine.list("team/net") == []
    assert page.locator("main img, main script").count() == 0


def test_whose_time_is_up_counts_again_and_is_said_to(site: Site, worker: WorkerProcess, page: Page) -> None:
    flaky_tests(site, "net::put", "net::get")
    site.ci.quarantine.put("team/net", "net::g*", owner="ada@example.org")
    Quarantine(site.ci.store, clock=lambda: 1_000_000.0).put("team/net", "net::put", owner="ada@example.org")

    page.goto(f"{JOB}?tab=tests")
    rows = page.locator("tbody tr")
    expect(rows.filter(has_text="over: it counts")).to_have_count(1)
    expect(rows.filter(has_text="net::get")).to_contain_text(["quarantined"])
    expect(rows.filter(has_text="#1").filter(has_text="net::put")).not_to_contain_text("quarantined")


def test_what_is_refused_is_said_and_stays_in_the_form(site: Site, page: Page) -> None:
    site.save("team/net", shell("true"))
    page.goto(f"{JOB}?tab=tests")
    expect(page.get_by_text("None has been seen.")).to_be_visible()
    page.get_by_text("Put a test in quarantine").click()
    page.get_by_label("Test", exact=True).fill("*")
    expect(page.get_by_role("button", name="Put in quarantine")).to_be_disabled()
    page.get_by_label("Owner").fill("ada@example.org")
    page.get_by_role("button", name="Put in quarantine").click()

    expect(page.get_by_role("alert")).to_contain_text("'*' would be all tests")
    expect(page.get_by_label("Test", exact=True)).to_have_value("*")


def test_who_may_only_look_is_offered_nothing(browser: Browser, site: Site, worker: WorkerProcess) -> None:
    flaky_tests(site, "net::put")
    site.ci.quarantine.put("team/net", "other", owner="ada@example.org")
    with looking(browser, site, is_known=False) as page:
        page.context.add_cookies([site.cookie("ada", {"team": Role.VIEWER})])
        page.goto(f"{JOB}?tab=tests")

        expect(page.locator("tbody tr")).to_have_count(2)
        expect(page.get_by_text("here you may: read")).to_be_visible()
        expect(page.locator("main").get_by_role("button")).to_have_count(0)
        expect(page.locator("main summary")).to_have_count(0)
