"""Secrets of projects: what a task gets of them, and that nobody else gets anything."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from integration.conftest import System
from isolations import DRIVERS
from program import Home
from waiting import wait_until

from distci import backup
from distci.errors import Damaged, Invalid, InvalidSettings, NoSuchSecret, StoreUnavailable
from distci.model import Result, Trigger
from distci.protocol import paths
from distci.sealing import MasterKeys
from distci.secrets import VALUE_BYTES_MAX, Secrets
from distci.store import keys
from distci.store.directory import DirectoryStore
from distci.store.port import Store, objects

VALUE = "hunter2-s3same/open"
KEY, NEW_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


def shell(script: str, name: str = "use", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "type": "shell", "script": script, **arguments}


@pytest.fixture
def system(
    memory: Path, start_system: Callable[..., System], coordination_url: str | None, store_url: str | None
) -> System:
    return start_system(
        coordination=coordination_url, store=store_url, secrets={}, secret_keys=KEY, secret_folder=str(memory)
    )


def all_bytes(system: System) -> Iterator[bytes]:
    """All that is in the tree and in the store."""
    for info in objects(system.ci.store, ""):
        yield info.key.encode() + b" " + system.ci.store.get(info.key)
    pending = [*paths.FOLDERS]
    while pending:
        path = pending.pop()
        node = system.ci.coordination.read(path)
        yield f"{path} ".encode() + (node.data if node else b"")
        pending += [f"{path}/{name}" for name in system.ci.coordination.children(path)]


class TestTasks:
    def test_a_task_gets_those_that_it_names_and_no_other_task_does(self, system: System) -> None:
        system.ci.secrets.set("TOKEN", VALUE, "team")

        view = system.run_tasks(
            shell('echo "${#TOKEN} $TOKEN"', secrets=["TOKEN"]),
            shell('echo "<$TOKEN>"', name="other"),
            job="team/job",
        )

        assert view.result is Result.PASSED
        assert system.log(view, "use") == f"{len(VALUE)} ***\n"
        assert system.log(view, "other") == "<>\n"

    def test_a3_neither_tree_nor_store_has_one_in_any_form(self, system: System) -> None:
        system.ci.secrets.set("TOKEN", VALUE, "team", actor="ada@example.org")
        system.ci.secrets.set("FILE", VALUE, "team")
        system.ci.secrets.set("OTHER", f"{VALUE}-2", "team")
        system.ci.secrets.delete("OTHER", "team")

        view = system.run_tasks(
            shell('set -x; echo "$TOKEN" | base64; exit 3', secrets=["TOKEN"], secret_files=["FILE"]),
            shell("echo $TOKEN >&2; false", name="late", when="always", secrets=["TOKEN"]),
            job="team/job",
        )

        assert view.result is Result.FAILED
        found = [data[:200] for data in all_bytes(system) if VALUE.encode() in data]
        assert not found
        assert not [data[:200] for data in all_bytes(system) if base64.b64encode(VALUE.encode())[:-4] in data]
        assert [data for data in all_bytes(system) if b"secrets/team/TOKEN" in data]

    def test_the_nearest_project_counts(self, system: System) -> None:
        for project in ("", "team", "team/web", "team/web/site", "team/other"):
            system.ci.secrets.set("TOKEN", f"value of <{project}>", project)
        use = shell('test "$TOKEN" = "value of <$WANTED>"', secrets=["TOKEN"])

        for job, project in (
            ("team/web/site", "team/web/site"),
            ("team/web/api", "team/web"),
            ("team/lib", "team"),
            ("tea", ""),
        ):
            assert system.run_tasks({**use, "environment": {"WANTED": project}}, job=job).result is Result.PASSED

    def test_those_of_other_projects_are_not_there(self, system: System) -> None:
        system.ci.secrets.set("TOKEN", VALUE, "team/web")

        for job in ("team/api", "team/webber", "other/web", "team/web2/site"):
            view = system.run_tasks(shell("echo got $TOKEN", secrets=["TOKEN"]), job=job)

            assert "no secret 'TOKEN' is set for" in system.failure(view, "use")
            assert "got" not in system.log(view, "use")

    def test_a_file_is_in_memory_and_its_variable_says_where(self, system: System, memory: Path) -> None:
        system.ci.secrets.set("KEY", f"{VALUE}\nsecond line\n", "team")

        view = system.run_tasks(
            shell(
                'ls -l "$KEY" | cut -c1-10; wc -c < "$KEY"; cat "$KEY"; echo "$KEY" > where',
                secrets=[],
                secret_files=["KEY"],
            ),
            shell('cat where; test ! -e "$(cat where)"', name="then"),
            job="team/job",
        )

        assert view.result is Result.PASSED
        assert system.log(view, "use") == f"-rw-------\n{len(VALUE) + 13}\n***"
        assert system.log(view, "then").startswith(str(memory))
        assert not [name for _, _, names in os.walk(memory) for name in names if name not in ("lock", ".lock")]

    @pytest.mark.parametrize("driver", [*DRIVERS])
    @pytest.mark.parametrize("user", ["", "65534"])
    def test_a_file_is_for_whoever_the_task_runs_as_in_every_isolation(
        self, memory: Path, start_system: Callable[..., System], driver: str, user: str
    ) -> None:
        system = start_system(
            secrets={},
            secret_keys=KEY,
            secret_folder=str(memory),
            isolation=DRIVERS[driver](),
            # Where pytest has its folders, no other user may go.
            scratch=memory / "scratch",
            kinds=("control", "shell"),
        )
        system.ci.secrets.set("KEY", VALUE, "team")

        view = system.run_tasks(
            shell(
                'stat -c "%a %u" "$KEY"; id -u; wc -c < "$KEY"; ls "$(dirname "$KEY")"',
                secret_files=["KEY"],
                isolation={"user": user} if user else {"network": True},
            ),
            job="team/job",
        )

        assert view.result is Result.PASSED, system.log(view, "use")
        mode, uid, who, *rest = system.log(view, "use").split()
        assert (mode, uid, rest) == ("600", who, [str(len(VALUE)), "secret-KEY"])
        assert not [*memory.rglob("secret-KEY")]

    def test_a_sandbox_has_no_files_of_other_tasks(self, memory: Path, start_system: Callable[..., System]) -> None:
        system = start_system(
            secrets={},
            secret_keys=KEY,
            secret_folder=str(memory),
            isolation=DRIVERS["sandboxed"](),
            kinds=("control", "shell"),
        )
        system.ci.secrets.set("KEY", VALUE, "team")
        system.ci.secrets.set("OTHER", f"{VALUE}-2", "team")
        system.ci.jobs.put({"job": "team/one", "tasks": [shell("sleep 600", secret_files=["KEY"])]})
        one = system.ci.builds.trigger("team/one")
        wait_until(lambda: any(memory.rglob("secret-KEY")))

        view = system.run_tasks(
            shell('find /dev/shm -name "secret-*"; echo "$OTHER"', secret_files=["OTHER"]),
            job="team/job",
        )
        system.ci.builds.cancel(one)
        system.ci.builds.wait(one, 60)

        found, own = system.log(view, "use").split()
        assert found == own
        assert own.startswith(str(memory))
        assert not [*memory.rglob("secret-*")]

    def test_what_a_worker_that_was_killed_left_in_memory_is_gone_when_the_next_one_starts(
        self, memory: Path, tmp_path: Path
    ) -> None:
        home = Home(tmp_path)
        home.environment |= {"DISTCI_SECRET_KEYS": KEY, "DISTCI_SECRET_FOLDER": str(memory)}
        go = tmp_path / "begun"
        home.ask("secret", "set", "KEY", "--project", "team", input=f"{VALUE}\n")
        task = shell(f'cp "$KEY" {go}.new; mv {go}.new {go}; sleep 600', secret_files=["KEY"])
        home.ask("job", "put", home.file({"job": "team/job", "tasks": [task]}))

        with home.running("up", "--no-frontend", until="Ctrl-C") as up:
            home.ask("build", "trigger", "team/job")
            wait_until(go.exists)
            assert go.read_text() == VALUE
            up.kill()
        [left] = memory.rglob("secret-KEY")
        assert left.read_text() == VALUE

        # Also one that works for another system.
        with home.running("up", "--no-frontend", "--data", str(tmp_path / "other"), until="Ctrl-C"):
            assert not [*memory.rglob("secret-KEY")]

    def test_where_nothing_is_in_memory_no_file_is_written(
        self, start_system: Callable[..., System], tmp_path: Path
    ) -> None:
        system = start_system(secrets={}, secret_keys=KEY, secret_folder="/proc/self")
        system.ci.secrets.set("KEY", VALUE)

        view = system.run_tasks(shell("cat $KEY", secret_files=["KEY"]))

        assert "/proc/self is not in memory, but on proc" in system.failure(view, "use")

    def test_a_build_of_what_strangers_wrote_gets_none_and_why_says_so(self, system: System) -> None:
        system.ci.secrets.set("TOKEN", VALUE, "team")
        job = system.ci.jobs.put({"job": "team/job", "tasks": [shell("echo got $TOKEN", secrets=["TOKEN"])]})
        build = system.ci.lifecycle.create(job, Trigger("github", is_untrusted=True))

        view = system.ci.builds.wait(build, 60)

        assert system.log(view, "use").startswith("distci: task use: secret 'TOKEN' is not given to a build")
        [told] = [reason for reason in system.ci.why.build(build) if reason.subject.endswith(" use")]
        assert "without rights to the repository" in told.because

    def test_while_those_who_keep_it_are_away_a_task_waits_and_no_attempt_is_lost(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Keeper:
            """Is away at first."""

            asked = 0

            def get(self, project: str, name: str) -> str | None:
                self.asked += 1
                if self.asked < 3:
                    raise StoreUnavailable("nobody answers")
                return VALUE

        monkeypatch.setattr(system.ci.secrets, "_providers", [Keeper()])

        view = system.run_tasks(shell('test "${#TOKEN}" = 19', secrets=["TOKEN"], timeout="1s"))

        assert (view.result, view.task("use").attempts[-1]["attempt"]) == (Result.PASSED, 1)

    def test_one_that_cannot_be_opened_fails_the_task_that_names_it(self, system: System) -> None:
        system.ci.secrets.set("TOKEN", VALUE, "team")
        other = Secrets(system.ci.store, lambda: MasterKeys([NEW_KEY]))

        with pytest.raises(InvalidSettings, match="is not among those at hand"):
            other.values("team/job", ["TOKEN"])
        with pytest.raises(InvalidSettings, match="DISTCI_SECRET_KEYS_FILE"):
            Secrets(system.ci.store, lambda: MasterKeys([])).values("team/job", ["TOKEN"])
        assert Secrets(system.ci.store, lambda: MasterKeys([])).values("team/job", ["NONE"]) == {}


class TestKeeping:
    @pytest.fixture
    def store(self, system: System) -> Store:
        return system.ci.store

    def secrets(self, store: Store, *masters: str) -> Secrets:
        return Secrets(store, lambda: MasterKeys(masters), clock=lambda: 1000)

    def test_what_is_set_is_listed_without_its_value(self, store: Store) -> None:
        secrets = self.secrets(store, KEY)
        for project in ("team/web", "", "team", "teams"):
            secrets.set("TOKEN", VALUE, project, actor="ada@example.org")

        assert [(secret.project, secret.set_ms, secret.set_by) for secret in secrets.list()] == [
            (project, 1_000_000, "ada@example.org") for project in ("", "team", "team/web", "teams")
        ]
        assert [secret.project for secret in secrets.list("team")] == ["team", "team/web"]
        assert VALUE not in repr([*secrets.list()])

    def test_one_that_is_set_again_has_its_new_value(self, store: Store) -> None:
        secrets = self.secrets(store, KEY)
        secrets.set("TOKEN", VALUE, "team")
        secrets.set("TOKEN", f"{VALUE}-2", "team")

        assert secrets.values("team/job", ["TOKEN"]) == {"TOKEN": f"{VALUE}-2"}

    def test_one_that_is_deleted_is_gone(self, store: Store) -> None:
        secrets = self.secrets(store, KEY)
        secrets.set("TOKEN", VALUE, "team")
        with pytest.raises(NoSuchSecret):
            secrets.delete("TOKEN", "team/web")
        secrets.delete("TOKEN", "team")

        assert secrets.values("team/job", ["TOKEN"]) == {}
        assert store.head(keys.secret("team", "TOKEN")) is None
        with pytest.raises(NoSuchSecret):
            secrets.delete("TOKEN", "team")

    def test_a3_after_a_rotation_the_old_key_opens_nothing_and_no_value_was_sealed_anew(self, store: Store) -> None:
        for project in ("", "team", "team/web", "other"):
            self.secrets(store, KEY).set("TOKEN", f"{VALUE} of {project}", project)
        sealed = {info.key: store.get(info.key) for info in objects(store, keys.SECRETS)}

        # Both are at hand while it goes on; begun again, it does the rest.
        both = self.secrets(store, NEW_KEY, KEY)
        assert (both.rotate("team").sealed, both.rotate("team").kept) == (2, 2)
        assert both.values("team/web/site", ["TOKEN"]) == {"TOKEN": f"{VALUE} of team/web"}
        assert both.values("other/job", ["TOKEN"]) == {"TOKEN": f"{VALUE} of other"}
        done = both.rotate()

        assert (done.sealed, done.kept) == (2, 2)
        assert self.secrets(store, NEW_KEY).values("other/job", ["TOKEN"]) == {"TOKEN": f"{VALUE} of other"}
        with pytest.raises(InvalidSettings):
            self.secrets(store, KEY).values("other/job", ["TOKEN"])
        assert {info.key: store.get(info.key) for info in objects(store, keys.SECRETS)} == sealed

    def test_a_secret_that_is_moved_to_another_name_or_project_does_not_open(self, store: Store) -> None:
        secrets = self.secrets(store, KEY)
        secrets.set("TOKEN", VALUE, "team")
        secrets.set("TOKEN", f"{VALUE}-2", "other")
        for name, project in (("NAME", "team"), ("TOKEN", "other")):
            store.put(keys.secret(project, name), store.get(keys.secret("team", "TOKEN")))

            with pytest.raises(Damaged):
                secrets.values(f"{project}/job", [name])

    def test_two_that_set_the_first_one_at_once_seal_with_one_key(self, store: Store) -> None:
        class Slow:
            """A store in which somebody else is first."""

            def put_if_absent(self, key: str, data: bytes) -> bool:
                first = TestKeeping().secrets(store, KEY)
                first.set("FIRST", VALUE, "team")
                return store.put_if_absent(key, data)

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

        self.secrets(Slow(), KEY).set("SECOND", f"{VALUE}-2", "team")

        assert self.secrets(store, KEY).values("team/job", ["FIRST", "SECOND"]) == {
            "FIRST": VALUE,
            "SECOND": f"{VALUE}-2",
        }

    @pytest.mark.parametrize("kind", [keys.SECRET_KEYS, keys.SECRETS])
    @pytest.mark.parametrize("is_written", [False, True])
    def test_one_whose_setting_was_broken_off_can_be_set_again(self, store: Store, kind: str, is_written: bool) -> None:
        class Broken:
            """A store that is gone before or after it has written what is of that kind."""

            def put(self, key: str, data: bytes | BinaryIO) -> None:
                self.broken(key, lambda: store.put(key, data))

            def put_if_absent(self, key: str, data: bytes) -> bool:
                self.broken(key, lambda: store.put_if_absent(key, data))
                return True

            def broken(self, key: str, write: Callable[[], object]) -> None:
                if is_written or not key.startswith(kind):
                    write()
                if key.startswith(kind):
                    raise StoreUnavailable("gone")

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

        with pytest.raises(StoreUnavailable):
            self.secrets(Broken(), KEY).set("TOKEN", "of the first time", "team")
        self.secrets(store, KEY).set("TOKEN", VALUE, "team")

        assert self.secrets(store, KEY).values("team/job", ["TOKEN"]) == {"TOKEN": VALUE}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("TOKEN", "abc"),
            ("TOKEN", ""),
            ("TOKEN", "a\0bcd"),
            ("TOKEN", "\udcffbinary"),
            ("TOKEN", "x" * (VALUE_BYTES_MAX + 1)),
            ("a-name", VALUE),
            ("DISTCI_TOKEN", VALUE),
            ("CI", VALUE),
            ("", VALUE),
        ],
    )
    def test_what_cannot_be_kept_out_of_logs_or_handed_over_is_refused_and_not_repeated(
        self, store: Store, name: str, value: str
    ) -> None:
        with pytest.raises(Invalid) as refused:
            self.secrets(store, KEY).set(name, value, "team")

        assert not value or value not in str(refused.value)
        assert not [*self.secrets(store, KEY).list()]

    @pytest.mark.parametrize("key", ["no base64!", base64.b64encode(b"short").decode(), "a" * 64])
    def test_what_is_no_master_key_is_refused_and_not_repeated(self, store: Store, key: str) -> None:
        with pytest.raises(Invalid, match="openssl rand -base64 32") as refused:
            self.secrets(store, key).set("TOKEN", VALUE)

        assert key not in str(refused.value)

    def test_a_copy_of_the_store_has_them_sealed(self, store: Store, tmp_path: Path) -> None:
        self.secrets(store, KEY).set("TOKEN", VALUE, "team")
        copied = DirectoryStore(tmp_path / "copy")

        backup.copy(store, copied)

        assert self.secrets(copied, KEY).values("team/job", ["TOKEN"]) == {"TOKEN": VALUE}
        assert not [info for info in objects(copied, "") if VALUE.encode() in copied.get(info.key)]

    def test_a7_who_changed_one_is_put_down_and_no_value(self, system: System) -> None:
        system.ci.secrets.set("TOKEN", VALUE, "team", actor="ada@example.org", reason="a new one")
        with pytest.raises(Invalid):
            system.ci.secrets.set(VALUE, "TOKEN", "team")
        system.ci.secrets.rotate()
        system.ci.secrets.delete("TOKEN", "team")
        system.ci.audit.close()

        entries = [entry for entry in system.ci.audit.list() if entry.what.startswith("secret.")]
        assert [(entry.what, entry.target) for entry in entries] == [
            ("secret.set", "team"),
            ("secret.set", "team"),
            ("secret.rotate", ""),
            ("secret.delete", "team"),
        ]
        assert (entries[0].who, entries[0].reason) == ("ada@example.org", "a new one")
        assert VALUE not in repr(entries)
