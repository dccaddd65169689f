"""The builds that are run: one of everything that builds are made of, each byte of it derived from the seed.

::

    chaos/library   source - build[part=a|b] - link - weld - publish - clean (always)    weld holds a resource
                           - flaky (fails, allowed) - sorry (on failure)
    chaos/app       copy - use                                            after each library that passed, with its artifacts
    chaos/broken    source - break (fails) - never, tell (on failure)     in a concurrency group
    chaos/wake      say                                                   after each broken that failed
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from distci.errors import Invalid
from distci.model import Json

LIBRARY, BROKEN, APP, WAKE = "chaos/library", "chaos/broken", "chaos/app", "chaos/wake"
TRIGGERED = (LIBRARY, BROKEN)
"""What is triggered in each round; the others follow."""

RESOURCE, GROUP = "chaos", "chaos/broken"
LIMITS = {f"resource:{RESOURCE}": 1, f"group:{GROUP}": 2}
"""How many may hold a permit at once, by its name."""

NOISE_BYTES = 256 * 1024
ATTEMPTS = 20
"""As many as a job may ask for: workers are lost all the time."""

MARKS = "MARKS"
"""The variable that tells scripts where to write what they did, outside of the workspace."""

MARKED = f"""\
echo "start $DISTCI_FENCE" >> "${MARKS}"
trap 'echo "end $DISTCI_FENCE" >> "${MARKS}"' EXIT
"""
"""Begins every script."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The jobs and what they work on."""

    repository: Path
    commit: str
    """What all builds check out: an attempt that had to look it up would say so in its log, and those after it would not."""
    seed: int
    rounds: int

    def triggers(self) -> Sequence[tuple[str, str, Mapping[str, str]]]:
        """What is triggered, in order: a name for it, the job, and its parameters."""
        return [
            (f"{job} in round {number}", job, {"SALT": str(self._salt(job, number))})
            for number in range(1, self.rounds + 1)
            for job in TRIGGERED
        ]

    def jobs(self, marks: Path) -> Sequence[Mapping[str, Json]]:
        """The jobs' documents; ``marks`` is the file that scripts append to."""
        source = {"name": "source", "type": "git-checkout", "repository": str(self.repository), "directory": "src"}
        return [
            _job(LIBRARY, marks, source, *_library_tasks()),
            _job(BROKEN, marks, source, *_broken_tasks(), concurrency={"group": GROUP, "limit": 2}),
            _job(APP, marks, *_app_tasks(), triggers=[{"type": "job", "job": LIBRARY, "on": "passed"}]),
            _job(
                WAKE, marks, _shell("say", "echo so it is"), triggers=[{"type": "job", "job": BROKEN, "on": "failed"}]
            ),
        ]

    def _salt(self, job: str, number: int) -> int:
        return Random(f"{self.seed} {job} {number}").randrange(1, NOISE_BYTES // 2)


def make_repository(folder: Path, seed: int) -> str:
    """A git repository whose one commit is the same for equal seeds; the commit's id. Invalid where there is no git."""
    folder.mkdir(parents=True)
    (folder / "noise").write_bytes(Random(f"noise {seed}").randbytes(NOISE_BYTES))
    who = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "DistCI")
    who |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "distci@example.org")
    when = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")
    alone = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.defpath}

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=folder, env=who | when | alone, check=True, capture_output=True, text=True
        ).stdout

    try:
        git("init", "--quiet", "--initial-branch=main")
        git("add", ".")
        git("commit", "--quiet", "--message=A start")
        return git("rev-parse", "HEAD").strip()
    except FileNotFoundError as error:
        raise Invalid("`distci chaos` makes a git repository, and there is no git in the search path") from error


def _library_tasks() -> Sequence[Mapping[str, Json]]:
    return [
        _shell(
            "build",
            """\
            tail -c +"$SALT" src/noise | head -c 20000 > {part}.bin
            sleep 0.5
            tail -c 3000 {part}.bin
            sleep 0.6
            echo; echo {part} "$SALT"
            """,
            needs=["source"],
            matrix={"part": ["a", "b"]},
        ),
        _shell("flaky", "echo this is allowed to fail; exit 3", needs=["source"], allow_failure=True),
        _shell("link", "cat a.bin b.bin > linked; sleep 0.5; cksum linked", needs=["build"]),
        _shell("weld", "head -c 2000 linked; sleep 0.5; cksum < linked > sum", resources=[RESOURCE]),
        {"name": "publish", "type": "publish-artifacts", "paths": ["linked", "sum"], "attempts": ATTEMPTS},
        _shell("sorry", "echo never", when="failure"),
        _shell("clean", "echo all is done", when="always", needs=["publish", "flaky"]),
    ]


def _broken_tasks() -> Sequence[Mapping[str, Json]]:
    return [
        _shell("break", 'tail -c +"$SALT" src/noise | head -c 5000; sleep 0.5; exit 7'),
        _shell("never", "echo never"),
        _shell("tell", "echo it broke; sleep 0.5; test -e src/noise", when="failure", needs=["source", "break"]),
    ]


def _app_tasks() -> Sequence[Mapping[str, Json]]:
    copy = {"name": "copy", "type": "copy-artifacts", "job": LIBRARY, "build": "upstream", "attempts": ATTEMPTS}
    return [copy, _shell("use", "cksum < linked | cmp - sum; sleep 0.5; tail -c 4000 linked")]


def _job(name: str, marks: Path, *tasks: Mapping[str, Json], **more: Json) -> Mapping[str, Json]:
    tasks = tuple({"attempts": ATTEMPTS, **task} for task in tasks)
    return {
        "job": name,
        "parameters": {"SALT": {"default": "1"}},
        "environment": {MARKS: str(marks)},
        "tasks": [*tasks],
        **more,
    }


def _shell(name: str, script: str, **more: Json) -> Mapping[str, Json]:
    return {"name": name, "type": "shell", "script": MARKED + "\n".join(map(str.strip, script.splitlines())), **more}
