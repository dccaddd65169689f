"""What people do: start, stop and repeat builds, change jobs, drain workers, put tickets back; by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from looking import BUILD_TIME_MAX_S, Site, complaints_in_both_colours, set_aside, shell, waits_for
from playwright.sync_api import Page, expect
from waiting import wait_until

from distci.process import WorkerProcess
from distci.protocol import depths

JOB = "/jobs/team/hello"


def test_a_build_is_started_with_parameters(site: Site, page: Page) -> None:
    parameters = {"LEVEL": {"default": "fast", "choices": ["fast", "full"]}, "NOTE": {"description": "anything"}}
    site.save("team/hello", shell("true"), parameters=parameters)
    page.goto(JOB)
    page.get_by_role("link", name="Start a build").click()
    page.get_by_label("LEVEL").select_option("full")
    page.get_by_label("NOTE").fill("<b>by hand</b>")
    page.get_by_label("Ref").fill("refs/heads/main")
    page.get_by_role("button", name="Start").click()

    expect(page).to_have_url(site.url(f"{JOB}/-/builds/1"))
    expect(page.get_by_text("NOTE=<b>by hand</b>", exact=True)).to_be_visible()
    trigger = site.ci.builds.get("team/hello#1").trigger
    assert dict(trigger.parameters) == {"LEVEL": "full", "NOTE": "<b>by hand</b>"}
    assert trigger.ref == "refs/heads/main"


def test_a_parameter_that_must_be_given_is_asked_for(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"), parameters={"LEVEL": {"required": True}})
    page.goto(f"{JOB}?tab=trigger")
    page.get_by_role("button", name="Start").click()

    expect(page.get_by_role("alert")).to_contain_text("LEVEL")


def test_a_running_build_is_cancelled_and_what_failed_is_repeated(
    site: Site, worker: WorkerProcess, page: Page, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    site.save("team/hello", shell("true", "first"), shell(waits_for(gate), "second"))
    build = site.ci.builds.trigger("team/hello")
    page.goto(f"{JOB}/-/builds/1")
    expect(page.locator(".box", has_text="second")).to_contain_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    site.ci.builds.wait(build, BUILD_TIME_MAX_S)

    gate.touch()
    page.get_by_role("button", name="Retry failed").click()
    expect(page).to_have_url(site.url(f"{JOB}/-/builds/2"))
    expect(page.locator(".box", has_text="first")).to_contain_text("reused")
    expect(page.locator(".box", has_text="second")).to_contain_text("passed")
    # It can be repeated once it is on record, a moment after it has passed.
    site.ci.builds.wait("team/hello#2", BUILD_TIME_MAX_S)

    page.get_by_role("button", name="Retry all").click()
    expect(page).to_have_url(site.url(f"{JOB}/-/builds/3"))
    expect(page.locator(".box", has_text="first")).to_contain_text("passed")


def test_a_job_is_made_and_changed_with_what_is_wrong_said_beside_it(site: Site, page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="New job").click()
    text = page.get_by_label("Definition, in JSON")
    save = page.get_by_role("button", name="Save")
    text.fill("{")
    expect(page.get_by_role("alert")).to_contain_text("It is not JSON")
    expect(save).to_be_disabled()
    text.fill(json.dumps({"job": "team/hello", "taks": []}))
    expect(page.get_by_role("alert")).to_contain_text("did you mean")
    text.fill(json.dumps({"job": "team/hello", "tasks": [shell("true")]}))
    expect(page.get_by_text("It is valid.")).to_be_visible()
    page.get_by_label("Why").fill("for a start")
    save.click()
    expect(page.get_by_text("for a start")).to_be_visible()

    page.get_by_role("link", name="Edit").click()
    text.fill(json.dumps({"job": "team/hello", "description": "greets", "tasks": [shell("true")]}))
    save.click()
    expect(page.locator(".diff .add")).to_contain_text(["greets"])
    assert site.ci.jobs.get("team/hello").version == 2

    page.get_by_role("link", name="version 1").click()
    page.get_by_role("button", name="Go back to it").click()
    page.get_by_role("button", name="Really go back?").click()
    expect(page.get_by_role("link", name="version 3")).to_be_visible()
    assert "description" not in site.ci.jobs.get("team/hello").document


def test_nobody_s_change_is_lost_to_another_s(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"))
    page.goto(f"{JOB}?tab=edit")
    page.get_by_label("Definition, in JSON").fill(json.dumps({"job": "team/hello", "tasks": [shell("echo mine")]}))
    site.ci.jobs.put({"job": "team/hello", "tasks": [shell("echo theirs")]}, actor="somebody")

    expect(page.get_by_role("alert")).to_contain_text("Version 2 was saved by somebody meanwhile")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    assert page.get_by_label("Definition, in JSON").input_value().count("mine") == 1


def test_a_worker_is_drained_after_a_second_thought(site: Site, page: Page) -> None:
    with site.worker("worker-1"):
        page.goto("/workers")
        page.get_by_role("button", name="Drain").click()
        page.get_by_role("button", name="Really drain?").click()

        expect(page.get_by_text("draining")).to_be_visible()
        wait_until(lambda: not [*site.ci.status.workers()] or next(iter(site.ci.status.workers())).is_draining)


def test_a_ticket_that_was_set_aside_is_put_back(site: Site, page: Page) -> None:
    set_aside(site.ci, "resize-cat", "the picture is no picture")
    page.goto("/tickets")
    page.get_by_role("button", name="Requeue").click()

    expect(page.get_by_text("There is none.")).to_be_visible()
    assert [view.place for view in site.ci.tickets.list()] == ["waiting"]


def test_jobs_are_searched_by_any_part_of_their_names(site: Site, page: Page) -> None:
    for name in ("team/hello", "team/lib", "sites/hello-page"):
        site.save(name, shell("true"))
    page.goto("/")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("HELLO")

    expect(page.locator("tbody th")).to_have_text(["sites/hello-page", "team/hello"])
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_build_is_found_by_its_name_and_by_what_is_known_of_it(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"))
    for actor in ("ada", "grace"):
        site.ci.builds.trigger("team/hello", actor=actor, ref=f"refs/heads/{actor}")
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("team/hello#2")
    page.keyboard.press("Enter")
    expect(page).to_have_url(site.url(f"{JOB}/-/builds/2"))

    page.goto(JOB)
    expect(page.locator("tbody tr")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("heads/ADA")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("manual by ada")


def test_the_keys_are_told(site: Site, page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("all jobs")
    assert complaints_in_both_colours(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Keys").click()
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()


def test_keys_are_heard_and_titles_are_right_from_the_first_moment_on(site: Site, page: Page) -> None:
    # Given a browser that has no time for anything that may be done later
    page.add_init_script(
        "const later = setTimeout; requestAnimationFrame = () => 0; setTimeout = (act, ms) => later(act, ms + 600_000);"
    )
    page.goto("/workers")
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    assert page.title() == "Jobs \N{MIDDLE DOT} DistCI"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_the_picture_for_pages_elsewhere_and_the_line_that_shows_it(
    site: Site, worker: WorkerProcess, page: Page
) -> None:
    site.build("team/hello", shell("true"))
    page.goto(JOB)
    page.get_by_role("link", name="Badge").click()
    picture = page.get_by_role("img", name="How the last build")
    expect(picture).to_be_visible()
    page.wait_for_function("document.querySelector('main img').naturalWidth > 50")
    address = site.url("/api/v1/jobs/team/hello/-/badge.svg")
    expect(page.get_by_role("region", name="In Markdown")).to_have_text(f"[![team/hello]({address})]({site.url(JOB)})")


def test_more_jobs_than_fit_are_seen_page_by_page(site: Site, page: Page) -> None:
    for number in range(53):
        site.save(f"team/job-{number:02}", shell("true"))
    page.goto("/")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="More").click()
    expect(page.locator("tbody th")).to_have_text(["team/job-50", "team/job-51", "team/job-52"])
    page.get_by_role("button", name="Back").click()
    expect(page.locator("tbody tr")).to_have_count(50)


def test_the_keyboard_is_enough(site: Site, worker: WorkerProcess, page: Page) -> None:
    site.build("team/hello", shell("echo here"))
    page.goto("/workers")
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page).to_have_url(site.url("/"))
    expect(page.get_by_role("link", name="team/hello", exact=True)).to_be_visible()

    def press_until(name: str) -> None:
        focused = page.locator(":focus")
        for _ in range(40):
            page.keyboard.press("Tab")
            if focused.count() and name in (focused.get_attribute("aria-label") or focused.inner_text()):
                return
        pytest.fail(f"Tab never came to {name}")

    press_until("Skip to the content")
    press_until("#1")
    page.keyboard.press("Enter")
    expect(page).to_have_url(site.url(f"{JOB}/-/builds/1"))
    expect(page.get_by_role("link", name="Log of test")).to_be_visible()
    press_until("Log of test")
    page.keyboard.press("Enter")
    expect(page.get_by_text("here", exact=True)).to_be_visible()
    page.go_back()
    expect(page).to_have_url(site.url(f"{JOB}/-/builds/1"))


def test_whoever_chooses_dark_has_it_dark_the_next_time_too(site: Site, page: Page) -> None:
    dark = "getComputedStyle(document.documentElement).backgroundColor == 'rgb(13, 17, 23)'"
    page.goto("/")
    assert not page.evaluate(dark)
    page.get_by_role("button", name="Use dark colours").click()
    assert page.evaluate(dark)
    page.goto("/queue")
    assert page.evaluate(dark)
    page.get_by_role("button", name="Use light colours").click()
    wait_until(lambda: not page.evaluate(dark))


def test_jobs_are_found_by_their_tags(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"), tags=["nightly"])
    site.save("team/other", shell("true"))
    page.goto(JOB)
    page.get_by_role("link", name="nightly").click()
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("row", name="team/hello")).to_be_visible()
    page.get_by_role("searchbox").fill("tag:none")
    expect(page.get_by_text("No job has the tag none.")).to_be_visible()


def test_a_list_of_builds_says_what_failed(site: Site, worker: WorkerProcess, page: Page) -> None:
    site.build("team/hello", shell("true", "good", needs=[]), shell("exit 1", "bad", needs=[]))
    page.goto(JOB)
    expect(page.get_by_role("row", name="#1")).to_contain_text("failed bad")


def test_how_deep_the_queue_was_is_seen_and_read(site: Site, page: Page) -> None:
    page.goto("/queue")
    expect(page.get_by_text("Nobody saw anything wait.")).to_be_visible()
    now_ms = int(time.time() * 1000)
    for minute, waiting in ((200, 7), (30, 2)):
        sample = depths.Sample(now_ms - minute * depths.MINUTE_MS, {"shell": depths.Depth(waiting, minute)})
        assert depths.record(site.ci.tickets.tree, sample)
    page.reload()
    expect(page.get_by_role("img", name="shell: at most 7 waited")).to_have_accessible_name(
        re.compile("the longest 3 min 20 s")
    )
    page.get_by_text("shell as a table").click()
    expect(page.get_by_role("cell", name="3 min 20 s")).to_be_visible()
    page.get_by_label("Hours").select_option("2")
    expect(page.get_by_role("img", name="shell: at most 2 waited")).to_be_visible()
    assert complaints_in_both_colours(page) == []
