"""The first process of a virtual machine: makes the machine ready, waits for one command, runs it, and gives back what it has left.

A program of its own, run by the kernel with a Python that comes with it (:mod:`distci.isolation.kit`), so that an image needs nothing of ours. It speaks
through two ports of a virtio console. What comes by the first: an order, as JSON behind its length, and what the command is given
(:mod:`distci.isolation.cargo`), one stream for each mount. What goes out by it are frames, a letter and a length before each:

* ``r``: ready. The machine's memory is kept in this moment, and every command begins here, in a copy of it. With that, the image's users;
* ``b``: an order has come;
* ``o``: output of the command;
* ``d``: how many bytes it takes on disk;
* ``f``: a part of what is in its writable mounts, once it has ended;
* ``s``: what its supervisor says (:mod:`distci.isolation.supervisor`), the last word when all else is told.

The second port is the supervisor's ``CONTROL``. A third one is what is typed on the command's terminal.
When this process ends the kernel does, and so does the machine.
"""

import _socket
import ctypes
import fcntl
import json
import os
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# Where this is, the package is, and nothing else of it is needed.
sys.path.append(os.path.abspath(__file__).rpartition("/distci/")[0])

from distci.isolation import cargo, supervisor

PORT, CONTROL_PORT, TYPED_PORT = "/dev/vport0p1", "/dev/vport0p2", "/dev/vport0p3"
MODULES = "/etc/distci-modules"
"""In an image: the kernel's modules that have to be loaded, one path a line, in this order."""

FRAME = struct.Struct(">cI")
LENGTH = struct.Struct(">I")
PIECE_BYTES = 32 * 1024
"""What the kernel passes on at once by such a port."""

GROUPS, GROUP = "/sys/fs/cgroup", "/sys/fs/cgroup/task"
OWN_MEMORY = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Folders that everybody may write to, all but the last."""

PERIOD_US = 100_000
PORT_LOOK_S = 0.02
DISK_LOOK_S = 1.0
FILES_MAX = 90
"""Per cent of the machine's memory that files may take."""

SYS_FINIT_MODULE = 313
RB_AUTOBOOT = 0x01234567
MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_RDONLY = 2, 4, 32, 4096, 1
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
SIOCADDRT, SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x890B, 0x8916, 0x891C, 0x8913, 0x8914
IFF_UP, RTF_UP, RTF_GATEWAY = 1, 1, 2
CARD, ADDRESS, MASK, GATEWAY, RESOLVER = "eth0", "10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3"
"""As QEMU's own network has it."""

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    make_ready()
    # The kernel is told of its ports one by one, some time after it has found what they belong to.
    while not all(map(os.path.exists, (PORT, CONTROL_PORT, TYPED_PORT))):
        time.sleep(PORT_LOOK_S)
    port = os.open(PORT, os.O_RDWR)
    control = os.open(CONTROL_PORT, os.O_RDONLY)
    free = free_bytes()
    send(port, b"r", json.dumps({name: text_of(f"/etc/{name}") for name in ("passwd", "group")}).encode())
    order = json.loads(read(port, *LENGTH.unpack(read(port, LENGTH.size))))
    send(port, b"b")
    come_to(order)
    run(port, control, order, take(port, order), free)
    while True:
        # We are not needed any more, and must not end before the machine does.
        time.sleep(3600)


def make_ready() -> None:
    """Mount and load what every command needs."""
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV)
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID, "mode=620,ptmxmode=666")
    mount("cgroup2", GROUPS, "cgroup2", MS_NOSUID | MS_NODEV)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
    os.symlink("/proc/self/fd", "/dev/fd")
    for folder in OWN_MEMORY:
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755 if folder == OWN_MEMORY[-1] else 0o1777)
    for path in text_of(MODULES).split():
        load(path)
    call(libc.mount, None, b"/", None, MS_REMOUNT, f"size={FILES_MAX}%".encode())
    write(f"{GROUPS}/cgroup.subtree_control", "+memory +pids +cpu")
    os.mkdir(GROUP)
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    bring_up(any_socket.fileno(), "lo")
    if os.path.exists(f"/sys/class/net/{CARD}"):
        connect(any_socket.fileno())
    any_socket.close()


def load(path: str) -> None:
    """Load a module of the kernel; one that is there already is no failure."""
    file = os.open(path, os.O_RDONLY)
    if libc.syscall(SYS_FINIT_MODULE, file, b"", 0) and not isinstance(last_error(), FileExistsError):
        raise last_error(path)
    os.close(file)


def bring_up(any_socket: int, name: str) -> None:
    asked = struct.pack("16sH14x", name.encode(), 0)
    flags = struct.unpack_from("H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, asked), 16)[0]
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | IFF_UP))


def connect(any_socket: int) -> None:
    """Take part in the network that QEMU makes for the machine."""
    for call_number, address in ((SIOCSIFADDR, ADDRESS), (SIOCSIFNETMASK, MASK)):
        fcntl.ioctl(any_socket, call_number, struct.pack("16s16s8x", CARD.encode(), socket_address(address)))
    bring_up(any_socket, CARD)
    nowhere = socket_address("0.0.0.0")
    route = struct.pack("8x16s16s16sH46x", nowhere, socket_address(GATEWAY), nowhere, RTF_UP | RTF_GATEWAY)
    fcntl.ioctl(any_socket, SIOCADDRT, route)
    write("/etc/resolv.conf", f"nameserver {RESOLVER}\n")


def socket_address(address: str) -> bytes:
    return struct.pack("HH4s8x", _socket.AF_INET, 0, _socket.inet_aton(address))


def come_to(order: Mapping[str, Any]) -> None:
    """Notice that time has passed since the memory was kept, and be unlike all others that began from it."""
    time.clock_settime(time.CLOCK_REALTIME, order["time_s"])
    seed = bytes.fromhex(order["seed"])
    random = os.open("/dev/urandom", os.O_WRONLY)
    fcntl.ioctl(random, RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
    fcntl.ioctl(random, RNDRESEEDCRNG)
    os.close(random)


def take(port: int, order: Mapping[str, Any]) -> Sequence[tuple[bytes, Mapping[bytes, cargo.Identity]]]:
    """Put what the command is given where it belongs; the folders that go back, with what was in them. Then limit the command."""
    back = []
    for mounted in order["mounts"]:
        path = os.fsencode(mounted["path"])
        make_way(os.path.dirname(path))
        owner = (order["uid"], order["gid"]) if mounted["is_own"] or mounted["is_writable"] else (0, 0)
        identities = cargo.unpack(lambda size: read(port, size), path, owner)
        if mounted["is_writable"]:
            back.append((path, identities))
    if order["read_only"]:
        make_read_only([path for path, _ in back])
    for name, value in order["limits"].items():
        write(f"{GROUP}/{name}", value)
    return back


def make_way(folder: bytes) -> None:
    """Make a folder, and let everybody pass through it and those above, whomever the image has them for."""
    os.makedirs(folder, exist_ok=True)
    while folder != b"/":
        os.chmod(folder, os.stat(folder).st_mode & 0o7777 | 0o111)
        folder = os.path.dirname(folder)


def make_read_only(writable: Iterable[bytes]) -> None:
    for path in [*writable, *map(os.fsencode, OWN_MEMORY)]:
        call(libc.mount, path, path, None, MS_BIND, None)
    call(libc.mount, None, b"/", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def run(
    port: int,
    control: int,
    order: Mapping[str, Any],
    back: Sequence[tuple[bytes, Mapping[bytes, cargo.Identity]]],
    free: int,
) -> None:
    """Run the command, and tell of it."""
    printed, output = os.pipe()
    status, status_in = os.pipe()
    if os.fork() == 0:
        supervise(order, control, status_in, output)
    os.close(output)
    os.close(status_in)
    word = relay(port, printed, status, lambda: free - free_bytes())
    if not word.endswith(b"\n"):
        # Who is root in here has killed the supervisor, and nobody knows what is left.
        raise SystemExit("the supervisor was killed")
    left = int.from_bytes(fcntl.ioctl(printed, termios.FIONREAD, bytes(4)), sys.byteorder)
    while left:
        data = os.read(printed, min(left, PIECE_BYTES))
        send(port, b"o", data)
        left -= len(data)
    send(port, b"d", b"%d" % (free - free_bytes()))
    send_all(port, back)
    send(port, b"s", b"%b %d %d\n" % (word[:-1], *memory()))


def supervise(order: Mapping[str, Any], control: int, status: int, output: int) -> None:
    """Become the supervisor of the command."""
    environment = os.memfd_create("environment")
    os.write(
        environment,
        "".join(f"{name}={value}\0" for name, value in order["environment"].items()).encode("utf-8", "surrogateescape"),
    )
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if order["has_terminal"]:
        os.chown(TYPED_PORT, order["uid"], order["gid"])
    user = f"{order['uid']}:{order['gid']}"
    told = [status, control, environment, "", user, order["directory"], order["grace_s"], GROUP]
    sys.argv = ["supervisor", *map(str, told), *order["argv"]]
    try:
        supervisor.main()
    finally:
        os._exit(0)


def relay(port: int, printed: int, status: int, taken: Callable[[], int]) -> bytes:
    """Pass on what is printed, and what the supervisor says but its last word, which is given back; until that has ended."""
    waiting = select.poll()
    for watched in (printed, status):
        waiting.register(watched, select.POLLIN)
    word, due = b"", time.monotonic() + DISK_LOOK_S
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll(DISK_LOOK_S * 1000)]
        if printed in ready:
            data = os.read(printed, PIECE_BYTES)
            if data:
                send(port, b"o", data)
            else:
                waiting.unregister(printed)
        elif status in ready:
            said = os.read(status, 512)
            if not said:
                return word
            if not word:
                send(port, b"s", said[:1])
                said = said[1:]
                word = b" "
            word += said
        if time.monotonic() >= due:
            send(port, b"d", b"%d" % taken())
            due = time.monotonic() + DISK_LOOK_S


def send_all(port: int, back: Sequence[tuple[bytes, Mapping[bytes, cargo.Identity]]]) -> None:
    """What is in the writable mounts, in frames that are as large as they may be."""
    held = bytearray()
    for path, identities in back:
        for data in cargo.pack(path, identities):
            held += data
            if len(held) >= PIECE_BYTES:
                send(port, b"f", bytes(held))
                held.clear()
    send(port, b"f", bytes(held))


def memory() -> tuple[int, int]:
    """How often somebody was killed for lack of memory, and the most bytes that all had together."""
    lines = text_of(f"{GROUP}/memory.events").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), int(
        text_of(f"{GROUP}/memory.peak") or 0
    )


def free_bytes() -> int:
    found = os.statvfs("/")
    return found.f_bfree * found.f_frsize


def send(port: int, kind: bytes, data: bytes = b"") -> None:
    rest = memoryview(FRAME.pack(kind, len(data)) + data)
    while rest:
        rest = rest[os.write(port, rest) :]


def read(port: int, size: int) -> bytes:
    """Just so many bytes."""
    data = b""
    while len(data) < size:
        data += os.read(port, size - len(data))
    return data


def text_of(path: str) -> str:
    """Of a file; empty where there is none."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def mount(source: str, place: str, kind: str, flags: int, options: str = "") -> None:
    os.makedirs(place, exist_ok=True)
    call(libc.mount, source.encode(), place.encode(), kind.encode(), flags, options.encode())


def call(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments):
        raise last_error()


def last_error(path: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # Rather than have the kernel tell at length that its first process has ended.
        libc.reboot(RB_AUTOBOOT)
