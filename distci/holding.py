"""A worker's end of a held task: it waits, and lets people in, one after the other (:mod:`distci.holds`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from shlex import quote
from threading import Event, Lock, Thread
from time import gmtime, monotonic, strftime, time
from typing import Any

from distci.brokers.port import Assignment
from distci.console import LogWriter
from distci.documents.jobs import seconds
from distci.errors import ClaimLost, DistCIError, InvalidDocument, StoreUnavailable, Unavailable
from distci.holds import GUEST, POLL_S, RELEASED, Drawer, Guest, Over, Typed, over_name, shown_name, typed_name
from distci.isolation.port import Cause
from distci.isolation.terminal import Terminal, interactive
from distci.masking import Masker
from distci.model import Hold, Outcome, Verdict
from distci.work import TaskContext

LOOK_S = 0.5
"""How soon who comes is let in, and how soon a hold ends that somebody has released."""
IDLE_S = 60.0
"""After so long without a word of whoever is in there, not even that they are, their shell is hung up."""
GOODBYE_S = 3.0
"""How long whoever was in there may take to see the end, before all of it is removed."""
QUIET_S = 0.2
"""After so long without more, what may be the beginning of a secret is shown: a prompt may end as one begins."""
FLUSH_AFTER_S = 0.02
WINDOW_BYTES = 4 * 1024 * 1024
"""No piece is put behind so much that nobody has said to have seen."""
SHOWN_BYTES_MAX = 10**14
REASON_CHARS_MAX = 200
HELD = (Verdict.FAILED, Verdict.TIMED_OUT)
SIGNALLED = 128


class Holder:
    """Holds failed tasks of one worker that ask for it."""

    def __init__(self, most_s: float | None, is_draining: Callable[[], bool]) -> None:
        """``most_s`` is how long the worker's operator allows, 0 for never; None under `distci run`, where nobody could come."""
        self._most_s = most_s
        self._is_draining = is_draining

    def hold(self, context: TaskContext, assignment: Assignment[Any], outcome: Outcome) -> None:
        """Return once the hold of a task is over: at once unless it has failed and shall be held."""
        asked: str = context.task.arguments.get("hold", "")
        drawer = assignment.drawer
        if not asked or drawer is None or outcome.verdict not in HELD:
            return
        if context.stop.is_set() or self._is_draining():
            return
        if refused := _refused(context, self._most_s):
            context.say(f"distci: not held, {refused}")
            return
        length_s = min(seconds(asked), self._most_s or 0.0)
        cut = f" ({asked} asked, hold_max is {length_s:g} s)" if length_s < seconds(asked) else ""
        held = _Held(context, assignment, drawer, length_s, cut, self._is_draining)
        with held.told(outcome), context.holding():
            held.wait()


def _refused(context: TaskContext, most_s: float | None) -> str:
    """Why it cannot be held; empty when it can."""
    if context.plan.trigger.is_untrusted:
        return "since somebody without rights has written what is built"
    if most_s is None:
        return "since `distci run` holds nothing: `distci up` does, where the setting hold_max allows it"
    return "" if most_s else "since its worker's operator does not allow it: the setting hold_max says how long"


class _Held:
    """One task while it is held."""

    def __init__(
        self,
        context: TaskContext,
        assignment: Assignment[Any],
        drawer: Drawer,
        length_s: float,
        cut: str,
        is_draining: Callable[[], bool],
    ) -> None:
        """``cut`` says that it is held for less than it asks for; empty where it is not."""
        self.context = context
        self.drawer = drawer
        self._assignment = assignment
        self._length_s = length_s
        self._cut = cut
        self._until = monotonic() + length_s
        self._is_draining = is_draining
        self._is_released = False
        self._looked_at = 0.0

    @contextmanager
    def told(self, outcome: Outcome) -> Iterator[None]:
        """Everybody is told that it is held, and how it has failed, until the block is left. Then nothing is left of it in its drawer."""
        until_ms = int((time() + self._length_s) * 1000)
        reason = outcome.reason or str(outcome.verdict)
        self._tell(Hold(until_ms, reason[:REASON_CHARS_MAX]))
        line = f"distci build shell {quote(str(self.context.build))} {quote(self.context.task.name)}"
        line += self._assignment.elsewhere
        until = strftime("%H:%M:%S UTC", gmtime(until_ms / 1000))
        self.context.say(f"distci: {reason}; held until {until}{self._cut}: {line}")
        try:
            yield
        finally:
            self._tell(None)
            with suppress(Unavailable):  # the claim is lost, and whoever ends the build removes it
                self.context.insistently(self._clear)

    def wait(self) -> None:
        while not (why := self.why_over()):
            try:
                told = self.drawer.get(GUEST)
                if told is not None:
                    self._serve(told)
            except Unavailable:
                pass  # until it is back, or the time is over
            self.context.stop.wait(LOOK_S)
        self.context.say(f"distci: the hold is over: {why}")

    def why_over(self) -> str:
        """Why it shall end now; empty while it shall not."""
        self.context.get_on()
        if self.context.stop.is_set():
            is_cancelled = self.context.stopped_by is Verdict.CANCELLED and not self._assignment.lost.is_set()
            return "its build was cancelled" if is_cancelled else "the work shall end"
        if self._is_draining():
            return "its worker is being drained"
        if monotonic() >= self._until:
            return "the time is up"
        return "it was released" if self._was_released() else ""

    def _was_released(self) -> bool:
        if not self._is_released and monotonic() - self._looked_at >= LOOK_S:
            self._looked_at = monotonic()
            with suppress(Unavailable):
                self._is_released = self.drawer.get(RELEASED) is not None
        return self._is_released

    def _serve(self, told: bytes) -> None:
        try:
            guest = Guest.from_bytes(told)
        except InvalidDocument:
            self.drawer.remove(GUEST)
            return
        self.context.say(f"distci: {guest.who} has opened a terminal")
        over = _Served(self, guest).run()
        how = over.reason or f"exit status {over.exit_status}"
        self.context.say(f"distci: {guest.who} has left the terminal: {how}")
        self.context.insistently(self._clear_visit)

    def _clear(self) -> None:
        for name in self.drawer.names():
            self.drawer.remove(name)

    def _clear_visit(self) -> None:
        """The guest goes last: whoever comes next finds nothing of this visit."""
        for name in sorted(self.drawer.names(), key=lambda name: name == GUEST):
            if name != RELEASED:
                self.drawer.remove(name)

    def _tell(self, hold: Hold | None) -> None:
        self._assignment.hold = hold
        self._assignment.changed.set()


class _Served:
    """One visit to a held task: a shell, and the pieces to and from its terminal."""

    def __init__(self, held: _Held, guest: Guest) -> None:
        self._held = held
        self._drawer = held.drawer
        self._guest = guest
        self._masker: Masker = held.context.new_masker()
        self._writer = LogWriter(self._put, flush_after_s=FLUSH_AFTER_S, bytes_max=SHOWN_BYTES_MAX)
        self._writing = Lock()
        self._shown_at = monotonic()
        self._hang_up = Event()
        self._over = Event()
        self._is_gone = Event()
        self._why = ""
        self._next = 0
        self._heard = monotonic()
        self._seen = 0
        self._unseen: deque[tuple[int, int]] = deque()
        """Where the pieces begin and end that are not known to have been seen."""
        self._size = 0

    def run(self) -> Over:
        """Let them in until their shell ends, they are gone or the hold is over; how that was."""
        context, folder = self._held.context, f"terminal-{self._guest.terminal}"
        shell = interactive(self._guest.kind, context.task.name)
        with Terminal(context.directory / folder) as terminal:
            terminal.resize(self._guest.lines, self._guest.columns)
            hands = Thread(target=self._pass_on, args=(terminal,), name="hands of a guest", daemon=True)
            hands.start()
            exit_status = None
            try:
                ended = context.run_on_terminal(terminal, shell, self._show, self._hang_up)
                if ended.cause is Cause.STOPPED:
                    # Whoever ends the work ends this with it, and may be sooner than we see why.
                    self._end_by(self._held.why_over())
                if not self._hang_up.is_set():
                    exit_status = SIGNALLED + ended.signal if ended.signal else ended.exit_status
            except ClaimLost:
                raise
            except (DistCIError, OSError) as error:
                self._why = self._why or f"no shell could be begun: {error}"
            finally:
                try:
                    over = self._end(exit_status)
                finally:
                    self._over.set()
                    hands.join()
        return over

    # What is shown

    def _show(self, data: bytes) -> None:
        with self._writing:
            self._shown_at = monotonic()
            self._writer.write(self._masker.feed(data))

    def _put(self, offset: int, data: bytes) -> None:
        """One piece, once there is room for it among those that nobody has seen."""
        while offset - self._seen >= WINDOW_BYTES and not self._hang_up.is_set():
            self._over.wait(POLL_S)
        self._drawer.put(shown_name(self._guest.terminal, offset), data)
        self._size = offset + len(data)
        self._unseen.append((offset, self._size))

    def _end(self, exit_status: int | None) -> Over:
        """Show the rest, and how it has ended; return when that was seen, or will hardly be."""
        with self._writing:
            self._writer.write(self._masker.flush())
        if not self._hang_up.is_set():
            with suppress(StoreUnavailable):
                self._writer.close(IDLE_S)
        self._writer.abandon()
        over = Over(self._size, exit_status, self._why, bool(self._held.why_over()))
        with suppress(Unavailable):  # the claim is lost
            self._held.context.insistently(lambda: self._drawer.put(over_name(self._guest.terminal), over.to_bytes()))
            self._is_gone.wait(GOODBYE_S)
        return over

    # What is typed

    def _pass_on(self, terminal: Terminal) -> None:
        while not self._over.wait(POLL_S):
            if why := self._held.why_over():
                self._end_by(why)
            try:
                while self._take_next(terminal):
                    pass
                self._show_what_is_kept_back()
            except Unavailable:
                self._heard = monotonic()  # of whom nobody could hear
            except DistCIError as error:
                self._end_by(f"what was typed cannot be read: {error}")
            if monotonic() - self._heard > IDLE_S:
                self._end_by(f"nothing was heard of {self._guest.who} for {IDLE_S:g} s")

    def _take_next(self, terminal: Terminal) -> bool:
        name = typed_name(self._guest.terminal, self._next)
        told = self._drawer.get(name)
        if told is None:
            return False
        typed = Typed.from_bytes(told)
        self._next += 1
        self._heard = monotonic()
        if typed.lines and typed.columns:
            terminal.resize(typed.lines, typed.columns)
        terminal.send(typed.data)
        if typed.is_gone:
            self._is_gone.set()
            self._end_by(f"{self._guest.who} has gone")
        self._drawer.remove(name)
        self._forget_seen(typed.seen)
        return True

    def _forget_seen(self, seen: int) -> None:
        while self._unseen and self._unseen[0][1] <= seen:
            offset, self._seen = self._unseen.popleft()
            self._drawer.remove(shown_name(self._guest.terminal, offset))

    def _show_what_is_kept_back(self) -> None:
        # Who shows something just now may wait for what is typed: that it was seen.
        if monotonic() - self._shown_at > QUIET_S and self._writing.acquire(blocking=False):
            try:
                self._writer.write(self._masker.flush())
            finally:
                self._writing.release()

    def _end_by(self, why: str) -> None:
        if not self._hang_up.is_set():
            self._why = why
            self._hang_up.set()
            # Who shows something does not wait any more.
            self._writer.abandon()
