"""A task that somebody runs before their own eyes, and may step into where it failed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from shlex import quote

from distci.brokers.alone import Alone
from distci.isolation.terminal import Terminal, interactive
from distci.model import Outcome, Task, Verdict
from distci.work import Site, TaskContext, Worker

SHELLS = re.compile(r"(?:\S*/)?(?:sh|ash|dash|bash|ksh|mksh|zsh)")
BEGUN = b"\033]distci;%s\007"
"""Printed where a shell begins. Were it shown, terminals would pass over it."""


class Stepping:
    """A kind of worker after whose failure there is a shell."""

    def __init__(self, worker: Worker) -> None:
        self.kind = worker.kind
        self._worker = worker

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        assert isinstance(context, Rehearsal), "it is rehearsed"
        outcome = self._worker.perform(task, context)
        if outcome.verdict is Verdict.FAILED:
            context.open_shell()
        return outcome


class Rehearsal(TaskContext):
    """The context of such an attempt. What the task prints is passed on at once."""

    def __init__(
        self,
        site: Site,
        assignment: Alone,
        directory: Path,
        show: Callable[[bytes], None],
        terminal: Terminal | None = None,
    ) -> None:
        """With a ``terminal``, a script that fails begins a shell there before it ends."""
        super().__init__(site, assignment, directory)
        self._show = show
        self._terminal = terminal
        self._mark = token_hex(8)
        self._awaited = Awaited(BEGUN % self._mark.encode())

    @property
    def is_in_shell(self) -> bool:
        """Whether a shell was begun on the terminal."""
        return self._awaited.has_come

    def script(self, text: str) -> Path:
        return super().script(text if self._terminal is None else self._with_shell(text))

    def open_shell(self) -> None:
        """A shell where the task began, unless there was one; for scripts that could not begin it where they failed."""
        if self._terminal is not None and not self.is_in_shell:
            self.say("distci: no shell could be begun where that failed; this one is where the task began")
            directory = self.inside(self.task.arguments.get("directory", ""))
            self.run(["/bin/sh", "-c", self._shell()], directory)

    def _print(self, data: bytes) -> None:
        """What tells that a shell begins comes with what is printed, which alone comes at once from everywhere; it is not shown."""
        if shown := data if self._terminal is None else self._awaited.feed(data):
            self._show(shown)

    def _with_shell(self, text: str) -> str:
        """A script of a shell that begins another one, with a terminal, when it ends badly. Its lines keep their numbers."""
        first, _, rest = text.partition("\n")
        named = str(self.task.arguments.get("shell", ""))
        words = (named or first.removeprefix("#!") if first.startswith("#!") else named or "sh").split()
        name = next((word for word in words if not word.startswith("-") and not word.endswith("/env")), "")
        if not SHELLS.fullmatch(name):
            return text
        line = "${DISTCI_LINE:+ at line $DISTCI_LINE}"
        said = f'echo "distci: exit status $DISTCI_STATUS{line}, in $PWD: a shell; its end is that of the script" >&2'
        at_end = f"DISTCI_STATUS=$?; trap - EXIT; if [ $DISTCI_STATUS != 0 ]; then set +e; {said}; {self._shell()}; fi; exit $DISTCI_STATUS"
        # Where a line failed, only bash knows.
        noting = "if [ -n \"${BASH_VERSION:-}\" ]; then set -E; trap 'DISTCI_LINE=$LINENO' ERR; fi"
        trap = f"trap {quote(at_end)} EXIT; {noting}"
        return f"{trap}\n{rest}" if first.startswith("#!") else f"{trap}; {text}"

    def _shell(self) -> str:
        # Written otherwise than it is printed: a script may show its own lines.
        said = f"printf '\\033]%s;%s\\007' distci {self._mark} >/dev/tty"
        return f"{said}; {interactive(os.environ.get('TERM', 'dumb'), self.task.name)}"


class Awaited:
    """Takes one mark out of a stream of bytes, wherever the stream is cut."""

    def __init__(self, mark: bytes) -> None:
        self.has_come = False
        self._mark = mark
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes without the mark; what may be its beginning is kept back."""
        if self.has_come:
            return data
        text = self._held + data
        before, found, after = text.partition(self._mark)
        self.has_come = bool(found)
        lengths = range(0 if found else min(len(self._mark) - 1, len(text)), 0, -1)
        self._held = next((text[-length:] for length in lengths if self._mark.startswith(text[-length:])), b"")
        return before.removesuffix(self._held) + after
