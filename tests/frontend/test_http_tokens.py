"""Access tokens over HTTP: who may make which, who sees and revokes them, and what is never told twice."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from frontends import Api, Stage, job, problem
from waiting import wait_until

from distci.access import Action, Person, Role, Visibility

DAY_S = 86400
KEPT_S = 5.0
"""What is revoked must be refused everywhere within a second; a busy machine is slower."""
TIME_MAX_S = 30


def asks(api: Api, token: str, method: str = "GET", path: str = "/tokens", **options: Any) -> requests.Response:
    """An answer to somebody with another token, held to the description as well."""
    return api.call(method, path, headers={"Authorization": f"Bearer {token}"}, **options)


def make(api: Api, token: str, **wanted: Any) -> requests.Response:
    return asks(api, token, "POST", json={"label": "made", **wanted})


@pytest.fixture(scope="module")
def api(common: Stage) -> Api:
    """A front end where nobody minds one more token."""
    common.ci.jobs.put(job("team/web"))
    front_end, _ = common.front_end()
    return front_end


def test_one_is_made_shown_once_used_listed_and_revoked_on_every_front_end(stage: Stage) -> None:
    fronts = [stage.front_end()[0] for _ in range(2)]
    stage.ci.jobs.put(job())
    made = fronts[0].post(
        "/tokens", json={"label": "nightly", "scopes": ["read"], "project": "team", "expires_s": 3600}
    )
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    token = made.json()
    assert asks(fronts[1], token["token"], path="/jobs/team/hello").status_code == 200
    problem(asks(fronts[1], token["token"], "DELETE", "/jobs/team/hello"), 403, "Forbidden")

    def listed() -> Any:
        return {item["id"]: item for item in fronts[1].all("/tokens")}[token["id"]]

    wait_until(lambda: listed()["used_s"] > 0)
    assert listed() == {**{name: token[name] for name in token if name != "token"}, "used_s": listed()["used_s"]}
    assert (token["label"], token["scopes"], token["project"], token["state"]) == ("nightly", ["read"], "team", "valid")
    assert token["expires_s"] - token["created_s"] == 3600
    assert token["token"] not in fronts[1].get("/tokens").text

    for _ in range(2):
        revoked = fronts[1].post(f"/tokens/{token['id']}/revoke", json={"reason": "was in a log"})
        assert revoked.json() == {"token": token["id"], "is_revoked": True, "is_told": True}
    for api in fronts:
        wait_until(lambda api=api: asks(api, token["token"], path="/jobs").status_code == 401, KEPT_S)  # type: ignore[misc]
    assert (listed()["state"], listed()["reason"]) == ("revoked", "was in a log")


def test_one_lasts_90_days_unless_said_otherwise(local: Stage) -> None:
    api, _ = local.front_end()
    token = api.post("/tokens", json={"label": "x", "scopes": ["read"]}).json()
    assert token["expires_s"] - token["created_s"] == 90 * DAY_S


@pytest.mark.parametrize(
    ("giver", "wanted", "status"),
    [
        ({"scopes": ["admin", "read"], "project": "team"}, {"scopes": ["read"], "project": "team"}, 201),
        ({"scopes": ["admin", "read"], "project": "team"}, {"scopes": ["read"], "project": "team/web"}, 201),
        ({"scopes": ["admin", "read"], "project": "team"}, {"scopes": ["trigger"], "project": "team"}, 403),
        ({"scopes": ["admin", "read"], "project": "team"}, {"scopes": ["read"], "project": "other"}, 403),
        ({"scopes": ["admin", "read"], "project": "team"}, {"scopes": ["read"]}, 403),
        ({"scopes": ["admin", "read"], "project": "team"}, {"kinds": ["shell"], "project": "team"}, 201),
        ({"scopes": ["admin", "read"], "project": "team"}, {"kinds": ["shell"]}, 403),
        ({"scopes": ["read", "trigger", "write"]}, {"scopes": ["read"], "project": "team"}, 403),
        ({"scopes": ["read", "trigger", "write"]}, {"kinds": ["shell"], "project": "team"}, 403),
    ],
)
def test_nobody_gives_what_they_may_not_do_themselves(
    common: Stage, api: Api, giver: dict[str, Any], wanted: dict[str, Any], status: int
) -> None:
    token = common.ci.access.create_token("giver", **giver).text
    before = len(common.ci.access.tokens())
    assert make(api, token, **wanted).status_code == status
    assert len(common.ci.access.tokens()) == before + (status == 201)


def test_workers_and_strangers_give_nothing_and_see_none(local: Stage) -> None:
    api, _ = local.front_end()
    worker = local.ci.access.create_worker_token("lab", ["shell"]).text
    assert asks(api, worker).json()["items"] == []
    problem(make(api, worker, scopes=["read"]), 403, "Forbidden")
    problem(requests.get(f"{api.url}/api/v1/tokens", timeout=TIME_MAX_S), 401, "NotAuthenticated")


def test_an_owner_of_a_project_sees_and_revokes_those_of_that_alone(local: Stage) -> None:
    api, _ = local.front_end()
    access = local.ci.access
    owner = access.create_token("owner", [Action.ADMIN], project="team")
    within = access.create_token("within", [Action.READ], project="team/web").record.id
    beside = access.create_token("beside", [Action.READ], project="other").record.id

    assert {item["id"] for item in asks(api, owner.text).json()["items"]} == {owner.record.id, within}
    assert asks(api, owner.text, "POST", f"/tokens/{within}/revoke").status_code == 200
    hidden = problem(asks(api, owner.text, "POST", f"/tokens/{beside}/revoke"), 404, "NoSuchToken")
    none = problem(asks(api, owner.text, "POST", "/tokens/000000000000/revoke"), 404, "NoSuchToken")
    assert hidden == none
    assert "that you may revoke" in none["detail"]
    everybody = access.create_token("all", [Action.ADMIN]).text
    told = problem(asks(api, everybody, "POST", "/tokens/000000000000/revoke"), 404, "NoSuchToken")
    assert told["detail"] == "there is no token of that id; `distci token list` shows all there are"
    assert {record.id: record.state(0) for record in access.tokens()}[beside] == "valid"


def test_whether_there_is_a_hidden_project_is_not_told(local: Stage) -> None:
    api, _ = local.front_end()
    local.ci.access.set_visibility("team", Visibility.INTERNAL)
    local.ci.access.set_visibility("team/secret", Visibility.PRIVATE)
    session = local.ci.sessions.begin(Person("ada@example.org"))
    port = api.url.rpartition(":")[2]
    ada = {"Cookie": f"distci-session-{port}={session}", "Origin": api.url}

    def told(project: str) -> list[str]:
        may = requests.get(f"{api.url}/api/v1/session?project={project}", headers=ada, timeout=TIME_MAX_S)
        wanted = {"label": "x", "scopes": ["read"], "project": project}
        give = requests.post(f"{api.url}/api/v1/tokens", json=wanted, headers=ada, timeout=TIME_MAX_S)
        assert give.status_code == 403
        return [answer.text.replace(project, "PROJECT") for answer in (may, give)]

    assert told("team/secret") == told("team/nobody")


def test_what_somebody_may_do_is_told(local: Stage) -> None:
    api, _ = local.front_end()
    local.ci.access.grant("ada@example.org", Role.RUNNER, "team")
    ada = local.ci.sessions.begin(Person("ada@example.org"))
    cookie = {"Cookie": f"distci-session-{api.url.rpartition(':')[2]}={ada}"}

    def may(project: str) -> Any:
        asked = requests.get(f"{api.url}/api/v1/session?project={project}", headers=cookie, timeout=TIME_MAX_S)
        return asked.json()["may"]

    assert may("team/hello") == ["read", "trigger"]
    assert may("") == may("other") == []
    assert api.get("/session").json()["may"] == ["read", "trigger", "report", "quarantine", "shell", "write", "admin"]
    problem(api.get("/session?project=a%20b"), 422, "Invalid")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({}, "scope"),
        ({"scopes": ["work"]}, "scopes"),
        ({"scopes": ["read"], "kinds": ["shell"]}, "kinds"),
        ({"scopes": ["read"], "labels": ["gpu"]}, "labels"),
        ({"scopes": ["read"], "expires_s": 10**9}, "five years"),
        ({"scopes": ["read"], "expires_s": 0}, "expires_s"),
        ({"scopes": ["read"], "person": "no body"}, "person"),
        ({"kinds": ["No Kind"]}, "kind"),
        ({"scopes": ["read"], "label": " "}, "label"),
    ],
)
def test_what_is_wrong_with_one_that_is_wanted_is_said(
    common: Stage, api: Api, wanted: dict[str, Any], says: str
) -> None:
    token = common.token
    before = len(common.ci.access.tokens())
    answer = make(api, token, **wanted)
    assert answer.status_code == 422
    assert says in answer.text
    assert len(common.ci.access.tokens()) == before


def test_they_are_listed_page_by_page(local: Stage) -> None:
    api, _ = local.front_end()
    made = [local.ci.access.create_token(f"t{number}", [Action.READ]).record.id for number in range(5)]
    listed = [item["id"] for item in api.all("/tokens", limit=2)]
    assert sorted(listed) == sorted([*made, local.ci.access.authenticate(local.token).id])  # type: ignore[union-attr]
    problem(api.get("/tokens?cursor=000000000000"), 400, "Invalid")
