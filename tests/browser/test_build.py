"""A build: why it is red or waits, seen at once; what the task that tells most has printed, beside it."""

from __future__ import annotations

from pathlib import Path

from looking import BUILD_TIME_MAX_S, Site, shell, waits_for
from playwright.sync_api import Page, expect

from distci.process import WorkerProcess

BUILD = "/jobs/team/hello/-/builds/1"
LONG = "seq -f 'line %.0f' 2000"


def test_the_log_of_what_failed_is_open_at_its_end(site: Site, worker: WorkerProcess, page: Page) -> None:
    site.build(
        "team/hello", shell("true", "first"), shell(f"{LONG}; echo it broke; exit 3", "second"), shell("true", "third")
    )
    page.goto(BUILD)

    expect(page.locator(".log").get_by_text("it broke", exact=True)).to_be_in_viewport()
    expect(page.locator(".printed h2")).to_contain_text("second")
    expect(page.locator(".why")).to_contain_text("second went wrong")
    expect(page.locator(".why")).to_be_in_viewport()
    assert page.title().startswith("\N{BALLOT X} team/hello#1")
    expect(page.get_by_role("region", name="second alone")).to_have_text(
        f"distci reproduce team/hello#1 second --url {site.url('')}"
    )


def test_another_task_is_chosen_in_the_picture_or_the_list_and_stays_chosen(
    site: Site, worker: WorkerProcess, page: Page, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    site.save("team/hello", shell("echo one", "first"), shell(f"echo two; {waits_for(gate)}; exit 1", "second"))
    build = site.ci.builds.trigger("team/hello")
    page.goto(BUILD)
    log = page.locator(".log")
    expect(log.get_by_text("two", exact=True)).to_be_visible()

    page.locator(".box", has_text="first").click()
    expect(log.get_by_text("one", exact=True)).to_be_visible()
    expect(page).to_have_url(site.url(f"{BUILD}?task=first"))
    gate.touch()
    site.ci.builds.wait(build, BUILD_TIME_MAX_S)
    expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
    expect(log.get_by_text("one", exact=True)).to_be_visible()

    page.get_by_role("link", name="second", exact=True).click()
    expect(log.get_by_text("two", exact=True)).to_be_visible()
    page.go_back()
    expect(log.get_by_text("one", exact=True)).to_be_visible()


def test_what_runs_is_shown_until_something_fails(
    site: Site, worker: WorkerProcess, page: Page, tmp_path: Path
) -> None:
    gate, end = tmp_path / "gate", tmp_path / "end"
    site.save(
        "team/hello",
        shell(f"echo slow; {waits_for(end)}", "slow", needs=[]),
        shell(f"{waits_for(gate)}; echo broken; exit 1", "fails", needs=[]),
    )
    site.ci.builds.trigger("team/hello")
    page.goto(BUILD)
    expect(page.locator(".log").get_by_text("slow", exact=True)).to_be_visible()
    gate.touch()
    expect(page.locator(".log").get_by_text("broken", exact=True)).to_be_visible()
    end.touch()
    expect(page.get_by_role("heading", level=1)).to_contain_text("failed")


def test_how_far_a_task_is_and_then_what_it_used_stand_beside_it(
    site: Site, worker: WorkerProcess, page: Page, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    site.save("team/hello", shell(f"echo 40%; {waits_for(gate)}", "only", progress="([0-9]+)%"))
    build = site.ci.builds.trigger("team/hello")
    page.goto(BUILD)

    expect(page.locator(".tasks li")).to_contain_text("40 %")
    gate.touch()
    site.ci.builds.wait(build, BUILD_TIME_MAX_S)
    expect(page.locator(".tasks li")).to_contain_text("s of processors")


def test_that_a_failed_task_is_held_is_seen_with_the_line_to_paste(site: Site, page: Page) -> None:
    with site.worker(hold_max_s=BUILD_TIME_MAX_S):
        site.save("team/hello", shell("exit 7", "only", hold="30m"))
        build = site.ci.builds.trigger("team/hello")
        page.goto(BUILD)

        told = page.locator(".tasks li")
        expect(told).to_contain_text("failed (exit status 7), and held until")
        expect(told.locator("code")).to_have_text("distci build shell 'team/hello#1' 'only'")
        site.ci.holds.release(build, "only")
        site.ci.builds.wait(build, BUILD_TIME_MAX_S)
        expect(told).not_to_contain_text("held until")


def test_why_it_waits_and_what_helps_is_seen_without_scrolling(site: Site, worker: WorkerProcess, page: Page) -> None:
    site.save("team/hello", shell("true", "train", labels=["gpu=*"]))
    site.ci.builds.trigger("team/hello")
    page.goto(BUILD)

    remedy = page.get_by_text("distci worker run shell --label 'gpu=*'")
    expect(remedy).to_be_in_viewport()
    expect(page.get_by_text("No task has begun yet.")).to_be_visible()
    # A build of which nothing runs waits, whatever its record says.
    expect(page.get_by_role("heading", level=1)).to_contain_text("waiting")


def test_what_does_it_again_by_hand_is_told_for_a_shell(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"), parameters={"NOTE": {}, "LEVEL": {"default": "fast"}})
    site.ci.builds.trigger("team/hello", {"NOTE": "it's $HOME"}, commit="c" * 40, ref="refs/heads/main")
    page.goto(BUILD)

    told = r"--parameter 'NOTE=it'\''s $HOME'"
    expect(page.get_by_role("region", name="As a build")).to_have_text(
        f"distci build trigger team/hello {told} --commit {'c' * 40} --ref refs/heads/main"
    )
    expect(page.get_by_role("region", name="On your own machine")).to_have_text(
        f"distci job get team/hello --version 1 | distci run - {told}"
    )
