"""The tests of a build on the page: what failed first, the others when they are asked for, and nothing of it is more than text."""

from __future__ import annotations

from frontends import shell
from looking import Site
from playwright.sync_api import Page, expect

from distci.process import WorkerProcess

NASTY = "<img src=x onerror=alert(1)>\u202e"
XML = """<testsuite name="s"><testcase name="good"/><testcase name="bad"><failure message="NASTY">NASTY</failure></testcase>
<testcase name="known"><failure/></testcase></testsuite>""".replace("NASTY", "&lt;img src=x onerror=alert(1)>\u202e")
REPORTS = {
    "junit": ["r.xml", "none.xml"],
    "coverage": r"(?P<percent>\d+)%",
    "annotations": r"^(?P<file>\S+?):(?P<line>\d+): (?P<level>\w+): (?P<text>.*)",
    "exit_statuses": [1],
}


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
