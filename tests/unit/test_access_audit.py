"""Who did what: nothing happens without a trace, and nothing secret is in one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import deliveries
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.test_receivers import BUILT
from waiting import wait_until

from distci.access import Acting, Action, Audit, Role, acting
from distci.access.texts import Sort, new_text
from distci.app import DistCI, connect
from distci.errors import InvalidJob, NoSuchBuild, NoSuchChange, NoSuchJob, StoreUnavailable
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.testing import LossyStore

JOB = {
    "job": "team/a",
    "tasks": [{"name": "t", "type": "shell", "script": "true"}],
    "parameters": {"KEY": {"default": ""}},
}


FORK = "gitea/pull-request-event"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[DistCI]:
    with connect(tmp_path / "data", actor="ada") as system:
        yield system


def told(ci: DistCI) -> list[tuple[str, str, str, str, str]]:
    ci.audit.close()
    return [(entry.who, entry.what, entry.target, entry.outcome, entry.reason) for entry in ci.audit.list()]


def test_a7_every_change_says_who_what_from_where_and_why(ci: DistCI) -> None:
    with acting("bob@example.org", "10.0.0.7"):
        ci.jobs.put(JOB, reason="first")
        build = ci.builds.trigger("team/a", cause="delivery 1")
        ci.builds.cancel(build, "wrong one")
        ci.access.grant("ada@example.org", Role.OWNER, "team", reason="hers")
        made = ci.access.create_token("nightly", [Action.READ])
        ci.access.revoke_token(made.record.id, reason="leaked")
        ci.tickets.pause("shell")
        ci.tickets.weigh("team", 2)
        ci.tickets.limit("team", 2)
    ci.jobs.delete("team/a", reason="gone")
    entries = told(ci)
    assert entries == [
        ("bob@example.org", "job.put", "team/a", "done", "first"),
        ("bob@example.org", "build.trigger", "team/a#1", "done", "delivery 1"),
        ("bob@example.org", "build.cancel", "team/a#1", "done", "wrong one"),
        ("bob@example.org", "access.grant", "team", "done", "hers"),
        ("bob@example.org", "token.create", made.record.id, "done", ""),
        ("bob@example.org", "token.revoke", made.record.id, "done", "leaked"),
        ("bob@example.org", "cluster.pause", "shell", "done", ""),
        ("bob@example.org", "cluster.weigh", "team", "done", ""),
        ("bob@example.org", "cluster.limit", "team", "done", ""),
        ("ada", "job.delete", "team/a", "done", "gone"),
    ]
    assert {entry.origin for entry in ci.audit.list() if entry.who != "ada"} == {"10.0.0.7"}


def test_what_was_refused_is_told_too(ci: DistCI) -> None:
    with pytest.raises(InvalidJob):
        ci.jobs.put({"job": "team/b", "tasks": []})
    with pytest.raises(NoSuchJob):
        ci.builds.trigger("team/none")
    with pytest.raises(NoSuchBuild):
        ci.builds.cancel("team/none#1")
    assert [(what, outcome.partition(":")[0]) for _, what, _, outcome, _ in told(ci)] == [
        ("job.put", "refused"),
        ("build.trigger", "refused"),
        ("build.cancel", "refused"),
    ]


def test_what_people_decide_of_a_held_change_is_told_and_what_senders_tell_is_not(ci: DistCI) -> None:
    job = {**JOB, "triggers": [{"type": "gitea", "repository": BUILT[FORK][1], "events": ["pull_request"]}]}
    ci.jobs.put(job)
    for delivery in ("1", "2"):
        body = deliveries.recorded(FORK)
        held = ci.hooks.play("gitea", deliveries.headers(FORK, body, delivery), body).held
        with acting("bob@example.org"):
            ci.hooks.approve(held) if delivery == "1" else ci.hooks.refuse(held)
    with pytest.raises(NoSuchChange):
        ci.hooks.approve("none")
    assert [(who, what, outcome.partition(":")[0]) for who, what, _, outcome, _ in told(ci)] == [
        ("ada", "job.put", "done"),
        ("bob@example.org", "hook.approve", "done"),
        ("bob@example.org", "hook.refuse", "done"),
        ("ada", "hook.approve", "refused"),
    ]


def test_a_rollback_is_one_change(ci: DistCI) -> None:
    ci.jobs.put(JOB)
    ci.jobs.put({**JOB, "description": "x"})
    ci.jobs.rollback("team/a", 1)
    assert [what for _, what, *_ in told(ci)] == ["job.put", "job.put", "job.rollback"]


def test_no_secret_is_in_it(ci: DistCI) -> None:
    ci.jobs.put({**JOB, "description": "s3cret-word"}, reason="because")
    ci.builds.trigger("team/a", {"KEY": "s3cret-word"})
    made = ci.access.create_token("a", [Action.READ])
    ci.access.revoke_token(made.text, reason=f"{made.text} was in a log")
    ci.jobs.delete("team/a", reason=f"Bearer {new_text(Sort.WORKER)}")
    ci.audit.close()
    stored = b"".join(ci.store.get(info.key) for info in ci.store.list(keys.AUDIT))
    assert b"KEY" in stored
    for secret in (b"s3cret-word", made.text.encode(), b"distci_", b"distciw_", made.record.digest.encode()):
        assert secret not in stored


def test_a_change_that_cannot_be_put_down_is_not_made(tmp_path: Path) -> None:
    store = LossyStore(DirectoryStore(tmp_path))
    audit = Audit(store, Acting("ada"))
    done = []
    store.is_up.clear()
    with pytest.raises(StoreUnavailable), audit.change("job.put", "team/a"):
        done.append(1)
    assert not done


def test_who_dies_in_the_middle_leaves_an_entry_that_says_so(tmp_path: Path) -> None:
    audit = Audit(DirectoryStore(tmp_path), Acting("ada"))
    with pytest.raises(SystemExit), audit.change("job.put", "team/a"):
        raise SystemExit
    audit.close()
    assert [(entry.what, entry.outcome) for entry in Audit(DirectoryStore(tmp_path), Acting("x")).list()] == [
        ("job.put", "unknown")
    ]


def test_what_must_not_wait_for_the_store_does_not_and_is_put_down_when_it_is_back(tmp_path: Path) -> None:
    store = LossyStore(DirectoryStore(tmp_path))
    audit = Audit(store, Acting("ada"))
    store.is_up.clear()
    with audit.note("cluster.pause", "shell"):
        pass
    assert [*audit.list()] == []
    store.is_up.set()
    wait_until(lambda: [entry.outcome for entry in audit.list()] == ["done"])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 36), st.none() | st.integers(1, 5))
def test_a_list_since_a_time_is_the_end_of_the_whole_in_order(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[int], since: int, limit: int | None
) -> None:
    clock = Clock()
    audit = Audit(DirectoryStore(tmp_path_factory.mktemp("audit")), Acting("ada"), clock)
    for number, pause_s in enumerate(pauses):
        clock.now += pause_s
        with audit.change("x", str(number)):
            pass
    audit.close()
    since_ms = int((Clock.now + since) * 1000)
    everything = [*audit.list()]
    assert [entry.target for entry in everything] == list(map(str, range(len(pauses))))
    assert [*audit.list(since_ms, limit)] == [entry for entry in everything if entry.time_ms >= since_ms][:limit]


def test_who_acts_goes_with_the_context_and_not_with_the_thread(tmp_path: Path) -> None:
    audit = Audit(DirectoryStore(tmp_path), Acting("nobody"))

    def change() -> None:
        with audit.change("x"):
            pass

    with acting("ada"):
        context = copy_context()
    threads = [threading.Thread(target=context.run, args=(change,)), threading.Thread(target=change)]
    for thread in threads:
        thread.start()
        thread.join()
    audit.close()
    assert sorted(entry.who for entry in audit.list()) == ["ada", "nobody"]
