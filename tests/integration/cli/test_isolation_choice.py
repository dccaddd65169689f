"""What tasks run in: what somebody gets who says nothing, who asks, and who asks for what is not there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from program import PROGRAM, Home

LOOK = "test -e {beside} && echo sees || echo blind; id -u"


@pytest.fixture
def nothing_said(home: Home) -> Home:
    """A user whose settings say nothing of isolation."""
    del home.environment["DISTCI_ISOLATION"]
    return home


def job(home: Home, *tasks: dict[str, Any]) -> str:
    (home.folder / "beside").touch()
    script = LOOK.format(beside=home.folder / "beside")
    return home.file({"job": "team/look", "tasks": [{"type": "shell", "script": script, **task} for task in tasks]})


def without_bubblewrap(home: Home) -> Home:
    home.environment["PATH"] = str(PROGRAM.parent)
    return home


class TestRun:
    def test_scripts_run_in_a_sandbox_unless_they_ask_for_the_host(self, nothing_said: Home) -> None:
        file = job(nothing_said, {"name": "usual"}, {"name": "asked", "isolation": {"type": "host"}})

        ran = nothing_said.run("run", file)

        assert ran.returncode == 0, ran.stderr
        assert [line.split()[-1] for line in ran.stdout.splitlines() if "blind" in line or "sees" in line] == [
            "blind",
            "sees",
        ]

    def test_a_workspace_goes_from_a_sandbox_to_the_host_and_back(self, nothing_said: Home) -> None:
        scripts = ["echo 1 > count; chmod 700 count; mkdir -m 700 d", "echo 2 >> count; touch d/x", "cat count; ls d"]
        kinds = ["sandbox", "host", "sandbox"]
        tasks = [
            {"name": f"t{number}", "script": script, "isolation": {"type": kind}}
            for number, (script, kind) in enumerate(zip(scripts, kinds, strict=True))
        ]

        ran = nothing_said.run("run", job(nothing_said, *tasks))

        assert ran.returncode == 0, ran.stdout
        assert "1\n2\nx\n" in ran.stdout

    def test_a_limit_is_the_reason_of_a_failure(self, nothing_said: Home) -> None:
        wanted = {"limits": {"disk": "1MiB"}}

        ran = nothing_said.run(
            "run", job(nothing_said, {"name": "a", "script": "head -c 4M /dev/zero > big", "isolation": wanted})
        )

        assert ran.returncode == 1
        assert "more written to disk than its limit allows" in ran.stdout

    def test_without_bubblewrap_scripts_run_on_the_host(self, nothing_said: Home) -> None:
        ran = without_bubblewrap(nothing_said).run("run", job(nothing_said, {"name": "a"}))

        assert ran.returncode == 0, ran.stderr
        assert "sees\n" in ran.stdout

    def test_what_is_asked_for_and_is_not_there_is_refused_with_what_to_install(self, nothing_said: Home) -> None:
        file = job(nothing_said, {"name": "a", "isolation": {"type": "sandbox"}})

        ran = without_bubblewrap(nothing_said).run("run", file)

        assert ran.returncode == 2
        assert (
            "task a wants isolation sandbox: there is no program bwrap: install what Debian calls bubblewrap"
            in ran.stderr
        )

    def test_what_is_not_allowed_is_refused(self, home: Home) -> None:
        home.environment["DISTCI_ISOLATION"] = "sandbox"

        ran = home.run("run", job(home, {"name": "a", "isolation": {"type": "host"}}))

        assert ran.returncode == 2
        assert "task a wants isolation host: what may be had here is sandbox" in ran.stderr

    def test_where_nothing_that_is_allowed_is_there_nothing_runs(self, home: Home) -> None:
        home.environment["DISTCI_ISOLATION"] = "sandbox"

        ran = without_bubblewrap(home).run("run", job(home, {"name": "a"}))

        assert ran.returncode == 2, "as distci check ends; no back end is away"
        assert "DISTCI_ISOLATION allows nothing that can be had here: sandbox: there is no program bwrap" in ran.stderr

    def test_the_label_is_not_for_people_to_say(self, home: Home) -> None:
        ran = home.run("run", job(home, {"name": "a"}), "--label", "isolation=vm")

        assert ran.returncode == 2
        assert "label 'isolation=vm' is not for anybody to say" in ran.stderr


class TestCheck:
    def test_what_is_missing_is_a_note_unless_the_settings_ask_for_it(self, nothing_said: Home) -> None:
        nothing_said.environment["DISTCI_SEARCH_PATH"] = "/usr/bin:/bin"
        without_bubblewrap(nothing_said)

        unasked = {found["subject"]: found for found in nothing_said.json("check")}
        nothing_said.environment["DISTCI_ISOLATION"] = "sandbox"
        asked = nothing_said.ask("check")

        assert unasked["isolation sandbox"]["state"] == "note"
        assert unasked["isolation sandbox"]["remedy"] == "install what Debian calls bubblewrap"
        assert unasked["isolation host"]["state"] == "note"
        assert asked.exit_code == 2
        assert "isolation sandbox: install what Debian calls bubblewrap" in asked.stdout

    @pytest.mark.parametrize(
        ("name", "setting", "value", "problem"),
        [
            ("vm", "VM_IMAGES", f"busybox={{folder}}@sha256:{'0' * 64}", "cannot be read"),
            ("lxc", "LXC_IMAGES", "{folder}", "there is no folder"),
        ],
    )
    def test_images_that_cannot_be_had_are_missed(
        self, nothing_said: Home, name: str, setting: str, value: str, problem: str
    ) -> None:
        nothing_said.environment[f"DISTCI_{setting}"] = value.format(folder=nothing_said.folder / "nowhere")

        asked = nothing_said.ask("check")

        assert asked.exit_code == 2
        assert re.search(f"isolation {name} +problem .*{problem}", asked.stdout)
        with nothing_said.running("up", "--no-frontend", until="Ctrl-C") as up:
            assert re.search(f"tasks run in .*; no {name}: .*{problem}", up.stdout)
        with nothing_said.running("worker", "run", "shell", until="Ctrl-C") as worker:
            assert re.search(f"Serving as .*; no {name}: .*{problem}", worker.stdout)

    def test_what_is_there_is_said(self, home: Home) -> None:
        home.environment["DISTCI_ISOLATION"] = "sandbox"

        found = {found["subject"]: found for found in home.json("check")}

        assert found["isolation sandbox"]["detail"] == "allowed"
        assert found["isolation host"]["detail"] == "not allowed by the setting isolation"
