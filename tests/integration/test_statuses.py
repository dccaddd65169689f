"""What forges hear of the builds of their commits: begun, then how it ended, whatever fails in between, and never what is out of date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deliveries
import pytest
from integration.conftest import System
from integration.forges import TOKEN, Forge, forge
from waiting import wait_until

from distci.app import connect
from distci.brokers.direct import Direct
from distci.errors import ClaimLost
from distci.model import BuildId, Result
from distci.protocol import Claim, Member, Offer, sweeps
from distci.settings import ReceiverSettings, Settings
from distci.store import keys
from distci.store.port import objects
from distci_workers import status
from distci_workers.status import StatusWorker

PUSHES = {"github": "github/push-new-branch", "gitlab": "gitlab/push-event", "gitea": "gitea/push-event"}
COMMITS = {
    "github": ("Codertocat/Hello-World", "6113728f27ae82c7b1a177c8d03f9e96e0adf246"),
    "gitlab": ("mike/diaspora", "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"),
    "gitea": ("example/example", "67b56589a45103f891bdee7c0546e5d40bc02001"),
}
CONTEXT = "distci/team/hello"
TELLS = Offer(["status"], [f"receiver={name}" for name in PUSHES])
KINDS = ("control", "shell")
"""Those of a worker process that tells nobody anything."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(status, "LONGEST_PAUSE_S", 0.2)
    # What is due is looked for as often.
    monkeypatch.setattr(sweeps, "SWEEP_S", 0.1)


@pytest.fixture(params=["github", "gitlab", "gitea"])
def told(request: pytest.FixtureRequest) -> Iterator[Forge]:
    """A forge of each kind."""
    with forge(request.param) as made:
        yield made


@pytest.fixture
def github() -> Iterator[Forge]:
    with forge("github") as made:
        yield made


@pytest.fixture
def start(start_system: Callable[..., System]) -> Callable[..., System]:
    """Starts a system that tells a forge."""

    def begin(told: Forge, *, token: str = TOKEN, **options: Any) -> System:
        settings = {told.kind: ReceiverSettings((deliveries.SECRET,), token, told.url)}
        return start_system(receivers=settings, public_url="https://ci.example.org", **options)

    return begin


@pytest.fixture
def gate(start: Callable[..., System], tmp_path: Path) -> Iterator[Path]:
    """A file for which a build can wait (:func:`until`). It is made at the end at the latest."""
    gate = tmp_path / "open"
    yield gate
    gate.touch()


def until(gate: Path, then: str = "true") -> str:
    """A script that waits for that file."""
    return f"until test -e {gate}; do sleep 0.02; done; {then}"


def push(system: System, told: Forge, script: str = "true", delivery: str = "delivery-1", **keys: Any) -> BuildId:
    """Have a recorded push of the forge build a job of one script."""
    name = PUSHES[told.kind]
    trigger = {"type": told.kind, "repository": COMMITS[told.kind][0]}
    system.ci.jobs.put(
        {
            "job": "team/hello",
            "triggers": [trigger],
            "tasks": [{"name": "do", "type": "shell", "script": script}],
            **keys,
        }
    )
    body = deliveries.recorded(name, lambda document: document.update(again=delivery))
    answer = system.ci.hooks.deliver(told.kind, deliveries.headers(name, body, delivery), body)
    [started] = answer.jobs
    assert started.build is not None, started.reason
    return started.build


def is_quiet(system: System) -> bool:
    """Whether no ticket is left anywhere."""
    return not list(system.ci.tickets.list())


def has_told(system: System) -> bool:
    """Whether nothing is left to be said."""
    return not [view for view in system.ci.tickets.list() if view.ticket is None or view.ticket.kind == "status"]


def standing(system: System) -> list[str]:
    """The statuses that are to be told, as tickets."""
    views = [*system.ci.tickets.list()]
    return sorted(view.token for view in views if view.ticket is not None and view.ticket.kind == "status")


WORDS = {
    "github": {Result.PASSED: "success", Result.FAILED: "failure", Result.CANCELLED: "error"},
    "gitlab": {Result.PASSED: "success", Result.FAILED: "failed", Result.CANCELLED: "canceled"},
    "gitea": {Result.PASSED: "success", Result.FAILED: "failure", Result.CANCELLED: "error"},
}


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


@pytest.mark.parametrize(("script", "result"), [("true", Result.PASSED), ("exit 3", Result.FAILED)])
def test_a_forge_hears_that_a_build_has_begun_and_how_it_ended_each_once(
    start: Callable[..., System], told: Forge, script: str, result: Result, gate: Path
) -> None:
    system = start(told)

    build = push(system, told, until(gate, script))
    wait_until(lambda: told.heard != [] and has_told(system))
    gate.touch()

    wait_until(lambda: is_quiet(system))
    assert told.states(CONTEXT) == ["pending", WORDS[told.kind][result]]
    assert told.requests == 2
    for heard in told.heard:
        assert (heard["repository"], heard["commit"]) == COMMITS[told.kind]
        assert heard["target_url"] == "https://ci.example.org/jobs/team/hello/-/builds/1"
        assert heard["description"].startswith(f"{build} ")


def test_a_build_that_is_cancelled_is_told_as_such(start: Callable[..., System], told: Forge) -> None:
    system = start(told)
    build = push(system, told, "sleep 60")
    wait_until(lambda: told.latest(CONTEXT) == "pending")

    system.ci.builds.cancel(build, "enough")

    wait_until(lambda: told.latest(CONTEXT) == WORDS[told.kind][Result.CANCELLED])
    assert "enough" in told.heard[-1]["description"]


@pytest.mark.parametrize("mood", ["fail", "cut", "refuse", "drop"])
def test_what_a_forge_did_not_take_is_told_again_and_what_it_took_without_an_answer_is_not(
    start: Callable[..., System], told: Forge, mood: str, gate: Path
) -> None:
    told.moods.extend([mood] * 3)
    system = start(told)

    build = push(system, told, until(gate))
    wait_until(lambda: told.heard != [] and has_told(system))
    gate.touch()

    assert system.ci.builds.wait(build, 30).state == "passed"
    wait_until(lambda: is_quiet(system))
    assert told.states(CONTEXT) == ["pending", "success"]


@pytest.mark.parametrize("look", ["fail", "cut"])
def test_a_forge_that_does_not_show_what_it_knows_is_asked_again_before_it_is_told_again(
    start: Callable[..., System], told: Forge, look: str, gate: Path
) -> None:
    told.moods.append("drop")
    told.looks.extend([look] * 3)
    system = start(told)

    push(system, told, until(gate))

    wait_until(lambda: not told.looks and has_told(system))
    assert told.states(CONTEXT) == ["pending"]


@pytest.mark.parametrize("look", ["refuse", "nonsense"])
def test_a_forge_that_cannot_be_asked_hears_once_more_what_it_did_not_answer(
    start: Callable[..., System], github: Forge, look: str, gate: Path
) -> None:
    github.moods.append("drop")
    github.looks.append(look)
    system = start(github)

    push(system, github, until(gate))

    wait_until(lambda: not github.looks and has_told(system))
    assert github.states(CONTEXT) == ["pending", "pending"]


def test_a_forge_that_acts_on_a_request_after_it_was_asked_has_it_twice_and_no_oftener(
    start: Callable[..., System], told: Forge, monkeypatch: pytest.MonkeyPatch, gate: Path
) -> None:
    monkeypatch.setattr(status, "TIMEOUT_S", (5.0, 1.0))
    told.moods.append("hang")
    system = start(told)

    push(system, told, until(gate))

    wait_until(lambda: told.heard != [] and has_told(system))
    assert told.states(CONTEXT) == ["pending"]
    told.let_go.set()
    # GitLab knows that it has that one already.
    twice = ["pending"] if told.kind == "gitlab" else ["pending", "pending"]
    wait_until(lambda: told.acted_late == 1)
    assert told.states(CONTEXT) == twice
    assert has_told(system)


@pytest.mark.parametrize("mood", ["drip", "drip body"])
def test_a_forge_whose_answer_never_ends_holds_a_worker_for_as_long_as_a_call_may_take(
    start: Callable[..., System], github: Forge, monkeypatch: pytest.MonkeyPatch, gate: Path, mood: str
) -> None:
    monkeypatch.setattr(status, "TIME_MAX_S", 0.5)
    github.moods.append(mood)
    system = start(github)

    push(system, github, until(gate))

    # Then it is asked what it knows, which is that, and told nothing again.
    wait_until(lambda: github.requests == 2 and has_told(system))
    assert github.states(CONTEXT) == ["pending"]


def test_a_forge_is_told_of_no_build_of_another_job(start: Callable[..., System], told: Forge, gate: Path) -> None:
    system = start(told)
    task = {"name": "hold", "type": "shell", "script": until(gate)}
    system.ci.jobs.put({"job": "secret/launch", "tasks": [task], "concurrency": {"group": "boards"}})
    holder = system.ci.builds.trigger("secret/launch")
    wait_until(lambda: system.ci.builds.get(holder).state == "running")

    build = push(system, told, concurrency={"group": "boards", "policy": "reject"})

    wait_until(lambda: told.latest(CONTEXT) == WORDS[told.kind][Result.CANCELLED])
    assert system.ci.builds.get(build).reason == "rejected: secret/launch#1 of its group ran"
    assert told.heard[-1]["description"] == "team/hello#1 cancelled: rejected: a build of another job of its group ran"


def test_the_end_of_a_build_is_told_when_its_beginning_has_been(
    start: Callable[..., System], told: Forge, monkeypatch: pytest.MonkeyPatch, gate: Path
) -> None:
    monkeypatch.setattr(status, "TIMEOUT_S", (5.0, 60.0))
    told.moods.append("hang")
    system = start(told)

    build = push(system, told, until(gate))
    wait_until(lambda: told.requests == 1)
    gate.touch()

    assert system.ci.builds.wait(build, 30).is_archived
    wait_until(lambda: "parked" in [view.place for view in system.ci.tickets.list()])
    assert told.requests == 1
    told.let_go.set()
    wait_until(lambda: is_quiet(system))
    assert told.states(CONTEXT) == ["pending", "success"]


def test_a_forge_that_is_down_holds_no_build_up_and_hears_in_the_end(start: Callable[..., System], told: Forge) -> None:
    told.is_down = True
    system = start(told)

    for number in range(3):
        build = push(system, told, delivery=f"delivery-{number}")
        assert system.ci.builds.wait(build, 30).is_archived

    # By then there is nothing newer that anybody could have to say.
    wait_until(lambda: len([*objects(system.ci.store, keys.STATUSES)]) == 6)
    assert told.heard == []
    told.is_down = False
    wait_until(lambda: told.latest(CONTEXT) == "success")
    wait_until(lambda: is_quiet(system))
    assert told.states(CONTEXT) == ["success"]
    assert told.heard[-1]["description"].startswith("team/hello#3 ")


@pytest.fixture
def silent(start: Callable[..., System]) -> Callable[[Forge], System]:
    """A system whose worker process leaves statuses to be told by hand."""

    def begin(told: Forge) -> System:
        system = start(told, kinds=KINDS)
        # What ended before that is told once more: it may be new to this tree alone.
        wait_until(lambda: system.ci.rebuild.look().is_rebuilt)
        return system

    return begin


def claim_of(member: Member, build: BuildId, *, is_over: bool) -> Claim:
    """The claim of the ticket about that end or beginning of a build; others that come first are put back, and cost no attempt."""
    for claim in member.claims():
        if (claim.ticket.body["build"], "result" in claim.ticket.body) == (str(build), is_over):
            return claim
        # Until the next sweep: else it would be claimed again and again while the wanted one is not due.
        claim.park_until(member.tickets.tree.now_ms(), uses_attempt=False)
    raise AssertionError("no more claims")


def test_what_was_heard_late_is_corrected(
    silent: Callable[[Forge], System], told: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The forge takes the first word, says nothing, and acts on it only when the build is over.
    system, worker = silent(told), StatusWorker()
    told.moods.append("hang")
    build = push(system, told)
    system.ci.builds.wait(build, 30)

    with Member(system.ci.tickets, TELLS, "hand") as member:
        with monkeypatch.context() as patched:
            # It comes first, and so it is what is to be said.
            patched.setattr(system.ci.lifecycle.statuses, "latest", lambda word: word)
            patched.setattr(status, "TIMEOUT_S", (5.0, 0.2))
            worker.serve(claim_of(member, build, is_over=False), system.ci.lifecycle)
        worker.serve(claim_of(member, build, is_over=True), system.ci.lifecycle)
        assert told.states(CONTEXT) == ["success"]
        told.let_go.set()
        wait_until(lambda: told.latest(CONTEXT) == "pending")
        worker.serve(claim_of(member, build, is_over=False), system.ci.lifecycle)

    assert told.states(CONTEXT) == ["success", "pending", "success"]
    wait_until(lambda: is_quiet(system))


def test_a_word_that_is_out_of_date_is_not_said(silent: Callable[[Forge], System], github: Forge) -> None:
    system, worker = silent(github), StatusWorker()
    build = push(system, github)
    system.ci.builds.wait(build, 30)

    with Member(system.ci.tickets, TELLS, "hand") as member:
        for is_over in (True, False):
            worker.serve(claim_of(member, build, is_over=is_over), system.ci.lifecycle)

    assert github.states(CONTEXT) == ["success"]
    assert github.requests == 1


def test_who_was_taken_for_dead_before_it_said_something_puts_right_what_it_said(
    silent: Callable[[Forge], System], github: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, worker = silent(github), StatusWorker()
    build = push(system, github)
    system.ci.builds.wait(build, 30)

    with Member(system.ci.tickets, TELLS, "hand", slots=2) as member:
        begun = claim_of(member, build, is_over=False)
        tell, latest = worker._tell, system.ci.lifecycle.statuses.latest
        # It comes first, and so it is what is to be said.
        monkeypatch.setattr(system.ci.lifecycle.statuses, "latest", lambda word: word)

        def sleepy(*arguments: Any, **options: Any) -> str:
            monkeypatch.setattr(system.ci.lifecycle.statuses, "latest", latest)
            monkeypatch.setattr(worker, "_tell", tell)
            begun.give_back("it was taken for dead")
            StatusWorker().serve(claim_of(member, build, is_over=True), system.ci.lifecycle)
            return tell(*arguments, **options)

        monkeypatch.setattr(worker, "_tell", sleepy)
        with pytest.raises(ClaimLost):
            worker.serve(begun, system.ci.lifecycle)
        StatusWorker().serve(claim_of(member, build, is_over=False), system.ci.lifecycle)

    assert github.states(CONTEXT) == ["success", "pending", "success"]
    wait_until(lambda: is_quiet(system))


def test_who_died_after_saying_what_was_late_is_followed_by_who_puts_it_right(
    silent: Callable[[Forge], System], github: Forge
) -> None:
    system, worker = silent(github), StatusWorker()
    build = push(system, github)
    system.ci.builds.wait(build, 30)

    with Member(system.ci.tickets, TELLS, "hand", slots=2) as member:
        begun = claim_of(member, build, is_over=False)
        word, _ = system.ci.lifecycle.statuses.note(begun.ticket)
        begun.give_back("its worker was taken for dead")
        worker.serve(claim_of(member, build, is_over=True), system.ci.lifecycle)
        worker._tell(system.ci.lifecycle.statuses.call(word), begun, is_new=True)  # and here it dies
        assert github.latest(CONTEXT) == "pending"
        worker.serve(claim_of(member, build, is_over=False), system.ci.lifecycle)

    assert github.states(CONTEXT) == ["success", "pending", "success"]


def test_who_died_after_saying_something_is_followed_by_who_does_not_repeat_it(
    silent: Callable[[Forge], System], github: Forge
) -> None:
    system, worker = silent(github), StatusWorker()
    build = push(system, github)
    system.ci.builds.wait(build, 30)

    with Member(system.ci.tickets, TELLS, "hand") as member:
        over = claim_of(member, build, is_over=True)
        word, _ = system.ci.lifecycle.statuses.note(over.ticket)
        worker._tell(system.ci.lifecycle.statuses.call(word), over, is_new=True)  # and here it dies
        over.give_back("its worker was lost")
        worker.serve(claim_of(member, build, is_over=True), system.ci.lifecycle)

    assert github.states(CONTEXT) == ["success"]


def test_an_older_build_of_the_commit_says_nothing_once_a_newer_one_has_begun(
    silent: Callable[[Forge], System], github: Forge
) -> None:
    system, worker = silent(github), StatusWorker()
    first = push(system, github, "exit 1")
    system.ci.builds.wait(first, 30)
    second = system.ci.builds.retry(first)
    system.ci.builds.wait(second, 30)

    with Member(system.ci.tickets, TELLS, "hand") as member:
        for build in (second, first):
            for is_over in (True, False):
                worker.serve(claim_of(member, build, is_over=is_over), system.ci.lifecycle)

    assert github.states(CONTEXT) == ["failure"]
    assert github.heard[0]["description"].startswith("team/hello#2 ")


def test_a_token_goes_nowhere_but_to_the_address_of_the_settings(start: Callable[..., System], github: Forge) -> None:
    with forge("github") as other:
        github.elsewhere = f"{other.url}/repos/x"
        github.moods.append("redirect")
        system = start(github)

        push(system, github)

        wait_until(lambda: github.latest(CONTEXT) == "success")
        assert other.requests == 0


def test_the_token_proves_who_we_are_whatever_netrc_has_for_the_host(
    start: Callable[..., System], told: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    system = start(told)

    push(system, told)

    wait_until(lambda: told.latest(CONTEXT) == WORDS[told.kind][Result.PASSED])


def test_without_a_token_no_ticket_is_posted(start: Callable[..., System], github: Forge) -> None:
    system = start(github, token="", kinds=KINDS)

    build = push(system, github)

    assert system.ci.builds.wait(build, 30).state == "passed"
    wait_until(lambda: is_quiet(system))
    assert github.requests == 0


def test_a_worker_without_the_token_leaves_a_status_to_those_who_have_it_and_why_says_what_is_missing(
    start: Callable[..., System], github: Forge, tmp_path: Path
) -> None:
    # Given a front end with a token, beside a worker of every kind that has none
    teller = start(github, kinds=KINDS)
    settings = Settings(data=str(tmp_path / "data"), coordination=teller.ci.settings.coordination)
    with connect(settings=settings) as other:
        mute = Direct(other.lifecycle, other.store).member(Offer(["status"]), "mute", 1)
        with mute:
            build = push(teller, github)
            teller.ci.builds.wait(build, 30)

            [ticket, _] = standing(teller)
            reason = teller.ci.why.ticket(ticket)
            assert reason.because == "no live worker has a token for github, to tell it of Codertocat/Hello-World"
            assert reason.remedy == "set receivers.github.token where distci worker run status runs"

            # When one with the token comes
            able = Direct(teller.ci.lifecycle, teller.ci.store).member(Offer(["status"]), "able", 2)
            with able:
                StatusWorker().serve(claim_of(able, build, is_over=True), teller.ci.lifecycle)

    assert (mute.offer.labels, able.offer.labels) == ((), ("receiver=github",))
    assert github.latest(CONTEXT) == "success"


def test_a_forge_that_never_hears_is_given_up_after_a_day(
    silent: Callable[[Forge], System], github: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.is_down = True
    system = silent(github)
    monkeypatch.setattr(status, "PATIENCE_S", 0.0)
    system.ci.builds.wait(push(system, github), 30)

    with Member(system.ci.tickets, TELLS, "hand", slots=2) as member:
        for _ in range(2):
            StatusWorker().serve(next(member.claims()), system.ci.lifecycle)

    wait_until(lambda: is_quiet(system))
    assert github.heard == []


def test_a_claim_that_is_lost_says_nothing(silent: Callable[[Forge], System], github: Forge) -> None:
    system = silent(github)
    system.ci.builds.wait(push(system, github), 30)

    with Member(system.ci.tickets, TELLS, "hand", slots=2) as member:
        claim = next(member.claims())
        claim.lost.set()
        with pytest.raises(ClaimLost):
            StatusWorker().serve(claim, system.ci.lifecycle)

    assert github.requests == 0


@pytest.mark.parametrize("has_heard", [False, True])
def test_what_a_lost_tree_had_to_tell_is_told_unless_the_forge_has_heard_it(
    start: Callable[..., System], github: Forge, has_heard: bool
) -> None:
    system = start(github, kinds=KINDS)
    build = push(system, github)
    system.ci.builds.wait(build, 30)
    with Member(system.ci.tickets, TELLS, "hand") as member:
        if has_heard:
            StatusWorker().serve(claim_of(member, build, is_over=True), system.ci.lifecycle)
    for view in [*system.ci.tickets.list()]:
        # As a tree that was lost has none of them.
        assert view.ticket is not None
        withdrawal = system.ci.tickets.withdrawal(view.ticket)
        assert withdrawal is not None
        system.ci.tickets.commit(withdrawal)
    wait_until(lambda: is_quiet(system))

    system.ci.rebuild.run()

    with Member(system.ci.tickets, TELLS, "hand") as member:
        StatusWorker().serve(claim_of(member, build, is_over=True), system.ci.lifecycle)
    assert github.states(CONTEXT) == ["success"]


def test_a_rebuild_posts_no_status_that_still_stands_also_of_a_build_that_ends_meanwhile(
    silent: Callable[[Forge], System], github: Forge, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a status that waits, one that is told again later, and a build that is under way
    github.is_down = True
    system = silent(github)
    over = push(system, github)
    system.ci.builds.wait(over, 30)
    with Member(system.ci.tickets, TELLS, "hand") as member:
        StatusWorker().serve(claim_of(member, over, is_over=True), system.ci.lifecycle)
    running = push(system, github, until(gate), "delivery-2")
    recent = system.ci.rebuild._recent

    # When that ends while the records are read
    def ends_meanwhile() -> Iterator[tuple[BuildId, dict[str, Any]]]:
        gate.touch()
        wait_until(lambda: system.ci.store.head(keys.build_record(running)) is not None)
        return recent()

    monkeypatch.setattr(system.ci.rebuild, "_recent", ends_meanwhile)
    system.ci.rebuild.run()

    assert len(standing(system)) == len({token.rpartition(".")[0] for token in standing(system)}) == 4
