"""Who gets in, who may do what at each endpoint, what is hidden, and what is put down of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from frontends import Api, Stage, job, problem
from services.provider import CLIENT, SECRET, StandIn
from waiting import wait_until

from distci.access import Action, Person, Role, Visibility
from distci.app import connect
from distci.frontend.app import create

TIME_MAX_S = 30
NOBODY: Mapping[str, Any] = {"kind": "nobody", "name": None, "login": None, "may": []}
KEPT_S = 5.0
"""What is revoked must be refused everywhere within a second; a busy machine is slower."""

READ, TRIGGER, REPORT, QUARANTINE, SHELL = "read", "trigger", "report", "quarantine", "shell"
WRITE, ADMIN, WORK = "write", "admin", "work"
ALL, KNOWN, FILTERED, WORKERS = "all", "known", "filtered", "workers"

ROWS: Mapping[str, tuple[str, str]] = {
    "list_jobs": (FILTERED, ""),
    "list_overview": (FILTERED, ""),
    "lint_job": (KNOWN, ""),
    "get_job": ("job", READ),
    "put_job": ("job", WRITE),
    "delete_job": ("job", WRITE),
    "list_versions": ("job", READ),
    "diff_job": ("job", READ),
    "rollback_job": ("job", WRITE),
    "list_builds": ("job", READ),
    "trigger_build": ("job", TRIGGER),
    "get_build": ("job", READ),
    "cancel_build": ("job", TRIGGER),
    # And as test_http_approvals.py says: it is up to those whom the job names.
    "decide_task": ("job", TRIGGER),
    "retry_build": ("job", TRIGGER),
    "list_tasks": ("job", READ),
    "get_task": ("job", READ),
    "get_reproduction": ("job", TRIGGER),
    "read_reproduction_workspace": ("job", TRIGGER),
    "open_terminal": ("job", SHELL),
    "type_on_terminal": ("job", SHELL),
    "read_terminal": ("job", SHELL),
    "release_task": ("job", SHELL),
    "read_log": ("job", READ),
    "list_lines": ("job", READ),
    "search_log": ("job", READ),
    "follow_build": ("job", READ),
    "follow_build_logs": ("job", READ),
    "follow_log": ("job", READ),
    "follow_system": (FILTERED, ""),
    "list_events": (FILTERED, ""),
    "list_artifacts": ("job", READ),
    "read_artifact": ("job", READ),
    "put_artifact": ("job", WRITE),
    "list_reports": ("job", READ),
    "list_tests": ("job", READ),
    "list_annotations": ("job", READ),
    "list_flaky_tests": ("job", READ),
    "list_quarantined_tests": ("job", READ),
    "put_test_in_quarantine": ("job", QUARANTINE),
    "release_test": ("job", QUARANTINE),
    "put_report": ("job", REPORT),
    "explain_build": ("job", READ),
    "explain_task": ("job", READ),
    "deliver": (ALL, ""),
    "list_receivers": ("system", READ),
    "list_held": (FILTERED, ""),
    # And as TestHeld in test_http_hooks.py says: it is up to the jobs that it concerns.
    "approve_change": (KNOWN, ""),
    "refuse_change": (KNOWN, ""),
    "explain_ticket": ("system", READ),
    "list_tickets": ("system", READ),
    "get_ticket": ("system", READ),
    "requeue_ticket": ("system", ADMIN),
    "list_workers": ("system", READ),
    "get_worker": ("system", READ),
    "drain_worker": ("system", ADMIN),
    "get_cluster": ("system", READ),
    "list_queue": ("system", READ),
    "list_queue_history": ("system", READ),
    "list_kinds": ("system", READ),
    "pause_kinds": ("system", ADMIN),
    "weigh_project": ("system", ADMIN),
    "limit_project": ("system", ADMIN),
    "list_roles": ("system", ADMIN),
    "grant_role": ("system", ADMIN),
    "revoke_role": ("system", ADMIN),
    "list_visibilities": ("system", ADMIN),
    "set_visibility": ("system", ADMIN),
    "list_audit": ("system", ADMIN),
    "claim_ticket": (WORKERS, ""),
    "keep_claim": ("job", WORK),
    "read_script": ("job", WORK),
    "read_assignment": ("job", WORK),
    "read_secrets": ("job", WORK),
    "write_report": ("job", WORK),
    "read_quarantine": ("job", WORK),
    "pin_value": ("job", WORK),
    "find_source": ("job", WORK),
    "list_input_artifacts": ("job", WORK),
    "read_prelude": ("job", WORK),
    "list_hold_pieces": ("job", WORK),
    "read_hold_piece": ("job", WORK),
    "write_hold_piece": ("job", WORK),
    "remove_hold_piece": ("job", WORK),
    "write_log": ("job", WORK),
    "read_workspace": ("job", WORK),
    "write_workspace": ("job", WORK),
    "read_input_artifact": ("job", WORK),
    "write_artifact": ("job", WORK),
    "complete_attempt": ("job", WORK),
    "give_back_claim": ("job", WORK),
    "get_metrics": ("system", READ),
    "read_badge": ("job", READ),
    "list_tokens": (KNOWN, ""),
    "create_token": (KNOWN, ""),
    "revoke_token": (KNOWN, ""),
    # And as TestSecrets says: of which project it is stands in the query or the body.
    "list_secrets": (KNOWN, ""),
    "set_secret": (KNOWN, ""),
    "delete_secret": (KNOWN, ""),
    "rotate_secrets": (KNOWN, ""),
    "get_live": (ALL, ""),
    "get_ready": (ALL, ""),
    "get_session": (ALL, ""),
    "begin_login": (ALL, ""),
    "finish_login": (ALL, ""),
    "use_login_link": (ALL, ""),
    "log_out": (ALL, ""),
    "get_description": (ALL, ""),
    "get_reference": (ALL, ""),
}
"""What each endpoint of the description takes, on what. Whoever adds one says here who may ask it."""

VIEWER, RUNNER, EDITOR = {READ}, {READ, TRIGGER}, {READ, TRIGGER, REPORT, QUARANTINE, SHELL, WRITE}
OWNER = {*EDITOR, ADMIN}


@dataclass(frozen=True)
class Who:
    """Somebody, and what they may do in projects and in the system as a whole, besides what visibility lets them."""

    in_projects: frozenset[str] = frozenset()
    in_system: frozenset[str] = frozenset()
    sees_internal: bool = False
    sees_all: bool = False
    """Whether nothing is hidden from them: what they have no right to is forbidden."""
    is_known: bool = True

    def may(self, where: str, action: str, visibility: str) -> bool:
        if where == "system":
            return action in self.in_system
        by_sight = action == READ and (visibility == "public" or (visibility == "internal" and self.sees_internal))
        return by_sight or action in self.in_projects

    def sees(self, visibility: str) -> bool:
        return self.sees_all or self.may("job", READ, visibility)


def person(in_projects: set[str] | None = None, in_system: set[str] | None = None) -> Who:
    system = frozenset(in_system or set())
    return Who(frozenset(in_projects or set()) | system, system, sees_internal=True)


def token(*scopes: str) -> Who:
    return Who(frozenset(scopes), frozenset(scopes), sees_all=True)


PEOPLE: Mapping[str, Who] = {
    "nobody": Who(is_known=False),
    "stranger": person(),
    "viewer": person(VIEWER),
    "runner": person(RUNNER),
    "editor": person(EDITOR),
    "owner": person(OWNER),
    "system-viewer": person(in_system=VIEWER),
    "system-runner": person(in_system=RUNNER),
    "system-editor": person(in_system=EDITOR),
    "system-owner": person(in_system=OWNER),
    "token-read": token(READ),
    "token-trigger": token(TRIGGER),
    "token-report": token(REPORT),
    "token-quarantine": token(QUARANTINE),
    "token-shell": token(SHELL),
    "token-write": token(WRITE),
    "token-admin": token(ADMIN),
    "token-elsewhere": Who(),
    "worker": Who(frozenset({WORK}), frozenset({WORK}), sees_all=True),
    "worker-elsewhere": Who(in_system=frozenset({WORK})),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Api]]:
    """A system with a project of each visibility, and everybody who is in the table."""
    with ExitStack() as stack:
        stage = Stage(stack, tmp_path_factory.mktemp("world"), None, None)
        for visibility in Visibility:
            stage.ci.access.set_visibility(visibility.value, visibility)
            stage.ci.jobs.put(job(f"{visibility.value}/hello"))
            for role in Role:
                stage.ci.access.grant(f"{role.value}@example.org", role, visibility.value)
        for role in Role:
            stage.ci.access.grant(f"system-{role.value}@example.org", role)
        api, _ = stage.front_end()
        yield stage, api


def shown_by(stage: Stage, api: Api, name: str) -> dict[str, str]:
    """The headers by which somebody says who they are."""
    if name == "nobody":
        return {}
    kind, _, scope = name.partition("-")
    if name == "token-elsewhere":
        made = stage.ci.access.create_token(name, [Action(scope) for scope in OWNER], project="other")
    elif kind == "token":
        made = stage.ci.access.create_token(name, [Action(scope)])
    elif kind == "worker":
        made = stage.ci.access.create_worker_token(name, ["shell"], project=scope and "other")
    else:
        return as_person(stage, api, f"{name}@example.org")
    return {"Authorization": f"Bearer {made.text}"}


def as_person(stage: Stage, api: Api, name: str) -> dict[str, str]:
    cookie = f"distci-session-{urlsplit(api.url).port}={stage.ci.sessions.begin(Person(name))}"
    return {"Cookie": cookie, "Origin": api.url}


def operations(api: Api) -> Iterator[tuple[str, str, str]]:
    for path, methods in api.description["paths"].items():
        for method, operation in methods.items():
            yield operation["operationId"], method.upper(), path


def at(path: str, project: str) -> str:
    given = {
        "job": f"{project}/hello",
        "number": "1",
        "task": "say",
        "artifact": "a",
        "ticket": "t",
        "worker": "w",
        "token": "0" * 12,
        "claim": "t.1",
        "source": "lab",
        "terminal": "0" * 32,
    }
    given |= {"code": "distcil_" + "0" * 49, "receiver": "github", "change": "0" * 16}
    return re.sub(r"\{(\w+)\}", lambda found: given[found[1]], path)


class TestTable:
    def test_each_endpoint_of_the_description_has_a_row(self, tmp_path: Path) -> None:
        with connect(tmp_path) as ci:
            assert {endpoint.name for endpoint in create(ci).state.endpoints} == set(ROWS)

    @pytest.mark.timeout(180)
    @pytest.mark.parametrize("name", PEOPLE)
    def test_each_endpoint_lets_in_whom_the_table_lets_in(self, name: str, world: tuple[Stage, Api]) -> None:
        """By a query that no endpoint takes: whoever is let in hears of that, and nothing is done."""
        stage, api = world
        who, headers = PEOPLE[name], shown_by(stage, api, name)
        others = []
        with requests.Session() as session:
            for operation, method, path in operations(api):
                where, action = ROWS[operation]
                for visibility in Visibility if where == "job" else ("",):
                    address = f"{api.url}{at(path, visibility)}?nonsense=1"
                    answer = session.request(
                        method, address, headers=headers, timeout=TIME_MAX_S, allow_redirects=False
                    )
                    got = (answer.status_code, answer.json().get("error")) if answer.content else (0, "")
                    wanted = expected(who, operation, where, action, visibility)
                    if wanted is not None and got not in wanted:
                        others.append(f"{operation} {visibility}: {got} instead of {wanted}: {answer.text}")
                    if answer.status_code == 401:
                        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert not others, "\n".join(others)


def expected(who: Who, operation: str, where: str, action: str, visibility: str) -> Any:
    admitted, unknown = [(400, "Invalid")], [(401, "NotAuthenticated")]
    if operation in ("finish_login", "get_description", "get_reference"):
        return None
    if where == FILTERED and WORK in who.in_projects:
        return [(403, "Forbidden")]
    if where in (ALL, FILTERED) or (where == KNOWN and who.is_known):
        return admitted
    if where == WORKERS and who.is_known:
        return admitted if WORK in who.in_system else [(403, "Forbidden")]
    if who.is_known and where != KNOWN and who.may(where, action, visibility):
        return admitted
    if not who.is_known:
        return admitted if where == "job" and who.may(where, action, visibility) else unknown
    if where == "system" or who.sees(visibility):
        return [(403, "Forbidden")]
    return [(404, "NoSuchJob"), (404, "NoSuchBuild")]


class TestHidden:
    def test_what_is_hidden_within_what_is_not_is_answered_as_if_it_were_not_there(self, local: Stage) -> None:
        local.ci.access.set_visibility("team", Visibility.INTERNAL)
        local.ci.access.set_visibility("team/secret", Visibility.PRIVATE)
        local.ci.jobs.put(job("team/secret/hello"))
        local.ci.builds.trigger("team/secret/hello")
        api, _ = local.front_end()
        headers = as_person(local, api, "stranger@example.org")
        asked = 0
        for operation, method, path in operations(api):
            if ROWS[operation][0] != "job":
                continue
            query = "?text=x" if operation == "search_log" else ""
            hidden, none = (
                requests.request(method, api.url + at(path, project) + query, headers=headers, timeout=TIME_MAX_S)
                for project in ("team/secret", "team/nobody")
            )
            assert hidden.status_code == none.status_code in (403, 404), operation
            assert hidden.text.replace("team/secret", "team/nobody") == none.text, operation
            asked += 1
        assert asked > 15

    def test_who_may_neither_see_nor_make_a_job_is_told_so_whether_there_is_one(self, local: Stage) -> None:
        local.ci.jobs.put(job("team/hello"))
        api, _ = local.front_end()
        elsewhere = local.ci.access.create_token("other", [Action.READ, Action.WRITE], project="other").text

        told = [
            requests.put(
                f"{api.url}/api/v1/jobs/{name}",
                json=job(name),
                headers={"Authorization": f"Bearer {elsewhere}"},
                timeout=TIME_MAX_S,
            )
            for name in ("team/hello", "team/none")
        ]

        assert [answer.status_code for answer in told] == [404, 404]
        assert [answer.json()["detail"] for answer in told] == [
            f"there is no job {name!r} that you may see, and you may not make one of that name: it takes a token that may write in team"
            for name in ("team/hello", "team/none")
        ]

    def test_a_workers_token_lists_nothing_and_says_so(self, local: Stage) -> None:
        local.ci.jobs.put(job("team/hello"))
        api, _ = local.front_end()
        of_worker = local.ci.access.create_worker_token("lab", ["shell"]).text

        answer = requests.get(
            f"{api.url}/api/v1/jobs", headers={"Authorization": f"Bearer {of_worker}"}, timeout=TIME_MAX_S
        )

        assert answer.status_code == 403
        assert "this token is a worker's" in answer.json()["detail"]

    def test_lists_hold_what_somebody_may_read(self, world: tuple[Stage, Api]) -> None:
        stage, api = world

        def listed(name: str) -> list[list[str]]:
            headers = shown_by(stage, api, name)
            paths = ("/jobs", "/overview")
            pages = [requests.get(f"{api.url}/api/v1{path}", headers=headers, timeout=TIME_MAX_S) for path in paths]
            return [[item["job"].partition("/")[0] for item in page.json()["items"]] for page in pages]

        assert listed("nobody") == [["public"]] * 2
        assert listed("token-elsewhere") == [["public"]] * 2
        assert listed("stranger") == [["internal", "public"]] * 2
        assert listed("viewer") == [["internal", "private", "public"]] * 2
        assert listed("token-read") == [["internal", "private", "public"]] * 2

    def test_where_nothing_is_public_a_list_is_refused_not_empty(self, local: Stage) -> None:
        api, _ = local.front_end()
        for path in ("/jobs", "/overview"):
            answer = requests.get(f"{api.url}/api/v1{path}", timeout=TIME_MAX_S)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


class TestSecrets:
    ASKED: Sequence[tuple[str, str, Mapping[str, Any] | None, str]] = (
        ("PUT", "/secrets", {"project": "private", "name": "NAME", "value": "long enough"}, WRITE),
        ("DELETE", "/secrets?project=private&name=NONE", None, WRITE),
        ("POST", "/secrets/rotate", {"project": "private"}, ADMIN),
    )

    @pytest.mark.parametrize("name", PEOPLE)
    def test_who_may_change_jobs_of_a_project_sets_its_secrets_and_its_owners_rotate(
        self, name: str, world: tuple[Stage, Api]
    ) -> None:
        stage, api = world
        who, headers = PEOPLE[name], shown_by(stage, api, name)

        for method, path, body, action in self.ASKED:
            answer = requests.request(method, f"{api.url}/api/v1{path}", json=body, headers=headers, timeout=TIME_MAX_S)
            may = who.may("job", action, "private")
            assert answer.status_code == (
                401 if not who.is_known else 403 if not may else 404 if "NONE" in path else 200
            )
            assert "long enough" not in answer.text

    @pytest.mark.parametrize(
        "body",
        [
            {"name": "NAME", "value": 123456789},
            {"name": "NAME", "value": ["123456789"]},
            {"name": "123456789", "value": "long enough"},
            {"name": "NAME", "values": "123456789"},
        ],
    )
    def test_a_refusal_does_not_repeat_what_may_be_a_value(
        self, body: Mapping[str, Any], world: tuple[Stage, Api]
    ) -> None:
        answer = world[1].put("/secrets", json=body)

        assert answer.status_code == 422
        assert "123456789" not in answer.text

    @pytest.mark.parametrize("name", PEOPLE)
    def test_whoever_sets_them_sees_which_there_are_and_nobody_a_value(
        self, name: str, world: tuple[Stage, Api]
    ) -> None:
        stage, api = world
        who, headers = PEOPLE[name], shown_by(stage, api, name)
        for project in ("", "private", "public", "other"):
            stage.ci.secrets.set("SEEN", "hunter2-s3same", project)

        answer = requests.get(f"{api.url}/api/v1/secrets", headers=headers, timeout=TIME_MAX_S)

        assert "hunter2" not in answer.text
        if not who.is_known:
            problem(answer, 401, "NotAuthenticated")
            return
        seen = {item["project"] for item in answer.json()["items"] if item["name"] == "SEEN"}
        everywhere = WRITE in who.in_system
        in_projects = WRITE in who.in_projects
        mine = {"other"} if name == "token-elsewhere" else set()
        assert seen == mine | ({"private", "public"} if in_projects else set()) | (
            {"", "other"} if everywhere else set()
        )


class TestTokens:
    def test_nobody_runs_anything_from_this_machine_without_one(self, local: Stage) -> None:
        api, _ = local.front_end()
        for shown in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer x"}):
            answer = requests.put(f"{api.url}/api/v1/jobs/a", json=job("a"), headers=shown, timeout=TIME_MAX_S)
            problem(answer, 401, "NotAuthenticated")
        assert list(local.ci.jobs.list()) == []

    def test_one_that_is_revoked_is_refused_by_every_front_end(self, local: Stage) -> None:
        fronts = [local.front_end()[0] for _ in range(2)]
        made = local.ci.access.create_token("short", [Action.READ])
        shown = {"Authorization": f"Bearer {made.text}"}
        for api in fronts:
            assert api.get("/jobs", headers=shown).status_code == 200
        local.ci.access.revoke_token(made.record.id)
        for api in fronts:
            wait_until(lambda api=api: api.get("/jobs", headers=shown).status_code == 401, KEPT_S)  # type: ignore[misc]
            assert "revoked" in api.get("/jobs", headers=shown).json()["detail"]

    def test_who_did_what_from_where_is_put_down(self, local: Stage) -> None:
        api, _ = local.front_end()
        api.put("/jobs/team/hello", json=job(), params={"reason": "new"})
        api.post("/jobs/team/hello/-/builds", headers={"X-Forwarded-For": "203.0.113.9"})
        problem(api.put("/jobs/team/hello", json=job(tasks=[])), 422, "InvalidJob")
        local.ci.access.grant("ada@example.org", Role.RUNNER, "team")
        ada = as_person(local, api, "ada@example.org")

        def may() -> Any:
            asked = requests.get(f"{api.url}/api/v1/session?project=team/hello", headers=ada, timeout=TIME_MAX_S)
            return asked.json()["may"]

        # The front end goes by what was so a second ago.
        wait_until(lambda: "trigger" in may())
        session = requests.post(f"{api.url}/api/v1/jobs/team/hello/-/builds/1/cancel", headers=ada, timeout=TIME_MAX_S)
        assert session.status_code == 200
        assert local.ci.jobs.get("team/hello").actor.endswith("(tests)")

        def entries() -> dict[str, Any]:
            return {entry.what: entry for entry in reversed([*local.ci.audit.list()])}

        wait_until(lambda: "build.cancel" in entries())
        found = entries()
        assert found["job.put"].who.endswith("(tests)")
        assert (found["job.put"].origin, found["job.put"].reason) == ("127.0.0.1", "new")
        assert found["build.trigger"].origin == "127.0.0.1 for 203.0.113.9"
        assert (found["build.cancel"].who, found["build.cancel"].target) == ("ada@example.org", "team/hello#1")


@pytest.fixture
def browser() -> Iterator[requests.Session]:
    """Keeps cookies, as browsers do, and goes where it is sent when it is told to."""
    with requests.Session() as session:
        yield session


def go(browser: requests.Session, url: str, method: str = "GET", **headers: str) -> requests.Response:
    return browser.request(method, url, headers=headers, timeout=TIME_MAX_S, allow_redirects=False)


def opened(browser: requests.Session, link: str, **headers: str) -> requests.Response:
    """What the page of a login link asks for, which has what stands behind the #."""
    page, _, code = link.partition("#")
    return browser.post(page, json={"link": code}, headers=headers, timeout=TIME_MAX_S)


class TestLinks:
    @pytest.mark.parametrize("command", ["frontend", "up"])
    def test_the_link_that_is_printed_lets_one_person_in(
        self, command: str, local: Stage, browser: requests.Session
    ) -> None:
        with local.home.running(command, *local.flags, until="Ctrl-C") as process:
            found = re.search(r"(http://127\.0\.0\.1:\d+)/login/link#distcil_\w+", process.stdout)
            assert found, process.stdout
            link, url = found[0], found[1]
            # Who only looks where it leads does not use it up, and is told what to do where no script runs.
            for method in ("HEAD", "GET"):
                page = go(browser, link, method)
                assert (page.status_code, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
                assert "script-src 'self';" in page.headers["Content-Security-Policy"]
                assert not browser.cookies
            assert "Allow scripts of this page and open the link again" in page.text
            entered = opened(browser, link, Origin=url)
            assert (entered.status_code, entered.json()) == (200, {"is_logged_in": True})
            assert entered.headers["Cache-Control"] == "no-store"
            cookie = entered.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert "Secure" not in cookie
            who = go(browser, f"{url}/api/v1/session").json()
            assert who["kind"] == "person"
            assert go(browser, f"{url}/metrics").status_code == 200
            with requests.Session() as other:
                told = problem(opened(other, link), 401, "NotAuthenticated")["detail"]
                assert told == "that login link was used, or is too old; `distci login` prints another"
                assert go(other, f"{url}/api/v1/session").json() == NOBODY

    @pytest.mark.parametrize("origin", ["https://evil.example.org", "null"])
    def test_a_page_of_others_uses_none(self, origin: str, local: Stage, browser: requests.Session) -> None:
        api, _ = local.front_end()
        link = f"{api.url}/login/link#{local.ci.login_links.make('ada')}"
        problem(opened(browser, link, Origin=origin), 403, "Forbidden")
        assert opened(browser, link, Origin=api.url).status_code == 200

    def test_what_is_no_link_or_stands_in_the_path_lets_nobody_in(self, local: Stage) -> None:
        api, _ = local.front_end()
        code = local.ci.login_links.make("ada")
        for body in ({"link": ""}, {"link": code[:-1]}, {"link": code.replace("l_", "_")}):
            problem(api.post("//login/link", json=body), 401, "NotAuthenticated")
        problem(api.post("//login/link", json={}), 422, "Invalid")
        for path in (f"//login/{code}", f"//login/link/{code}"):
            problem(api.get(path), 404, "Missing")

    def test_a_later_one_is_printed_by_a_command(self, local: Stage, browser: requests.Session) -> None:
        api, _ = local.front_end()
        link = local.home.ask("login", *local.flags, "--at", api.url).stdout.strip()
        assert opened(browser, link).status_code == 200
        assert go(browser, f"{api.url}/api/v1/cluster").status_code == 200

    def test_who_logs_out_is_logged_out_everywhere(self, local: Stage, browser: requests.Session) -> None:
        fronts = [local.front_end()[0] for _ in range(2)]
        kept = as_person(local, fronts[1], "ada@example.org")
        session = kept["Cookie"].partition("=")[2]
        browser.cookies.set(f"distci-session-{urlsplit(fronts[0].url).port}", session)
        local.ci.access.grant("ada@example.org", Role.VIEWER)

        def status() -> int:
            return requests.get(f"{fronts[1].url}/api/v1/jobs", headers=kept, timeout=TIME_MAX_S).status_code

        wait_until(lambda: status() == 200, KEPT_S)
        ended = go(browser, f"{fronts[0].url}/logout", "POST", Origin=fronts[0].url)
        assert ended.json() == {"is_logged_out": True}
        wait_until(lambda: status() == 401, KEPT_S)
        wait_until(lambda: [entry for entry in local.ci.audit.list() if entry.what == "session.end"] != [])


class TestPagesOfOthers:
    def test_a_cookie_changes_something_only_for_our_own_pages(self, local: Stage) -> None:
        local.ci.jobs.put(job())
        local.ci.access.grant("ada@example.org", Role.OWNER)
        api, _ = local.front_end()
        ada = as_person(local, api, "ada@example.org")
        start = f"{api.url}/api/v1/jobs/team/hello/-/builds"
        for origin in (None, "null", "https://evil.example.org", "http://127.0.0.1:1", "http://[", ""):
            headers = {**ada, "Origin": origin} if origin is not None else {"Cookie": ada["Cookie"]}
            problem(requests.post(start, headers=headers, timeout=TIME_MAX_S), 403, "Forbidden")
        assert local.ci.builds.last_number("team/hello") == 0
        assert requests.post(start, headers=ada, timeout=TIME_MAX_S).status_code == 201

    def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone(self, local: Stage, browser: requests.Session) -> None:
        local.ci.jobs.put(job())
        api, process = local.front_end(DISTCI_PUBLIC_URL="https://ci.example.org")
        found = re.search(r"https://ci\.example\.org(/login/\S+)", process.stdout)
        assert found, process.stdout
        entered = opened(browser, api.url + found[1], Host="ci.example.org", Origin="https://ci.example.org")
        cookie = entered.headers["Set-Cookie"]
        assert cookie.startswith("__Host-distci-session=")
        assert "Secure" in cookie
        headers = {"Cookie": cookie.partition(";")[0], "Origin": "https://ci.example.org"}
        start = f"{api.url}/api/v1/jobs/team/hello/-/builds"
        assert requests.post(start, headers=headers, timeout=TIME_MAX_S).status_code == 201
        problem(requests.get(start, headers={"Host": "evil.example.org"}, timeout=TIME_MAX_S), 421, "Invalid")


@pytest.fixture
def provider() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


class TestProvider:
    @pytest.fixture
    def settings(self, provider: StandIn) -> dict[str, str]:
        return {
            "DISTCI_OIDC_ISSUER": provider.url,
            "DISTCI_OIDC_CLIENT_ID": CLIENT,
            "DISTCI_OIDC_CLIENT_SECRET": SECRET,
            "DISTCI_OIDC_ROLES": "ada@example.org=runner@team",
        }

    def test_people_log_in_by_it(self, local: Stage, settings: dict[str, str], browser: requests.Session) -> None:
        local.ci.jobs.put(job())
        api, _ = local.front_end(**settings)
        assert go(browser, f"{api.url}/api/v1/session").json()["login"] == "/login"
        begun = go(browser, f"{api.url}/login?then=/jobs/team/hello")
        back = go(browser, begun.headers["Location"]).headers["Location"]
        assert back.startswith(f"{api.url}/login/callback?")
        entered = go(browser, f"{back}&session_state=whatever")
        assert (entered.status_code, entered.headers["Location"]) == (303, "/jobs/team/hello")
        assert go(browser, f"{api.url}/api/v1/session").json()["name"] == "ada@example.org"
        start = f"{api.url}/api/v1/jobs/team/hello/-/builds"
        assert go(browser, start, "POST", Origin=api.url).status_code == 201
        assert go(browser, f"{api.url}/api/v1/jobs/team/hello", "DELETE", Origin=api.url).status_code == 403
        wait_until(lambda: ("session.begin", "ada@example.org") in {(e.what, e.who) for e in local.ci.audit.list()})

    def test_a_login_ends_in_the_browser_that_it_began_in(
        self, local: Stage, settings: dict[str, str], browser: requests.Session
    ) -> None:
        api, _ = local.front_end(**settings)
        begun = go(browser, f"{api.url}/login")
        back = go(browser, begun.headers["Location"]).headers["Location"]
        with requests.Session() as other:
            problem(go(other, back), 401, "NotAuthenticated")
            assert not other.cookies

    def test_nobody_is_sent_elsewhere_after_it(
        self, local: Stage, settings: dict[str, str], browser: requests.Session
    ) -> None:
        api, _ = local.front_end(**settings)
        begun = go(browser, f"{api.url}/login?then=//evil.example.org")
        back = go(browser, begun.headers["Location"]).headers["Location"]
        assert go(browser, back).headers["Location"] == "/"

    def test_a_provider_that_is_away_is_an_outage(
        self, local: Stage, provider: StandIn, settings: dict[str, str], browser: requests.Session
    ) -> None:
        api, _ = local.front_end(**settings)
        provider.answers.is_away = True
        assert go(browser, f"{api.url}/login").status_code == 503

    def test_without_one_the_way_in_is_told(self, local: Stage) -> None:
        api, _ = local.front_end()
        assert "distci login" in problem(api.get("//login"), 404, "Missing")["detail"]

    def test_one_that_others_can_reach_must_say_where_people_find_it(
        self, local: Stage, settings: dict[str, str]
    ) -> None:
        local.home.environment |= settings
        ran = local.home.run("frontend", *local.flags, "--listen", "0.0.0.0:0")
        assert ran.returncode == 2
        assert "public_url" in ran.stderr
