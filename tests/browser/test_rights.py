"""Nobody is offered what they may not do; what fails says why; and what was typed is not lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import deliveries
import pytest
from looking import Site, complaints_in_both_colours, looking, shell
from playwright.sync_api import Browser, Page, expect
from waiting import wait_until

from distci.access import SYSTEM, Role

JOB = "/jobs/team/hello"
FORK, FORKED = "gitea/pull-request-event", "example/example"


@contextmanager
def as_somebody(browser: Browser, site: Site, role: Role | None, project: str = "team") -> Iterator[Page]:
    with looking(browser, site, is_known=False) as page:
        page.context.add_cookies([site.cookie("ada", {} if role is None else {project: role})])
        yield page


@pytest.mark.parametrize(
    ("role", "may", "tabs", "actions"),
    [
        (Role.VIEWER, "read", ["Builds", "Definition", "Tests", "Badge"], []),
        (Role.RUNNER, "read, trigger", ["Builds", "Definition", "Tests", "Badge", "Start"], ["Cancel"]),
        (
            Role.EDITOR,
            "read, trigger, report, quarantine, shell, write",
            ["Builds", "Definition", "Tests", "Badge", "Edit", "Start"],
            ["Cancel"],
        ),
    ],
)
def test_a_role_in_a_project_is_offered_what_it_may_do(
    browser: Browser, site: Site, role: Role, may: str, tabs: list[str], actions: list[str]
) -> None:
    site.save("team/hello", shell("true"))
    site.ci.builds.trigger("team/hello")
    with as_somebody(browser, site, role) as page:
        page.goto(JOB)
        expect(page.get_by_role("navigation", name="About this job").get_by_role("link")).to_have_text(tabs)
        expect(page.get_by_role("link", name="Start a build")).to_have_count(len(actions))
        expect(page.get_by_text(f"here you may: {may}")).to_be_visible()
        sections = page.get_by_role("navigation", name="Sections").get_by_role("link")
        expect(sections).to_have_text(["Jobs", "Held", "Events", "Tokens", "Secrets"])
        page.goto(f"{JOB}/-/builds/1")
        expect(page.get_by_role("button", name="Cancel")).to_have_count(len(actions))


@pytest.mark.parametrize(("role", "count"), [(Role.EDITOR, 0), (Role.OWNER, 1)])
def test_a_role_in_the_system_is_offered_what_it_may_do(browser: Browser, site: Site, role: Role, count: int) -> None:
    with site.worker("worker-1"), as_somebody(browser, site, role, SYSTEM) as page:
        page.goto("/workers")
        expect(page.get_by_text("worker-1")).to_be_visible()
        expect(page.get_by_role("button", name="Drain")).to_have_count(count)
        page.locator("summary", has_text="ada").click()
        expect(page.get_by_role("banner")).to_contain_text(
            "you may: read, trigger, report, quarantine, shell, write" + ", admin" * count
        )


def test_a_right_that_is_taken_away_meanwhile_is_said_to_be_missing(browser: Browser, site: Site) -> None:
    site.save("team/hello", shell("true"), parameters={"NOTE": {}})
    site.ci.access.grant("ada", Role.RUNNER, "team")
    with as_somebody(browser, site, None) as page:
        page.goto(f"{JOB}?tab=trigger")
        page.get_by_label("NOTE").fill("typed")
        site.ci.access.grant("ada", Role.VIEWER, "team")
        # The front end goes by what was so a second ago.
        expect_forbidden(page)
        expect(page.get_by_label("NOTE")).to_have_value("typed")
    assert site.ci.builds.last_number("team/hello") == 0


def expect_forbidden(page: Page) -> None:
    page.wait_for_function(
        """async () => (await (await fetch("/api/v1/session?project=team/hello")).json()).may.join() === "read" """
    )
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("ada may not trigger in team/hello")
    expect(page.get_by_role("alert")).to_contain_text("distci access grant")


def test_what_was_typed_outlasts_a_front_end_that_is_away(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"), parameters={"NOTE": {}})
    page.goto(f"{JOB}?tab=trigger")
    page.get_by_label("NOTE").fill("typed")
    site.stop_front_end()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert").filter(has_text="look, and try again")).to_be_visible()
    expect(page.get_by_label("NOTE")).to_have_value("typed")

    site.start_front_end()
    page.get_by_role("button", name="Start").click()
    expect(page).to_have_url(site.url(f"{JOB}/-/builds/1"))
    expect(page.get_by_text("NOTE=typed", exact=True)).to_be_visible()


def test_a_definition_that_was_typed_outlasts_the_page(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"))
    typed = json.dumps({"job": "team/hello", "tasks": [shell("echo mine")]})
    page.goto(f"{JOB}?tab=edit")
    page.get_by_label("Definition, in JSON").fill(typed)
    page.get_by_label("Why").fill("because")
    page.goto("/queue")
    page.goto(f"{JOB}?tab=edit")
    expect(page.get_by_text("what you had typed before")).to_be_visible()
    expect(page.get_by_label("Definition, in JSON")).to_have_value(typed)
    expect(page.get_by_label("Why")).to_have_value("because")

    # On a version that somebody else has made meanwhile it is not saved over that.
    site.ci.jobs.put({"job": "team/hello", "tasks": [shell("echo theirs")]}, actor="somebody")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Version 2 was saved by somebody meanwhile")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Really discard it?").click()
    expect(page.get_by_label("Definition, in JSON")).to_have_value(theirs_shown())
    page.reload()
    expect(page.get_by_label("Definition, in JSON")).to_have_value(theirs_shown())


def theirs_shown() -> str:
    return json.dumps({"job": "team/hello", "tasks": [shell("echo theirs")]}, indent=2)


def test_a_token_is_made_shown_once_and_revoked(site: Site, page: Page) -> None:
    page.goto("/tokens")
    expect(page.get_by_text("There is none.")).to_be_visible()
    page.get_by_text("Make a token").click()
    expect(page.get_by_role("button", name="Make", exact=True)).to_be_disabled()
    assert complaints_in_both_colours(page) == []
    page.get_by_label("Label").fill("nightly <b>")
    page.get_by_label("Project").fill("team")
    page.get_by_label("trigger").check()
    page.get_by_label("Ends in").select_option("30 days")
    page.get_by_role("button", name="Make", exact=True).click()
    text = page.get_by_role("region", name="Token").inner_text()
    assert complaints_in_both_colours(page) == []
    known = site.ci.access.authenticate(text)
    assert (known.label, {*known.scopes}, known.project) == ("nightly <b>", {"read", "trigger"}, "team")  # type: ignore[union-attr]
    [record] = site.ci.access.tokens()
    assert round(record.expires_s - record.created_s) == 30 * 86400

    page.get_by_role("button", name="Done").click()
    assert text not in page.content()
    page.reload()
    row = page.get_by_role("row", name="nightly <b>")
    expect(row).to_contain_text("valid")
    assert text not in page.content()
    row.get_by_role("button", name="Revoke").click()
    row.get_by_role("button", name="Really revoke?").click()
    expect(row).to_contain_text("revoked")
    assert site.ci.access.tokens()[0].state(0) == "revoked"


def test_an_owner_of_a_project_makes_tokens_for_that_alone(browser: Browser, site: Site) -> None:
    with as_somebody(browser, site, Role.OWNER) as page:
        page.goto("/tokens")
        page.get_by_text("Make a token").click()
        page.get_by_label("Label").fill("mine")
        expect(page.get_by_text("You are no owner of the whole system")).to_be_visible()
        expect(page.get_by_role("button", name="Make", exact=True)).to_be_disabled()
        page.get_by_label("Project").fill("team/web")
        page.get_by_role("button", name="Make", exact=True).click()
        expect(page.get_by_role("row", name="mine")).to_contain_text("team/web")


def test_an_editor_sets_a_secret_lists_it_without_its_value_and_forgets_it(browser: Browser, site: Site) -> None:
    with as_somebody(browser, site, Role.EDITOR) as page:
        page.goto("/secrets")
        expect(page.get_by_text("There is none.")).to_be_visible()
        page.get_by_text("Set a secret").click()
        page.get_by_label("Name").fill("DEPLOY_TOKEN")
        page.get_by_label("Value").fill("hunter2-s3same")
        expect(page.get_by_text("You may not change jobs of the whole system")).to_be_visible()
        expect(page.get_by_role("button", name="Set", exact=True)).to_be_disabled()
        page.get_by_label("Project").fill("team/web")
        assert complaints_in_both_colours(page) == []
        page.get_by_role("button", name="Set", exact=True).click()
        row = page.get_by_role("row", name="DEPLOY_TOKEN")
        expect(row).to_contain_text("team/web")
        assert site.ci.secrets.values("team/web/site", ["DEPLOY_TOKEN"]) == {"DEPLOY_TOKEN": "hunter2-s3same"}
        page.reload()
        expect(row).to_contain_text("ada")
        assert "hunter2" not in page.content()
        assert complaints_in_both_colours(page) == []
        row.get_by_role("button", name="Forget").click()
        row.get_by_role("button", name="Really forget?").click()
        expect(page.get_by_text("There is none.")).to_be_visible()
    assert site.ci.secrets.values("team/web/site", ["DEPLOY_TOKEN"]) == {}


def test_a_worker_s_token_and_one_of_another_person_are_made(site: Site, page: Page) -> None:
    page.goto("/tokens")
    page.get_by_text("Make a token").click()
    page.get_by_label("Label", exact=True).fill("lab-7")
    page.get_by_label("a worker that claims").check()
    expect(page.get_by_role("button", name="Make", exact=True)).to_be_disabled()
    page.get_by_label("Kinds").fill("shell, git-checkout")
    page.get_by_label("Labels").fill("gpu=*")
    assert complaints_in_both_colours(page) == []
    page.get_by_role("button", name="Make", exact=True).click()
    known = site.ci.access.authenticate(page.get_by_role("region", name="Token").inner_text())
    assert ({*known.kinds}, [*known.labels]) == ({"shell", "git-checkout"}, ["gpu=*"])  # type: ignore[union-attr]

    page.get_by_role("button", name="Done").click()
    page.get_by_text("Make a token").click()
    page.get_by_label("Label", exact=True).fill("hers")
    page.get_by_label("a program").check()
    page.get_by_label("Person").fill("ada@example.org")
    page.get_by_role("button", name="Make", exact=True).click()
    expect(page.get_by_role("row", name="hers")).to_contain_text("as far as ada@example.org may")


def hold(site: Site) -> str:
    """A change of a fork that waits for an approval; its id."""
    body = deliveries.recorded(FORK)
    trigger = {"type": "gitea", "repository": FORKED, "events": ["pull_request"]}
    site.save("team/hello", shell("true"), triggers=[trigger])
    return site.ci.hooks.play("gitea", deliveries.headers(FORK, body), body).held


def test_a_held_change_is_approved_or_refused_by_whoever_may(browser: Browser, site: Site, page: Page) -> None:
    hold(site)
    with as_somebody(browser, site, Role.VIEWER) as theirs:
        theirs.goto("/held")
        expect(theirs.get_by_role("row", name="team/hello")).to_contain_text("no rights")
        expect(theirs.get_by_role("button", name="Approve")).to_have_count(0)

    page.goto(JOB)
    page.get_by_role("link", name="A change waits for an approval").click()
    expect(page).to_have_url(site.url("/held"))
    assert complaints_in_both_colours(page) == []
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Really build it?").click()
    expect(page.get_by_role("link", name="team/hello#1")).to_be_visible()
    expect(page.get_by_text("No change waits")).to_be_visible()
    assert site.ci.builds.get("team/hello#1").trigger.is_untrusted

    hold(site)
    page.reload()
    page.get_by_role("button", name="Refuse").click()
    page.get_by_role("button", name="Really refuse?").click()
    expect(page.get_by_text("is refused")).to_be_visible()
    assert list(site.ci.hooks.held()) == []
    # What was done is on the record a moment after it is done.
    wait_until(lambda: {entry.what for entry in site.ci.audit.list()} >= {"hook.approve", "hook.refuse"})


def test_a_build_that_is_not_there_leads_back_to_its_job_and_asks_for_no_terminal(site: Site, page: Page) -> None:
    page.goto("/jobs/team/nothing/-/builds/7")
    expect(page.get_by_role("alert")).to_have_text("there is no build team/nothing#7")
    expect(page.get_by_role("main").get_by_role("link")).to_have_text(["Jobs", "team/nothing"])


def test_of_a_job_that_is_not_there_nothing_is_offered(site: Site, page: Page) -> None:
    page.goto("/jobs/team/nothing")
    expect(page.get_by_role("alert")).to_contain_text("there is no job")
    expect(page.get_by_role("navigation", name="About this job").get_by_role("link")).to_have_text(
        ["Builds", "Definition", "Tests", "Badge"]
    )
    expect(page.get_by_role("link", name="Start a build")).to_have_count(0)
