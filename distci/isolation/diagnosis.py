"""What the processes of a command do, as the kernel tells it: for people who wonder why nothing is heard of it.

Read from the outside, so that nothing has to be installed where the command runs, and nothing is stopped. Debuggers would tell more (the lines
of a script that hangs), and would have to be there, to be allowed to stop a process, and to fit its language.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distci.isolation.processes import environment, others, stat

PROCESSES_MAX = 40
FILES_MAX = 8
COMMAND_CHARS_MAX = 300
STACK_FRAMES_MAX = 4
TICKS_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in the kernel",
    "T": "stopped",
    "t": "traced",
    "Z": "ended, not waited for",
    "I": "idle",
}


def diagnosis(mark: bytes, masked: Callable[[bytes], bytes]) -> Sequence[str]:
    """Lines on the processes that have a variable such as ``NAME=value`` in their environment, and on all below them, as a tree.

    ``masked`` takes out of a command what nobody may see: before it is cut, when the beginning of a secret would be none any more.
    None where no process is seen, as when an engine on another machine runs them.
    """
    parents = {pid: parent for pid in others() if (parent := _parent(pid)) is not None}
    marked = {pid for pid in parents if mark + b"\0" in environment(pid)}
    children: dict[int, list[int]] = {}
    for pid, parent in sorted(parents.items()):
        children.setdefault(parent, []).append(pid)
    roots = [pid for pid in sorted(marked) if not _is_below(pid, marked, parents)]
    lines: list[str] = []
    listed = 0
    waiting = [(pid, 0) for pid in reversed(roots)]
    while waiting and listed < PROCESSES_MAX:
        pid, depth = waiting.pop()
        lines += _described(pid, "  " * depth, masked)
        listed += 1
        waiting += [(child, depth + 1) for child in reversed(children.get(pid, ()))]
    return [*lines, "... and more"] if waiting else lines


def _is_below(pid: int, marked: set[int], parents: dict[int, int]) -> bool:
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        if pid in marked:
            return True
        seen.add(pid)
    return False


def _described(pid: int, indent: str, masked: Callable[[bytes], bytes]) -> Iterator[str]:
    try:
        fields = stat(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        return  # it has just ended
    state = STATES.get(fields[0].decode(), fields[0].decode())
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_S
    memory_mib = int(fields[21]) * PAGE_BYTES / (1 << 20)
    where = _text(pid, "wchan")
    waits = f" in {where}" if where not in ("", "0") else ""
    called = _printable(masked(command))[:COMMAND_CHARS_MAX] or f"({_text(pid, 'comm')})"
    yield f"{indent}{pid} {state}{waits}, {cpu_s:.1f} s of processors, {memory_mib:.1f} MiB: {called}"
    stack = [line.split()[-1].partition("+")[0] for line in _text(pid, "stack").splitlines()]
    if len(stack) > 1:
        yield f"{indent}  kernel: {' < '.join(stack[:STACK_FRAMES_MAX])}"
    if files := [*_files(pid)]:
        yield f"{indent}  files: {', '.join(files)}"


def _files(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        numbers = sorted(os.listdir(folder), key=int)
    except OSError:
        return
    for number in numbers[:FILES_MAX]:
        try:
            yield f"{number} {_printable(os.fsencode(os.readlink(f'{folder}/{number}')))}"
        except OSError:
            continue
    if len(numbers) > FILES_MAX:
        yield f"{len(numbers) - FILES_MAX} more"


def _parent(pid: int) -> int | None:
    try:
        return int(stat(pid)[1])
    except (OSError, IndexError):
        return None


def _text(pid: int, name: str) -> str:
    """What a file of a process says; empty where nobody may read it."""
    try:
        return _printable(Path(f"/proc/{pid}/{name}").read_bytes().rstrip(), keeps="\n")
    except OSError:
        return ""


def _printable(data: bytes, keeps: str = "") -> str:
    text = data.decode(errors="replace")
    return "".join(letter if letter.isprintable() or letter in keeps else " " for letter in text)
