"""The library and its client side by side: whatever the one has, the other has too, with the same arguments, answers and errors."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import deliveries
import pytest
from frontends import Stage, job, shell
from unit.test_receivers import BUILT
from waiting import wait_until

from distci.access import Action, Person, Role, Visibility
from distci.app import DistCI
from distci.client import Client, connect
from distci.errors import DistCIError, Forbidden
from distci.holds import Typed
from distci.hooks import Held
from distci.logs import Place
from distci.model import BuildId
from distci.protocol import Member, Offer, depths
from distci.views import to_json

ON_THE_TREE = "work is claimed on the tree; who posts some of their own has workers there"
FOR_CONTROL = "for who takes builds up and ends them"
OF_A_FRONT_END = "decides whom a front end lets in, on the back ends"
BACK_ENDS = "what a front end stands before"
ABSENT: Mapping[str, str] = {
    "store": BACK_ENDS,
    "coordination": BACK_ENDS,
    "lifecycle": "how builds are kept on the back ends",
    "rebuild": "brings back a lost tree, from beside it",
    "signing": OF_A_FRONT_END,
    "sessions": OF_A_FRONT_END,
    "following": "what a front end tells its streams by",
    "gateway": "what a front end serves workers by",
    "login_links": "whoever may make them may do everything",
    "oidc_login": OF_A_FRONT_END,
    "builds.approvers": "a front end asks that itself",
    "builds.start": "for who has taken in why; over HTTP receivers are told that",
    "builds.rerun": "for who has taken a comment in",
    "builds.noted": "for who has taken a comment in",
    "hooks.carry_out": "for who has taken a comment in",
    "jobs.concerned": "for who has taken a delivery in",
    "jobs.downstream": "for who ends builds",
    "events.append": FOR_CONTROL,
    "events.append_again": FOR_CONTROL,
    "hooks.deliver": "over HTTP a sender proves itself, by its own headers and with no token of ours",
    "hooks.play": "without a proof it is for whoever has the back ends",
    "quarantine.in_force": "what workers decide by; over HTTP each is told whether its time is up",
    "secrets.values": "what workers hand to tasks by; nobody is told one",
    "holds.look": "what a front end looks by while somebody waits there",
    "reproductions.snapshot": "what a front end makes a tar file of",
    "artifacts.find": "what a front end reads by",
    "artifacts.stream": "what a front end reads by",
    "artifacts.taken": "what a front end asks before it reads a body",
    "access.authenticate": OF_A_FRONT_END,
    "access.decide": OF_A_FRONT_END,
    "access.has_token": "what workers decide by whose builds may be used",
    "access.grants": OF_A_FRONT_END,
    "audit.change": "what is done through a front end, that puts down",
    "audit.note": "what is done through a front end, that puts down",
    "audit.close": "there is nothing to be written here",
    **{
        f"tickets.{name}": ON_THE_TREE
        for name in (
            *("abandoned", "audit", "clock", "commit", "control", "new_nonce", "next_attempt", "post", "random"),
            *("running_tokens", "dead_tokens", "set_aside", "stamped", "tree", "unparking", "view_running"),
            *("parked", "due", "waking", "walk", "withdrawal", "withdrawal_by_id", "heartbeats", "queue"),
        )
    },
}
"""What the client is without, and why."""

Row = Callable[[Any, str], object]

BUILD = "team/hello#1"
TOLD = b'<testsuite name="lab"><testcase name="boots" time="3.5"/></testsuite>'
FALLEN = "team/fall#1"
ROWS: Mapping[str, Row] = {
    "jobs.put": lambda ci, own: ci.jobs.put(job(f"{own}/put"), reason="new"),
    "jobs.get": lambda ci, own: (ci.jobs.get("team/hello"), ci.jobs.get("team/hello", 1)),
    "jobs.list": lambda ci, own: (
        [*ci.jobs.list("team/")],
        [*ci.jobs.list("team/", "team/fall", 1)],
        [*ci.jobs.list(tag="x", text="a")],
    ),
    "jobs.history": lambda ci, own: ([*ci.jobs.history("team/hello")], [*ci.jobs.history("team/hello", 2)]),
    "jobs.diff": lambda ci, own: ci.jobs.diff("team/hello", 1, 2),
    "jobs.rollback": lambda ci, own: ci.jobs.rollback(saved(ci, own, "back", 2), 1),
    "jobs.delete": lambda ci, own: ci.jobs.delete(saved(ci, own, "gone"), expected=1, reason="old"),
    "builds.trigger": lambda ci, own: ended(
        ci, ci.builds.trigger(saved(ci, own, "trigger"), {"A": "b"}, cause="delivery")
    ),
    "builds.get": lambda ci, own: ci.builds.get(BUILD),
    "builds.last_number": lambda ci, own: ci.builds.last_number("team/hello"),
    "builds.list": lambda ci, own: ([*ci.builds.list("team/hello")], [*ci.builds.list("team/hello", 1, 2)]),
    "builds.wait": lambda ci, own: (ci.builds.wait(BUILD), ci.builds.wait("team/held#1", 0.1)),
    "builds.cancel": lambda ci, own: cancelled(ci, own),
    "builds.decide": lambda ci, own: decided(ci, own),
    "builds.retry": lambda ci, own: ended(ci, ci.builds.retry(BUILD, cause=own)).job,
    "builds.log": lambda ci, own: [b"".join(ci.builds.log(BUILD, "say", start)) for start in (0, 3, 99)],
    "builds.follow": lambda ci, own: joined(ci.builds.follow(BUILD)),
    "events.after": lambda ci, own: [ci.events.after(*which) for which in ((0, 3), (1, 1), (1, 0), (9999, 5))],
    "events.follow": lambda ci, own: [*islice(ci.events.follow(1), 2)],
    "events.before": lambda ci, own: ([event.number for event in ci.events.before()], [*ci.events.before(3)]),
    "events.last": lambda ci, own: ci.events.last(),
    "events.read": lambda ci, own: [ci.events.read(number) for number in (0, 1, 2, 9999)],
    "hooks.list": lambda ci, own: [*ci.hooks.list()],
    "hooks.held": lambda ci, own: held_back(ci, "stays"),
    "hooks.approve": lambda ci, own: approved(ci, own),
    "hooks.refuse": lambda ci, own: refused(ci, own),
    "artifacts.list": lambda ci, own: ci.artifacts.list(BUILD),
    "artifacts.open": lambda ci, own: [ci.artifacts.open(BUILD, "greeting.txt", start).read() for start in (0, 2, 99)],
    "artifacts.download": lambda ci, own: fetched(ci),
    # A build of its own, so that those of the others stay as they are.
    "artifacts.put": lambda ci, own: [put(ci), put(ci), ci.artifacts.open(FALLEN, "a/b").read()],
    "reports.list": lambda ci, own: ci.reports.list(reporting(ci, own)),
    "reports.cases": lambda ci, own: [
        [*ci.reports.cases(build, **chosen)]
        for build in [reporting(ci, own)]
        for chosen in ({}, {"outcome": "failed"}, {"after": 1}, {"task": "say", "outcome": "passed"})
    ],
    "reports.annotations": lambda ci, own: [*ci.reports.annotations(reporting(ci, own))],
    "reports.put": lambda ci, own: [
        [ci.reports.put(build, "say", "lab", TOLD), ci.reports.put(build, "say", "lab", TOLD), ci.reports.list(build)]
        for build in [reporting(ci, own)]
    ],
    "reports.flaky": lambda ci, own: [ci.reports.flaky(build.job, 2) for build in [reporting(ci, own)]],
    "quarantine.put": lambda ci, own: put_away(ci, own),
    "quarantine.list": lambda ci, own: (put_away(ci, own), [each.test for each in ci.quarantine.list(f"{own}/away")]),
    "quarantine.remove": lambda ci, own: (
        put_away(ci, own),
        ci.quarantine.remove(f"{own}/away", "a::b", reason="mended"),
        ci.quarantine.list(f"{own}/away"),
    ),
    "logs.open": lambda ci, own: log_of(ci),
    "reproductions.get": lambda ci, own: reproduced(ci.reproductions.get(BUILD, "say")),
    "reproductions.workspace": lambda ci, own: ci.reproductions.workspace(BUILD, "keep").read(),
    "holds.open": lambda ci, own: gone_into(ci, own, "open")[0],
    "holds.type": lambda ci, own: gone_into(ci, own, "type")[1],
    "holds.shown": lambda ci, own: gone_into(ci, own, "shown")[2],
    "holds.release": lambda ci, own: gone_into(ci, own, "release")[3],
    "status.cluster": lambda ci, own: ci.status.cluster(),
    "status.workers": lambda ci, own: [worker for worker in ci.status.workers() if worker.name == "worker"],
    "status.kinds": lambda ci, own: ci.status.kinds(),
    "status.has_workers": lambda ci, own: ci.status.has_workers(),
    "status.queue_history": lambda ci, own: [*ci.status.queue_history()][:1],
    "status.queue": lambda ci, own: after_first(ci.status.queue),
    "why.build": lambda ci, own: (ci.why.build(BUILD), ci.why.build("team/held#1")),
    "why.task": lambda ci, own: ci.why.task("team/fall#1", "say"),
    "why.ticket": lambda ci, own: ci.why.ticket(waiting(ci)),
    "tickets.list": lambda ci, own: [*ci.tickets.list()],
    "tickets.show": lambda ci, own: ci.tickets.show(waiting(ci)),
    "tickets.requeue": lambda ci, own: ci.tickets.requeue(waiting(ci)),
    "tickets.pause": lambda ci, own: (ci.tickets.pause("none"), ci.status.cluster().paused, ci.tickets.pause()),
    "tickets.limit": lambda ci, own: (
        ci.tickets.limit(own, 3),
        ci.status.cluster().quotas,
        ci.tickets.limit(own, None),
    ),
    "tickets.weigh": lambda ci, own: (ci.tickets.weigh(own, 3), ci.status.cluster().weights, ci.tickets.weigh(own, 1)),
    "tickets.drain": lambda ci, own: drained(ci, f"{own}-idle"),
    "access.create_token": lambda ci, own: (
        ci.access.create_token(own, [Action.READ], person=Person("ada@example.org"), project=own).record
    ),
    "access.create_worker_token": lambda ci, own: ci.access.create_worker_token(own, ["shell"], ["gpu=*"]).record,
    "access.tokens": lambda ci, own: [record.id for record in ci.access.tokens()],
    "access.last_uses": lambda ci, own: {*ci.access.last_uses()} - {"", own},
    "access.revoke_token": lambda ci, own: revoked(ci, own),
    "access.roles": lambda ci, own: ci.access.roles(),
    "access.visibilities": lambda ci, own: ci.access.visibilities(),
    "access.grant": lambda ci, own: ci.access.grant("bob@example.org", Role.VIEWER, own, reason="new").is_told,
    "access.revoke_role": lambda ci, own: ci.access.revoke_role("bob@example.org", own, reason="old").is_told,
    "access.set_visibility": lambda ci, own: (
        ci.access.set_visibility(own, Visibility.PUBLIC).is_told,
        ci.access.visibilities()[own],
        ci.access.set_visibility(own, None).is_told,
    ),
    "secrets.set": lambda ci, own: (set_secret(ci, own, "TOKEN"), set_secret(ci, own, "TOKEN")),
    "secrets.list": lambda ci, own: (
        set_secret(ci, f"{own}/web", "LIST"),
        [(found.project, found.name, found.set_ms > 0) for found in ci.secrets.list(f"{own}/web")],
    ),
    "secrets.delete": lambda ci, own: (
        set_secret(ci, f"{own}/old", "OLD"),
        ci.secrets.delete("OLD", f"{own}/old", reason="old"),
        [*ci.secrets.list(f"{own}/old")],
    ),
    "secrets.rotate": lambda ci, own: (set_secret(ci, f"{own}/key", "KEY"), ci.secrets.rotate(f"{own}/key")),
    "audit.list": lambda ci, own: [entry.nonce for entry in ci.audit.list(0, 3)],
}
"""A use of each method; what it changes lies within a project of its own."""

REFUSED: Mapping[str, Row] = {
    "a job that is not there": lambda ci, own: ci.jobs.get("team/none"),
    "a version that is not there": lambda ci, own: ci.jobs.get("team/hello", 9),
    "what cannot be a job": lambda ci, own: ci.jobs.get("../etc"),
    "a job with much that is wrong": lambda ci, own: ci.jobs.put({"job": f"{own}/wrong", "tasks": [{"name": 1}]}),
    "a job that is none": lambda ci, own: ci.jobs.put({"tasks": []}),
    "a change of another version": lambda ci, own: ci.jobs.put(job("team/hello"), expected=7),
    "a job that should be new": lambda ci, own: ci.jobs.put(job("team/hello"), expected=0),
    "the deletion of another version": lambda ci, own: ci.jobs.delete("team/hello", expected=7),
    "a build of a job that is not there": lambda ci, own: ci.builds.trigger("team/none"),
    "a parameter that is not declared": lambda ci, own: ci.builds.trigger("team/hello", {"B": "c"}),
    "a build that is not there": lambda ci, own: ci.builds.get("team/hello#99"),
    "what cannot be a build": lambda ci, own: ci.builds.get("team/hello"),
    "waiting for a build that is not there": lambda ci, own: ci.builds.wait("team/hello#99"),
    "the log of a task that is not there": lambda ci, own: ci.builds.log(BUILD, "none"),
    "reproducing a task that is not there": lambda ci, own: ci.reproductions.get(BUILD, "none"),
    "an attempt that is not there": lambda ci, own: ci.logs.open(BUILD, "say", "none.1"),
    "cancelling what is over": lambda ci, own: ci.builds.cancel(BUILD),
    "repeating what did not fail": lambda ci, own: ci.builds.retry(BUILD, only_failed=True),
    "an artifact that is not there": lambda ci, own: ci.artifacts.open(BUILD, "none"),
    "a file under a name that is taken": lambda ci, own: ci.artifacts.put(BUILD, "greeting.txt", io.BytesIO(b"other")),
    "a file under what is no name": lambda ci, own: ci.artifacts.put(BUILD, "../a", io.BytesIO(b"other")),
    "a file with another digest": lambda ci, own: ci.artifacts.put(BUILD, "a", io.BytesIO(b"a"), sha256="0" * 64),
    "a file for a build that is not there": lambda ci, own: ci.artifacts.put("team/hello#99", "a", io.BytesIO(b"a")),
    "a pattern that fits nothing": lambda ci, own: ci.artifacts.download(BUILD, Path("none"), ["none*"]),
    "the tests of a build that is not there": lambda ci, own: ci.reports.list("team/hello#99"),
    "tests that ended as none does": lambda ci, own: [*ci.reports.cases(BUILD, outcome="odd")],
    "tests of a task that is not there": lambda ci, own: [*ci.reports.cases(BUILD, task="none")],
    "a report that is none": lambda ci, own: ci.reports.put(BUILD, "say", "lab", b"<html/>"),
    "a report of a task that is not over": lambda ci, own: ci.reports.put("team/held#1", "say", "lab", TOLD),
    "flaky tests of a job that is not there": lambda ci, own: ci.reports.flaky("team/none"),
    "quarantine in a job that is not there": lambda ci, own: ci.quarantine.put("team/none", "a::b", owner="ada"),
    "quarantine for ever": lambda ci, own: ci.quarantine.put("team/hello", "a::b", owner="ada", days=91),
    "a test that is not in quarantine": lambda ci, own: ci.quarantine.remove("team/hello", "a::b"),
    "a ticket that is not there": lambda ci, own: ci.tickets.show("none"),
    "a ticket that was not set aside": lambda ci, own: ci.tickets.requeue(waiting(ci)),
    "a quota that is none": lambda ci, own: ci.tickets.limit(own, 0),
    "a quota of what is no project": lambda ci, own: ci.tickets.limit("a//b", 3),
    "a weight of what is no project": lambda ci, own: ci.tickets.weigh("a\0b", 3),
    "a weight that is none": lambda ci, own: ci.tickets.weigh(own, 1000),
    "a worker that is not there": lambda ci, own: ci.tickets.drain("none"),
    "the reason of what is not there": lambda ci, own: ci.why.ticket("none"),
    "a change that does not wait": lambda ci, own: ci.hooks.approve("0" * 16),
    "what cannot be a change": lambda ci, own: ci.hooks.refuse("none of these"),
    "a change that somebody does not let pass": lambda ci, own: ci.hooks.refuse(held_back(ci, "stays")[0].id, never),
    "a token that is not there": lambda ci, own: ci.access.revoke_token("0123"),
    "what cannot be a token": lambda ci, own: ci.access.revoke_token("none of these"),
    "a token for nothing": lambda ci, own: ci.access.create_token(own, []),
    "a secret that is not there": lambda ci, own: ci.secrets.delete("NONE", own),
    "a secret that is too short": lambda ci, own: ci.secrets.set("TOKEN", "abc", own),
    "a secret under what is no name": lambda ci, own: ci.secrets.set("a-b", "long enough", own),
    "a secret of what is no project": lambda ci, own: ci.secrets.set("TOKEN", "long enough", "../etc"),
    "a role of nobody": lambda ci, own: ci.access.grant("bob bob", Role.VIEWER),
}

FORK = "gitea/pull-request-event"
FORKED_TRIGGER = {"type": "gitea", "repository": BUILT[FORK][1], "events": ["pull_request"]}
SIDES = ("left", "right")
VOLATILE = re.compile(r'"(\w+_ms|\w+_s|digest|id|actor|created_by|text)": ("[^"]*"|[0-9.]+|null)')


def saved(ci: Any, own: str, name: str, versions: int = 1) -> str:
    """A job within a project, of so many versions."""
    for version in range(versions):
        ci.jobs.put(job(f"{own}/{name}", description=str(version), parameters={"A": {"default": "a"}}))
    return f"{own}/{name}"


def ended(ci: Any, build: BuildId) -> BuildId:
    """A build that changes nothing any more in what others look at."""
    assert ci.builds.wait(build, 60).state == "passed"
    return build


def decided(ci: Any, own: str) -> list[object]:
    ci.jobs.put({"job": f"{own}/ask", "tasks": [{"name": "ask", "type": "approval"}]})
    build = ci.builds.trigger(f"{own}/ask", cause=own)
    wait_until(lambda: [task.state for task in ci.builds.get(build).tasks] == ["blocked"])
    task = ci.builds.decide(build, "ask", False, "not today", actor="ada")
    return [task.state, task.reason.partition(" by ")[0], ci.builds.wait(build, 30).result]


def cancelled(ci: Any, own: str) -> list[object]:
    build = ci.builds.trigger(held(ci, own), cause=own)
    ci.builds.cancel(build, "wrong branch")
    view = ci.builds.wait(build, 60)
    return [view.state, view.reason]


def reproduced(told: Any) -> list[object]:
    return [told.build, told.task, told.token, told.variables, told.pins, told.source, told.plan.task("say").arguments]


def held(ci: Any, project: str) -> str:
    """A job that nobody here can run."""
    ci.jobs.put(job(f"{project}/held", shell("true", labels=["gpu=*"])))
    return f"{project}/held"


def waiting(ci: Any) -> str:
    """The ticket of the task that nobody here can run."""
    tokens: list[str] = [view.token for view in ci.tickets.list() if view.place == "waiting"]
    return tokens[0]


def drained(ci: Any, name: str) -> list[bool]:
    ci.tickets.drain(name)
    return [worker.is_draining for worker in ci.status.workers() if worker.name == name]


def joined(pieces: Any) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for piece in pieces:
        found[piece.task] = found.get(piece.task, b"") + piece.data
    return found


def after_first(queue: Any) -> list[Any]:
    everything = [*queue()]
    assert len(everything) > 1
    return [everything, [*queue(everything[0][0])]]


def fetched(ci: Any) -> list[tuple[str, bytes]]:
    with TemporaryDirectory() as folder:
        paths = [path for names in ((), ["gr*.txt"]) for path in ci.artifacts.download(BUILD, folder, names)]
        return [(path.name, path.read_bytes()) for path in paths]


def put(ci: Any) -> object:
    return ci.artifacts.put(FALLEN, "a/b", io.BytesIO(b"late"))


def reporting(ci: Any, own: str) -> BuildId:
    script = "printf '%s' '<testsuite><testcase name=\"a\"/><testcase name=\"b\"><failure/></testcase></testsuite>' > r.xml; echo a.c:1: odd"
    reports = {"junit": ["r.xml"], "annotations": r"^(?P<file>\S+?):(?P<line>\d+): (?P<text>.*)"}
    ci.jobs.put(job(f"{own}/tested", shell(script, reports=reports)))
    return ended(ci, ci.builds.trigger(f"{own}/tested", cause=own))


def gone_into(ci: Any, own: str, what: str) -> list[object]:
    """A task that is held, with somebody in it for a moment."""
    ci.jobs.put(job(f"{own}/kept", shell("exit 7", hold="30m")))
    build = ci.builds.trigger(f"{own}/kept", cause=f"{own}-{what}")
    wait_until(lambda: any(task.hold for task in ci.builds.get(build).tasks))
    visit = ci.holds.open(build, "say", lines=30, columns=90, kind="xterm", terminal="0" * 32)
    typed = ci.holds.type(visit, 0, Typed(b"exit 3\r"))
    shown = [ci.holds.shown(visit, 0, 20)]
    while shown[-1] is None or shown[-1].over is None:
        shown.append(ci.holds.shown(visit, sum(len(each.bytes) for each in shown if each), 1))
    released = ci.holds.release(build, "say", "seen")
    found = [visit.task, typed, shown[-1].over.exit_status, (released.name, released.hold.reason)]
    return [*found, ci.builds.wait(build, 60).state]


def put_away(ci: Any, own: str) -> object:
    put = ci.quarantine.put(saved(ci, own, "away"), "a::b", owner="ada@example.org", days=3, reason="slow")
    return put.test, put.owner, put.until_ms - put.set_ms, put.is_over


def log_of(ci: Any) -> list[object]:
    log = ci.logs.open("team/long#1", "say")
    pages = [[line.line for line in log.lines(first)] for first in (1, 2990, 3001)]
    searched = [*log.search("7", bytes_max=5000)]
    return [
        (log.token, log.is_complete, log.size_bytes, log.count_lines(), log.tail(2)),
        (b"".join(log.read(13_000)), log.stream(13_000).read(5), log.stream(99_999).read()),
        (pages, [line.line for line in log.search("line 29")], searched[:3]),
        # A front end may have looked further, and found the next one.
        isinstance(searched[-1], Place),
        [[line.line for line in log.search(text, at_start=True)] for text in ("line 29", "ine 29")],
        [line.line for line in islice(log.search("LINE 2999", ignore_case=True, start=Place(11, 79)), 2)],
    ]


def set_secret(ci: Any, project: str, name: str) -> tuple[str, str]:
    done = ci.secrets.set(name, "long enough", project, reason="new")
    return done.project, done.name


def revoked(ci: Any, own: str) -> list[object]:
    made = [ci.access.create_token(own, [Action.READ]) for _ in range(2)]
    told = [ci.access.revoke_token(made[0].text).is_told, ci.access.revoke_token(made[1].record.id[:10]).is_told]
    ended = {record.id for record in ci.access.tokens() if record.revoked_s}
    return [told, {each.record.id for each in made} <= ended]


def held_back(ci: Any, delivery: str) -> list[Held]:
    """The changes of that delivery; those behind the first of all are asked for, too."""
    everything = [*ci.hooks.held()]
    assert [*ci.hooks.held(everything[0].id)] == everything[1:]
    return [held for held in everything if held.change.delivery == delivery]


def approved(ci: Any, own: str) -> list[object]:
    seen: list[Held] = []
    [held] = held_back(ci, f"{own}-approve")
    answer = ci.hooks.approve(held.id, check=seen.append)
    [started] = answer.jobs
    trigger = ci.builds.get(ended(ci, started.build)).trigger
    return [
        *(answer.delivery, answer.reason, answer.held, started.job, started.reason, trigger.is_untrusted),
        *(seen == [held], held_back(ci, held.change.delivery)),
    ]


def refused(ci: Any, own: str) -> list[object]:
    [held] = held_back(ci, f"{own}-refuse")
    return [ci.hooks.refuse(held.id), held_back(ci, held.change.delivery)]


def never(held: Held) -> None:
    raise Forbidden(f"{held.change.delivery} is not for you")


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def parts(ci: DistCI) -> Iterator[tuple[str, object]]:
    """What a system has, its parts' own included."""
    for name in sorted(public(ci)):
        value = getattr(ci, name)
        yield name, value
        if name not in ABSENT and not callable(value) and name != "settings":
            yield from ((f"{name}.{inner}", getattr(value, inner)) for inner in sorted(public(value)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Client]]:
    """A system where much has been done, by the library and through a front end."""
    with ExitStack() as stack:
        stage = Stage(stack, tmp_path_factory.mktemp("both"), None, None)
        ci = stage.ci
        keep = {"name": "keep", "type": "publish-artifacts", "paths": ["*.txt"]}
        ci.jobs.put(job(description="first"), reason="first")
        ci.jobs.put(job("team/hello", shell("echo hello | tee greeting.txt"), keep), reason="second")
        ci.jobs.put(job("team/fall", shell("exit 7")))
        ci.jobs.put(job("team/long", shell("for n in $(seq 3000); do echo line $n; done")))
        stack.enter_context(stage.workers(hold_max_s=60))
        ci.jobs.put(job("forked/hello", triggers=[FORKED_TRIGGER]))
        for delivery in ("stays", *(f"{side}-{what}" for side in SIDES for what in ("approve", "refuse"))):
            body = deliveries.recorded(FORK)
            assert ci.hooks.play("gitea", deliveries.headers(FORK, body, delivery), body).held
        half_a_day_ago_ms = int(ci.tickets.clock() * 1000) - 11 * depths.HOUR_MS
        depths.record(ci.tickets.tree, depths.Sample(half_a_day_ago_ms, {"shell": depths.Depth(2, 5)}))
        for name in ("team/hello", "team/fall", "team/long"):
            stage.end(ci.builds.trigger(name))
        for name in ("team", "other"):
            build = ci.builds.trigger(held(ci, name))
            wait_until_ready(ci, str(build))
        for side in SIDES:
            stack.enter_context(Member(ci.tickets, Offer(["none"]), name=f"{side}-idle"))
        ci.access.set_visibility("team", Visibility.INTERNAL)
        ci.access.grant("ada@example.org", Role.OWNER)
        api, _ = stage.front_end()
        client = stack.enter_context(connect(api.url, token=stage.token))
        stack.callback(stage._call_off)
        yield stage, client


def wait_until_ready(ci: DistCI, build: str) -> None:
    wait_until(lambda: [task.state for task in ci.builds.get(build).tasks] == ["ready"])


def of_each(both: tuple[Stage, Client], row: Row) -> list[str]:
    """What each side answers with, but for what differs each time."""
    answers = []
    wait_until(lambda: both[0].ci.status.cluster().running == 0)
    for side, system in zip(SIDES, (both[0].ci, both[1]), strict=True):
        try:
            answer = repr(to_json(row(system, side)))
        except DistCIError as error:
            answer = f"{type(error).__name__} {error}"
        text = answer.replace("'", '"').replace(side, "side")
        answers.append(VOLATILE.sub(r'"\1": _', text))
    return answers


class TestSurface:
    def test_whatever_the_library_has_the_client_has(self, both: tuple[Stage, Client]) -> None:
        stage, client = both
        others = []
        for name, value in parts(stage.ci):
            if name in ABSENT:
                continue
            try:
                ours: Any = client
                for part in name.split("."):
                    ours = getattr(ours, part)
            except AttributeError:
                others.append(f"{name} is missing")
                continue
            if callable(value) and inspect.signature(value).parameters != inspect.signature(ours).parameters:
                others.append(f"{name}{inspect.signature(value)} is {inspect.signature(ours)}")
        assert not others, "\n".join(others)

    def test_what_it_is_without_is_there_in_the_library(self, both: tuple[Stage, Client]) -> None:
        assert {*ABSENT} <= {name for name, _ in parts(both[0].ci)}

    def test_so_has_a_log(self, both: tuple[Stage, Client]) -> None:
        one, other = (system.logs.open(BUILD, "say") for system in (both[0].ci, both[1]))

        assert public(one) == public(other)
        for name in public(one):
            value = getattr(one, name)
            if callable(value):
                assert inspect.signature(value).parameters == inspect.signature(getattr(other, name)).parameters, name

    def test_each_method_has_a_row(self, both: tuple[Stage, Client]) -> None:
        methods = {name for name, value in parts(both[0].ci) if callable(value) and "." in name}

        assert methods - {*ABSENT} == {*ROWS}

    @pytest.mark.parametrize("name", ROWS)
    def test_both_answer_the_same(self, name: str, both: tuple[Stage, Client]) -> None:
        one, other = of_each(both, ROWS[name])

        assert one == other

    @pytest.mark.parametrize("name", REFUSED)
    def test_both_refuse_in_the_same_words(self, name: str, both: tuple[Stage, Client]) -> None:
        one, other = of_each(both, REFUSED[name])

        assert re.match(r"[A-Z]\w+ ", one)
        assert one == other
