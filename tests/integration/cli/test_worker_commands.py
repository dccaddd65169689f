"""``distci worker``: processes that serve a kind, and who sees and drains them."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pytest
from integration.cli.homes import HELLO
from program import Home
from services.zookeeper import ZooKeeperServers
from waiting import wait_until

import distci
from distci.protocol import Member, Offer, Ticket


class TestWorkers:
    def test_one_process_for_each_kind_on_zookeeper(self, home: Home, zookeeper_url: str) -> None:
        home.environment["DISTCI_COORDINATION"] = zookeeper_url
        task = {"name": "say", "type": "shell", "script": "echo on linux", "labels": ["os=lin*"]}
        with (
            home.running("worker", "run", "control", "--name", "boss", until="Serving"),
            home.running(
                *("worker", "run", "shell", "--label", "os=linux", "--slots", "3", "--name", "hand"), until="Serving"
            ) as hand,
        ):
            listed = {view["name"]: view for view in home.json("worker", "list")}
            home.run("job", "put", home.file({"job": "team/apart", "tasks": [task]}))
            built = home.run("build", "trigger", "team/apart", "--wait", "--follow")
            near = home.run("worker", "drain", "hand")
            drained = home.run("worker", "drain", "hand-shell")
            code = hand.wait()
            left = [view["name"] for view in home.json("worker", "list")]

        assert [*listed] == ["boss-control", "hand-shell"]
        assert listed["hand-shell"]["slots"] == 3
        assert listed["hand-shell"]["offer"] == {
            "kinds": ["shell"],
            "labels": ["os=linux", "isolation=host", "isolation=sandbox"],
            "only": [],
        }
        assert built.returncode == 0, built.stderr
        assert "on linux\n" in built.stdout
        assert (near.returncode, "did you mean hand-shell?" in near.stderr) == (5, True)
        assert drained.stdout == "hand-shell is draining\n"
        assert code == 0
        assert left == ["boss-control"]

    def test_a_build_on_a_zookeeper_that_asks_who_we_are(self, home: Home, zookeeper_tls: tuple[str, Path]) -> None:
        hosts, folder = zookeeper_tls
        home.environment |= {
            "DISTCI_COORDINATION": f"zookeeper://{hosts}/guarded/{uuid.uuid4().hex}",
            "DISTCI_ZOOKEEPER_USER": "ci",
            "DISTCI_ZOOKEEPER_PASSWORD": "sesame",
            "DISTCI_ZOOKEEPER_CA": f"{folder}/ca.pem",
            "DISTCI_ZOOKEEPER_CERTIFICATE": f"{folder}/client.crt",
            "DISTCI_ZOOKEEPER_KEY": f"{folder}/client.key",
        }
        with home.running("worker", "run", "control", "shell", "publish-artifacts", until="Serving"):
            home.run("job", "put", home.file(HELLO))
            built = home.run("build", "trigger", "team/hello", "--wait")
            checked = home.run("check")

        home.environment["DISTCI_ZOOKEEPER_PASSWORD"] = "wrong"
        refused = home.run("build", "list", "team/hello")
        del home.environment["DISTCI_ZOOKEEPER_CERTIFICATE"], home.environment["DISTCI_ZOOKEEPER_KEY"]
        unknown = home.run("build", "list", "team/hello")

        assert built.returncode == 0, built.stderr
        assert checked.returncode == 0, checked.stdout
        assert "TLS with a certificate of ours and an access list for one user" in " ".join(checked.stdout.split())
        assert not any(value in checked.stdout for value in ("sesame", str(folder)))
        assert refused.returncode == unknown.returncode == 6
        assert "does not let user 'ci' at /guarded/" in refused.stderr
        assert "somebody without a certificate" in unknown.stderr

    def test_only_takes_tasks_that_ask_for_the_label(self, home: Home) -> None:
        script = {"type": "shell", "script": "true", "needs": []}
        job = {"job": "team/choosy", "tasks": [{"name": "a", "labels": ["gpu=*"], **script}, {"name": "b", **script}]}
        home.ask("job", "put", home.file(job))
        with (
            home.running("worker", "run", "control", until="Serving"),
            home.running("worker", "run", "shell", "--only", "gpu=a100", until="Serving"),
        ):
            home.ask("build", "trigger", "team/choosy")

            def states() -> list[str]:
                return [task["state"] for task in home.json("build", "show", "team/choosy#1")[0]["tasks"]]

            wait_until(lambda: states() == ["passed", "ready"])

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["shel"], "there are: control, copy-artifacts"),
            (["shell", "--name", "a b"], "worker name 'a b'"),
            (["shell", "--label", "os linux"], "label 'os linux'"),
            (["shell", "--only", "="], "label '='"),
            (["shell", "--slots", "0"], "--slots"),
            ([], "KIND"),
        ],
    )
    def test_what_no_worker_can_be_is_refused(self, home: Home, arguments: list[str], said: str) -> None:
        ran = home.ask("worker", "run", *arguments)

        assert ran.exit_code == 2
        assert said in ran.stderr

    def test_two_of_one_name_are_refused(self, home: Home) -> None:
        with home.running("worker", "run", "shell", "--name", "one", until="Serving"):
            second = home.run("worker", "run", "shell", "--name", "one")

        assert second.returncode == 7
        assert "'one'" in second.stderr

    def test_a_check_finds_those_that_live_here(self, home: Home) -> None:
        before = home.ask("worker", "check")
        with (
            home.running("worker", "run", "control", "--name", "boss", until="Serving"),
            home.running("worker", "run", "shell", "--name", "hand", until="Serving") as hand,
        ):
            both = home.ask("worker", "check")
            hand.kill()
            one = home.json("worker", "check")

        assert before.exit_code == 5
        assert sorted(both.stdout.splitlines()) == ["boss is well", "hand is well"]
        assert [item["name"] for item in one] == ["boss"]
        assert home.ask("worker", "check").exit_code == 5

    def test_a_check_tells_of_a_session_that_is_away_for_long(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "zookeeper").mkdir()
        servers = ZooKeeperServers(tmp_path / "zookeeper")
        check = ("worker", "check", "--within", "4")
        try:
            home.environment |= {
                "DISTCI_COORDINATION": f"zookeeper://{servers.hosts}/ci",
                "DISTCI_SESSION_TIMEOUT": "3s",
            }
            with home.running("worker", "run", "control", "--name", "boss", until="Serving") as boss:
                wait_until(lambda: home.ask(*check).exit_code == 0)

                servers.pause(0)
                wait_until(lambda: home.ask(*check).exit_code == 4)
                told = home.ask(*check).stderr

                servers.resume(0)
                wait_until(lambda: home.ask(*check).exit_code == 0)
                assert not boss.has_ended

            assert told.startswith("distci: without a session: boss for ")
        finally:
            servers.stop()

    def test_a_check_tells_of_a_process_that_stands_still(self, home: Home) -> None:
        with home.running("worker", "run", "shell", until="Serving") as hand:
            hand.signal(signal.SIGSTOP)

            wait_until(lambda: home.ask("worker", "check", "--within", "2").exit_code == 4)

    def test_the_list_tells_what_each_holds(self, home: Home) -> None:
        with distci.connect(home.folder / ".local" / "share" / "distci") as system:
            system.tickets.post(Ticket("resize-1", "resize"))
            with (
                Member(system.tickets, Offer(["resize"]), name="busy") as member,
                Member(system.tickets, Offer(["other"]), name="idle"),
                next(member.claims()),
            ):
                listed = home.json("worker", "list")
                shown = home.ask("worker", "list").stdout

        assert {view["name"]: view["holds"] for view in listed} == {"busy": ["resize-1.1"], "idle": []}
        assert "resize-1.1\n" in shown

    def test_draining_nobody_is_missing(self, busy: Home) -> None:
        assert busy.ask("worker", "drain", "nobody").exit_code == 5
