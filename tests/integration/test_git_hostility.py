"""Repositories that mean harm: nothing of theirs is written outside of the directory, and nothing is run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from integration.git_remotes import ENVIRONMENT, Remote
from integration.test_git_mirrors import checkout

from distci.model import TaskState

REFUSED, TAKEN = TaskState.FAILED, TaskState.PASSED
Entry = tuple[str, bytes, str]
"""Of a tree: mode, name, id."""


class Hostile(Remote):
    """A remote whose trees are written byte by byte, as git itself would not."""

    def object(self, kind: str, data: bytes) -> str:
        command = ["git", "hash-object", "-w", "--literally", "-t", kind, "--stdin"]
        ran = subprocess.run(command, cwd=self.path, env=ENVIRONMENT, input=data, capture_output=True, check=True)
        return ran.stdout.decode().strip()

    def file(self, name: bytes, data: bytes, mode: str = "100644") -> Entry:
        return (mode, name, self.object("blob", data))

    def folder(self, name: bytes, *entries: Entry) -> Entry:
        return ("40000", name, self.tree(*entries))

    def tree(self, *entries: Entry) -> str:
        return self.object("tree", b"".join(b"%b %b\0%b" % (m.encode(), n, bytes.fromhex(i)) for m, n, i in entries))

    def branch(self, name: str, *entries: Entry) -> str:
        """A branch of one commit with these at its top; its name."""
        commit = self.git("commit-tree", "-m", "A change", self.tree(*entries))
        self.git("update-ref", f"refs/heads/{name}", commit)
        return name


@pytest.fixture
def remote(tmp_path: Path) -> Hostile:
    made = Hostile(tmp_path / "remotes" / "hostile")
    made.commit(hello_txt="hello\n")
    return made


def ends(system: Any, remote: Remote, **arguments: Any) -> dict[str, TaskState]:
    """How checkouts of all branches but main end, each in a directory that has a neighbour."""
    names = [name for name in remote.git("branch", "--format=%(refname:short)").split() if name != "main"]
    tasks = [
        checkout(str(remote.path), name=name, ref=name, needs=[], directory=f"{name}/src", **arguments)
        for name in names
    ]
    script = "find . -path './*/src' -prune -o -name '*canary*' -print"
    view = system.run_tasks(
        *tasks, {"name": "look", "type": "shell", "needs": names, "when": "always", "script": script}
    )
    assert system.log(view, "look") == ""
    return {name: view.task(name).state for name in names}


def test_no_name_of_a_file_leads_elsewhere_or_into_the_repository(system: Any, remote: Hostile, tmp_path: Path) -> None:
    canary = remote.file(b"canary", b"written\n", "100755")
    hooks = remote.folder(
        b"hooks", remote.file(b"post-checkout", f"#!/bin/sh\ntouch {tmp_path}/canary\n".encode(), "100755")
    )
    remote.branch("up", remote.folder(b"..", canary))
    remote.branch("slash", remote.file(b"../canary", b"written\n"))
    remote.branch("absolute", remote.file(f"{tmp_path}/canary".encode(), b"written\n"))
    for number, name in enumerate((b".git", b".GIT", b".git ", b"git~1", b".git\\hooks")):
        remote.branch(f"git{number}", remote.folder(name, hooks))
    remote.branch("modules", remote.file(b".gitmodules", b"/etc/passwd", "120000"))

    assert ends(system, remote) == {
        **dict.fromkeys(("up", "slash", "absolute", "git0", "git1", "git2", "git3", "git4"), REFUSED),
        "modules": REFUSED,
    }
    assert not (tmp_path / "canary").exists()


def test_no_link_is_followed(system: Any, remote: Hostile, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    canary = remote.file(b"canary", b"written\n")
    link = remote.file(b"link", str(outside).encode(), "120000")
    remote.branch("twice", link, remote.folder(b"link", canary))
    remote.branch("alone", link, remote.file(b"zero", b""))

    assert ends(system, remote)["alone"] is TAKEN
    assert os.listdir(outside) == []


def test_odd_names_are_names(system: Any, remote: Hostile) -> None:
    odd = (b"a\nb", b"-rf", b"--help", b"\x1b[2J", b"\xff\xfe", b" ", b"con", b"*")
    remote.branch("odd", *(remote.file(name, name) for name in sorted(odd)))

    view = system.run_tasks(
        checkout(str(remote.path), ref="odd"),
        {
            "name": "look",
            "type": "shell",
            "directory": "src",
            "script": "git status --porcelain; find . -path ./.git -prune -o -type f -print0 | xargs -0 cat | od -An -tx1 | tr -d ' \\n' | wc -c",
        },
    )

    assert system.log(view, "look").split() == [str(2 * sum(map(len, odd)))]


def test_nothing_that_comes_along_is_run(system: Any, remote: Hostile, tmp_path: Path) -> None:
    trap = f"#!/bin/sh\ntouch {tmp_path}/canary\n".encode()
    settings = f'[core]\n\tfsmonitor = touch {tmp_path}/canary\n\thooksPath = hooks\n[filter "x"]\n\tsmudge = touch {tmp_path}/canary\n'.encode()
    hooks = remote.folder(b"hooks", remote.file(b"post-checkout", trap, "100755"))
    # What git takes for a repository without a folder of its own for files
    bare = (
        remote.file(b"HEAD", b"ref: refs/heads/main\n"),
        remote.file(b"config", settings),
        hooks,
        remote.folder(b"objects", remote.file(b"x", b"")),
        remote.folder(b"refs", remote.file(b"x", b"")),
    )
    attributes = remote.file(b".gitattributes", b"* filter=x diff=x merge=x\n*.bin filter=lfs\n")
    remote.branch("attributes", attributes, remote.file(b".gitconfig", settings), remote.file(b"a.bin", b"x"), hooks)
    remote.branch("bare", *bare)
    remote.branch("inner", remote.folder(b"inner", *bare))

    assert set(ends(system, remote, submodules=True, lfs=True).values()) == {TAKEN}
    assert not (tmp_path / "canary").exists()


def test_no_submodule_is_an_option_a_program_or_a_place_elsewhere(system: Any, remote: Hostile, tmp_path: Path) -> None:
    commit = remote.git("rev-parse", "main")
    touch = f"touch {tmp_path}/canary"
    cases = {
        "option": ("lib", "lib", f"--upload-pack={touch}", ""),
        "option-of-ssh": ("lib", "lib", f"ssh://-oProxyCommand={touch.replace(' ', '%20')}/x", ""),
        "program": ("lib", "lib", f"ext::{touch}", ""),
        "relative": ("lib", "lib", f"./-u{touch}", ""),
        "update": ("lib", "lib", "../hostile", f"update = !{touch}"),
        "name": ("../../../canary", "lib", str(remote.path), ""),
        "hooks": ("../hooks", "lib", str(remote.path), ""),
        "path-up": ("lib", "../canary", str(remote.path), ""),
        "path-absolute": ("lib", f"{tmp_path}/canary", str(remote.path), ""),
        "path-git": ("lib", ".git/canary", str(remote.path), ""),
        "path-option": ("lib", "--canary", str(remote.path), ""),
    }
    for branch, (name, path, url, more) in cases.items():
        modules = f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n\t{more}\n'
        at = b"lib" if path.startswith(("..", "/", ".git")) else path.encode()
        entries = (remote.file(b".gitmodules", modules.encode()), ("160000", at, commit))
        remote.branch(branch, *sorted(entries, key=lambda entry: entry[1]))

    states = ends(system, remote, submodules=True)

    assert not (tmp_path / "canary").exists()
    assert states == dict.fromkeys(cases, REFUSED)


def test_more_files_than_there_is_time_for_end_with_the_time(system: Any, remote: Hostile) -> None:
    # Given 10,000,000,000 files in ten trees
    entry = remote.file(b"file", b"x")
    for _ in range(10):
        entry = remote.folder(b"", *((entry[0], b"%d" % number, entry[2]) for number in range(10)))
    remote.git("update-ref", "refs/heads/bomb", remote.git("commit-tree", "-m", "A change", entry[2]))

    view = system.run_tasks(checkout(str(remote.path), ref="bomb", timeout="2s"))

    assert view.task("source").state is TaskState.TIMED_OUT
    assert system.leftovers() == []
