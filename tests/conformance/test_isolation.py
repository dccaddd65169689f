"""What every driver promises of commands: what they see, what is heard of them, how they end, and that nobody of theirs is left.

A promise that a driver cannot keep by its nature is a command that it refuses, saying so (see :mod:`distci.isolation.port`).
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic

import pytest
from isolations import LONG_S, LXC, TIMEOUTS_S, TREES, Runner, children, groups_of, open_files, runner_of, start_worker
from waiting import wait_until

from distci.errors import Invalid, Unavailable
from distci.isolation.cgroups import ControlGroups, find_cgroups
from distci.isolation.port import Cause, Confinement, Ended, Limits, Service
from distci.isolation.terminal import Terminal


@pytest.fixture(params=["supervised", "grouped", "sandboxed", *LXC])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """Each driver, ``host`` with and without control groups."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture(params=["supervised", "sandboxed", *LXC])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """Each driver, for what has nothing to do with control groups."""
    yield from runner_of(request.param, tmp_path)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder that is on a disk, wherever tests write else: what is written into memory is written to no device."""
    with TemporaryDirectory(prefix=".on-disk-", dir=Path(__file__).parents[2]) as folder:
        yield Path(folder)


# How a command ended


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_commands_own(plain: Runner, status: int) -> None:
    ended, _ = plain.script(f"exit {status}")
    assert ended == Ended(Cause.ENDED, status, None)
    assert ended.ok == (status == 0)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_the_signal_that_killed_it_is_told(runner: Runner, number: signal.Signals) -> None:
    ended, _ = runner.script(f"ulimit -c 0; kill -{int(number)} $$")
    assert ended == Ended(Cause.ENDED, None, number)
    assert number.name in ended.describe()


def test_a_command_that_is_not_there_ends_with_127_and_says_so(plain: Runner) -> None:
    ended, printed = plain.run("/no/such/program")
    assert ended == Ended(Cause.ENDED, 127, None)
    assert b"/no/such/program" in printed


@pytest.mark.parametrize("content", ["#!/bin/sh\n", "\x7fELF"], ids=["not executable", "no program"])
def test_a_command_that_cannot_be_executed_ends_with_126_and_says_so(plain: Runner, content: str) -> None:
    program = plain.directory / "program"
    program.write_text(content)
    program.chmod(0o644 if content.startswith("#!") else 0o755)
    ended, printed = plain.run(str(program))
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


def test_no_directory_is_nothing_the_command_can_help(plain: Runner) -> None:
    plain.directory = plain.directory / "gone"
    with pytest.raises(Unavailable, match="gone"):
        plain.run("/bin/true")


def test_commands_leave_no_file_open_and_no_zombie(plain: Runner) -> None:
    plain.run("/bin/true")
    before = open_files(), children()
    for _ in range(20):
        plain.run("/bin/true")
    assert (open_files(), children()) == before


def test_a_worker_that_is_out_of_threads_says_so_and_leaves_nobody(
    plain: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("distci.isolation.supervised.Thread", Refused)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        plain.script(f"sleep 2; touch {plain.directory}/canary")

    assert plain.left() == []
    assert not (plain.directory / "canary").exists()


@pytest.mark.parametrize("free", range(12))
def test_a_worker_that_is_out_of_files_says_so_and_leaves_neither_files_nor_processes(plain: Runner, free: int) -> None:
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
        assert plain.run("/bin/true")[0].ok
    except Unavailable as error:
        assert "Too many open files" in str(error)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    # Then it ran, or nothing of it is left
    assert open_files() == before
    assert plain.left() == []


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
def test_the_environment_is_exactly_what_is_given(plain: Runner, environment: Mapping[str, str]) -> None:
    os.environ["OF_THE_WORKER"] = "secret"
    try:
        ended, printed = plain.run("/usr/bin/env", "-0", environment=environment)
    finally:
        del os.environ["OF_THE_WORKER"]
    assert ended.ok
    assert sorted(printed.split(b"\0")[:-1]) == sorted(
        os.fsencode(f"{name}={value}") for name, value in environment.items()
    )


def test_arguments_arrive_byte_for_byte(plain: Runner) -> None:
    arguments = ["", " ", "a b", "*", "$HOME", "-x", "a\nb", "ä", "\udcff\udcfe", "x" * 100_000]
    _, printed = plain.run("/usr/bin/printf", "%s\\0", *arguments)
    assert printed.split(b"\0")[:-1] == [os.fsencode(argument) for argument in arguments]


def test_it_runs_in_its_directory(plain: Runner) -> None:
    _, printed = plain.run("/bin/pwd")
    assert printed.decode() == f"{plain.directory}\n"


def test_standard_input_is_empty(plain: Runner) -> None:
    ended, printed = plain.run("/bin/cat")
    assert (ended.ok, printed) == (True, b"")


def test_it_has_no_file_of_the_worker_and_no_signal_set(plain: Runner) -> None:
    with ExitStack() as stack:
        ours = stack.enter_context(Path("/dev/zero").open("rb"))
        os.set_inheritable(ours.fileno(), True)
        _, printed = plain.script("ls -l /proc/self/fd; grep -E '^Sig(Blk|Ign):' /proc/self/status; umask")
    assert b"/dev/zero" not in printed
    assert printed.count(b" -> ") == 4, "input, output, errors, and the directory that is being listed"
    assert printed.count(b"\t0000000000000000\n") == 2
    assert printed.endswith(b"\n0022\n")


# What is heard of it


def test_output_and_errors_arrive_in_the_order_in_which_they_were_printed(plain: Runner) -> None:
    _, printed = plain.script("for i in $(seq 500); do echo $i; echo $i >&2; done")
    assert printed.split() == [b"%d" % (i // 2 + 1) for i in range(1000)]


def test_output_arrives_byte_for_byte(plain: Runner) -> None:
    data = os.urandom(300_000)
    (plain.directory / "data").write_bytes(data)
    assert plain.run("/bin/cat", "data")[1] == data


def test_output_arrives_while_the_command_runs(plain: Runner) -> None:
    # Given a command that goes on only when what it printed has been heard
    heard = plain.directory / "heard"
    ended, printed = plain.script(
        f"echo first; until test -e {heard}; do sleep 0.01; done; echo second",
        output=lambda data: heard.touch(),
        timeout_s=LONG_S,
    )
    assert ended.ok
    assert printed == b"first\nsecond\n"


def test_what_is_typed_on_its_terminal_reaches_a_command_and_what_stands_there_is_output(plain: Runner) -> None:
    script = (
        'read said </dev/tty; echo "<$said>" >/dev/tty; stty size </dev/tty; tty -s && echo no; env | grep DISTCI_T'
    )
    script += "; test -t 1 || echo piped; cat; kill -9 $$"
    with Terminal(plain.directory / "terminal") as terminal:
        terminal.resize(33, 99)
        terminal.send(b"one word\r" + bytes(0))
        command = plain.command(["/bin/sh", "-c", script], plain.environment)
        printed = bytearray()
        ended = plain.isolation.run(replace(command, terminal=terminal.pipe), printed.extend, Event())

    assert ended == Ended(Cause.ENDED, None, 9)
    # What stands on a terminal is passed on by somebody, and may come after what was printed later.
    lines = bytes(printed).replace(b"one word\r\n", b"", 1).splitlines()
    assert sorted(lines) == [b"33 99", b"<one word>", b"piped"]
    assert plain.left() == []


def test_a_task_gives_itself_no_terminal(plain: Runner) -> None:
    environment = {**plain.environment, "DISTCI_TERMINAL": "/nowhere"}
    ended, printed = plain.run("/bin/sh", "-c", "echo $DISTCI_TERMINAL; tty; exit 3", environment=environment)
    assert (ended.exit_status, printed) == (3, b"\nnot a tty\n")


def test_a_command_on_a_terminal_is_ended_like_any_other(plain: Runner) -> None:
    stop = Event()
    with Terminal(plain.directory / "terminal") as terminal:
        script = f"trap '' HUP; echo ready; sleep {LONG_S} </dev/tty >/dev/tty 2>&1"
        command = replace(plain.command(["/bin/sh", "-c", script], plain.environment), terminal=terminal.pipe)
        ended = plain.isolation.run(command, lambda data: stop.set(), stop)

    assert ended.cause is Cause.STOPPED
    assert plain.left() == []


def test_a_flood_of_50_mb_arrives_whole(runner: Runner) -> None:
    size = 50_000_000
    digest, counted = hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal counted
        digest.update(data)
        counted += len(data)

    command = runner.command(["/bin/sh", "-c", f"yes 0123456789abcde | head -c {size}"], runner.environment)
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


def test_more_than_1024_open_files_do_not_matter(plain: Runner) -> None:
    # Given a worker that holds so many connections that select(2) cannot see what comes next
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("so many files cannot be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open("rb"))
        ended, printed = plain.script("echo hello; exit 3")
    assert (ended.exit_status, printed) == (3, b"hello\n")


# Ending it


@pytest.mark.parametrize("tree", TREES)
def test_d32_the_deadline_ends_the_whole_tree(runner: Runner, tree: str) -> None:
    # Given a tree of processes that would stay for minutes
    script = f"{TREES[tree]}\ntrap '' TERM; echo ready; sleep {LONG_S} & wait; sleep {LONG_S}"
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


def test_a_quick_command_does_not_wait_for_its_deadline(plain: Runner) -> None:
    started_s = monotonic()
    ended, _ = plain.run("/bin/true", timeout_s=LONG_S)
    assert ended.ok
    assert monotonic() - started_s < 30


# When the worker is killed


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


@pytest.mark.parametrize("runner", ["grouped", "sandboxed", *LXC], indirect=True)
def test_a_killed_worker_does_not_keep_its_control_groups(runner: Runner) -> None:
    # Given a worker that was killed
    ready = runner.directory / "ready"
    worker = start_worker(runner, f"touch {ready}; sleep {LONG_S}")
    wait_until(ready.exists)
    assert groups_of(worker.pid)
    worker.kill()
    worker.wait()
    wait_until(lambda: not runner.left())
    # When the next one starts
    runner.isolation.sweep()
    # Then its groups are gone
    assert groups_of(worker.pid) == []


# What it is confined to

HOG = "x = bytearray(200 << 20)"
SPIN = "import time; until = time.process_time() + 0.4\nwhile time.process_time() < until: pass"
THREADS = "import threading; [threading.Thread(target=threading.Event().wait, daemon=True).start() for _ in range(20)]"


def python(text: str) -> str:
    """A line of a script that has the machine's Python do something."""
    return f"/usr/bin/env python3 -S -c '{text}'"


def limited(runner: Runner, script: str, **limits: float) -> tuple[Ended, bytes] | None:
    """How a script ends within limits; None where the driver has no control groups, and says so instead of running anything."""
    wanted = Confinement(limits=Limits(**limits))  # type: ignore[arg-type]
    cgroups = None if runner.driver == "supervised" else find_cgroups()
    if not (runner.is_container or runner.is_machine) and (cgroups or ControlGroups()).problems(wanted.limits):
        refused(runner, wanted, "no .* control group can be made by this worker: run it as root")
        return None
    return runner.script(script, confinement=wanted)


def refused(runner: Runner, wanted: Confinement, why: str) -> None:
    """The driver says that it cannot do this, and does nothing."""
    canary = runner.directory / "canary"
    with pytest.raises(Invalid, match=why):
        runner.script(f"touch {canary}", confinement=wanted)
    assert not canary.exists()


def is_apart(runner: Runner) -> bool:
    """Whether the driver keeps commands from the machine."""
    return runner.is_container or runner.is_machine or runner.driver not in ("supervised", "grouped")


def test_who_goes_beyond_its_memory_is_told_from_who_is_killed(runner: Runner) -> None:
    ended = limited(runner, f"exec {python(HOG)}", memory_bytes=64 << 20)
    if ended:
        assert ended[0] == Ended(Cause.ENDED, None, signal.SIGKILL, is_out_of_memory=True)
        assert ended[0].describe() == "out of memory: signal 9 (SIGKILL)"
    killed = limited(runner, "kill -9 $$", memory_bytes=64 << 20)
    if killed:
        assert killed[0] == Ended(Cause.ENDED, None, signal.SIGKILL)


def test_a_script_that_lost_a_child_for_lack_of_memory_says_so(runner: Runner) -> None:
    ended = limited(runner, f"{python(HOG)} || exit 2", memory_bytes=64 << 20)
    if ended:
        assert ended[0] == Ended(Cause.ENDED, 2, None, is_out_of_memory=True)


def test_what_fits_into_the_memory_passes_and_its_peak_is_told(runner: Runner) -> None:
    ended = limited(runner, python("x = bytearray(30 << 20)"), memory_bytes=64 << 20)
    if ended:
        assert ended[0].ok
        assert ended[0].usage
        assert 30 << 20 < ended[0].usage.memory_peak_bytes <= 64 << 20


def test_no_more_processes_can_be_started_than_allowed(runner: Runner) -> None:
    ended = limited(runner, python(THREADS), processes=10)
    if ended:
        assert not ended[0].ok
        assert b"can't start new thread" in ended[1]
    within = limited(runner, "sleep 0 & wait", processes=10)
    assert within is None or within[0].ok


def test_processors_are_no_more_than_allowed(runner: Runner) -> None:
    began_s = monotonic()
    ended = limited(runner, python(SPIN), cpus=0.2)
    if ended:
        # 0.4 s of a processor at a fifth of it; the first tenth of a second comes at once.
        assert ended[0].ok
        assert monotonic() - began_s > 1.0


def test_limits_are_seen_where_programs_look_for_them(runner: Runner) -> None:
    look = (
        "cat /sys/fs/cgroup/memory/$(sed -n s/^.*:memory:.//p /proc/self/cgroup)/memory.limit_in_bytes"
        " || cat /sys/fs/cgroup/$(sed -n s/^0::.//p /proc/self/cgroup)/memory.max"
        " || cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
    )
    ended = limited(runner, look, memory_bytes=64 << 20)
    if ended:
        assert ended[1].split()[-1] == b"67108864"


def test_who_writes_more_than_allowed_is_ended(plain: Runner) -> None:
    wanted = Confinement(limits=Limits(disk_bytes=4 << 20))
    ended, _ = plain.script(f"head -c 8M /dev/zero > {plain.directory}/large; sleep {LONG_S}", confinement=wanted)
    assert ended == Ended(Cause.OUT_OF_DISK, None, signal.SIGKILL)
    assert ended.describe() == "more written to disk than its limit allows"


def test_who_has_written_more_than_allowed_when_it_ends_has_not_passed(plain: Runner) -> None:
    wanted = Confinement(limits=Limits(disk_bytes=4 << 20))
    ended, _ = plain.script("head -c 8M /dev/zero > large", confinement=wanted)
    assert ended.cause is Cause.OUT_OF_DISK
    assert not ended.ok


def test_within_its_disk_a_command_passes(plain: Runner) -> None:
    wanted = Confinement(limits=Limits(disk_bytes=4 << 20))
    assert plain.script("head -c 1M /dev/zero > small; ln small twice", confinement=wanted)[0].ok


def test_what_it_used_is_told(plain: Runner, on_disk: Path) -> None:
    plain.directory = on_disk
    ended, _ = plain.script(f"{python(SPIN)} & wait; head -c 2M /dev/zero > written; sync written")
    assert ended.usage
    assert 0.4 <= ended.usage.cpu_s < 30
    assert ended.usage.memory_peak_bytes > 1 << 20
    assert ended.usage.written_bytes >= 2 << 20


@pytest.mark.parametrize("user", ["1234", "1234:4321", "daemon"])
def test_it_runs_as_the_user_that_it_is_told(plain: Runner, user: str) -> None:
    if os.geteuid() != 0 and not is_apart(plain):
        refused(plain, Confinement(user=user), "only a worker that root runs")
        return
    # In a folder that is for its owner alone, where everybody can come to it
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        plain.directory = Path(folder, "own")
        plain.directory.mkdir(0o700)
        ended, printed = plain.script(
            "id -u; id -g; id -G; echo mine > own; cat own", confinement=Confinement(user=user)
        )
    expected = {"1234": "1234 1234 1234", "1234:4321": "1234 4321 4321", "daemon": "1 1 1"}[user]
    assert (ended.ok, printed.decode().split()) == (True, [*expected.split(), "mine"])


def test_a_user_that_there_is_not_is_named(plain: Runner) -> None:
    refused(plain, Confinement(user="nobody-of-that-name"), "has no user 'nobody-of-that-name'")


def test_without_network_there_is_a_loopback_interface_alone(plain: Runner) -> None:
    if not is_apart(plain):
        refused(plain, Confinement(network=False), "commands have the machine's network")
        return
    look = "import socket; print(*(name for _, name in socket.if_nameindex()))"
    ended, printed = plain.script(f"/usr/bin/env python3 -S -c '{look}'", confinement=Confinement(network=False))
    assert (ended.ok, printed) == (True, b"lo\n")


def test_with_network_it_is_the_machines(plain: Runner) -> None:
    _, printed = plain.script("readlink /proc/self/ns/net")
    assert printed.decode().strip() == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("place", ["/", "/usr", "/etc", "/opt"])
def test_a_read_only_root_cannot_be_written_to(plain: Runner, place: str) -> None:
    if not is_apart(plain):
        refused(plain, Confinement(read_only=True), "no root is read-only")
        return
    ended, printed = plain.script(f"touch {place}/distci-was-here", confinement=Confinement(read_only=True))
    assert not ended.ok
    assert b"Read-only file system" in printed or b"Permission denied" in printed
    assert not Path(f"{place}/distci-was-here").exists()


def test_the_workspace_and_tmp_can_be_written_to(plain: Runner) -> None:
    wanted = Confinement(read_only=is_apart(plain))
    ended, _ = plain.script("mkdir a; echo x > a/b; f=$(mktemp); echo y > $f; rm $f", confinement=wanted)
    assert ended.ok
    assert (plain.directory / "a" / "b").read_text() == "x\n"


def test_an_image_is_refused_where_there_are_none(plain: Runner) -> None:
    refused(plain, Confinement(image="debian:12"), "no image")


def test_services_are_refused_where_there_are_none(plain: Runner) -> None:
    refused(plain, Confinement(services=[Service("web", "nginx")]), "services are containers, and there are none here")


def test_another_type_of_isolation_is_refused(plain: Runner) -> None:
    refused(plain, Confinement(type="moon"), "it is not moon")


def test_tools_of_the_machine_are_there(plain: Runner) -> None:
    ended, _ = plain.script("git --version && test -r /etc/passwd && test -d /usr/lib && test -c /dev/null")
    assert ended.ok


def test_an_exit_status_that_looks_like_a_signal_is_none(plain: Runner) -> None:
    assert plain.script("exit 137")[0] == Ended(Cause.ENDED, 137, None)


def test_no_library_of_the_environment_gets_into_what_starts_the_command(plain: Runner) -> None:
    # Given a variable that has the linker complain in every program that sees it
    ended, printed = plain.run("/bin/echo", "hello", environment={"LD_PRELOAD": "/no/such/library.so"})
    assert ended.ok
    assert printed.count(b"/no/such/library.so") == 1, "the command alone"


def test_commands_beside_each_other_end_each_by_itself(runner: Runner) -> None:
    ends: list[tuple[Ended, bytes]] = []
    threads = [
        Thread(target=lambda n=n: ends.append(runner.script(f"sleep 0.1; echo {n}; exit {n}"))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((ended.exit_status, int(printed)) for ended, printed in ends) == [(n, n) for n in range(6)]


def test_nothing_is_left_of_a_limited_command(runner: Runner) -> None:
    before = groups_of(os.getpid()), open_files()
    limited(runner, f"setsid sleep {LONG_S} & echo", memory_bytes=64 << 20, processes=20, cpus=1.5)
    assert (groups_of(os.getpid()), open_files()) == before
    assert runner.left() == []
