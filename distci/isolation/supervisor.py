"""The parent of one command: holds its tree of processes together, ends it, and says how it ended.

A program of its own, run as ``python -I -S -X utf8 supervisor.py STATUS CONTROL ENVIRONMENT JOIN USER DIRECTORY GRACE CGROUP ARGV...``, with the standard
library alone and as little of that as possible, since every command waits for it to start. Being its descendants' subreaper, it
inherits whoever escapes by forking twice, so that in the end nobody is left. It ends the tree when a byte comes down the ``CONTROL``
pipe (``T``: politely), or when that is closed, which is what the kernel does when the worker dies.

``STATUS`` gets a dot once the command is to be started, and in the end a line: how the command ended, as ``waitpid`` has it, and what the
tree used: seconds of processors, KiB of memory, blocks of 512 bytes read and written. ``ENVIRONMENT`` is a file of what the command's
environment has, each with a NUL: no part of it may reach what runs before the command, which may have other rights. ``JOIN`` are
files that the command writes itself into, with commas between: ``cgroup.procs`` of groups that were opened by whoever may. ``USER``
is whom the command becomes, as ``UID:GID``; empty: nobody else. ``DIRECTORY`` is where it runs.

The variable ``DISTCI_TERMINAL`` does not reach the command: it names a pipe of what is typed on a terminal that the command gets (:func:`give_terminal`).

As the first process of a container it is given no open files, and one argument alone: a folder of named pipes ``status``, ``control``, ``output``
and ``told``. The last has, each with a NUL, how many arguments there are, these from ``JOIN`` on, and the environment. The line in the end
goes on with how often the kernel killed somebody for lack of memory, and the most bytes that all had together.
"""

# What `signal` is made of: that would make enumerations of all signals first, which takes 4 ms, and every command waits for that.
import _signal as signal  # type: ignore[import-not-found]
import ctypes
import math
import os
import resource
import select
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
SYS_CLONE3 = 435
CLONE_INTO_CGROUP = 0x2_0000_0000
NOT_FOUND, NOT_EXECUTABLE = 127, 126
TIOCSWINSZ = 0x5414
TERMINAL = "DISTCI_TERMINAL"
FRAME_BYTES = 9


def main() -> None:
    is_contained = len(sys.argv) == 2
    if is_contained:
        status_fd, control_fd, told, environment = open_pipes(sys.argv[1])
    else:
        status_fd, control_fd, environment_fd = map(int, sys.argv[1:4])
        told, environment = sys.argv[4:], read_environment(environment_fd)
    joined = [int(number) for number in told[0].split(",") if number]
    user, directory, grace_s, cgroup, argv = told[1], told[2], float(told[3]), told[4], told[5:]
    for ours in (status_fd, control_fd, *joined):
        os.set_inheritable(ours, False)
    libc = ctypes.PyDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # Kept for the command until it is there to take it; as long as it only ignored the signal, one that came early would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    os.write(status_fd, b".")
    command = fork_into(cgroup, libc) if cgroup else os.fork()
    if command == 0:
        if is_contained:
            offer_to_die()
        execute(argv, environment, joined, user, directory)
    for group in joined:
        os.close(group)
    # Only the tree holds the output now, so its end is the tree's end.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    status = supervise(command, control_fd, woken, grace_s)
    kill_all(cgroup)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    counted = used.ru_utime + used.ru_stime, used.ru_maxrss, used.ru_inblock, used.ru_oublock
    memory = b" %d %d" % counted_memory() if is_contained else b""
    os.write(status_fd, b"%d %f %d %d %d%b\n" % (status, *counted, memory))


def open_pipes(folder: str) -> tuple[int, int, list[str], dict[bytes, bytes]]:
    """The pipes of a folder, which become the output, too; and what we are told there."""
    # The worker has the other ends, or is gone. Not to wait for it, and to see then that it is gone, we are at the other ends for a moment.
    control = os.open(f"{folder}/control", os.O_RDONLY | os.O_NONBLOCK)
    others = [os.open(f"{folder}/{name}", os.O_RDWR) for name in ("control", "status", "output")]
    status = os.open(f"{folder}/status", os.O_WRONLY)
    output = os.open(f"{folder}/output", os.O_WRONLY)
    for other in others:
        os.close(other)
    # For an engine, we have ended when this is closed.
    os.dup(1)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    pipe = os.open(f"{folder}/told", os.O_RDWR | os.O_NONBLOCK)
    data = b""
    try:
        while True:
            data += os.read(pipe, 1 << 20)
    except BlockingIOError:
        os.close(pipe)
    if not data:
        # It went with the worker.
        sys.exit()
    count, *texts = data.split(b"\0")[:-1]
    return status, control, [os.fsdecode(text) for text in texts[: int(count)]], pairs(texts[int(count) :])


def read_environment(file: int) -> dict[bytes, bytes]:
    """What a file has of an environment, from its start, wherever others have read to."""
    data = os.pread(file, os.fstat(file).st_size, 0)
    os.close(file)
    return pairs(data.split(b"\0")[:-1])


def pairs(texts: list[bytes]) -> dict[bytes, bytes]:
    return {name: value for name, _, value in (text.partition(b"=") for text in texts)}


def fork_into(cgroup: str, libc: ctypes.PyDLL) -> int:
    """Fork; the child is born into the control group.

    That is done at once, where moving a process that is there already has to wait for all processors (some 25 ms). Where the
    kernel knows no clone3 (before 5.7) or a sandbox forbids it, the child moves.
    """
    group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    arguments = (ctypes.c_uint64 * 11)(CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    child: int = libc.syscall(SYS_CLONE3, arguments, ctypes.sizeof(arguments))
    if child < 0:
        child = os.fork()
        if child == 0:
            with open(f"{cgroup}/cgroup.procs", "w") as members:
                members.write("0")
    os.close(group)
    return child


def execute(argv: list[str], environment: dict[bytes, bytes], joined: list[int], user: str, directory: str) -> None:
    """Become the command, in a session of its own."""
    try:
        for group in joined:
            os.write(group, b"0")
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # Those that libc keeps for itself cannot be set, and need not be.
            if number < signal.SIGRTMIN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        if user:
            uid, gid = map(int, user.split(":"))
            os.setgroups(())
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        # Only now: the directory may be for that user alone.
        os.chdir(directory)
        typed = environment.pop(TERMINAL.encode(), b"")
        if typed:
            give_terminal(typed)
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        os.write(2, f"distci: cannot run {argv[0]} in {directory}: {error.strerror}\n".encode(errors="surrogateescape"))
        os._exit(NOT_FOUND if is_missing else NOT_EXECUTABLE)


def give_terminal(typed: bytes) -> None:
    """Return as a new process, in a session of its own whose terminal nothing is open on yet. Who called stays to pass on what is typed and shown.

    ``typed`` is a named pipe of frames: a letter, two numbers of four digits, and bytes. ``d``: as many bytes as the first number says were typed.
    ``s``: the terminal has so many lines and columns now.
    """
    pipe = os.open(typed, os.O_RDWR | os.O_NONBLOCK)
    shown, terminal = os.openpty()
    child = os.fork()
    if child == 0:
        os.setsid()
        # Who leads a session and has no terminal gets the first one that it opens.
        os.close(os.open(os.ttyname(terminal), os.O_RDWR))
        for ours in (pipe, shown, terminal):
            os.close(ours)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_blocking(shown, False)
    ended = os.pidfd_open(child)
    waiting = select.poll()
    for watched in (pipe, shown, ended):
        waiting.register(watched, select.POLLIN)
    held = b""
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll()]
        if shown in ready:
            show(shown)
        elif pipe in ready:
            held = pass_on(held + os.read(pipe, 65536), shown)
        elif ended in ready:
            break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status >= 0:
        os._exit(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)


def show(shown: int) -> None:
    """Print what stands on a terminal."""
    try:
        data = os.read(shown, 65536)
    except BlockingIOError:
        return
    while data:
        data = data[os.write(1, data) :]


def pass_on(data: bytes, shown: int) -> bytes:
    """Do what frames say; what is left of the last one, which is not whole yet."""
    while len(data) >= FRAME_BYTES:
        first, second = int(data[1:5]), int(data[5:9])
        if data[:1] == b"s":
            size = (ctypes.c_ushort * 4)(first, second, 0, 0)
            ctypes.PyDLL(None).ioctl(shown, TIOCSWINSZ, size)
            data = data[FRAME_BYTES:]
            continue
        if len(data) < FRAME_BYTES + first:
            break
        try:  # noqa: SIM105 - importing contextlib takes 5 ms
            os.write(shown, data[FRAME_BYTES : FRAME_BYTES + first])
        except BlockingIOError:
            pass  # nobody there reads what is typed
        data = data[FRAME_BYTES + first :]
    return data


def offer_to_die() -> None:
    """Where memory is limited for the command and us together, it is not us whom the kernel shall kill."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        pass


def counted_memory() -> tuple[int, int]:
    """How often somebody was killed for lack of memory, and the most bytes that all had together, as our own container has it."""
    for kills, peak in (
        ("memory/memory.oom_control", "memory/memory.max_usage_in_bytes"),
        ("memory.events", "memory.peak"),
    ):
        try:
            with open(f"/sys/fs/cgroup/{kills}") as lines:
                killed = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
            with open(f"/sys/fs/cgroup/{peak}") as line:
                return sum(killed), int(line.read())
        except OSError:
            continue
    return 0, 0


def supervise(command: int, control_fd: int, woken: int, grace_s: float) -> int:
    """Wait until the command has ended, ending it if asked to; its status as ``waitpid`` gives it."""
    kill_at = None
    # Unlike select(2), this takes descriptors above 1023, which those of a worker with many connections are.
    waiting = select.poll()
    for watched in (control_fd, woken):
        waiting.register(watched, select.POLLIN)
    while True:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == command:
                return status
            if pid == 0:
                break
        wait_ms = None if kill_at is None else max(0, math.ceil((kill_at - time.monotonic()) * 1000))
        ready = [descriptor for descriptor, _ in waiting.poll(wait_ms)]
        if woken in ready:
            os.read(woken, 512)
        if control_fd in ready:
            waiting.unregister(control_fd)
            is_polite = os.read(control_fd, 1) == b"T"
            kill_at = time.monotonic() + (grace_s if is_polite else 0.0)
            for pid in descendants() if is_polite else ():
                send(pid, signal.SIGTERM)
                send(pid, signal.SIGCONT)
        if kill_at is not None and time.monotonic() >= kill_at:
            os.kill(command, signal.SIGKILL)
            kill_at = None


def kill_all(cgroup: str) -> None:
    """Kill every descendant that is left. Stopping all before killing any lets nobody fork away."""
    while True:
        if cgroup:
            with open(f"{cgroup}/cgroup.kill", "w") as kill:
                kill.write("1")
        left = descendants()
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                send(pid, sent)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def descendants() -> list[int]:
    """All processes below this one, zombies left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def send(pid: int, number: int) -> None:
    try:  # noqa: SIM105 - importing contextlib takes 5 ms, and every command waits for that
        os.kill(pid, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
