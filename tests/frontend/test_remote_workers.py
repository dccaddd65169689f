"""DistCI's own workers where nothing but front ends is reached: builds, and what happens to either side meanwhile."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest
from frontends import Stage, shell
from gateways import Lab
from integration.git_remotes import Remote
from program import Home, Process, is_alive
from waiting import wait_until

import distci.gateway
from distci.app import DistCI, connect, open_front_end
from distci.brokers import direct, remote
from distci.builds import BuildView
from distci.conformance.relay import Relay, Weather
from distci.errors import Forbidden, Invalid, InvalidDocument, NotAuthenticated
from distci.frontend import gateway
from distci.frontend.serving import FrontEnd
from distci.isolation.host import HostIsolation
from distci.model import BuildId, TaskState
from distci.process import Post, WorkerProcess
from distci.protocol import leases
from distci.protocol.leases import standing
from distci.protocol.members import drain
from distci.protocol.records import Ticket
from distci.protocol.sweeps import Sweeper
from distci.settings import Settings
from distci.store import keys
from distci.store.attended import Checkpoint
from distci.store.port import objects
from distci.work import TaskContext

KINDS = ("shell", "git-checkout", "publish-artifacts", "copy-artifacts")
SECRET = "correct horse battery"


def token_for(ci: DistCI, *, kinds: Sequence[str] = KINDS, project: str = "") -> str:
    return ci.access.create_worker_token("lab-7", kinds, ["os=linux", "gpu=*"], project=project).text


def workers(folder: Path, token: str, *urls: str, kinds: Sequence[str] = KINDS, **options: Any) -> WorkerProcess:
    """Workers of this process that know nothing but these front ends."""
    broker = open_front_end(Settings(url=" ".join(urls), token=token))
    posts, scratch = [Post(kinds, slots=2)], folder / "scratch"
    return WorkerProcess(broker, HostIsolation(), scratch, posts, search_path=os.environ["PATH"], **options)


class Crew:
    """A lab with front ends, and remote workers for all tasks there are."""

    def __init__(self, stage: Stage, fronts: int = 1, *, project: str = "", **options: Any) -> None:
        self.lab = Lab(stage, fronts=fronts)
        self.ci = stage.ci
        self.marks = stage.folder / "marks"
        self.marks.mkdir()
        self._stage = stage
        urls = [api.url for api in self.lab.apis]
        self.process = workers(
            stage.folder / "lab", token_for(stage.ci, project=project), *urls, name="lab-7", **options
        )
        stage.enter(self.process)

    def end(self, build: BuildId) -> BuildView:
        return self._stage.end(build)

    def printed(self, build: BuildId, task: str = "say") -> bytes:
        return b"".join(self.ci.builds.log(build, task))

    def lasting(self, **more: Any) -> dict[str, Any]:
        """A task that prints, waits for its mark ``go``, and prints again."""
        go, pid = self.marks / "go", self.marks / "pid"
        script = (
            f"seq 1 2000; echo $$ > {pid}.new; mv {pid}.new {pid}; until [ -e {go} ]; do sleep 0.1; done; seq 2001 4000"
        )
        return shell(script, **more)

    def begun(self) -> int:
        """The process of that task, once it is there."""
        pid = self.marks / "pid"
        wait_until(pid.exists)
        return int(pid.read_text())

    def go(self) -> None:
        (self.marks / "go").touch()

    @property
    def numbers(self) -> bytes:
        return b"".join(b"%d\n" % number for number in range(1, 4001))

    def token_of(self, build: BuildId) -> str:
        return next(
            view.token
            for view in self.ci.tickets.list()
            if view.place == "running" and view.ticket and view.ticket.body.get("build") == str(build)
        )


def take_away(ci: DistCI, token: str) -> None:
    found = standing(ci.tickets, token)
    assert found
    found.claim(ci.tickets).give_back("taken away")


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a test can wait for, in front ends of this process."""
    monkeypatch.setattr(leases, "LEASE_S", 4.0)
    monkeypatch.setattr(leases, "RENEW_AFTER_S", 0.1)
    monkeypatch.setattr(gateway, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(direct, "Sweeper", partial(Sweeper, overdue_grace_s=0.5))


class TestBuilds:
    def test_all_kinds_of_tasks_are_served_where_only_control_reaches_tree_and_store(
        self, stage: Stage, tmp_path: Path
    ) -> None:
        crew = Crew(stage)
        source = Remote(tmp_path / "hello")
        commit = source.commit(hello_txt="hello\n")
        made = crew.lab.start(
            {"name": "source", "type": "git-checkout", "repository": f"file://{source.path}", "directory": "src"},
            shell(
                "mkdir -p dist/d; tr a-z A-Z < src/hello.txt > dist/d/loud; : > dist/empty; chmod 755 dist/d/loud",
                "make",
            ),
            {"name": "keep", "type": "publish-artifacts", "paths": ["dist/**"]},
            shell('test -x dist/d/loud; echo "$DISTCI_COMMIT $DISTCI_GATEWAY"', "say"),
            job="team/make",
        )
        assert crew.end(made).result == "passed"
        assert crew.printed(made) == f"{commit} \n".encode()
        assert [artifact.name for artifact in crew.ci.artifacts.list(made)] == ["dist/d/loud", "dist/empty"]
        used = crew.lab.start(
            {"name": "copy", "type": "copy-artifacts", "job": "team/make", "paths": ["dist/d/*"], "directory": "got"},
            shell("cat got/dist/d/loud"),
            job="team/use",
        )
        view = crew.end(used)
        assert (view.result, crew.printed(used)) == ("passed", b"HELLO\n")
        assert view.task("copy").attempts[-1]["details"] == {"build": str(made), "files": 1}
        assert {str(task.attempts[-1]["worker"]).partition("@")[0] for task in view.tasks} == {"lab-7"}
        [seen] = [worker for worker in crew.ci.status.workers() if "@" in worker.name]
        assert (seen.slots, set(seen.offer.kinds), bool(seen.version)) == (2, set(KINDS), True)

    def test_what_cannot_all_be_published_is_not_published_at_all(self, local: Stage) -> None:
        local.home.environment["DISTCI_ARTIFACT_SIZE_MAX"] = "1MiB"
        crew = Crew(local)
        build = crew.lab.start(
            shell("for name in a b c; do echo 1 > $name; done; truncate -s 2M d"),
            {"name": "keep", "type": "publish-artifacts", "paths": ["*"]},
        )
        view = crew.end(build)
        assert (view.result, view.task("keep").attempts[-1]["artifacts"]) == ("failed", 0)
        assert [info.key for info in objects(crew.ci.store, keys.build(build)) if "artifact" in info.key]
        assert crew.ci.artifacts.list(build) == []

    def test_all_checkouts_of_a_build_get_the_same_commit(self, local: Stage, tmp_path: Path) -> None:
        crew = Crew(local)
        source = Remote(tmp_path / "hello")
        first = source.commit(a_txt="one")
        checkout = {"type": "git-checkout", "repository": f"file://{source.path}"}
        build = crew.lab.start(
            {"name": "one", "directory": "one", **checkout},
            shell(f"until [ -e {crew.marks / 'go'} ]; do sleep 0.1; done"),
            {"name": "two", "directory": "two", **checkout},
        )
        wait_until(lambda: any(task.state is TaskState.PASSED for task in crew.ci.builds.get(build).tasks))
        source.commit(a_txt="two")
        crew.go()
        view = crew.end(build)
        assert {view.task(name).attempts[-1]["details"]["commit"] for name in ("one", "two")} == {first}

    def test_secrets_are_the_systems_or_the_workers_own_and_masked(self, local: Stage) -> None:
        crew = Crew(local, secrets={"team": {"PHRASE": SECRET}, "other": {"HIDDEN": SECRET}})
        local.ci.secrets.set("PHRASE", "of the system", "team")
        local.ci.secrets.set("FILE", "also of the system", "team")
        local.ci.secrets.set("HIDDEN", "of others", "other")
        script = (
            'echo "$PHRASE" | tr a-z A-Z; echo "it is $PHRASE"; echo "<$HIDDEN>"; tr a-z A-Z < "$FILE"; cat "$FILE"'
        )
        build = crew.lab.start(shell(script, secrets=["PHRASE"], secret_files=["FILE"]))
        assert crew.end(build).result == "passed"
        assert crew.printed(build) == f"{SECRET.upper()}\nit is ***\n<>\nALSO OF THE SYSTEM***".encode()

    def test_one_that_is_given_to_another_project_fails_the_task_that_names_it(self, local: Stage) -> None:
        crew = Crew(local, secrets={"other": {"HIDDEN": SECRET}})
        local.ci.secrets.set("HIDDEN", SECRET, "other")
        task = crew.end(crew.lab.start(shell("echo $HIDDEN", secrets=["HIDDEN"]))).task("say")
        assert "no secret 'HIDDEN' is set for team/hello" in str(task.attempts[-1]["reason"])

    def test_a_log_that_is_full_says_so(self, local: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (remote, distci.gateway):
            monkeypatch.setattr(module, "LOG_BYTES_MAX", 2000)
        lab = Lab(local, fronts=0)
        with (
            connect(local.folder / "data") as ci,
            FrontEnd(ci, "127.0.0.1:0") as front_end,
            workers(local.folder / "lab", token_for(ci), front_end.address),
        ):
            build = lab.start(shell("seq 1 1000"))
            assert local.end(build).result == "passed"
        printed = b"".join(local.ci.builds.log(build, "say"))
        assert printed.endswith(b"distci: the log is full; 1993 more bytes were dropped\n")

    def test_what_cannot_be_carried_on_is_named_and_the_rest_is(self, local: Stage) -> None:
        crew = Crew(local)
        build = crew.lab.start(
            shell("mkfifo pipe; ln -s / out; echo kept > file", "make"),
            shell("ls; readlink out; cat file"),
            job="team/hello",
        )
        assert crew.end(build).result == "passed"
        assert crew.printed(build) == b"file\nout\n/\nkept\n"
        assert b"pipe is neither file" in crew.printed(build, "make")


class TestCopying:
    def test_files_of_other_projects_are_not_for_a_worker_of_one(self, local: Stage) -> None:
        crew = Crew(local, project="team/web")
        with workers(local.folder / "other", token_for(local.ci), crew.lab.url, name="other"):
            other = crew.lab.start(
                shell("echo 1 > a"), {"name": "keep", "type": "publish-artifacts", "paths": ["a"]}, job="secret/lib"
            )
            assert crew.end(other).result == "passed"
        build = crew.lab.start({"name": "copy", "type": "copy-artifacts", "job": "secret/lib"}, job="team/web/site")
        task = crew.end(build).task("copy")
        assert task.state is TaskState.FAILED
        assert "is for team/web alone" in str(task.attempts[-1]["reason"])
        assert len(task.attempts) == 1

    def test_a_build_that_is_not_there_fails_the_task(self, local: Stage) -> None:
        crew = Crew(local)
        crew.ci.jobs.put({"job": "team/none", "tasks": [shell("true")]})
        build = crew.lab.start({"name": "copy", "type": "copy-artifacts", "job": "team/none"})
        task = crew.end(build).task("copy")
        assert (task.state, task.attempts[-1]["reason"]) == (TaskState.FAILED, "no build of team/none has passed")


class TestOutages:
    def test_a_front_end_that_is_killed_in_the_middle_of_a_task_costs_nothing(self, stage: Stage) -> None:
        crew = Crew(stage, fronts=2)
        build = crew.lab.start(crew.lasting())
        crew.begun()
        crew.lab.kill(0)
        crew.go()
        view = crew.end(build)
        assert (view.result, view.task("say").attempts[-1]["attempt"]) == ("passed", 1)
        assert crew.printed(build) == crew.numbers

    def test_while_all_are_away_work_goes_on_and_is_delivered_then(self, local: Stage) -> None:
        crew = Crew(local)
        build = crew.lab.start(crew.lasting(name="say"), shell("true", "then"))
        pid = crew.begun()
        crew.lab.kill(0)
        crew.go()
        wait_until(lambda: not is_alive(pid))
        crew.lab.start_again(0)
        view = crew.end(build)
        assert (view.result, view.task("say").attempts[-1]["attempt"]) == ("passed", 1)
        assert crew.printed(build) == crew.numbers

    def test_where_every_call_is_doubled_and_every_other_answer_lost_all_happens_once(
        self, local: Stage, tmp_path: Path
    ) -> None:
        lab = Lab(local, fronts=2)
        source = Remote(tmp_path / "hello")
        commit = source.commit(a_txt="hello")
        with Relay([("127.0.0.1", int(api.url.rpartition(":")[2])) for api in lab.apis]) as relay:
            relay.begin(Weather(doubles=True))
            with workers(local.folder / "lab", token_for(local.ci), relay.url):
                made = lab.start(
                    {"name": "source", "type": "git-checkout", "repository": f"file://{source.path}"},
                    shell("head -c 3000000 /dev/urandom > big; sha256sum big > sums; echo made", "say"),
                    {"name": "keep", "type": "publish-artifacts", "paths": ["big", "sums"]},
                    job="team/make",
                )
                view = local.end(made)
                used = lab.start(
                    {"name": "copy", "type": "copy-artifacts", "job": "team/make"},
                    shell("sha256sum -c sums"),
                    job="team/use",
                )
                views = [view, local.end(used)]
            assert sum(call.is_lost for call in relay.calls) > 10
        assert [view.result for view in views] == ["passed", "passed"]
        assert {task.attempts[-1]["attempt"] for view in views for task in view.tasks} == {1}
        assert view.task("source").attempts[-1]["details"]["commit"] == commit
        assert b"".join(local.ci.builds.log(made, "say")) == b"made\n"
        assert b"".join(local.ci.builds.log(used, "say")) == b"big: OK\n"


class TestEnding:
    def test_a_claim_that_is_lost_ends_the_work(self, local: Stage) -> None:
        crew = Crew(local)
        lasting = crew.lasting()
        script = f'if [ "$DISTCI_ATTEMPT" = 1 ]; then {lasting["script"]}; fi; echo again'
        build = crew.lab.start(shell(script))
        pid = crew.begun()
        take_away(crew.ci, crew.token_of(build))
        view = crew.end(build)
        assert (view.result, view.task("say").attempts[-1]["attempt"]) == ("passed", 2)
        assert crew.printed(build) == b"again\n"
        wait_until(lambda: not is_alive(pid))

    def test_a_cancel_ends_the_work(self, local: Stage) -> None:
        crew = Crew(local)
        build = crew.lab.start(crew.lasting())
        pid = crew.begun()
        crew.ci.builds.cancel(build)
        view = crew.end(build)
        assert (view.result, view.task("say").state) == ("cancelled", TaskState.CANCELLED)
        assert not is_alive(pid)

    def test_what_a_task_left_is_kept_when_its_time_is_up(self, local: Stage) -> None:
        crew = Crew(local)
        build = crew.lab.start(
            shell("echo half > file; sleep 60", "make", timeout="1s"), shell("cat file", needs=["make"], when="always")
        )
        view = crew.end(build)
        assert view.task("make").state is TaskState.TIMED_OUT
        assert view.task("make").attempts[-1]["reason"] == "not done after 1 s"
        assert crew.printed(build) == b"half\n"

    @pytest.mark.parametrize(("script", "came_to"), [("true", TaskState.PASSED), ("sleep 60", TaskState.TIMED_OUT)])
    def test_to_keep_what_it_left_a_task_has_longer_than_its_time_and_a_lease(
        self, local: Stage, short_lease: None, monkeypatch: pytest.MonkeyPatch, script: str, came_to: TaskState
    ) -> None:
        save = remote.RemoteAssignment.save

        def slow(assignment: remote.RemoteAssignment, directory: Path, checkpoint: Checkpoint) -> Sequence[str]:
            until = monotonic() + 9
            while monotonic() < until:
                checkpoint()
                sleep(0.1)
            return save(assignment, directory, checkpoint)

        monkeypatch.setattr(remote.RemoteAssignment, "save", slow)
        lab = Lab(local, fronts=0)
        with (
            connect(local.folder / "data") as ci,
            FrontEnd(ci, "127.0.0.1:0") as front_end,
            workers(local.folder / "lab", token_for(local.ci), front_end.address),
        ):
            made = shell(f"echo left > file; {script}", "make", timeout="2s")
            build = lab.start(made, shell("cat file", needs=["make"], when="always"))
            view = local.end(build)
        task = view.task("make")
        assert (task.state, task.attempts[-1]["attempt"]) == (came_to, 1)
        assert b"".join(local.ci.builds.log(build, "say")) == b"left\n"

    def test_a_worker_that_is_drained_from_elsewhere_ends(self, local: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        # It hears of it when it asks again.
        monkeypatch.setattr(remote, "WAIT_S", 1.0)
        crew = Crew(local)
        build = crew.lab.start(crew.lasting())
        crew.begun()
        [name] = [worker.name for worker in crew.ci.status.workers() if "@" in worker.name]
        drain(crew.ci.tickets, name)
        crew.go()
        assert crew.end(build).result == "passed"
        wait_until(lambda: crew.process.is_draining)
        assert crew.process.refused is None


class TestRefusals:
    def test_a_ticket_that_comes_to_nothing_ends_no_worker(self, local: Stage) -> None:
        crew = Crew(local)
        ticket = Ticket("left", "shell", {"build": "team/gone#1", "task": "say"})
        local.ci.tickets.post(ticket)
        wait_until(lambda: local.ci.tickets.show("left").place == "running")
        assert crew.end(crew.lab.start(shell("true"))).result == "passed"
        assert not crew.process.is_draining

    def test_work_of_which_nobody_knows_how_it_ended_is_done_as_often_as_the_task_allows(
        self, local: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = local.folder / "runs"

        def fail(*_: object) -> None:
            raise ValueError("nobody knows what became of this")

        monkeypatch.setattr(TaskContext, "outcome_of", fail)
        crew = Crew(local)
        view = crew.end(crew.lab.start(shell(f"echo run >> {runs}", attempts=2)))
        assert (view.result, view.task("say").state) == ("failed", TaskState.LOST)
        assert runs.read_text() == "run\n" * 2

    def test_what_a_machine_has_no_room_for_costs_the_task_no_attempt(
        self, local: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = [OSError(errno.ENOSPC, "no room")] * 2
        restore = remote.RemoteAssignment.restore

        def restored(*arguments: Any) -> None:
            if full:
                raise full.pop()
            restore(*arguments)

        monkeypatch.setattr(remote.RemoteAssignment, "restore", restored)
        crew = Crew(local)
        view = crew.end(crew.lab.start(shell("true", attempts=1)))
        assert (view.result, view.task("say").attempts[-1]["attempt"]) == ("passed", 3)

    def test_a_worker_that_front_ends_do_not_want_ends_and_says_why(self, local: Stage) -> None:
        lab = Lab(local)
        good = token_for(local.ci, kinds=["shell"])
        wrong: tuple[tuple[str, Sequence[str], Sequence[str], type[Exception]], ...] = (
            (good, ["shell", "git-checkout"], [], Forbidden),
            (good, ["shell"], ["arm"], Forbidden),
            (f"{good[:-4]}aaaa", ["shell"], [], NotAuthenticated),
        )
        for token, kinds, labels, error in wrong:
            with workers(local.folder / "lab", token, lab.url, kinds=kinds, labels=labels) as process:
                assert process.wait(20)
                assert isinstance(process.refused, error)

    def test_what_answers_with_no_claim_is_no_front_end_and_ends_the_worker(self, tmp_path: Path) -> None:
        class Other(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b'{"id": 7}')

        with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
            Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            with workers(tmp_path, "token", f"http://127.0.0.1:{other.server_port}") as process:
                assert process.wait(20)
                assert isinstance(process.refused, InvalidDocument)
            other.shutdown()

    def test_kinds_that_work_on_the_back_ends_are_not_served(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="control works on the back ends themselves"):
            workers(tmp_path, "token", "https://ci.example.org", kinds=["control"])


@pytest.fixture
def program(local: Stage) -> Iterator[Callable[..., Process]]:
    """Starts ``distci worker run shell`` in a home that has nothing but a URL and a token."""
    with ExitStack() as stack:

        def start(url: str, name: str, **variables: str) -> Process:
            home = Home(local.folder / name)
            home.folder.mkdir()
            home.environment |= {"DISTCI_TOKEN": token_for(local.ci), **variables}
            return stack.enter_context(
                home.running("worker", "run", "shell", "--name", name, "--url", url, until="Ctrl-C")
            )

        yield start


class TestProgram:
    def test_sigterm_ends_it_once_its_task_is_done(self, local: Stage, program: Callable[..., Process]) -> None:
        lab = Lab(local)
        worker = program(lab.url, "lab-7")
        go, begun = local.folder / "go", local.folder / "begun"
        build = lab.start(shell(f": > {begun}; until [ -e {go} ]; do sleep 0.1; done; echo done"))
        wait_until(begun.exists)
        assert Home(local.folder / "lab-7").ask("worker", "check", "--url", lab.url).stdout == "lab-7 is well\n"
        worker.signal(signal.SIGTERM)
        wait_until(lambda: "taking nothing more" in worker.stderr)
        other = lab.start(shell("true"), job="team/other")
        go.touch()
        assert worker.wait() == 0
        assert local.end(build).result == "passed"
        assert local.ci.builds.get(other).result is None

    def test_tasks_are_isolated_as_they_ask_and_as_its_operator_allows(
        self, local: Stage, program: Callable[..., Process]
    ) -> None:
        lab = Lab(local)
        program(lab.url, "lab-7", DISTCI_ISOLATION="host sandbox")
        (local.folder / "beside").touch()
        look = f"test -e {local.folder}/beside && echo sees || echo blind; touch kept"
        apart = shell(look, "apart", isolation={"type": "sandbox", "network": False})
        build = lab.start(apart, shell(f"cat kept; {look}", "usual"))
        assert local.end(build).result == "passed"
        logs = [b"".join(local.ci.builds.log(build, task)) for task in ("apart", "usual")]
        # The first line says how to reproduce it.
        assert [log.splitlines()[1:] for log in logs] == [[b"blind"], [b"sees"]]
        [seen] = [worker for worker in local.ci.status.workers() if "lab-7" in worker.name]
        assert seen.offer.labels == ("isolation=host", "isolation=sandbox")

    def test_one_that_is_killed_is_taken_over_from(
        self, local: Stage, program: Callable[..., Process], short_lease: None
    ) -> None:
        lab = Lab(local, fronts=0)
        # A front end of this process, where these times hold.
        with connect(local.folder / "data") as ci, FrontEnd(ci, "127.0.0.1:0") as front_end:
            url = front_end.address
            worker = program(url, "first")
            begun = local.folder / "begun"
            script = f'echo $DISTCI_ATTEMPT; if [ "$DISTCI_ATTEMPT" = 1 ]; then echo $$ > {begun}; sleep 600; fi'
            build = lab.start(shell(script))
            wait_until(lambda: begun.exists() and begun.read_text() != "")
            worker.kill()
            program(url, "second")
            view = local.end(build)
            assert (view.result, view.task("say").attempts[-1]["attempt"]) == ("passed", 2)
            wait_until(lambda: not is_alive(int(begun.read_text())))
