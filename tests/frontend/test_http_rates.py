"""Who asks too often waits, and nobody else does."""

from __future__ import annotations

from itertools import count

import deliveries
import pytest
import requests
from frontends import Api, Stage, problem
from starlette.requests import HTTPConnection
from waiting import wait_until

from distci.access import Action
from distci.frontend.rates import Rates
from distci.settings import Settings

PUSH = "github/push-new-branch"
SECRET = {"DISTCI_RECEIVERS_GITHUB_SECRETS": deliveries.SECRET}
TIME_MAX_S = 30


def deliver(api: Api, secret: str = deliveries.SECRET) -> requests.Response:
    body = deliveries.recorded(PUSH)
    return api.post("/hooks/github", data=body, headers=deliveries.headers(PUSH, body, secret=secret))


def refused(answer: requests.Response) -> int:
    """In how many seconds somebody who has asked too often may ask again, as the answer says."""
    problem(answer, 429, "TooOften")
    return int(answer.headers["Retry-After"])


def test_a6_deliveries_are_held_to_their_rate_and_those_without_a_proof_use_up_nothing_of_the_others(
    local: Stage,
) -> None:
    # Given a stranger and a forge behind one address
    api, _ = local.front_end(DISTCI_DELIVERY_RATE="3/h", **SECRET)
    # When the stranger has used up what strangers have
    assert [deliver(api, "another").status_code for _ in range(3)] == [401] * 3
    refused(deliver(api, "another"))
    refused(api.post("/hooks/nobody", data=b"{}"))
    # Then the forge has all of its own
    assert [deliver(api).status_code for _ in range(3)] == [200] * 3
    answer = deliver(api)
    assert 1000 < refused(answer) <= 1200
    assert "delivery_rate" in answer.json()["detail"]
    assert api.get("/jobs").status_code == 200


def asked_by(peer: str, forwarded: str) -> HTTPConnection:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return HTTPConnection({"type": "http", "client": (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.2", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.2", "1.2.3.4, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        ("10.0.0.2", "", "10.0.0.2"),
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.2", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_a_proxy_is_believed_where_the_settings_trust_it(peer: str, forwarded: str, address: str) -> None:
    assert Rates(Settings(trusted_proxies="10.0.0.0/8 ::1")).address(asked_by(peer, forwarded)) == address
    assert Rates(Settings()).address(asked_by(peer, forwarded)) == peer


def test_who_waits_as_told_is_let_through(local: Stage) -> None:
    api, _ = local.front_end(DISTCI_DELIVERY_RATE="20/m", **SECRET)
    first = next(answer for answer in (deliver(api) for _ in count()) if answer.status_code != 200)
    assert 1 <= refused(first) <= 3
    wait_until(lambda: deliver(api).status_code == 200)


def test_somebody_who_is_known_is_held_to_a_rate_of_their_own(local: Stage) -> None:
    api, _ = local.front_end(DISTCI_REQUEST_RATE="20/h")
    other = {"Authorization": f"Bearer {local.ci.access.create_token('other', [Action.READ]).text}"}

    answers = [api.get("/jobs") for _ in range(21)]

    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert 0 < refused(answers[-1]) <= 180
    assert api.get("/jobs", headers=other).status_code == 200
    # Whoever watches over a front end is not to think that it is gone.
    assert [api.get(path).status_code for path in ("//livez", "//readyz")] == [200, 200]


def test_who_tries_out_tokens_is_held_to_the_rate_of_their_address(local: Stage) -> None:
    api, _ = local.front_end(DISTCI_REQUEST_RATE="20/h")
    codes = [
        requests.get(
            f"{api.url}/api/v1/jobs", headers={"Authorization": f"Bearer {number}"}, timeout=TIME_MAX_S
        ).status_code
        for number in range(21)
    ]
    assert codes[0] == 401
    assert codes[-1] == 429
    assert api.get("/jobs").status_code == 200


def test_what_is_no_rate_is_told_before_anything_is_served(local: Stage) -> None:
    local.home.environment["DISTCI_DELIVERY_RATE"] = "often"
    answer = local.home.ask("frontend", *local.flags)
    assert answer.exit_code == 2
    assert "the setting delivery_rate: 'often' is no rate; write for example 20/s" in answer.stderr
