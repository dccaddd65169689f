"""What forges tell, and the builds that follow: the right commit, once, or why none."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import deliveries
import pytest
from integration.conftest import System
from integration.git_remotes import Remote, git_daemon
from program import PROGRAM
from unit.test_receivers import BUILT, IGNORED
from waiting import wait_until

from distci.app import DistCI, connect
from distci.builds import Builds, BuildView
from distci.coordination.port import Delete
from distci.errors import InvalidDocument, NoSuchChange, NoSuchReceiver, NotAuthenticated, Unavailable
from distci.hooks import Answer, Hooks
from distci.jobs import Jobs
from distci.lifecycle import Lifecycle
from distci.model import TaskState
from distci.protocol import Member, Offer, Tickets
from distci.retention import Retention
from distci.settings import ReceiverSettings, Settings
from distci.store import keys
from distci.store.passing import PassingStore
from distci.store.port import ObjectInfo
from distci.testing import CutCoordination, LossyCoordination
from distci_workers.control import ControlWorker

SETTINGS = {name: ReceiverSettings((deliveries.SECRET,)) for name in ("github", "gitlab", "gitea", "directory")}


@pytest.fixture(params=["sqlite", "zookeeper"])
def coordination_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("zookeeper_url")) if request.param == "zookeeper" else None


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remotes" / "hello")


@pytest.fixture
def url(remote: Remote) -> Iterator[str]:
    with git_daemon(remote.path.parent) as base:
        yield f"{base}/hello"


def job(url: str, *triggers: dict[str, Any], job: str = "team/hello", **checkout: Any) -> dict[str, Any]:
    """A job that checks the repository out and shows the commit."""
    return {
        "job": job,
        "triggers": [*triggers],
        "tasks": [
            {"name": "source", "type": "git-checkout", "repository": url, "directory": "src", **checkout},
            {
                "name": "look",
                "type": "shell",
                "script": 'git -C src log -1 --format=%H; echo "$DISTCI_COMMIT $DISTCI_REF"',
            },
        ],
    }


def pushed(url: str, before: str, after: str, ref: str = "refs/heads/main") -> Callable[[dict[str, Any]], None]:
    """Makes a recorded push one of these commits."""

    def change(body: dict[str, Any]) -> None:
        body.update(
            ref=ref, before=before, after=after, deleted=False, head_commit={"id": after, "message": "A change"}
        )
        body["repository"].update(clone_url=url, full_name="org/hello", ssh_url="git@forge:org/hello.git", git_url=url)

    return change


def deliver(system: System, name: str, body: bytes, delivery: str = "delivery-1") -> Answer:
    return system.ci.hooks.deliver(name.partition("/")[0], deliveries.headers(name, body, delivery), body)


def built(system: System, answer: Answer) -> BuildView:
    """The one build that a delivery started, once it is over."""
    [started] = [job for job in answer.jobs if job.build]
    assert started.build is not None
    view = system.ci.builds.wait(started.build, 60)
    assert view.is_archived
    return view


@pytest.fixture
def hooked(start_system: Callable[..., System], coordination_url: str | None) -> System:
    return start_system(coordination=coordination_url, receivers=SETTINGS)


GITHUB = {"type": "github", "repository": "org/hello"}


def test_a_push_builds_the_commit_that_was_pushed_also_when_the_branch_has_moved_on(
    hooked: System, remote: Remote, url: str
) -> None:
    first, second = remote.commit(hello_txt="one\n"), remote.commit(hello_txt="two\n")
    remote.commit(hello_txt="three\n")
    hooked.ci.jobs.put(job(url, GITHUB, ref="refs/heads/main"))

    view = built(hooked, deliver(hooked, "github/push", deliveries.recorded("github/push", pushed(url, first, second))))

    assert view.state == "passed"
    assert hooked.log(view, "look").split() == [second, second, "refs/heads/main"]
    assert view.trigger.kind == "github"
    assert view.trigger.actor == "Codertocat"


# Which jobs, which builds


def put(system: System, *triggers: dict[str, Any], job: str = "team/hello", script: str = "true", **keys: Any) -> None:
    """Save a job of one script with these triggers."""
    system.ci.jobs.put(
        {"job": job, "triggers": [*triggers], "tasks": [{"name": "do", "type": "shell", "script": script}], **keys}
    )


def started(answer: Answer) -> dict[str, str]:
    """The builds of a delivery by job, or why there is none."""
    return {job.job: str(job.build) if job.build else job.reason for job in answer.jobs}


@pytest.fixture
def idle(tmp_path: Path, coordination_url: str | None) -> Iterator[Callable[..., DistCI]]:
    """Connects to a system that nobody works for, each time in a session of its own."""
    with ExitStack() as stack:

        def begin(**more: Any) -> DistCI:
            told = {
                "receivers": SETTINGS,
                "coordination": coordination_url or "",
                "data": str(tmp_path / "idle"),
            } | more
            return stack.enter_context(connect(settings=Settings(**told)))

        yield begin


def send(
    ci: DistCI, name: str, delivery: str = "delivery-1", change: Callable[[dict[str, Any]], None] | None = None
) -> Answer:
    body = deliveries.recorded(name, change)
    return ci.hooks.deliver(name.partition("/")[0], deliveries.headers(name, body, delivery), body)


PUSHED = "github/push-new-branch"
HELLO = {"type": "github", "repository": "Codertocat/Hello-World"}
SIMPLE = [{"name": "do", "type": "shell", "script": "true"}]


def save(ci: DistCI, job: str = "team/hello", *triggers: dict[str, Any], **keys: Any) -> None:
    ci.jobs.put({"job": job, "triggers": [*triggers], "tasks": SIMPLE, **keys})


@pytest.mark.parametrize("name", sorted([*BUILT, *IGNORED]))
def test_every_recorded_delivery_is_answered_rightly(idle: Callable[..., DistCI], name: str) -> None:
    ci = idle(untrusted_builds="run")
    for receiver, repository in (("github", HELLO["repository"]), ("gitea", "example/example"), *GITLABS):
        save(ci, f"all/{repository.replace('/', '.')}", {"type": receiver, "repository": repository, "events": ["*"]})

    answer = send(ci, name)

    if name in IGNORED:
        assert (answer.reason, answer.jobs) == (IGNORED[name], ())
        return
    event, repository, ref, commit, target, _, number, is_trusted = BUILT[name]
    assert started(answer) == {f"all/{repository.replace('/', '.')}": f"all/{repository.replace('/', '.')}#1"}
    trigger = ci.builds.get(f"all/{repository.replace('/', '.')}#1").trigger
    assert (trigger.kind, trigger.commit, trigger.ref) == (name.partition("/")[0], commit, ref)
    assert trigger.is_untrusted is not is_trusted
    assert trigger.delivery is not None
    assert (trigger.delivery.id, trigger.delivery.event, trigger.delivery.pull_request) == ("delivery-1", event, number)
    assert trigger.delivery.branch == ("" if event == "tag" else target)


GITLABS = [("gitlab", name) for name in ("mike/diaspora", "jsmith/example", "awesome_space/awesome_project")]


def test_j4_the_same_delivery_ten_times_at_once_is_one_build(idle: Callable[..., DistCI]) -> None:
    systems = [idle() for _ in range(4)]
    save(systems[0], "team/a", HELLO)
    save(systems[0], "team/b", HELLO)

    with ThreadPoolExecutor(10) as pool:
        answers = [*pool.map(lambda number: send(systems[number % 4], PUSHED), range(10))]

    assert [started(answer) for answer in answers] == [{"team/a": "team/a#1", "team/b": "team/b#1"}] * 10
    assert len([*systems[0].builds.list("team/a")]) == 1


def test_d05_many_deliveries_at_once_are_each_one_build(idle: Callable[..., DistCI]) -> None:
    systems = [idle() for _ in range(4)]
    save(systems[0], "team/a", HELLO)

    def at(number: int) -> Callable[[dict[str, Any]], None]:
        return lambda body: body.update(after=f"{number:040}", before="0" * 40)

    with ThreadPoolExecutor(12) as pool:
        answers = [*pool.map(lambda n: send(systems[n % 4], PUSHED, f"delivery-{n}", at(n + 1)), range(24))]

    builds = sorted(int(started(answer)["team/a"].partition("#")[2]) for answer in answers)
    assert builds == [*range(1, 25)]
    commits = {view.trigger.commit for view in systems[0].builds.list("team/a")}
    assert commits == {f"{number + 1:040}" for number in range(24)}


def test_the_same_delivery_to_many_processes_is_one_build(idle: Callable[..., DistCI], tmp_path: Path) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)
    body = tmp_path / "push.json"
    body.write_bytes(deliveries.recorded(PUSHED))
    back_ends = ["--coordination", ci.settings.coordination] if ci.settings.coordination else []
    command = [str(PROGRAM), "hook", "deliver", "github", str(body), "--json", "--data", ci.settings.data, *back_ends]
    headers = [f"--header={name}: {value}" for name, value in deliveries.headers(PUSHED, b"").items()]

    sent = [subprocess.Popen([*command, *headers], stdout=subprocess.PIPE, text=True) for _ in range(10)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in sent]

    assert [answer["jobs"][0]["build"] for answer in answers] == ["team/a#1"] * 10
    assert len([*ci.builds.list("team/a")]) == 1


def test_b10_a_body_that_comes_again_under_another_id_starts_nothing(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)

    first, replayed = send(ci, PUSHED), send(ci, PUSHED, "somebody-made-this-up")

    assert started(first) == started(replayed) == {"team/a": "team/a#1"}
    assert len([*ci.builds.list("team/a")]) == 1


@pytest.mark.parametrize("committed", [True, False])
def test_a_lost_answer_to_the_transaction_makes_neither_two_builds_nor_none(
    idle: Callable[..., DistCI], committed: bool
) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)
    lossy = LossyCoordination(ci.coordination)
    tickets = Tickets(lossy)
    lifecycle = Lifecycle(tickets, ci.store, ci.jobs)
    hooks = Hooks(Builds(lifecycle, ci.jobs), ci.jobs, ci.store, SETTINGS)
    lossy.lose_answer(committed=committed, when=lambda operations: any("/builds/" in item.path for item in operations))
    body = deliveries.recorded(PUSHED)

    answers = [hooks.deliver("github", deliveries.headers(PUSHED, body), body) for _ in range(2)]

    assert lossy.lost == 1
    assert [started(answer) for answer in answers] == [{"team/a": "team/a#1"}] * 2
    assert len([*ci.builds.list("team/a")]) == 1


def test_a_delivery_that_was_taken_before_the_tree_was_lost_is_not_built_again(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)
    send(ci, PUSHED)
    for day in ci.coordination.children("/once"):
        for cause in ci.coordination.children(f"/once/{day}"):
            ci.coordination.commit(Delete(f"/once/{day}/{cause}"))

    ci.rebuild.run()

    assert started(send(ci, PUSHED)) == {"team/a": "team/a#1"}


# Filters

FILTERS = [
    ({}, PUSHED, ""),
    ({"events": ["push"]}, PUSHED, ""),
    ({"events": ["pull_*"]}, PUSHED, "it is for pull_*, not for push"),
    ({}, "github/pull_request-opened", "it is for push, not for pull_request"),
    ({"events": ["pull_request"]}, "github/pull_request-opened", ""),
    ({"events": ["pull_request"], "branches": ["release/*"]}, "github/pull_request-opened", "branch master is none of: release/*"),
    ({"branches": ["main", "mas*"]}, PUSHED, ""),
    ({"branches": ["main"]}, PUSHED, "branch master is none of: main"),
    ({"paths": ["*.md"]}, PUSHED, ""),
    ({"paths": ["src/*"]}, PUSHED, "nothing has changed in: src/*"),
    # Where nobody tells what has changed, it is built: better once too often than never.
    ({"paths": ["src/*"], "events": ["*"]}, "github/pull_request-opened", ""),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "name", "reason"), FILTERS, ids=str)
def test_j10_filters_let_through_what_they_say(
    idle: Callable[..., DistCI], filters: dict[str, Any], name: str, reason: str
) -> None:
    ci = idle()
    save(ci, "team/a", HELLO | filters)

    assert started(send(ci, name)) == {"team/a": reason or "team/a#1"}


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({"events": ["tag"]}, ""),
        ({"events": ["tag"], "tags": ["v1.*"]}, ""),
        ({"events": ["tag"], "tags": ["v2.*"]}, "tag v1.0.0 is none of: v2.*"),
        ({"events": ["tag"], "branches": ["main"]}, ""),
        ({}, "it is for push, not for tag"),
    ],
    ids=str,
)
def test_tags_have_a_filter_of_their_own(idle: Callable[..., DistCI], filters: dict[str, Any], reason: str) -> None:
    ci = idle()
    save(ci, "team/a", {"type": "gitlab", "repository": "jsmith/example", **filters})

    assert started(send(ci, "gitlab/tag-event")) == {"team/a": reason or "team/a#1"}


def test_j10_tasks_run_for_the_files_that_have_changed_whoever_plans_the_build(idle: Callable[..., DistCI]) -> None:
    # Given a push that is taken in, and a first control worker that dies before it has planned anything
    ci = idle()
    tasks = [
        {"name": name, "type": "acme.none", "needs": [], "if": {"paths": [glob]}}
        for name, glob in (("readme", "README*"), ("web", "web/*"))
    ]
    ci.jobs.put({"job": "team/a", "triggers": [HELLO], "tasks": tasks})
    assert started(send(ci, PUSHED)) == {"team/a": "team/a#1"}
    with Member(ci.tickets, Offer(["control"]), "dying", slots=1) as member:
        next(member.claims()).give_back("it dies")

    # When another one plans it
    with Member(ci.tickets, Offer(["control"]), "next", slots=1) as member:
        ControlWorker().serve(next(member.claims()), ci.lifecycle)

    # Then the one task runs whose files have changed
    view = ci.builds.get("team/a#1")
    assert {task.name: task.unfit for task in view.tasks} == {
        "readme": "",
        "web": "nothing has changed in: web/*",
    }
    assert view.task("readme").state is TaskState.READY


def test_j10_files_of_one_push_are_not_taken_for_those_of_another(idle: Callable[..., DistCI]) -> None:
    # Given a push of a file in whose name there is a line end, so that it reads as two
    ci = idle()
    tasks = [
        {"name": "b", "type": "acme.none", "if": {"paths": ["b"]}},
        {"name": "rest", "type": "acme.none", "needs": []},
    ]
    ci.jobs.put({"job": "team/a", "triggers": [HELLO], "tasks": tasks})

    def pushes(*names: str) -> Callable[[dict[str, Any]], None]:
        def say(body: dict[str, Any]) -> None:
            body["commits"] = [{**body["head_commit"], "added": [*names], "modified": [], "removed": []}]

        return say

    send(ci, PUSHED, change=pushes("a\nb"), delivery="1")

    # When another one has these two, and both are planned
    send(ci, PUSHED, change=pushes("a", "b"), delivery="2")
    with Member(ci.tickets, Offer(["control"]), "planner", slots=1) as member:
        claims = member.claims()
        for _ in range(2):
            ControlWorker().serve(next(claims), ci.lifecycle)

    # Then each goes by its own
    left_out = [ci.builds.get(f"team/a#{number}").task("b").unfit for number in (1, 2)]
    assert left_out == ["nothing has changed in: b", ""]


def test_j10_a_push_that_all_tasks_leave_out_starts_no_build(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    task = {"name": "web", "type": "acme.none", "if": {"paths": ["web/*"]}}
    ci.jobs.put({"job": "team/a", "triggers": [HELLO], "tasks": [task]})

    assert "nothing has changed in: web/*" in started(send(ci, PUSHED))["team/a"]
    assert [*ci.builds.list("team/a")] == []


def test_the_first_trigger_that_fits_counts_and_gives_its_parameters(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    levels = {"LEVEL": {"choices": ["fast", "full"]}}
    on_main = HELLO | {"branches": ["main"], "parameters": {"LEVEL": "full"}}
    save(ci, "team/a", on_main, HELLO | {"parameters": {"LEVEL": "fast"}}, HELLO, parameters=levels)

    assert started(send(ci, PUSHED)) == {"team/a": "team/a#1"}
    assert ci.builds.get("team/a#1").trigger.presets == {"LEVEL": "fast"}


@pytest.mark.parametrize(
    "message", ["x [skip ci]", "[ci skip] x", "x\n\n[NO CI]", "x\n\nskip-checks: true", "[skip actions]", "[skip-ci]"]
)
def test_a_change_that_says_so_is_not_built(idle: Callable[..., DistCI], message: str) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)

    answer = send(ci, PUSHED, change=lambda body: body["head_commit"].update(message=message))

    assert answer.reason.startswith("its message says ")
    assert answer.jobs == ()
    assert [*ci.builds.list("team/a")] == []


def test_a_tag_is_built_whatever_the_message_of_its_commit_says(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", HELLO | {"events": ["tag"]})

    def tagged(body: dict[str, Any]) -> None:
        body.update(ref="refs/tags/v1")
        body["head_commit"].update(message="Release 1 [skip ci]")

    assert started(send(ci, PUSHED, change=tagged)) == {"team/a": "team/a#1"}


def test_a_job_that_cannot_be_built_so_keeps_no_other_from_it(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", HELLO, parameters={"WHO": {"required": True}})
    save(ci, "team/b", HELLO)

    told = started(send(ci, PUSHED))

    assert "parameters.WHO: a value is required" in told["team/a"]
    assert told["team/b"] == "team/b#1"


def test_a_repository_that_no_job_names_concerns_nobody(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", {"type": "gitlab", "repository": HELLO["repository"]}, HELLO | {"repository": "other/one"})

    answer = send(ci, PUSHED)

    assert answer.reason == "no job has a trigger of type github that fits Codertocat/Hello-World"


@pytest.mark.parametrize(
    "repository",
    [
        "codertocat/HELLO-world",
        "https://github.com/Codertocat/Hello-World",
        "git@github.com:Codertocat/Hello-World.git",
    ],
)
def test_a_repository_may_be_named_in_any_way_that_means_it(idle: Callable[..., DistCI], repository: str) -> None:
    ci = idle()
    save(ci, "team/a", HELLO | {"repository": repository})

    assert started(send(ci, PUSHED)) == {"team/a": "team/a#1"}


# The index


def test_a_job_that_no_longer_names_the_repository_is_passed_over(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)
    save(ci, "team/b", HELLO)
    save(ci, "team/a", HELLO | {"repository": "other/one"})
    ci.jobs.delete("team/b")

    assert send(ci, PUSHED).reason.startswith("no job has a trigger")
    save(ci, "team/b", HELLO)
    assert started(send(ci, PUSHED)) == {"team/b": "team/b#1"}


def test_who_dies_between_mark_and_job_leaves_nothing_that_is_wrong(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    document = {"job": "team/a", "triggers": [HELLO], "tasks": SIMPLE}

    class Died(Exception):
        pass

    class DyingStore(PassingStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            raise Died(key)

    with pytest.raises(Died):
        Jobs(DyingStore(ci.store)).put(document)

    assert send(ci, PUSHED).reason.startswith("no job has a trigger")
    ci.jobs.put(document)
    assert started(send(ci, PUSHED)) == {"team/a": "team/a#1"}


def unread(job: str, error: Exception) -> None:
    raise AssertionError(f"{job} cannot be read: {error}")


def test_only_jobs_that_name_the_repository_are_read(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    for number in range(30):
        save(ci, f"other/{number}", HELLO | {"repository": f"other/{number}"})
    save(ci, "team/a", HELLO)

    class CountingStore(PassingStore):
        calls = 0

        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            self.calls += 1
            return self._store.get(key, start, length)

        def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
            self.calls += 1
            return self._store.list(prefix, after, limit)

    store = CountingStore(ci.store)
    found = [version.job for version, _ in Jobs(store).concerned("github", HELLO["repository"], unread)]

    assert found == ["team/a"]
    assert store.calls <= 6


def test_a_job_that_was_saved_before_there_were_marks_is_found_once_it_is_saved_again(
    idle: Callable[..., DistCI],
) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)
    for info in ci.store.list(keys.HOOKS):
        ci.store.delete(info.key)
    assert send(ci, PUSHED).reason.startswith("no job has a trigger")

    save(ci, "team/a", HELLO)

    assert ci.jobs.get("team/a").version == 1
    assert started(send(ci, PUSHED)) == {"team/a": "team/a#1"}


# Who may


def test_nobody_is_believed_without_a_secret(idle: Callable[..., DistCI]) -> None:
    ci = idle(receivers={"gitea": ReceiverSettings(token="t")})
    save(ci, "team/a", HELLO)
    body = deliveries.recorded(PUSHED)

    with pytest.raises(NotAuthenticated, match=r"the setting receivers\.github\.secrets names no secret"):
        ci.hooks.deliver("github", deliveries.headers(PUSHED, body), body)
    with pytest.raises(NoSuchReceiver):
        ci.hooks.deliver("gitub", {}, body)
    assert [*ci.builds.list("team/a")] == []


def test_any_of_the_secrets_will_do_and_no_other(idle: Callable[..., DistCI]) -> None:
    ci = idle(receivers={"github": ReceiverSettings(("new-secret", "old-secret"))})
    save(ci, "team/a", HELLO)
    body = deliveries.recorded(PUSHED)

    for number, secret in enumerate(("new-secret", "old-secret")):
        ci.hooks.deliver("github", deliveries.headers(PUSHED, body, str(number), secret), body)
    with pytest.raises(NotAuthenticated, match="does not know a secret of receiver github"):
        ci.hooks.deliver("github", deliveries.headers(PUSHED, body, "d", "older-secret"), body)
    assert len([*ci.builds.list("team/a")]) == 1


def test_a_signed_body_that_is_wrong_is_refused_with_the_place(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    with pytest.raises(InvalidDocument, match="github: ref: is a number, not a text"):
        send(ci, PUSHED, change=lambda body: body.update(ref=1))


def test_an_outage_is_told_as_one_and_the_same_delivery_may_come_again(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", HELLO)
    cut = CutCoordination(ci.coordination)
    lifecycle = Lifecycle(Tickets(cut), ci.store, ci.jobs, patience_s=0.1)
    hooks = Hooks(Builds(lifecycle, ci.jobs), ci.jobs, ci.store, SETTINGS)
    body = deliveries.recorded(PUSHED)
    cut.is_cut = True

    with pytest.raises(Unavailable):
        hooks.deliver("github", deliveries.headers(PUSHED, body), body)
    cut.is_cut = False

    assert started(hooks.deliver("github", deliveries.headers(PUSHED, body), body)) == {"team/a": "team/a#1"}


# Strangers

FORKED = "github/pull_request-opened"


def of_fork(body: dict[str, Any]) -> None:
    body["pull_request"]["head"]["repo"]["full_name"] = "stranger/Hello-World"


PULLS = HELLO | {"events": ["pull_request"]}


def test_a_change_of_a_stranger_waits_until_somebody_approves_it(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", PULLS)
    save(ci, "team/b", PULLS | {"branches": ["main"]})

    answer = send(ci, FORKED, change=of_fork)

    assert started(answer)["team/a"].startswith("it comes from a fork, and waits for an approval: distci hook approve ")
    assert started(answer)["team/b"] == "branch master is none of: main"
    [held] = ci.hooks.held()
    assert (held.id, held.receiver, held.change.pull_request) == (answer.held, "github", 2)
    assert [*ci.builds.list("team/a")] == []

    approved = ci.hooks.approve(answer.held, "ada")

    assert started(approved)["team/a"] == "team/a#1"
    trigger = ci.builds.get("team/a#1").trigger
    assert trigger.is_untrusted
    assert trigger.actor == "Codertocat, approved by ada"
    assert [*ci.hooks.held()] == []
    with pytest.raises(NoSuchChange):
        ci.hooks.approve(answer.held)


def test_a_change_of_a_stranger_may_be_refused_and_one_that_concerns_nobody_is_not_kept(
    idle: Callable[..., DistCI],
) -> None:
    ci = idle()
    assert send(ci, FORKED, change=of_fork).held == ""
    save(ci, "team/a", HELLO)
    assert send(ci, FORKED, change=of_fork).held == ""
    save(ci, "team/a", PULLS)
    held = send(ci, FORKED, change=of_fork).held
    assert send(ci, FORKED, change=of_fork).held == held

    ci.hooks.refuse(held)

    assert [*ci.hooks.held()] == []
    assert [*ci.builds.list("team/a")] == []


def test_approving_twice_after_a_crash_in_between_is_one_build(idle: Callable[..., DistCI]) -> None:
    ci = idle()
    save(ci, "team/a", PULLS)
    held = send(ci, FORKED, change=of_fork).held
    kept = ci.store.get(keys.held(held))
    ci.hooks.approve(held, "ada")
    ci.store.put(keys.held(held), kept)  # as if it had died before it was taken away

    assert started(ci.hooks.approve(held, "ada")) == {"team/a": "team/a#1"}


def test_changes_wait_so_many_and_so_long_and_the_oldest_goes_first(idle: Callable[..., DistCI]) -> None:
    # Given a system where two may wait, for an hour
    ci = idle()
    save(ci, "team/a", PULLS)
    body = deliveries.recorded(FORKED, of_fork)

    def hooks(ahead_s: float = 0) -> Hooks:
        clock = lambda: time.time() + ahead_s  # noqa: E731
        return Hooks(ci.builds, ci.jobs, ci.store, SETTINGS, retention=Retention(2, 3600), clock=clock)

    def hold(ahead_s: float = 0) -> str:
        headers = deliveries.headers(FORKED, body, f"delivery-{next(numbers)}")
        return hooks(ahead_s).deliver("github", headers, body).held

    numbers = count()
    # When a third one comes
    one, two, three = hold(), hold(), hold()
    # Then the first waits no longer
    assert {held.id for held in hooks().held()} == {two, three}
    with pytest.raises(NoSuchChange):
        hooks().approve(one)
    # And after an hour none does, though nobody has come to remove them
    assert [*hooks(3700).held()] == []
    for decide in (hooks(3700).approve, hooks(3700).refuse):
        with pytest.raises(NoSuchChange):
            decide(two)
    assert {held.id for held in hooks().held()} == {two, three}
    # And who comes then does
    hold(3700)
    assert {held.id for held in hooks().held()}.isdisjoint({two, three})


@pytest.fixture
def open_house(start_system: Callable[..., System], coordination_url: str | None) -> System:
    """A system that builds what strangers wrote without asking."""
    return start_system(coordination=coordination_url, receivers=SETTINGS, untrusted_builds="run")


def test_j14_no_task_of_a_strangers_change_gets_a_secret(open_house: System) -> None:
    system = open_house
    tasks = [{"name": "use", "type": "shell", "script": 'echo "it is $TOKEN"', "secrets": ["TOKEN"]}]
    system.ci.jobs.put({"job": "team/a", "triggers": [PULLS], "tasks": tasks})
    system.ci.jobs.put(
        {"job": "team/b", "triggers": [{"type": "job", "job": "team/a", "on": "always"}], "tasks": tasks}
    )

    view = built(system, send(system.ci, FORKED, change=of_fork))

    assert view.trigger.is_untrusted
    assert "secret 'TOKEN' is not given to a build of what somebody without rights" in system.failure(view, "use")
    [after] = [system.ci.builds.wait(build, 60) for build in view.downstream]
    again = system.ci.builds.wait(system.ci.builds.retry(view.id), 60)
    for other in (after, again):
        assert other.trigger.is_untrusted
        assert other.state == "failed"
        assert "it is" not in system.log(other, "use")
    trusted = system.ci.builds.wait(system.ci.builds.trigger("team/a"), 60)
    assert trusted.state == "passed"


def test_j14_no_checkout_of_a_strangers_change_gets_credentials(open_house: System) -> None:
    source = {
        "name": "source",
        "type": "git-checkout",
        "repository": "https://forge.invalid/a/b",
        "credentials": "TOKEN",
    }
    open_house.ci.jobs.put({"job": "team/a", "triggers": [PULLS], "tasks": [source]})

    view = built(open_house, send(open_house.ci, FORKED, change=of_fork))

    assert "secret 'TOKEN' is not given" in open_house.failure(view)


def test_what_a_stranger_built_is_not_the_last_build_that_passed_for_others(open_house: System) -> None:
    system = open_house
    make = [
        {"name": "make", "type": "shell", "script": "echo $DISTCI_BUILD > out"},
        {"name": "keep", "type": "publish-artifacts", "paths": ["out"]},
    ]
    system.ci.jobs.put({"job": "team/lib", "triggers": [PULLS], "tasks": make})
    first = system.ci.builds.wait(system.ci.builds.trigger("team/lib"), 60)
    strange = built(system, send(system.ci, FORKED, change=of_fork))
    assert (first.state, strange.state, strange.id.number) == ("passed", "passed", 2)

    use = [
        {"name": "take", "type": "copy-artifacts", "job": "team/lib"},
        {"name": "look", "type": "shell", "script": "cat out"},
    ]
    view = system.run({"job": "team/app", "tasks": use})

    assert system.log(view, "look") == "1\n"


# Real repositories


def test_d20_j03_a_push_of_several_commits_to_another_branch_builds_the_last_of_them(
    hooked: System, remote: Remote, url: str
) -> None:
    main = remote.commit(hello_txt="one\n")
    remote.git("checkout", "--quiet", "-b", "feature/x")
    remote.commit(hello_txt="two\n")
    last = remote.commit(hello_txt="three\n")
    remote.git("checkout", "--quiet", "main")
    hooked.ci.jobs.put(job(url, GITHUB, ref="refs/heads/main"))

    body = deliveries.recorded("github/push", pushed(url, main, last, "refs/heads/feature/x"))
    view = built(hooked, deliver(hooked, "github/push", body))

    assert hooked.log(view, "look").split() == [last, last, "refs/heads/feature/x"]


def test_a_pull_request_of_a_fork_builds_its_head(open_house: System, remote: Remote, url: str) -> None:
    remote.commit(hello_txt="one\n")
    remote.git("checkout", "--quiet", "--detach")
    head = remote.commit(hello_txt="theirs\n")
    remote.git("update-ref", "refs/pull/2/head", head)
    remote.git("checkout", "--quiet", "main")

    def pull(body: dict[str, Any]) -> None:
        body["pull_request"]["head"]["sha"] = head
        body["pull_request"]["base"]["repo"].update(clone_url=url, full_name="org/hello")

    open_house.ci.jobs.put(job(url, GITHUB | {"events": ["pull_request"]}, ref="refs/heads/main"))
    view = built(open_house, send(open_house.ci, FORKED, change=pull))

    assert open_house.log(view, "look").split() == [head, head, "refs/pull/2/head"]


def test_other_repositories_of_the_job_are_checked_out_as_they_say(hooked: System, remote: Remote, url: str) -> None:
    first, second = remote.commit(hello_txt="one\n"), remote.commit(hello_txt="two\n")
    library = Remote(remote.path.parent / "library")
    old, new = library.commit(lib_txt="old\n"), library.commit(lib_txt="new\n")
    document = job(url, GITHUB)
    more = {"type": "git-checkout", "repository": url.replace("/hello", "/library")}
    document["tasks"][1:1] = [
        {"name": "newest", **more, "directory": "new"},
        {"name": "pinned", **more, "directory": "old", "ref": old},
        {"name": "same", "type": "git-checkout", "repository": url, "directory": "one", "ref": first},
    ]
    document["tasks"][-1]["script"] = "for each in src new old one; do git -C $each log -1 --format=%H; done"
    hooked.ci.jobs.put(document)

    view = built(hooked, deliver(hooked, "github/push", deliveries.recorded("github/push", pushed(url, first, second))))

    assert hooked.log(view, "look").split() == [second, new, old, first]


def test_a_checkout_of_a_mirror_takes_the_commit_of_the_change(hooked: System, remote: Remote, url: str) -> None:
    first, second = remote.commit(hello_txt="one\n"), remote.commit(hello_txt="two\n")
    remote.commit(hello_txt="three\n")
    hooked.ci.jobs.put(job(str(remote.path), GITHUB))

    body = deliveries.recorded("github/push", pushed("https://github.com/org/hello.git", first, second))
    view = built(hooked, deliver(hooked, "github/push", body))

    assert hooked.log(view, "look").split()[0] == second


def test_a_retry_builds_the_same_commit_and_keeps_what_started_it(hooked: System, remote: Remote, url: str) -> None:
    first, second = remote.commit(hello_txt="one\n"), remote.commit(hello_txt="two\n")
    hooked.ci.jobs.put(job(url, GITHUB, ref="refs/heads/main"))
    view = built(hooked, deliver(hooked, "github/push", deliveries.recorded("github/push", pushed(url, first, first))))
    assert second != first

    again = hooked.ci.builds.wait(hooked.ci.builds.retry(view.id), 60)

    assert hooked.log(again, "look").split()[0] == first
    assert again.trigger.delivery == view.trigger.delivery


def test_a_newer_push_supersedes_an_older_one_where_the_job_says_so(hooked: System, tmp_path: Path) -> None:
    gate = tmp_path / "open"
    put(hooked, HELLO, script=f"until test -e {gate}; do sleep 0.02; done", concurrency={"policy": "cancel-old"})
    first = send(hooked.ci, PUSHED, "one")
    wait_until(lambda: hooked.ci.builds.get("team/hello#1").state == "running")

    second = send(hooked.ci, PUSHED, "two", lambda body: body.update(after="2" * 40))

    old = built(hooked, first)
    assert (old.state, old.reason) == ("cancelled", "superseded by team/hello#2")
    gate.touch()
    assert built(hooked, second).state == "passed"
