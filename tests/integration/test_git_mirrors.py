"""What a machine keeps of earlier checkouts: the next one fetches what is new, and nothing that happens to a mirror is ever seen in a build."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from integration.git_remotes import ENVIRONMENT, Remote, SshServer, git_daemon, http_backend

from distci.model import Result, TaskState
from distci.work import Cache
from distci_workers import git_checkout, git_mirrors
from distci_workers.git_mirrors import Manifest, Mirror

SOUND = "git fsck --full --strict 2>&1 && git rev-list --objects HEAD >/dev/null && test ! -e .git/objects/info/alternates && git log -1 --format=%H"
TAG = 1
"""Servers send annotated tags along with what is new, whoever has them."""
KEY: Mapping[str, object] = {"repository": "git://example.org/hello"}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remotes" / "hello")
    for text in ("one", "two", "three"):
        made.commit(hello_txt=f"{text}\n")
    made.git("tag", "--annotate", "--message=Three", "v3")
    made.git("config", "uploadpack.allowFilter", "true")
    return made


@pytest.fixture
def base(remote: Remote) -> Iterator[str]:
    with git_daemon(remote.path.parent) as url:
        yield url


def checkout(repository: str, **arguments: Any) -> dict[str, Any]:
    return {"name": "source", "type": "git-checkout", "repository": repository, "directory": "src", **arguments}


def look(script: str = SOUND) -> dict[str, Any]:
    return {"name": "look", "type": "shell", "script": script, "directory": "src"}


def received(system: Any, view: Any, task: str = "source") -> int:
    """How many objects a task's fetches brought, as git says."""
    assert view.task(task).state is TaskState.PASSED, view.task(task).reason
    return sum(map(int, re.findall(r"Receiving objects: 100% \((\d+)/", system.log(view, task))))


def mirrors(folder: Path) -> Sequence[Path]:
    return [*(folder / "cache").iterdir()] if (folder / "cache").exists() else []


class TestFetching:
    def test_the_second_checkout_fetches_nothing_and_the_next_what_is_new(
        self, system: Any, remote: Remote, base: str
    ) -> None:
        ways: Mapping[str, Mapping[str, Any]] = {
            "all": {},
            "tip": {"depth": 1},
            "shallow": {"depth": 2, "ref": "main"},
            "bare": {"filter": "blob:none"},
            "part": {"sparse": ["a"]},
        }
        tasks = []
        for name, way in ways.items():
            tasks.append({**checkout(f"{base}/hello", **way), "name": name, "needs": []})
            tasks.append({**look(), "name": f"look {name}", "needs": [name]})

        first = system.run_tasks(*tasks)
        second = system.run_tasks(*tasks)
        commit = remote.commit(hello_txt="four\n")
        third = system.run_tasks(*tasks)

        for name, way in ways.items():
            assert received(system, second, name) <= (TAG if "depth" in way else 0)
            assert received(system, third, name) <= 3 + TAG
            assert system.log(third, f"look {name}").split()[-1] == commit
        assert received(system, first, "tip") >= 3

    def test_what_is_there_serves_other_refs_too(self, system: Any, remote: Remote, base: str) -> None:
        system.run_tasks(checkout(f"{base}/hello"))
        remote.git("checkout", "--quiet", "-b", "other", "HEAD~1")
        commit = remote.commit(hello_txt="other\n")

        view = system.run_tasks(checkout(f"{base}/hello", ref="other"), look())

        assert received(system, view) <= 3 + TAG
        assert system.log(view, "look").split()[-1] == commit

    def test_submodules_and_further_remotes_come_no_second_time_either(
        self, system: Any, remote: Remote, base: str, tmp_path: Path
    ) -> None:
        library = Remote(tmp_path / "remotes" / "library")
        library.commit(library_txt="library\n")
        remote.add_submodule("../library", "../library")
        task = checkout(
            f"{base}/hello", submodules=True, remotes={"library": {"repository": f"{base}/library", "ref": "main"}}
        )

        first = system.run_tasks(task)
        second = system.run_tasks(task, look("cat lib/library.txt; git show library/main:library.txt"))

        assert received(system, first) > 10
        assert received(system, second) == 0
        assert system.log(second, "look") == "library\nlibrary\n"

    def test_a_tag_that_was_moved_is_where_the_remote_has_it(self, system: Any, remote: Remote, base: str) -> None:
        system.run_tasks(checkout(f"{base}/hello"))
        remote.git("tag", "--force", "v3", "main~1")
        remote.git("tag", "new", "main")

        view = system.run_tasks(checkout(f"{base}/hello"), look("git rev-parse v3 new"))

        assert system.log(view, "look").split() == [remote.git("rev-parse", "main~1"), remote.git("rev-parse", "main")]

    def test_a_script_finds_no_more_than_it_would_without(self, system: Any, remote: Remote, base: str) -> None:
        system.run_tasks(checkout(f"{base}/hello"))

        view = system.run_tasks(checkout(f"{base}/hello"), look("git for-each-ref --format='%(refname)'"))

        assert system.log(view, "look").split() == ["refs/distci/commit", "refs/tags/v3"]

    def test_many_small_packs_become_one(
        self, system: Any, remote: Remote, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git_checkout, "PACKS_MAX", 2)

        for number in range(4):
            remote.commit(hello_txt=f"{number}\n")
            view = system.run_tasks(checkout(f"{base}/hello"), look())
            assert view.result is Result.PASSED

        [mirror] = mirrors(tmp_path)
        assert len([*mirror.glob("*.pack")]) <= 2
        assert received(system, system.run_tasks(checkout(f"{base}/hello"))) == 0

    def test_several_at_once_disturb_nobody(self, system: Any, remote: Remote, base: str, tmp_path: Path) -> None:
        task = checkout(f"{base}/hello", matrix={"number": ["1", "2", "3", "4"]}, directory="src")
        for _ in range(2):
            commit = remote.commit(hello_txt=f"{os.urandom(8).hex()}\n")
            view = system.run_tasks(task)
            assert view.result is Result.PASSED
            assert {item.attempts[-1]["details"]["commit"] for item in view.tasks} == {commit}

        assert len(mirrors(tmp_path)) == 1
        assert received(system, system.run_tasks(checkout(f"{base}/hello"))) == 0


class TestNothingNew:
    """A remote that is as the last checkout left it is asked once, and nothing is fetched."""

    def test_the_second_checkout_by_ssh_takes_one_connection_and_is_the_same(
        self, start_system: Callable[..., Any], remote: Remote, tmp_path: Path
    ) -> None:
        server = SshServer(tmp_path / "ssh")
        connections = tmp_path / "connections"
        # What the server runs for whoever has that key.
        keys = tmp_path / "ssh" / "authorized_keys"
        keys.write_text(f'command="echo >> {connections}; eval \\"$SSH_ORIGINAL_COMMAND\\"" {keys.read_text()}')
        try:
            system = start_system(secrets={"KEY": server.key})
            task = checkout(f"{server.url}{remote.path}", credentials="KEY", host_keys=[server.host_key])
            look_at_all = look(f"{SOUND}; git for-each-ref; git status --porcelain; cat hello.txt")
            took = []
            seen = []
            for _ in range(2):
                connections.write_text("")
                view = system.run_tasks(task, look_at_all)
                took.append(len(connections.read_text()))
                seen.append(system.log(view, "look"))
        finally:
            server.stop()

        assert took == [2, 1]
        assert seen[0] == seen[1]
        assert "refs/tags/v3" in seen[1]

    def test_whatever_may_be_otherwise_is_fetched(self, system: Any, remote: Remote, base: str) -> None:
        def fetches(**arguments: Any) -> tuple[bool, Sequence[str]]:
            view = system.run_tasks(checkout(f"{base}/hello", **arguments), look("git rev-parse HEAD; git tag"))
            return "+ git fetch" in system.log(view, "source"), system.log(view, "look").split()

        first, before = remote.git("rev-parse", "main"), remote.git("rev-parse", "main~1")
        assert fetches() == (True, [first, "v3"])
        assert fetches() == (False, [first, "v3"])
        # A branch elsewhere is nothing to this one; tags may be.
        remote.git("branch", "other", "main~1")
        assert fetches() == (False, [first, "v3"])
        remote.git("tag", "light", "main~1")
        assert fetches() == (True, [first, "light", "v3"])
        assert fetches() == (False, [first, "light", "v3"])
        remote.git("tag", "--delete", "v3")
        assert fetches() == (True, [first, "light"])
        remote.git("tag", "--force", "light", "main")
        assert fetches(ref="light") == (True, [first, "light"])
        assert fetches(ref="light") == (False, [first, "light"])
        # Another commit than the mirror was left with, though it is there.
        remote.git("reset", "--hard", "main~1")
        assert fetches() == (True, [before, "light"])
        assert fetches() == (False, [before, "light"])
        # Of a commit that is named the remote is asked by fetching alone.
        assert fetches(ref=before) == (True, [before, "light"])
        assert fetches() == (False, [before, "light"])
        # What git left there on purpose it finds by settings that fetching makes.
        for _ in range(2):
            assert fetches(filter="blob:none") == (True, [before])

    def test_however_many_tags_there_are_they_are_not_printed_and_not_lost(
        self, system: Any, remote: Remote, base: str
    ) -> None:
        commit = remote.git("rev-parse", "main")
        tags = "".join(f"{commit} refs/tags/{number:04}-{'x' * 60}\n" for number in range(1500))
        (remote.path / ".git" / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{tags}")

        views = [system.run_tasks(checkout(f"{base}/hello"), look("git tag | wc -l")) for _ in range(2)]

        assert [system.log(view, "look").strip() for view in views] == ["1501", "1501"]
        assert "+ git fetch" not in system.log(views[1], "source")
        assert f"{commit}\tHEAD\n" in system.log(views[1], "source")
        assert "refs/tags/0000" not in system.log(views[1], "source")

    def test_a_mirror_that_another_version_has_left_is_used(
        self, system: Any, remote: Remote, base: str, tmp_path: Path
    ) -> None:
        system.run_tasks(checkout(f"{base}/hello"))
        [mirror] = mirrors(tmp_path)
        told = json.loads((mirror / "manifest").read_text().partition("\n")[2])
        body = json.dumps({key: told[key] for key in ("packs", "tips", "shallow")})
        (mirror / "manifest").write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}")

        view = system.run_tasks(checkout(f"{base}/hello"), look())

        assert received(system, view) == 0
        assert "+ git fetch" in system.log(view, "source")
        assert "+ git fetch" not in system.log(system.run_tasks(checkout(f"{base}/hello")), "source")


class TestWhoSharesThem:
    @pytest.fixture
    def private(self, remote: Remote) -> Iterator[str]:
        with http_backend(remote.path.parent, "robot:t0p-secret") as url:
            yield f"{url}/hello"

    def test_whoever_needs_no_credentials(self, system: Any, base: str, tmp_path: Path) -> None:
        system.run_tasks(checkout(f"{base}/hello"), job="one/job")

        assert received(system, system.run_tasks(checkout(f"{base}/hello"), job="two/job")) == 0
        assert len(mirrors(tmp_path)) == 1

    def test_with_credentials_only_a_project_of_its_own(self, system: Any, private: str, tmp_path: Path) -> None:
        task = checkout(private, credentials="TOKEN")
        system.run_tasks(task, job="one/job")

        assert received(system, system.run_tasks(task, job="one/other")) == 0
        assert received(system, system.run_tasks(task, job="two/job")) >= 9
        assert len(mirrors(tmp_path)) == 2

    @pytest.mark.parametrize("ref", ["", "main"])
    def test_nobody_whom_the_remote_does_not_let_in_any_more_nor_with_another_secret(
        self, start_system: Callable[..., Any], remote: Remote, tmp_path: Path, ref: str
    ) -> None:
        # Given a mirror, and a task that needs to ask nobody for a commit, or one that has to
        system = start_system(secrets={"TOKEN": "robot:t0p-secret", "NEW": "robot:an0ther"})
        commit = remote.git("rev-parse", "HEAD")
        with http_backend(remote.path.parent, "robot:t0p-secret") as url:
            port = url.rpartition(":")[2]
            task = checkout(f"{url}/hello", credentials="TOKEN", ref=ref or commit)
            assert system.run_tasks(task).result is Result.PASSED

        # When the token does not open the repository any more
        with http_backend(remote.path.parent, "robot:an0ther", port=int(port)):
            view = system.run_tasks(task)
            new = system.run_tasks({**task, "credentials": "NEW"})

        # Then neither does the mirror, and who has one that does fetches for themselves
        assert "does `credentials` name the right secret?" in system.failure(view)
        assert received(system, new) >= 9
        assert len(mirrors(tmp_path)) == 2

    def test_no_folder_of_others_is_open(self, system: Any, base: str, tmp_path: Path) -> None:
        system.run_tasks(checkout(f"{base}/hello"))

        folders = [tmp_path / "cache", *mirrors(tmp_path)]
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: Sequence[tuple[str, Callable[[Path], object]]] = (
    ("*.pack", flip),
    ("*.pack", cut),
    ("*.pack", Path.unlink),
    ("*.idx", flip),
    ("manifest", flip),
    ("manifest", cut),
    ("manifest", Path.unlink),
    ("manifest", replace_by_folder),
    ("manifest", lambda path: path.write_text("")),
)


class TestDamage:
    """A mirror that is not as it was left is made anew; the checkout takes longer, and that is all."""

    def test_is_never_seen_in_a_build(self, system: Any, remote: Remote, base: str, tmp_path: Path) -> None:
        task = checkout(f"{base}/hello")
        system.run_tasks(task)
        for which, damage in DAMAGES:
            # Given a mirror, one file of which is not as it was left
            [mirror] = mirrors(tmp_path)
            damage(next(iter(sorted(mirror.glob(which)))))

            # When it is used
            view = system.run_tasks(task, look())

            # Then all is fetched anew, and kept
            assert system.log(view, "look").split()[-1] == remote.git("rev-parse", "HEAD")
            assert received(system, view) >= 9, (which, damage)
        assert received(system, system.run_tasks(task)) == 0

    def test_no_place_for_mirrors_costs_time_alone(self, system: Any, base: str, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file\n")

        assert received(system, system.run_tasks(checkout(f"{base}/hello"))) >= 9

    def test_nothing_is_kept_where_nothing_may_be(
        self, start_system: Callable[..., Any], base: str, tmp_path: Path
    ) -> None:
        system = start_system(cache_bytes_max=0)

        assert received(system, system.run_tasks(checkout(f"{base}/hello"))) >= 9
        assert mirrors(tmp_path) == []


class TestSize:
    def test_what_was_used_longest_ago_makes_room(
        self, start_system: Callable[..., Any], remote: Remote, base: str, tmp_path: Path
    ) -> None:
        # Given three repositories, two of which find room together
        for name in ("a", "b", "c"):
            Remote(tmp_path / "remotes" / name).commit(noise_txt=os.urandom(50_000).hex())
        system = start_system(cache_bytes_max=150_000)

        # When they are checked out, and the first of them once more
        for name in ("a", "b", "a", "c"):
            system.run_tasks(checkout(f"{base}/{name}"))

        # Then the second had to go
        kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert 100_000 < kept <= 150_000
        assert received(system, system.run_tasks(checkout(f"{base}/a"))) == 0
        assert received(system, system.run_tasks(checkout(f"{base}/b"))) == 3

    def test_one_that_is_too_large_by_itself_is_not_kept(
        self, start_system: Callable[..., Any], base: str, tmp_path: Path
    ) -> None:
        system = start_system(cache_bytes_max=100)

        assert received(system, system.run_tasks(checkout(f"{base}/hello"))) >= 9
        assert [*(tmp_path / "cache").rglob("*.pack")] == []


class TestKills:
    """Whoever uses a mirror may die at any step."""

    def fetched(self, remote: Remote, path: Path, revision: str) -> Path:
        """What a checkout makes: a repository with everything in packs."""
        commit = remote.git("rev-parse", revision)
        for command in (
            ["init", "--quiet", "--bare", "--template=", str(path)],
            ["-C", str(path), "-c", "fetch.unpackLimit=1", "fetch", "--quiet", str(remote.path), f"{commit}:refs/c"],
        ):
            subprocess.run(["git", *command], env=ENVIRONMENT, check=True)
        return path

    def test_leave_what_was_there_or_what_was_to_be(self, remote: Remote, tmp_path: Path) -> None:
        cache = Cache(tmp_path / "cache", 2**30)
        old, new, next_one = (remote.git("rev-parse", revision) for revision in ("main~2", "main~1", "main"))
        before, after, last = (self.fetched(remote, tmp_path / commit, commit) for commit in (old, new, next_one))
        Mirror(cache, KEY, lambda: None).keep(before, [old], is_repacked=False)
        saved = tmp_path / "saved"
        shutil.copytree(cache.folder, saved)

        steps, seen = 0, set()
        is_killed = True
        while is_killed:
            # Given a mirror of the old commit
            shutil.rmtree(cache.folder)
            shutil.copytree(saved, cache.folder)
            steps += 1

            # When a process that has begun with it dies at one line after another of what keeps the new commit
            is_killed = self.dies(steps, self.lent(cache, tmp_path)[0], after, new)

            # Then the mirror is good for the old commit or for both, and takes another one, which leaves nothing else there
            mirror, tips = self.lent(cache, tmp_path)
            seen.add(tips)
            mirror.keep(last, [next_one], is_repacked=False)
            assert next_one in self.lent(cache, tmp_path)[1]
            [folder] = cache.folder.iterdir()
            manifest = Manifest.from_text((folder / "manifest").read_text())
            assert {path.name for path in folder.iterdir()} == {"lock", "manifest", *manifest.packs}

        assert seen == {(old,), (old, new)}
        assert steps > 20

    def lent(self, cache: Cache, tmp_path: Path) -> tuple[Mirror, Sequence[str]]:
        """A mirror, and the commits that it has lent to a new repository."""
        repository = tmp_path / "new"
        (repository / "objects" / "pack").mkdir(parents=True)
        mirror = Mirror(cache, KEY, lambda: None)
        tips = mirror.lend(repository)
        shutil.rmtree(repository)
        return mirror, tips

    def dies(self, step: int, mirror: Mirror, repository: Path, commit: str) -> bool:
        """Keep a commit in a process that kills itself at that line of the module; whether it came to that."""
        child = os.fork()
        if child == 0:
            left = step

            def trace(frame: Any, event: str, _: object) -> Any:
                nonlocal left
                if frame.f_code.co_filename != git_mirrors.__file__:
                    return None
                left -= event == "line"
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            mirror.keep(repository, [commit], is_repacked=False)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
