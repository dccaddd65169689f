"""Workers that reach nothing but front ends: what they are given, what they hand in, and what becomes of it when answers and front ends are lost."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as ThreadEvent
from types import SimpleNamespace
from typing import BinaryIO, cast

import anyio
import pytest
import requests
from coroutines import run_coroutine
from frontends import BUILD, Api, Stage, problem, raw, shell
from gateways import Hand, Lab
from starlette.requests import Request
from starlette.types import Message
from waiting import wait_until

from distci.access import Worker
from distci.app import DistCI
from distci.coordination.port import Create
from distci.frontend.access import Access
from distci.frontend.endpoint import Call
from distci.frontend.gateway import Desk
from distci.frontend.threads import Threads
from distci.gateway import Gateway
from distci.model import BuildId, Plan, TaskState, Trigger
from distci.protocol import paths
from distci.protocol.leases import standing
from distci.protocol.members import drain
from distci.protocol.records import Ticket
from distci.protocol.transactions import post
from distci.store import keys
from distci.store.passing import PassingStore
from distci.store.port import Store, objects
from distci.views import from_json

WORKER = Path(__file__).parents[2] / "docs" / "examples" / "worker.sh"
MIB = 1024 * 1024
LARGE_BYTES = 256 * MIB


def take_away(stage: Stage, token: str) -> None:
    """The claim, as a sweeper does."""
    found = standing(stage.ci.tickets, token)
    assert found
    found.claim(stage.ci.tickets).give_back("taken away")


def written(stage: Stage) -> list[str]:
    return [info.key for info in objects(stage.ci.store, "builds/") if "/tasks/" in info.key]


def test_a_task_is_claimed_printed_and_completed_by_curl(stage: Stage) -> None:
    lab = Lab(stage)
    build = lab.start(shell("echo hello"))

    def curl(*arguments: str, data: str | None = None) -> str:
        told = ["curl", "-sSf", "-H", f"Authorization: Bearer {lab.token}", *arguments]
        return subprocess.run(told, check=True, capture_output=True, text=True, input=data, timeout=60).stdout

    asked = ("--json", '{"kinds": ["shell"], "wait_s": 30}', "-o", "/dev/null", "-w", "%header{location}")
    url = lab.url + curl(*asked, f"{lab.url}/api/v1/claims")
    assert curl(f"{url}/script") == "#!/bin/sh -e\necho hello"
    assert "export DISTCI_JOB=team/hello\n" in curl(f"{url}/prelude")
    assert curl("-X", "POST", f"{url}/heartbeat") == '{"stop": null}'
    assert curl("-T", "-", f"{url}/log?offset=0", data="hello\n") == '{"next": 6}'
    curl("-X", "PUT", "--json", '{"verdict": "passed", "exit_status": 0}', f"{url}/outcome")
    assert stage.end(build).result == "passed"
    assert b"".join(stage.ci.builds.log(build, "say")) == b"hello\n"


class TestClaiming:
    def test_asked_again_with_the_same_key_it_is_the_same_claim_at_any_front_end(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        lab.start(shell("true", "one"), shell("true", "two", needs=[]))
        first = lab.claim(0, key="k1").json()
        lab.kill(0)
        assert lab.claim(1, key="k1").json() == first
        other = lab.claim(1, key="k2").json()
        assert {first["task"], other["task"]} == {"one", "two"}

    def test_two_front_ends_that_are_asked_at_once_give_out_one_claim(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(lab.claim, front, "k", 10) for front in (0, 1)]
            wait_until(lambda: len(idle(stage)) > 0)
            lab.start(shell("true", "one"), shell("true", "two", needs=[]))
            told = [answer.result().json() for answer in asked]
        assert told[0] == told[1]
        assert lab.claim(key="other").status_code == 201

    def test_who_waits_is_woken(self, stage: Stage) -> None:
        lab = Lab(stage)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lab.claim, 0, "", 40)
            wait_until(lambda: len(idle(stage)) > 0)
            lab.start(shell("true"))
            assert asked.result().status_code == 201
        wait_until(lambda: idle(stage) == [])

    def test_who_never_waits_is_given_what_somebody_else_was_woken_for(self, local: Stage) -> None:
        lab = Lab(local)
        ticket = Ticket("left", "shell", {"build": "team/hello#1", "task": "say"})
        local.ci.coordination.commit(
            *(Create(path) for path in (ticket.pool, paths.front_row(ticket.pool))),
            post(local.ci.tickets.stamped(ticket), paths.front_row(ticket.pool), paths.worker_tag("dead")),
        )
        # Its build is not there, of which it hears only once it has the claim.
        problem(lab.claim(wait_s=0), 409, "ClaimLost")

    def test_who_hangs_up_is_waited_for_no_more(self, local: Stage) -> None:
        lab = Lab(local)
        body = b'{"kinds": ["shell"], "wait_s": 50}'
        head = f"POST /api/v1/claims HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {lab.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        raw(lab.url, head.encode() + body, hang_up=True)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lab.claim, 0, "", 30)
            wait_until(lambda: len(idle(local)) == 1)
            lab.start(shell("true"))
            assert asked.result().status_code == 201

    def test_a_front_end_that_ends_lets_go_of_who_waits(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lab.claim, 0, "k", 50)
            wait_until(lambda: len(idle(stage)) == 1)
            assert lab.end(0) == 0
            problem(asked.result(), 503, "Unavailable")
        # One that had no time to take its leave is waited for until its session ends.
        wait_until(lambda: idle(stage) == [])
        lab.start(shell("true"))
        assert lab.claim(1, key="k").json()["attempt"] == 1

    def test_there_may_be_nothing_to_do(self, local: Stage) -> None:
        lab = Lab(local)
        assert lab.claim(wait_s=0).status_code == 204
        assert idle(local) == []

    def test_a_worker_is_given_what_its_token_is_for(self, local: Stage) -> None:
        lab = Lab(local, project="team/web")
        lab.start(shell("true"), job="team/hello")
        mine = lab.start(shell("true"), job="team/web/site")
        assert lab.claimed().told["build"] == str(mine)
        assert lab.claim(wait_s=0).status_code == 204
        problem(lab.claim(wait_s=0, kinds=["git-checkout"]), 403, "Forbidden")
        problem(lab.claim(wait_s=0, labels=["gpu=a100"]), 403, "Forbidden")

    def test_labels_say_what_suits(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("true", labels=["os=linux"]))
        assert lab.claim(wait_s=1).status_code == 204
        assert lab.claimed(labels=["os=linux"]).told["labels"] == ["os=linux"]

    def test_nothing_is_left_of_a_key_whose_claim_is_over(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("true"))
        hand = lab.claimed(key="k")
        take_away(local, hand.token)
        again = lab.claimed(key="k")
        assert again.told["attempt"] == 2
        again.complete()
        assert list(local.ci.coordination.children(f"{paths.OWNERS}/keys")) == []


def state_of(stage: Stage, build: BuildId, task: str = "say") -> TaskState | None:
    """None while the build is being planned."""
    return next((view.state for view in stage.ci.builds.get(build).tasks if view.name == task), None)


def printed(stage: Stage, build: BuildId) -> bytes:
    """What the task has printed so far."""
    return b"".join(stage.ci.builds.log(build, "say")) if state_of(stage, build) else b""


def idle(stage: Stage) -> list[str]:
    """Who waits to be woken for a task."""
    offers = [name for name in stage.ci.coordination.children(paths.IDLE) if name.startswith("shell")]
    return [worker for offer in offers for worker in stage.ci.coordination.children(f"{paths.IDLE}/{offer}")]


class TestSeen:
    def test_a_worker_is_live_while_it_asks_or_works_and_can_be_drained(self, stage: Stage) -> None:
        lab = Lab(stage)
        lab.start(shell("true"))
        hand = lab.claimed(labels=["os=linux"], name="bench-3")
        [seen] = [worker for worker in stage.ci.status.workers() if "@" in worker.name]
        assert seen.name.startswith("bench-3@")
        assert (seen.offer.kinds, seen.offer.labels, seen.holds) == (("shell",), ("os=linux",), [hand.token])
        assert seen.host == "127.0.0.1"
        drain(stage.ci.tickets, seen.name)
        problem(lab.claim(name="bench-3"), 403, "Forbidden")
        assert hand.complete().status_code == 200

    def test_a_build_of_what_a_stranger_wrote_is_said_to_be_one_and_asks_for_no_secret(self, local: Stage) -> None:
        lab = Lab(local)
        version = local.ci.jobs.put({"job": "team/hello", "tasks": [shell("echo $KEY", secrets=["KEY"])]})
        for is_untrusted, secrets in ((False, ["KEY"]), (True, [])):
            local.ci.builds.start(version, Trigger("github", is_untrusted=is_untrusted))
            told = lab.claimed().told
            assert (told["is_untrusted"], told["secrets"]) == (is_untrusted, secrets)

    def test_control_is_not_given_out(self, local: Stage) -> None:
        """Whoever serves it sweeps, and shares that with all others who do."""
        lab = Lab(local)
        token = local.ci.access.create_worker_token("bold", ["control"]).text
        problem(Api(lab.url, token).post("/claims", json={"kinds": ["control"]}), 422, "Invalid")
        assert [worker.name for worker in local.ci.status.workers()] == ["control-control"]


class TestFence:
    def test_a_claim_that_was_taken_over_writes_nothing(self, stage: Stage) -> None:
        lab = Lab(stage)
        build = lab.start(shell("true"))
        old = lab.claimed()
        take_away(stage, old.token)
        before = written(stage)
        for what, answer in old.all_calls().items():
            assert (what, problem(answer, 409, "ClaimLost")["status"]) == (what, 409)
        assert written(stage) == before
        new = lab.claimed()
        assert new.told["attempt"] == 2
        for answer in old.all_calls().values():
            problem(answer, 409, "ClaimLost")
        new.complete()
        assert stage.end(build).result == "passed"

    def test_nobody_speaks_for_another_worker(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("true"))
        hand = lab.claimed()
        shown = {"Authorization": f"Bearer {lab.new_token()}"}
        problem(hand.call("POST", "/heartbeat", headers=shown), 403, "Forbidden")
        problem(hand.call("PUT", "/outcome", headers=shown, json={"verdict": "passed"}), 403, "Forbidden")
        assert hand.heartbeat().status_code == 200

    def test_nobody_speaks_for_a_worker_that_has_a_session(self, local: Stage) -> None:
        lab = Lab(local)
        go = local.folder / "go"
        with lab.process("shell"):
            build = lab.start(shell(f"until [ -e {go} ]; do sleep 0.1; done"))
            wait_until(lambda: state_of(local, build) is TaskState.RUNNING)
            token = next(view.token for view in local.ci.tickets.list() if view.place == "running")
            url = f"{BUILD}/tasks/say/attempts/{token}"
            for answer in Hand(lab, {"token": token, "url": f"/api/v1{url}"}).all_calls().values():
                problem(answer, 409, "ClaimLost")
            go.touch()
            assert local.end(build).result == "passed"


class TestKeeping:
    def test_a_cancel_is_told_and_ends_the_build(self, stage: Stage) -> None:
        lab = Lab(stage)
        build = lab.start(shell("sleep 60"))
        hand = lab.claimed()
        problem(hand.complete("cancelled"), 422, "IllegalTransition")
        assert hand.heartbeat().json() == {"stop": None}
        stage.ci.builds.cancel(build)
        wait_until(lambda: hand.heartbeat().json() == {"stop": "cancelled"})
        assert hand.complete("cancelled").status_code == 200
        assert stage.end(build).result == "cancelled"

    def test_the_end_of_the_tasks_time_is_told(self, stage: Stage) -> None:
        lab = Lab(stage)
        build = lab.start(shell("sleep 60", timeout="1s"))
        hand = lab.claimed()
        wait_until(lambda: hand.heartbeat().json() == {"stop": "timed-out"})
        hand.complete("timed-out", reason="not done after 1 s")
        assert stage.end(build).task("say").state is TaskState.TIMED_OUT

    def test_a_claim_that_is_given_back_is_for_the_next_and_has_lost_no_attempt(self, stage: Stage) -> None:
        lab = Lab(stage)
        lab.start(shell("true", attempts=1))
        hand = lab.claimed()
        assert hand.call("DELETE", params={"reason": "machine goes down"}).json()["is_given_back"]
        problem(hand.heartbeat(), 409, "ClaimLost")
        assert lab.claimed().told["attempt"] == 2


class TestLog:
    def test_bytes_sent_again_are_there_once(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        build = lab.start(shell("true"))
        hand = lab.claimed()
        assert hand.log(0, b"one\n").json() == {"next": 4}
        hand.front = 1
        assert hand.log(0, b"one\n").json() == {"next": 4}
        # Its answer was lost, and more has been printed since: the answer says from where on that is wanted.
        assert hand.log(0, b"one\ntwo\n").json() == {"next": 4}
        assert hand.log(4, b"two\n").json() == {"next": 8}
        assert hand.log(0, b"one\n").json() == {"next": 4}
        hand.complete()
        stage.end(build)
        assert b"".join(stage.ci.builds.log(build, "say")) == b"one\ntwo\n"

    def test_nothing_completes_with_a_hole_in_its_log(self, local: Stage) -> None:
        lab = Lab(local)
        build = lab.start(shell("true"))
        hand = lab.claimed()
        hand.log(4, b"two\n")
        assert "bytes 0 to 4" in problem(hand.complete(), 422, "Invalid")["detail"]
        hand.log(0, b"one\n")
        assert hand.complete().status_code == 200
        local.end(build)
        assert b"".join(local.ci.builds.log(build, "say")) == b"one\ntwo\n"

    def test_any_bytes_will_do_but_no_more_than_fit(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("true"))
        hand = lab.claimed()
        assert hand.log(0, bytes(range(256))).json() == {"next": 256}
        problem(hand.log(256, bytes(4 * 1024 * 1024 + 1)), 413, "Invalid")
        problem(hand.log(1024**3, b"x"), 422, "Invalid")


class TestPlanning:
    def test_the_plan_is_told_and_what_the_whole_build_goes_by(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        lab.start(shell("true"), shell("true", "then"))
        hand = lab.claimed()
        told = hand.call("GET", "/assignment").json()
        assert [task["name"] for task in told["plan"]["tasks"]] == ["say", "then"]
        assert from_json(Plan, told["plan"]).task("then").needs == ("say",)
        assert (told["variables"]["DISTCI_TASK"], "DISTCI_GATEWAY" in told["variables"]) == ("say", False)

        def pin(**body: str) -> str | None:
            found: str | None = hand.call("POST", "/pins", json={"name": "main", **body}).json()["value"]
            return found

        assert pin() is None
        assert pin(value="1f0a") == "1f0a"
        hand.front = 1
        assert pin(value="2e0b") == pin() == "1f0a"


class TestSecrets:
    def test_a_claim_gets_those_that_its_task_names_and_no_other(self, local: Stage) -> None:
        lab = Lab(local)
        for name in ("TOKEN", "FILE", "OTHER"):
            local.ci.secrets.set(name, f"value of {name}", "team")
        lab.start(shell("true", secrets=["TOKEN", "NONE"], secret_files=["FILE"]))
        hand = lab.claimed()

        answer = hand.call("GET", "/secrets")

        assert answer.json() == {"values": {"TOKEN": "value of TOKEN", "FILE": "value of FILE"}}
        assert (answer.headers["Cache-Control"], answer.headers.get("ETag")) == ("no-store", None)
        assert (hand.told["secrets"], hand.told["secret_files"]) == (["TOKEN", "NONE"], ["FILE"])
        others = [hand.call("GET", what).text for what in ("/assignment", "/prelude", "/script")]
        assert "value of" not in "".join([*others, str(hand.told)])

    def test_nobody_else_does(self, local: Stage) -> None:
        lab = Lab(local)
        local.ci.secrets.set("TOKEN", "hunter2-s3same", "team")
        lab.start(shell("true", secrets=["TOKEN"]))
        hand = lab.claimed()
        where = f"{lab.url}/{hand.told['url']}/secrets".replace("//api", "/api")

        for token, status in ((lab.new_token(), 403), (lab.new_token("other"), 404), (local.token, 403)):
            answer = requests.get(where, headers={"Authorization": f"Bearer {token}"}, timeout=30)
            assert (answer.status_code, "hunter2" in answer.text) == (status, False), answer.text
        assert hand.complete().status_code == 200
        problem(hand.call("GET", "/secrets"), 409, "ClaimLost")

    def test_a_build_of_what_strangers_wrote_gets_none(self, local: Stage) -> None:
        lab = Lab(local)
        local.ci.secrets.set("TOKEN", "hunter2-s3same", "team")
        version = local.ci.jobs.put({"job": "team/hello", "tasks": [shell("true", secrets=["TOKEN"])]})
        local.ci.lifecycle.create(version, Trigger("github", is_untrusted=True))

        problem(lab.claimed().call("GET", "/secrets"), 422, "Invalid")


class TestCompleting:
    def test_said_twice_it_is_the_same(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        build = lab.start(shell("exit 3"), shell("true", "then", when="always"))
        hand = lab.claimed()
        first = hand.complete("failed", reason="three", exit_status=3)
        hand.front = 1
        again = hand.complete("passed")
        assert (first.status_code, again.json()) == (200, first.json())
        lab.claimed(1).complete()
        assert stage.end(build).task("say").state is TaskState.FAILED
        assert hand.complete("passed").json() == first.json()
        problem(hand.heartbeat(), 409, "ClaimLost")

    def test_said_again_after_the_task_was_tried_again_it_is_the_same(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("false", retries=1), shell("true", "then", when="always"))
        hand = lab.claimed()
        first = hand.complete("failed", exit_status=1).json()
        lab.claimed().complete()
        assert hand.complete("failed", exit_status=1).json() == first

    def test_a_task_that_defines_tasks_has_passed_once_its_worker_tells_which(self, local: Stage) -> None:
        lab = Lab(local)
        build = lab.start(shell("true", emits="more.json", retries=1), shell("true", "join"))
        told = lab.claimed().complete().json()
        assert (told["verdict"], "which tasks it defines" in told["reason"]) == ("failed", True)

        defined = '[{"name": "a", "type": "shell", "script": "true"}]'
        assert lab.claimed().complete(details={"tasks": defined}).json()["verdict"] == "passed"

        for name in ("say:a", "join"):
            hand = lab.claimed()
            assert hand.told["task"] == name
            hand.complete()
        assert local.end(build).result == "passed"

    def test_a_front_end_that_is_killed_between_two_calls_costs_nothing(self, stage: Stage) -> None:
        """One dies after each call of an attempt; the next call is for another."""
        lab = Lab(stage, fronts=5)
        build = lab.start(shell("true"))
        hand = lab.claimed(0)
        steps: tuple[Callable[[], requests.Response], ...] = (
            lambda: hand.heartbeat(),
            lambda: hand.log(0, b"one\n"),
            lambda: hand.log(4, b"two\n"),
            hand.complete,
        )
        for step in steps:
            lab.kill(hand.front)
            hand.front += 1
            assert step().status_code == 200
        view = stage.end(build)
        assert (view.result, view.task("say").attempts[-1]["attempt"]) == ("passed", 1)
        assert b"".join(stage.ci.builds.log(build, "say")) == b"one\ntwo\n"


class Slow(PassingStore):
    """A store that takes nothing before it may."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.begun, self.may = ThreadEvent(), ThreadEvent()

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self.begun.set()
        assert self.may.wait(60)
        super().put(key, data)


class TestUploads:
    @pytest.mark.parametrize("what", ["artifact", "workspace"])
    def test_a_front_end_that_ends_leaves_the_store_its_file_until_that_has_it(self, local: Stage, what: str) -> None:
        lab = Lab(local)
        lab.start(shell("true"), shell("true", "then"))
        hand = lab.claimed()
        run_coroutine(self._cancelled, local, hand, what)
        build, task = BuildId.parse(hand.told["build"]), hand.told["task"]
        if what == "artifact":
            assert local.ci.store.get(keys.artifact(build, task, hand.token, "a")) == tar_of(member("a", b"x"))
        else:
            assert local.ci.store.head(keys.workspace(build, task, hand.token))

    async def _cancelled(self, local: Stage, hand: Hand, what: str) -> None:
        """One that is cancelled while the store takes it in."""
        store, system = Slow(local.ci.store), local.ci
        gateway = Gateway(system.lifecycle, store, system.artifacts)
        shown = SimpleNamespace(gateway=gateway, artifacts=system.artifacts, store=store)
        desk = Desk(cast(DistCI, shown), Threads(), ThreadEvent())
        found = standing(system.tickets, hand.token)
        assert found
        build = BuildId.parse(hand.told["build"])
        path = {"job": build.job, "number": str(build.number), "task": hand.told["task"], "claim": hand.token}

        async def receive() -> Message:
            return {"type": "http.request", "body": tar_of(member("a", b"x")), "more_body": False}

        call = Call(
            system=system,
            access=cast(Access, None),
            principal=Worker(found.running.worker.rpartition("@")[2], "lab-7", frozenset(["shell"])),
            request=Request({"type": "http", "headers": []}, receive),
            path=path | {"artifact": "a"},
            query={},
            headers={},
        )
        async with anyio.create_task_group() as group:
            group.start_soon(desk.put_artifact if what == "artifact" else desk.put_workspace, call)
            while not store.begun.is_set():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.2, store.may.set)


class TestWorkspace:
    def test_it_is_carried_between_workers_of_both_sorts(self, stage: Stage) -> None:
        lab = Lab(stage)
        build = lab.start(
            shell("mkdir d; echo one > d/a; chmod 755 d/a; ln d/a d/b; ln -s a d/c; : > empty", "make"),
            shell("true", "change", labels=["os=linux"]),
            shell("cat d/a d/c new; test -x d/a; test ! -e empty; ls d", "look"),
        )
        with lab.process("shell"):
            wait_until(lambda: state_of(stage, build, "make") is TaskState.PASSED)
        hand = take(lab, "change")
        carried = hand.call("GET", "/workspace").content
        with tarfile.open(fileobj=io.BytesIO(carried)) as tar:
            found = {member.name: member for member in tar}
            assert set(found) == {"d", "d/a", "d/b", "d/c", "empty"}
            assert (found["d/a"].mode, found["d/b"].islnk(), found["d/c"].linkname) == (0o755, True, "a")
        mine = stage.folder / "mine"
        mine.mkdir()
        subprocess.run(["tar", "-C", mine, "-xf", "-"], input=carried, check=True)
        (mine / "empty").unlink()
        (mine / "new").write_text("two\n")
        packed = subprocess.run(["tar", "-C", mine, "-czf", "-", "."], check=True, capture_output=True).stdout
        for _ in range(2):
            assert hand.call("PUT", "/workspace", data=packed).json() == {"files": 3}
        hand.complete()
        with lab.process("shell"):
            assert stage.end(build).result == "passed"
        assert b"".join(stage.ci.builds.log(build, "look")) == b"one\none\ntwo\na\nb\nc\n"

    def test_what_no_workspace_can_hold_is_refused(self, local: Stage) -> None:
        lab = Lab(local)
        lab.start(shell("true"), shell("true", "then"))
        hand = lab.claimed()
        for name in ("../x", "/x", "a/../../x"):
            problem(hand.call("PUT", "/workspace", data=tar_of(tarfile.TarInfo(name))), 422, "InvalidPath")
        linked = tarfile.TarInfo("a")
        linked.type, linked.linkname = tarfile.LNKTYPE, "/etc/passwd"
        problem(hand.call("PUT", "/workspace", data=tar_of(linked)), 422, "InvalidPath")
        for data in (b"no tar file", tar_of(tarfile.TarInfo("a"))[:300], b"\x1f\x8b broken"):
            problem(hand.call("PUT", "/workspace", data=data), 422, "Invalid")

    def test_what_is_too_large_is_refused_sent_or_unpacked_and_nothing_of_it_is_kept(self, local: Stage) -> None:
        local.home.environment["DISTCI_WORKSPACE_SIZE_MAX"] = "40MiB"
        lab = Lab(local)
        lab.start(shell("true"), shell("true", "then"))
        hand = lab.claimed()
        before = {info.key for info in objects(local.ci.store, "")}
        # Of several packs, of which the first would be in the store before the last is looked at.
        large = tar_of(*(member(name, bytes([number]) * (20 * MIB)) for number, name in enumerate("abc")))
        for data in (large, gzip.compress(large, 1)):
            found = problem(hand.call("PUT", "/workspace", data=data), 413, "Invalid")
            assert str(40 * MIB) in found["detail"]
        assert {info.key for info in objects(local.ci.store, "")} == before
        assert hand.call("PUT", "/workspace", data=tar_of(member("a", b"small"))).json() == {"files": 1}


def take(lab: Lab, task: str) -> Hand:
    hand = lab.claimed(labels=["os=linux"])
    assert hand.told["task"] == task
    return hand


def tar_of(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    pairs = [each if isinstance(each, tuple) else (each, b"") for each in members]
    parts = (info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) for info, data in pairs)
    return b"".join(parts) + bytes(1024)


def member(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


class TestArtifacts:
    def test_they_are_published_with_the_outcome(self, stage: Stage) -> None:
        lab = Lab(stage)
        build = lab.start(shell("true"), shell("true", "then"))
        hand = lab.claimed()
        for data in (b"old", b"new"):
            told = hand.call("PUT", "/artifacts/dist/a.bin", data=data).json()
        assert told == {"name": "dist/a.bin", "size_bytes": 3, "sha256": hashlib.sha256(b"new").hexdigest()}
        hand.call("PUT", "/artifacts/b", data=b"")
        assert stage.ci.artifacts.list(build) == []
        hand.complete()
        assert [artifact.name for artifact in stage.ci.artifacts.list(build)] == ["b", "dist/a.bin"]
        then = lab.claimed()
        assert then.call("GET", "/artifacts/dist/a.bin").content == b"new"
        problem(then.call("GET", "/artifacts/none"), 404, "NoSuchArtifact")
        then.complete()
        assert stage.end(build).result == "passed"

    def test_those_of_another_build_are_for_the_task_that_names_its_job(self, local: Stage) -> None:
        lab = Lab(local)
        for job in ("team/lib", "team/other"):
            build = lab.start(shell("true"), job=job)
            hand = lab.claimed()
            hand.call("PUT", "/artifacts/dist/a", data=job.encode())
            hand.complete()
            local.end(build)
        lab.start({**shell("true"), "environment": {"A": "b"}}, job="team/hello")
        plain = lab.claimed()
        problem(plain.call("GET", "/source"), 422, "Invalid")
        problem(plain.call("GET", "/artifacts", params={"build": "team/lib#1"}), 403, "Forbidden")
        copying = self._copying(lab)
        assert copying.call("GET", "/source").json() == {"build": "team/lib#1"}
        [listed] = copying.call("GET", "/artifacts", params={"build": "team/lib#1"}).json()["items"]
        assert (listed["name"], listed["size_bytes"]) == ("dist/a", 8)
        assert copying.call("GET", "/artifacts/dist/a", params={"build": "team/lib#1"}).content == b"team/lib"
        for what in ("/artifacts", "/artifacts/dist/a"):
            problem(copying.call("GET", what, params={"build": "team/other#1"}), 403, "Forbidden")
        assert copying.call("GET", "/artifacts").json()["items"] == []
        problem(copying.call("GET", "/artifacts", params={"build": "team/lib#2"}), 404, "NoSuchBuild")

    def test_those_of_another_project_are_not_for_a_worker_of_one(self, local: Stage) -> None:
        lab = Lab(local)
        build = lab.start(shell("true"), job="secret/lib")
        lab.claimed().complete()
        local.end(build)
        copying = self._copying(lab, job="secret/lib", project="team")
        problem(copying.call("GET", "/source"), 403, "Forbidden")
        problem(copying.call("GET", "/artifacts", params={"build": "secret/lib#1"}), 403, "Forbidden")

    def _copying(self, lab: Lab, job: str = "team/lib", project: str = "") -> Hand:
        """A claim of a task that copies from a job."""
        lab.start({"name": "copy", "type": "copy-artifacts", "job": job}, job="team/use")
        token = lab.stage.ci.access.create_worker_token("copier", ["copy-artifacts"], project=project).text
        lab.apis.append(Api(lab.url, token))
        return lab.claimed(len(lab.apis) - 1, kinds=["copy-artifacts"])

    def test_one_that_was_cut_off_is_not_there(self, local: Stage) -> None:
        lab = Lab(local)
        build = lab.start(shell("true"))
        hand = lab.claimed()
        head = (
            f"PUT {hand.told['url']}/artifacts/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {lab.token}\r\n"
        )
        raw(lab.url, f"{head}Content-Length: 100\r\n\r\nhalf".encode(), hang_up=True)
        hand.complete()
        local.end(build)
        assert local.ci.artifacts.list(build) == []

    @pytest.mark.timeout(240)
    def test_a_large_one_takes_little_memory_both_ways(self, local: Stage) -> None:
        lab = Lab(local)
        build = lab.start(shell("true"), shell("true", "then"))
        hand = lab.claimed()
        before = lab.memory_bytes(0)
        piece = os.urandom(1024 * 1024)
        count = LARGE_BYTES // len(piece)
        assert hand.call("PUT", "/artifacts/large", data=(piece for _ in range(count))).status_code == 200
        info = tarfile.TarInfo("large")
        info.size = LARGE_BYTES
        tar = (piece for piece in [info.tobuf(), *[piece] * count, bytes(1024)])
        assert hand.call("PUT", "/workspace", data=tar).json() == {"files": 1}
        hand.complete()
        then = take(lab, "then")
        for what in ("/artifacts/large", "/workspace"):
            with requests.get(
                f"{lab.url}{then.told['url']}{what}", headers=lab.apis[0].authorization, stream=True, timeout=60
            ) as answer:
                assert sum(map(len, answer.iter_content(1024 * 1024))) >= LARGE_BYTES
        then.complete()
        assert local.end(build).result == "passed"
        assert lab.memory_bytes(0) - before < LARGE_BYTES / 4


class TestWorker:
    """The worker of the documentation: bash, curl and tar."""

    @pytest.mark.timeout(180)
    def test_it_builds_over_two_front_ends_of_which_one_is_killed(self, stage: Stage) -> None:
        lab = Lab(stage, fronts=2)
        build = lab.start(
            shell("mkdir out; echo $WORD > out/word", "make", environment={"WORD": "it's made"}),
            shell(
                "echo begun; until [ -e $GO ]; do sleep 0.1; done; cat word; exit 4",
                "say",
                directory="out",
                environment={"GO": str(stage.folder / "go")},
            ),
        )
        with lab.worker(WORKER, 0), lab.worker(WORKER, 1):
            wait_until(lambda: b"begun" in printed(stage, build))
            lab.kill(0)
            (stage.folder / "go").touch()
            if not stage.ci.builds.wait(build, 20).is_archived:
                # It was the worker whose only front end is gone: it waits for it, and goes on when it is back.
                lab.start_again(0)
            view = stage.end(build)
        assert (view.result, view.task("say").attempts[-1]["exit_status"]) == ("failed", 4)
        assert b"".join(stage.ci.builds.log(build, "say")) == b"begun\nit's made\n"
        assert view.task("say").attempts[-1]["attempt"] == 1

    def test_it_is_as_short_as_it_is_said_to_be(self) -> None:
        assert len(WORKER.read_text().splitlines()) < 40
