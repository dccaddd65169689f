"""Whatever builds and people put into names and texts, the page shows it as text, and a browser runs none of it."""

from __future__ import annotations

import re

import requests
from looking import Site, shell
from playwright.sync_api import Page, expect

from distci.process import WorkerProcess

NASTY = (
    "<img src=x onerror=alert(1)>.txt",
    "javascript:alert(2)",
    "a b&c?d=e#f%41+;.txt",
    "x\" onclick='alert(3)'.html",
    "gnp.\u202efdp.exe",
    "${alert(4)}{{5}}.txt",
    "  blanks  .txt",
    "page.html",
)


def test_artifacts_of_any_name_are_listed_and_fetched_and_never_run(
    site: Site, worker: WorkerProcess, page: Page
) -> None:
    names = "".join(f"printf '%s' {quoted(name)} > {quoted('out/' + name)}\n" for name in NASTY)
    site.build(
        "team/hello",
        shell(f"mkdir out\n{names}", "make"),
        {"name": "publish", "type": "publish-artifacts", "paths": ["out/**"]},
    )
    page.goto("/jobs/team/hello/-/builds/1/artifacts")
    expect(page.locator("tbody tr")).to_have_count(len(NASTY))

    shown = page.locator("tbody th a").evaluate_all("links => links.map((link) => link.textContent)")
    assert sorted(shown) == sorted(f"out/{name}" for name in NASTY)
    for name in NASTY:
        link = page.locator("tbody th a").nth(shown.index(f"out/{name}"))
        with page.expect_download() as download:
            link.click()
        assert download.value.path().read_text() == name
    assert page.locator("main img, main script").count() == 0


def test_texts_of_jobs_and_builds_are_texts(site: Site, worker: WorkerProcess, page: Page) -> None:
    nasty = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>${alert(3)}"
    job = {"job": "team/hello", "description": nasty, "tasks": [shell("exit 1")]}
    site.ci.jobs.put(job, actor=nasty, reason=nasty)
    build = site.ci.builds.trigger("team/hello", actor=nasty, ref=nasty, cause="x")
    site.ci.builds.wait(build, 60)

    for path in ("", "?tab=definition", "?tab=edit", "/-/builds/1", "/-/builds/1/artifacts"):
        page.goto(f"/jobs/team/hello{path}")
        expect(page.locator("h1")).to_be_visible()
        page.wait_for_load_state("networkidle") if path == "/-/builds/1/artifacts" else None
        assert page.locator("main img, main script").count() == 0
    page.goto("/jobs/team/hello/-/builds/1")
    page.get_by_role("link", name="Log of").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("test")
    assert page.locator("main img, main script").count() == 0


def test_addresses_that_are_no_names_of_things_are_texts(site: Site, page: Page) -> None:
    for path in (
        "/jobs/%3Cimg%20src=x%20onerror=alert(1)%3E",
        "/jobs/%E0%A4%A",
        "/tickets/%3Cscript%3E",
        "/?text=%3Cb%3E",
    ):
        page.goto(path)
        expect(page.locator("h1").or_(page.locator("main"))).not_to_have_count(0)
        assert page.locator("main img, main script, main b").count() == 0


def test_what_the_page_may_do_is_said_by_its_headers(site: Site) -> None:
    for path in ("/", "/jobs/team/hello/-/builds/1", "/queue"):
        headers = requests.get(site.url(path), timeout=10).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert headers["X-Content-Type-Options"] == "nosniff"
    document = requests.get(site.url("/"), timeout=10)
    for path in re.findall(r'(?:src|href)="([^"]+)"', document.text):
        found = requests.get(site.url(path), timeout=10)
        again = requests.get(site.url(path), headers={"If-None-Match": found.headers["ETag"]}, timeout=10)
        assert (found.status_code, again.status_code) == (200, 304)
    assert requests.get(site.url("/static/../../app.py"), timeout=10).status_code == 404
    assert requests.get(site.url("/static/index.html"), timeout=10).status_code == 404


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
