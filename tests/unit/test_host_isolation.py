"""Commands on the host: what they see, what is heard of them, how they end, and that nobody of theirs is left."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from uuid import uuid4

import pytest
from waiting import wait_until

from distci.errors import Invalid, Unavailable
from distci.isolation import host, processes, supervised, supervisor
from distci.isolation.cgroups import ControlGroups, find_cgroups
from distci.isolation.host import HostIsolation
from distci.isolation.port import Cause, Command, Ended
from distci.isolation.supervised import FENCE

LONG_S = 600
"""Longer than any test may take: whoever sleeps so long ends because it is ended."""

TIMEOUTS_S = (0.5, 2.0, 8.0, 32.0)
"""Deadlines to try: a machine that is busy may need more to start what shall be ended."""

RUNAWAY = """
import os, time
until_s = time.monotonic() + 60
[os.fork() for _ in range(3)]
while time.monotonic() < until_s:
    if os.fork():
        os._exit(0)
"""
"""Eight processes that are always somebody else a moment later; of themselves for a minute at most."""

TREES = {
    "a child": f"sleep {LONG_S} &",
    "a child that forked twice": f"( ( sleep {LONG_S} & ) & )",
    "a child in a session of its own": f"setsid sleep {LONG_S} &",
    "a child that ignores SIGTERM": f"(trap '' TERM; exec sleep {LONG_S}) &",
    "a daemon that closed its pipes": f"( setsid sh -c 'exec <&- >&- 2>&-; cd /; trap \"\" TERM HUP; sleep {LONG_S}' & )",
    "a stopped child": f"(kill -STOP $(exec sh -c 'echo $PPID'); sleep {LONG_S}) &",
    "a child with an empty environment": f"( setsid env -i TEST_MARK=$TEST_MARK sleep {LONG_S} & )",
    "a few dozen children": f"for i in 1 2 3 4 5 6; do (for j in 1 2 3 4 5 6; do sleep {LONG_S} & done; wait) & done",
    "children that fork all the time": (
        "for i in 1 2 3 4 5 6 7 8; do (trap '' TERM; while :; do (sleep 0.01; :) & wait; done) & done"
    ),
    "children that run away": f"{sys.executable} -S -c '{RUNAWAY}' &",
}
"""What a script may leave behind, by name."""


class Runner:
    """Runs commands in one way of isolation, and finds what is left of them."""

    def __init__(self, cgroups: ControlGroups | None, directory: Path) -> None:
        self.cgroups = cgroups
        self.isolation = HostIsolation(cgroups)
        self.directory = directory
        self.mark = uuid4().hex

    @property
    def environment(self) -> Mapping[str, str]:
        """What a script needs, and by what it and its children are found."""
        return {"PATH": os.defpath, "TEST_MARK": self.mark, FENCE: self.mark}

    def run(
        self,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        grace_s: float = 0.2,
        output: Callable[[bytes], object] = lambda data: None,
        stop: Event | None = None,
    ) -> tuple[Ended, bytes]:
        """How a command ended and what it printed."""
        printed = bytearray()

        def take(data: bytes) -> None:
            printed.extend(data)
            output(data)

        variables = self.environment if environment is None else environment
        command = Command(argv, self.directory, variables, "attempt", timeout_s, grace_s)
        return self.isolation.run(command, take, stop or Event()), bytes(printed)

    def script(
        self,
        text: str,
        *,
        timeout_s: float | None = None,
        grace_s: float = 0.2,
        output: Callable[[bytes], object] = lambda data: None,
        stop: Event | None = None,
    ) -> tuple[Ended, bytes]:
        """The same for a script of the shell."""
        return self.run("/bin/sh", "-c", text, timeout_s=timeout_s, grace_s=grace_s, output=output, stop=stop)

    def left(self) -> Sequence[int]:
        """Who lives of all that was run here, supervisors included."""
        mark = self.mark.encode()
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and mark in environment_of(int(name))]


def environment_of(pid: int) -> bytes:
    """What a process was given; nothing for one that is dead."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture(params=["supervised", "grouped"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """One after the other."""
    found: Runner = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Runner]:
    """Commands that nothing but their supervisor holds together."""
    yield from clean_runner(None, tmp_path)


@pytest.fixture
def cgroups() -> ControlGroups:
    found = find_cgroups()
    if found is None or found.unified is None:
        pytest.skip("no control groups can be made here")
    return found


@pytest.fixture
def grouped(cgroups: ControlGroups, tmp_path: Path) -> Iterator[Runner]:
    """Commands in a control group each."""
    yield from clean_runner(cgroups, tmp_path)


def clean_runner(cgroups: ControlGroups | None, directory: Path) -> Iterator[Runner]:
    runner = Runner(cgroups, directory)
    yield runner
    # What a failed test left behind shall not disturb the next one.
    for pid in runner.left():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# How a command ended


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_commands_own(supervised: Runner, status: int) -> None:
    ended, _ = supervised.script(f"exit {status}")
    assert ended == Ended(Cause.ENDED, status, None)
    assert ended.ok == (status == 0)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_the_signal_that_killed_it_is_told(runner: Runner, number: signal.Signals) -> None:
    ended, _ = runner.script(f"ulimit -c 0; kill -{int(number)} $$")
    assert ended == Ended(Cause.ENDED, None, number)
    assert number.name in ended.describe()


def test_a_command_that_is_not_there_ends_with_127_and_says_so(supervised: Runner) -> None:
    ended, printed = supervised.run("/no/such/program")
    assert ended == Ended(Cause.ENDED, 127, None)
    assert b"/no/such/program" in printed


@pytest.mark.parametrize("content", ["#!/bin/sh\n", "\x7fELF"], ids=["not executable", "no program"])
def test_a_command_that_cannot_be_executed_ends_with_126_and_says_so(supervised: Runner, content: str) -> None:
    program = supervised.directory / "program"
    program.write_text(content)
    program.chmod(0o644 if content.startswith("#!") else 0o755)
    ended, printed = supervised.run(str(program))
    assert ended == Ended(Cause.ENDED, 126, None)
    assert str(program).encode() in printed


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        (["/bin/echo", "a\0b"], {}),
        (["/bin/echo"], {"NAME": "a\0b"}),
        (["/bin/echo"], {"NA\0ME": "value"}),
        (["/bin/echo"], {"NA=ME": "value"}),
        (["/bin/echo", "x" * 200_000], {}),
        (["/bin/echo"], {"NAME": "x" * 200_000}),
        (["/bin/echo", "\ud800"], {}),
        ([], {}),
    ],
    ids=[
        "NUL in an argument",
        "NUL in a value",
        "NUL in a name",
        "= in a name",
        "argument too long",
        "value too long",
        "half a character",
        "no command",
    ],
)
def test_what_no_process_can_be_given_is_an_error_and_costs_nothing(
    runner: Runner, argv: Sequence[str], environment: Mapping[str, str]
) -> None:
    before = open_files()
    with pytest.raises(Invalid):
        runner.run(*argv, environment=environment)
    assert open_files() == before


def test_no_directory_is_nothing_the_command_can_help(supervised: Runner) -> None:
    supervised.directory = supervised.directory / "gone"
    with pytest.raises(Unavailable, match="gone"):
        supervised.run("/bin/true")


def test_commands_leave_no_file_open_and_no_zombie(supervised: Runner) -> None:
    supervised.run("/bin/true")
    before = open_files(), children()
    for _ in range(20):
        supervised.run("/bin/true")
    assert (open_files(), children()) == before


def test_a_worker_that_is_out_of_threads_says_so_and_leaves_nobody(
    supervised: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(supervised, "Thread", Refused)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        supervised.script(f"sleep 2; touch {supervised.directory}/canary")

    assert supervised.left() == []
    assert not (supervised.directory / "canary").exists()


@pytest.mark.parametrize("free", range(12))
def test_a_worker_that_is_out_of_files_says_so_and_leaves_neither_files_nor_processes(
    supervised: Runner, free: int
) -> None:
    # Given a process that can open no more than a few files
    before, limits = open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for _ in range(free):
        os.close(taken.pop())

    # When a command is to be run
    try:
        assert supervised.run("/bin/true")[0].ok
    except Unavailable as error:
        assert "Too many open files" in str(error)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    # Then it ran, or nothing of it is left
    assert open_files() == before
    assert supervised.left() == []


def children() -> list[str]:
    """All of this process, zombies included."""
    return Path("/proc/thread-self/children").read_text().split()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# What a command sees


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NAME": "value", "EMPTY": "", "LINES": "a\nb", "BYTES": "\udcff", "UMLAUT": "ä"},
        {"LANG": "C"},
        {"LC_ALL": "C"},
        {"LC_CTYPE": "C"},
        {"LC_CTYPE": "POSIX", "LANG": "de_DE.UTF-8"},
        {"LC_CTYPE": ""},
        {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONUTF8": "0", "PYTHONINSPECT": "1"},
    ],
    ids=lambda environment: " ".join(environment) or "none",
)
def test_the_environment_is_exactly_what_is_given(supervised: Runner, environment: Mapping[str, str]) -> None:
    os.environ["OF_THE_WORKER"] = "secret"
    try:
        ended, printed = supervised.run("/usr/bin/env", "-0", environment=environment)
    finally:
        del os.environ["OF_THE_WORKER"]
    assert ended.ok
    assert sorted(printed.split(b"\0")[:-1]) == sorted(
        os.fsencode(f"{name}={value}") for name, value in environment.items()
    )


def test_arguments_arrive_byte_for_byte(supervised: Runner) -> None:
    arguments = ["", " ", "a b", "*", "$HOME", "-x", "a\nb", "ä", "\udcff\udcfe", "x" * 100_000]
    _, printed = supervised.run("/usr/bin/printf", "%s\\0", *arguments)
    assert printed.split(b"\0")[:-1] == [os.fsencode(argument) for argument in arguments]


def test_it_runs_in_its_directory(supervised: Runner) -> None:
    _, printed = supervised.run("/bin/pwd")
    assert printed.decode() == f"{supervised.directory}\n"


def test_standard_input_is_empty(supervised: Runner) -> None:
    ended, printed = supervised.run("/bin/cat")
    assert (ended.ok, printed) == (True, b"")


def test_it_has_no_file_of_the_worker_and_no_signal_set(supervised: Runner) -> None:
    with ExitStack() as stack:
        ours = stack.enter_context(Path("/dev/zero").open("rb"))
        os.set_inheritable(ours.fileno(), True)
        _, printed = supervised.script("ls -l /proc/self/fd; grep -E '^Sig(Blk|Ign):' /proc/self/status; umask")
    assert b"/dev/zero" not in printed
    assert printed.count(b" -> ") == 4, "input, output, errors, and the directory that is being listed"
    assert printed.count(b"\t0000000000000000\n") == 2
    assert printed.endswith(b"\n0022\n")


# What is heard of it


def test_output_and_errors_arrive_in_the_order_in_which_they_were_printed(supervised: Runner) -> None:
    _, printed = supervised.script("for i in $(seq 500); do echo $i; echo $i >&2; done")
    assert printed.split() == [b"%d" % (i // 2 + 1) for i in range(1000)]


def test_output_arrives_byte_for_byte(supervised: Runner) -> None:
    data = os.urandom(300_000)
    (supervised.directory / "data").write_bytes(data)
    assert supervised.run("/bin/cat", "data")[1] == data


def test_output_arrives_while_the_command_runs(supervised: Runner) -> None:
    # Given a command that goes on only when what it printed has been heard
    heard = supervised.directory / "heard"
    ended, printed = supervised.script(
        f"echo first; until test -e {heard}; do sleep 0.01; done; echo second",
        output=lambda data: heard.touch(),
        timeout_s=LONG_S,
    )
    assert ended.ok
    assert printed == b"first\nsecond\n"


def test_a_flood_of_50_mb_arrives_whole(runner: Runner) -> None:
    size = 50_000_000
    digest, counted = hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal counted
        digest.update(data)
        counted += len(data)

    command = Command(
        ["/bin/sh", "-c", f"yes 0123456789abcde | head -c {size}"], runner.directory, runner.environment, "flood"
    )
    assert runner.isolation.run(command, take, Event()).ok
    assert counted == size
    assert digest.digest() == hashlib.sha256(b"0123456789abcde\n" * (size // 16)).digest()


def test_what_was_printed_right_before_being_killed_arrives(runner: Runner) -> None:
    ended, printed = runner.script(f"echo last words; kill -9 $$; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert printed == b"last words\n"


@pytest.mark.parametrize("redirection", [">/dev/null 2>&1", ">&- 2>&-"])
def test_a_command_that_sends_its_output_elsewhere_runs_to_its_own_end(runner: Runner, redirection: str) -> None:
    done = runner.directory / "done"
    ended, _ = runner.script(f"exec {redirection}; sleep 0.3; echo yes > {done}; exit 7")
    assert ended == Ended(Cause.ENDED, 7, None)
    assert done.exists()


def test_a_child_that_holds_the_output_does_not_delay_the_end(runner: Runner) -> None:
    started_s = monotonic()
    ended, printed = runner.script(f"sleep {LONG_S} & echo done")
    assert ended.ok
    assert printed == b"done\n"
    assert monotonic() - started_s < 30


def test_an_output_that_cannot_be_taken_ends_the_command_and_passes_on(runner: Runner) -> None:
    def refuse(data: bytes) -> None:
        raise BlockingIOError("no more, please")

    before = open_files()
    with pytest.raises(BlockingIOError, match="no more"):
        runner.script(f"setsid sleep {LONG_S} & yes", output=refuse)
    assert runner.left() == []
    assert open_files() == before


def test_more_than_1024_open_files_do_not_matter(supervised: Runner) -> None:
    # Given a worker that holds so many connections that select(2) cannot see what comes next
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("so many files cannot be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open("rb"))
        ended, printed = supervised.script("echo hello; exit 3")
    assert (ended.exit_status, printed) == (3, b"hello\n")


# Ending it


@pytest.mark.parametrize("tree", TREES)
def test_d32_the_deadline_ends_the_whole_tree(runner: Runner, tree: str) -> None:
    # Given a tree of processes that would stay for minutes
    script = f"{TREES[tree]}\necho ready; trap '' TERM; sleep {LONG_S} & wait; sleep {LONG_S}"
    # When its time is up
    for timeout_s in TIMEOUTS_S:
        ended, printed = runner.script(script, timeout_s=timeout_s, grace_s=0.1)
        if printed:
            break
    # Then all of it is gone
    assert printed == b"ready\n"
    assert ended == Ended(Cause.TIMED_OUT, None, signal.SIGKILL)
    assert runner.left() == []


@pytest.mark.parametrize("tree", TREES)
def test_nobody_survives_a_normal_end(runner: Runner, tree: str) -> None:
    ended, printed = runner.script(f"{TREES[tree]}\necho ready")
    assert (ended.ok, printed) == (True, b"ready\n")
    assert runner.left() == []


def test_o07_a_cancelled_command_is_asked_before_it_is_killed(runner: Runner) -> None:
    # Given a command that cleans up when it is asked to end
    stop = Event()
    ended, printed = runner.script(
        f"trap 'echo cleaned up; exit 9' TERM; echo ready; sleep {LONG_S} & wait",
        output=lambda data: stop.set(),
        stop=stop,
        grace_s=LONG_S,
    )
    # Then it may, and says by itself how it ended
    assert ended == Ended(Cause.STOPPED, 9, None)
    assert printed == b"ready\ncleaned up\n"
    assert runner.left() == []


def test_every_process_of_a_cancelled_command_is_asked_the_stopped_ones_too(runner: Runner) -> None:
    # Given a command that waits for a stopped grandchild in a session of its own
    stop = Event()
    child = runner.directory / "child"
    child.write_text("trap 'echo child asked; exit' TERM; echo ready; kill -STOP $$; while :; do sleep 0.01; done")
    ended, printed = runner.script(
        f"trap : TERM; setsid sh {child} & wait; wait",
        output=lambda data: stop.set(),
        stop=stop,
        grace_s=LONG_S,
    )
    assert ended.cause is Cause.STOPPED
    assert printed == b"ready\nchild asked\n"


def test_a_cancelled_command_that_does_not_listen_is_killed_after_the_grace(runner: Runner) -> None:
    stop = Event()
    asked_s = []

    def ask(data: bytes) -> None:
        asked_s.append(monotonic())
        stop.set()

    ended, _ = runner.script(
        f"trap '' TERM; echo ready; sleep {LONG_S} & wait; sleep {LONG_S}", output=ask, stop=stop, grace_s=0.5
    )
    assert ended == Ended(Cause.STOPPED, None, signal.SIGKILL)
    assert 0.5 <= monotonic() - asked_s[0] < 30
    assert runner.left() == []


def test_a_command_that_nobody_wants_any_more_ends_at_once(runner: Runner) -> None:
    stop = Event()
    stop.set()
    ended, _ = runner.script(f"sleep {LONG_S}", stop=stop)
    assert ended.cause is Cause.STOPPED
    assert runner.left() == []


def test_a_quick_command_does_not_wait_for_its_deadline(supervised: Runner) -> None:
    started_s = monotonic()
    ended, _ = supervised.run("/bin/true", timeout_s=LONG_S)
    assert ended.ok
    assert monotonic() - started_s < 30


# When somebody is killed


@pytest.mark.parametrize("tree", [tree for tree in TREES if "empty environment" not in tree])
def test_a_killed_supervisor_leaves_nobody(runner: Runner, tree: str) -> None:
    ended, printed = runner.script(f"{TREES[tree]}\necho ready; kill -KILL $PPID; sleep {LONG_S}")
    assert ended == Ended(Cause.ENDED, None, signal.SIGKILL)
    assert printed == b"ready\n"
    assert runner.left() == []


def test_a_killed_supervisor_leaves_nobody_of_a_control_group_however_hidden(grouped: Runner) -> None:
    hidden = TREES["a child with an empty environment"]
    ended, _ = grouped.script(f"{hidden}; kill -KILL $PPID; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert grouped.left() == []


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_c08_a_supervisor_that_its_command_has_stopped_is_ended_with_it(
    runner: Runner, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distci.isolation.supervised.SUPERVISOR_GRACE_S", 0.5)
    stop = Event()
    ended, _ = runner.script(
        f"kill -STOP $PPID; echo ready; sleep {LONG_S}",
        timeout_s=1 if how == "timeout" else None,
        output=lambda data: stop.set() if how == "cancel" else None,
        stop=stop,
    )
    assert ended == Ended(Cause.TIMED_OUT if how == "timeout" else Cause.STOPPED, None, signal.SIGKILL)
    assert runner.left() == []


def test_a_supervisor_killed_by_a_silent_command_leaves_nobody(runner: Runner) -> None:
    ended, _ = runner.script(f"exec >&- 2>&-; kill -KILL $PPID; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert runner.left() == []


def test_who_escapes_a_killed_supervisor_and_hides_does_not_hold_the_worker(supervised: Runner) -> None:
    # Given a child that holds the output, prints all the time, and is not told from any other process
    hidden = "( setsid env -i TEST_MARK=$TEST_MARK /bin/sh -c 'while echo still here; do sleep 0.01; done' & )"
    started_s = monotonic()
    ended, _ = supervised.script(f"{hidden}; kill -KILL $PPID; sleep {LONG_S}")
    assert ended.signal == signal.SIGKILL
    assert monotonic() - started_s < 30


WORKER = """
import sys
from pathlib import Path
from threading import Event
from distci.isolation.cgroups import ControlGroups
from distci.isolation.host import HostIsolation
from distci.isolation.port import Command
cgroups, directory, mark, fence, script = sys.argv[1:]
environment = {"PATH": "/bin:/usr/bin", "TEST_MARK": mark, fence: mark}
command = Command(["/bin/sh", "-c", script], Path(directory), environment, "attempt", None, 600.0)
print(HostIsolation(ControlGroups(Path(cgroups)) if cgroups else None).run(command, lambda data: None, Event()))
"""


@pytest.mark.parametrize("tree", TREES)
def test_d01_a_killed_worker_leaves_nobody(runner: Runner, tree: str) -> None:
    # Given a worker process that runs a tree of processes
    ready = runner.directory / "ready"
    script = f"{TREES[tree]}\ntouch {ready}; trap '' TERM; sleep {LONG_S} & wait; sleep {LONG_S}"
    worker = start_worker(runner, script)
    wait_until(ready.exists)
    assert runner.left()
    # When it is killed
    worker.kill()
    worker.wait()
    # Then all are gone soon after
    wait_until(lambda: not runner.left())


def test_a_killed_worker_does_not_keep_its_control_groups(grouped: Runner, cgroups: ControlGroups) -> None:
    # Given a worker that was killed
    ready = grouped.directory / "ready"
    worker = start_worker(grouped, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    assert groups_of(cgroups, worker.pid)
    worker.kill()
    worker.wait()
    wait_until(lambda: not grouped.left())
    # When the next one starts
    grouped.isolation.sweep()
    # Then its groups are gone
    assert groups_of(cgroups, worker.pid) == []


def start_worker(runner: Runner, script: str) -> subprocess.Popen[bytes]:
    """A process that runs a script in the runner's way. It is not marked as the script is."""
    folder = runner.cgroups.unified if runner.cgroups else ""
    arguments = [str(folder), str(runner.directory), runner.mark, FENCE, script]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments])


def groups_of(cgroups: ControlGroups, pid: int) -> Sequence[str]:
    assert cgroups.unified
    return [group.name for group in cgroups.unified.glob(f"{pid}-*")]


def test_no_control_group_is_left_after_the_end(tmp_path: Path, cgroups: ControlGroups) -> None:
    before = groups_of(cgroups, os.getpid())
    # Given a command that makes groups below its own, and puts a child into one of them
    script = (
        "own=$(ls -d $CGROUPS/*-nested-*); mkdir -p $own/a/b; ls -d $own/a/b >&2;"
        f"sh -c 'echo 0 > '$own'/a/b/cgroup.procs; echo inside; exec sleep {LONG_S}' & read line < $own/a/b/cgroup.procs"
    )
    command = Command(
        ["/bin/sh", "-c", script], tmp_path, {"PATH": os.defpath, "CGROUPS": str(cgroups.unified)}, "nested"
    )
    printed = bytearray()
    assert HostIsolation(cgroups).run(command, printed.extend, Event()).cause is Cause.ENDED
    assert b"/a/b\n" in printed
    assert groups_of(cgroups, os.getpid()) == before


# Sweeping


@pytest.fixture
def orphan(supervised: Runner) -> Iterator[subprocess.Popen[bytes]]:
    """What is left of a command whose worker and supervisor were both killed."""
    process = subprocess.Popen(["/bin/sleep", str(LONG_S)], env=supervised.environment)
    yield process
    process.kill()
    process.wait()


def test_a_sweep_removes_who_has_no_supervisor_any_more(supervised: Runner, orphan: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: orphan.pid in supervised.left())
    assert supervised.isolation.sweep() >= 1
    assert orphan.wait() == -signal.SIGKILL


def test_a_sweep_spares_the_script_of_a_worker_that_has_no_supervisors(supervised: Runner) -> None:
    environment = {**supervised.environment, "DISTCI_GATEWAY": "true"}
    script = subprocess.Popen(["/bin/sleep", str(LONG_S)], env=environment)
    try:
        wait_until(lambda: script.pid in supervised.left())
        supervised.isolation.sweep()
        assert script.poll() is None
    finally:
        script.kill()
        script.wait()


def test_a_sweep_spares_who_is_supervised(runner: Runner) -> None:
    # Given a command that runs while another worker on this machine starts
    ended, _ = runner.script("echo ready; sleep 0.2; exit 5", output=lambda data: HostIsolation(find_cgroups()).sweep())
    assert ended == Ended(Cause.ENDED, 5, None)


def test_a_sweep_spares_who_loses_a_parent_meanwhile(supervised: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process of a command, and a parent that dies right after it has been named as such
    stop, printed, stat = Event(), bytearray(), processes.stat
    is_spared = False

    def stat_and_kill(pid: int) -> list[bytes]:
        found = stat(pid)
        child, parent = map(int, printed.split())
        if pid == child and int(found[1]) == parent:
            os.kill(parent, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{parent}").exists())
        return found

    def sweep(data: bytes) -> None:
        nonlocal is_spared
        printed.extend(data)
        if len(printed.split()) == 2:
            monkeypatch.setattr(host, "stat", stat_and_kill)
            # When another worker on this machine starts
            HostIsolation().sweep()
            is_spared = int(printed.split()[0]) in supervised.left()
            stop.set()

    family = f"(sleep {LONG_S} & echo $! $(exec sh -c 'echo $PPID'); exec sleep {LONG_S}) & sleep {LONG_S}"
    supervised.script(family, output=sweep, stop=stop)

    # Then the process is left alone
    assert is_spared


def test_a_sweep_spares_who_is_supervised_by_another_installation(supervised: Runner) -> None:
    # Given a command of a DistCI that is installed elsewhere on this machine
    copy = supervised.directory / "distci" / "isolation" / "supervisor.py"
    copy.parent.mkdir(parents=True)
    shutil.copy(supervisor.__file__, copy)
    status_out, status_in = os.pipe()
    control_out, control_in = os.pipe()
    other = subprocess.Popen(
        [sys.executable, "-I", "-S", str(copy), str(status_in), str(control_out), "1", "", "", "/bin/sleep", "0.3"],
        env=supervised.environment,
        pass_fds=(status_in, control_out),
    )
    for descriptor in (status_in, control_out):
        os.close(descriptor)
    with ExitStack() as stack:
        stack.callback(os.close, control_in)
        said = stack.enter_context(os.fdopen(status_out, "rb"))
        wait_until(lambda: len(supervised.left()) == 2)
        # When a worker of ours starts
        supervised.isolation.sweep()
        # Then that command ends by itself
        assert said.read() == b"0\n"
        assert other.wait() == 0
