"""Puts the root of a container together, and becomes the program that makes the container.

A program of its own, run as ``python -I -S rooting.py TOLD ARGV...``, with the standard library alone and as little of that as possible, since every
command waits for it. LXC itself mounts as the container's root, who is nobody on this machine, and comes to no folder that is for the worker alone.
So all is mounted before, by root, in a mount namespace of which nothing is left once its last process is gone: files of LXC's own are in there, too,
and it sees no control groups, in which it would make some and leave others.

``TOLD`` is a file of texts, each with a NUL. First what LXC is configured with, the user who is root in there (``UID:GID`` of this machine) and how many
users from that one on belong to the container, ``0`` for all of the machine's. Then for each thing that is mounted, in that order, four texts:

* ``root`` FOLDER SIZE: a folder as a root whose changes are in memory, as many bytes at most (empty: the kernel's choice). Without one, the root is empty.
* ``read`` or ``write`` PLACE SOURCE: a folder or file of the machine. ``try``: the same as ``read``, where it is there.
* ``device`` PLACE SOURCE: one of the machine's.
* ``memory`` PLACE OPTIONS: an empty folder that is in memory.
* ``link`` PLACE TARGET: a symbolic link.
* ``folder`` PLACE: a folder to mount something on.
* ``seal``: what is in the root besides its mounts cannot be written to.
"""

# What `signal` is made of, which takes 4 ms less.
import _signal as signal  # type: ignore[import-not-found]
import ctypes
import errno
import os
import stat
import sys

BASE = "/run/distci"
ROOT, LOWER, UPPER, MOUNTED, OWN, CONFIG = (
    f"{BASE}/{name}" for name in ("root", "lower", "upper", "mounted", "lxc", "config")
)
"""Below the machine's ``/run``, which nothing needs from here on."""

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_NOSUID, MS_NODEV, MS_REC, MS_SLAVE = 2, 4, 1 << 14, 1 << 19
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
"""The same on every machine that Linux 5.12 and newer run on."""
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, AT_RECURSIVE, AT_EMPTY_PATH, AT_FDCWD = 1, os.O_CLOEXEC, 0x8000, 0x1000, -100
MOVE_MOUNT_F_EMPTY_PATH = 4
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_IDMAP = 1, 2, 4, 0x100000
SEEN, READ = ATTR_NOSUID | ATTR_NODEV, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV
ATTRIBUTES = {"root": READ, "read": READ, "try": READ, "write": SEEN, "device": ATTR_NOSUID}

NONE = -1
"""Stands for what is not to be mounted."""

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    told, argv = int(sys.argv[1]), sys.argv[2:]
    config, root, count, *texts = (
        os.pread(told, os.fstat(told).st_size, 0).decode(errors="surrogateescape").split("\0")[:-1]
    )
    os.close(told)
    steps = [tuple(texts[at : at + 3]) for at in range(0, len(texts), 3)]
    uid, gid = map(int, root.split(":"))
    # With the worker it goes, even before there is anybody in there who sees to that.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o022)
    call("a mount namespace", libc.unshare(CLONE_NEWNS))
    mount("none", "/", "", MS_REC | MS_SLAVE)
    # Where things are going to be, others of them may be now.
    trees = [tree_of(kind, source) for kind, _, source in steps]
    mount("tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV)
    os.mkdir(BASE)
    for folder in (ROOT, LOWER, UPPER, MOUNTED, OWN):
        os.mkdir(folder)
    with open(CONFIG, "w", errors="surrogateescape") as file:
        file.write(config)
    if steps[:1] and steps[0][0] == "root":
        make_root(trees[0], steps[0][1], uid, gid, int(count))
    else:
        mount("tmpfs", ROOT, f"mode=755,uid={uid},gid={gid}", MS_NOSUID | MS_NODEV)
    outside = os.open("/", os.O_PATH | os.O_DIRECTORY)
    # A link in there leads to somewhere in there.
    os.chroot(ROOT)
    os.chdir("/")
    for (kind, place, source), tree in zip(steps, trees):  # noqa: B905 - they are as many
        put(kind, place, source, tree)
    os.fchdir(outside)
    os.chroot(".")
    os.close(outside)
    for tree in trees:
        if tree != NONE:
            os.close(tree)
    libc.umount2(b"/sys/fs/cgroup", MNT_DETACH)
    os.execv(argv[0], argv)


def tree_of(kind: str, source: str) -> int:
    """A copy of what is mounted at a place, and below it, that is mounted nowhere yet; NONE where nothing is, or may be missing and is."""
    if kind not in ATTRIBUTES:
        return NONE
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (0 if kind == "root" else AT_RECURSIVE)
    tree: int = libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), flags)
    if tree < 0 and kind == "try" and ctypes.get_errno() == errno.ENOENT:
        return NONE
    call(source, tree)
    set_attributes(source, tree, ATTRIBUTES[kind])
    return tree


def set_attributes(what: str, tree: int, attributes: int, users: int = 0) -> None:
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    asked = (ctypes.c_uint64 * 4)(attributes, 0, 0, users)
    flags = AT_EMPTY_PATH | AT_RECURSIVE
    call(what, libc.syscall(SYS_MOUNT_SETATTR, tree, b"", flags, asked, ctypes.sizeof(asked)))


def make_root(tree: int, size: str, uid: int, gid: int, count: int) -> None:
    """A root of what a folder has, its owners being users of the container."""
    of = os.fstat(tree)
    if count:
        users = namespace_of(uid, gid, count)
        set_attributes("the users of an image", tree, ATTR_IDMAP, users)
        os.close(users)
    attach(tree, LOWER)
    mount("tmpfs", UPPER, f"mode=755,size={size}" if size else "mode=755", MS_NOSUID | MS_NODEV)
    for name in ("changes", "work"):
        os.mkdir(f"{UPPER}/{name}")
    # What is changed of a folder that is there already takes its mode and owner from here.
    os.chmod(f"{UPPER}/changes", stat.S_IMODE(of.st_mode))
    os.chown(f"{UPPER}/changes", of.st_uid + uid, of.st_gid + gid)
    mount("overlay", ROOT, f"lowerdir={LOWER},upperdir={UPPER}/changes,workdir={UPPER}/work", MS_NOSUID | MS_NODEV)


def namespace_of(uid: int, gid: int, count: int) -> int:
    """A user namespace of the container's users, which a process has to be in as long as nobody has it open."""
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        is_made = libc.unshare(CLONE_NEWUSER) == 0
        os.write(said, b"y" if is_made else b"n")
        signal.pause()
    try:
        if os.read(heard, 1) != b"y":
            sys.exit("a user namespace: it cannot be made")
        for kind, first in (("uid", uid), ("gid", gid)):
            with open(f"/proc/{child}/{kind}_map", "w") as users:
                users.write(f"0 {first} {count}")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(heard)
        os.close(said)


def put(kind: str, place: str, source: str, tree: int) -> None:
    """Mount one thing where it belongs, in a root that is ours by now."""
    if kind == "seal":
        seal()
    elif kind == "link":
        os.symlink(source, place)
    elif kind in ("folder", "memory"):
        os.makedirs(place, exist_ok=True)
        if kind == "memory":
            mount("tmpfs", place, source, MS_NOSUID | MS_NODEV)
    elif tree != NONE and kind != "root":
        make_place(place, stat.S_ISDIR(os.fstat(tree).st_mode))
        attach(tree, place)


def make_place(place: str, is_folder: bool) -> None:
    """Have something there to mount on, whatever an image has there."""
    os.makedirs(place if is_folder else os.path.dirname(place), exist_ok=True)
    if not is_folder and not os.path.exists(place):
        if os.path.islink(place):
            os.unlink(place)
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o644))


def attach(tree: int, place: str) -> None:
    call(place, libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(place), MOVE_MOUNT_F_EMPTY_PATH))


def seal() -> None:
    # struct mount_attr, as above. What is mounted below it stays as it is.
    asked = (ctypes.c_uint64 * 4)(ATTR_RDONLY, 0, 0, 0)
    call("the root", libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, b"/", 0, asked, ctypes.sizeof(asked)))


def mount(kind: str, place: str, options: str, flags: int) -> None:
    call(place, libc.mount(kind.encode(), os.fsencode(place), kind.encode(), flags, os.fsencode(options)))


def call(what: str, result: int) -> None:
    """End, saying why, where the kernel refused something."""
    if result < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
