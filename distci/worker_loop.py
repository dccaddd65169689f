"""The loop that all workers share: a claim is served, whatever goes wrong with it, and then the next one."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Event, Thread
from typing import Any, TypeVar

from distci import tracing
from distci.brokers.port import Assignment, Broker, Held, Member
from distci.errors import ClaimLost, Invalid, Missing, Unavailable
from distci.holding import Holder
from distci.model import Outcome, Verdict
from distci.work import Halted, Site, TaskContext, Worker, tidy_up

C = TypeVar("C", bound=Held)

MACHINE_FAULTS = (OSError, MemoryError, RuntimeError, Unavailable)
"""What is raised where a machine lacks something: room on its disk, memory, threads, files, processes."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the machine says whose disk is full, or whose user may have no more of it."""

log = logging.getLogger(__name__)


class Tasks:
    """Serves the tickets of one kind of task: everything around :meth:`Worker.perform`."""

    def __init__(self, worker: Worker, site: Site, broker: Broker[Any], holder: Holder | None = None) -> None:
        self._worker = worker
        self._holder = holder
        self._site = site
        self._broker = broker

    def serve(self, claim: Held) -> Any:
        """Make an attempt and have it settled; a claim of the next task when this worker goes on with that one."""
        assignment = self._broker.take(claim)
        directory = self._site.scratch / claim.token
        try:
            directory.mkdir(parents=True)
            return attempt(self._worker, assignment, TaskContext(self._site, assignment, directory), self._holder)
        except OSError as error:
            if error.errno in NO_ROOM:
                log.warning("there is no room for %s, task %s: %s", assignment.build, assignment.task.name, error)
                assignment.wait_for_room()
            raise
        finally:
            tidy_up(directory)


def attempt(worker: Worker, assignment: Assignment[Any], context: TaskContext, holder: Holder | None = None) -> Any:
    """Do the task and have its outcome settled; what :meth:`~distci.brokers.port.Assignment.settle` returns.

    A ``holder`` keeps one that has failed before that, if it shall be held: what it left for others has been kept by then, so that nothing of what somebody
    does to it meanwhile gets into the build.
    """
    done = Event()
    watcher = Thread(target=context.watch, args=(done,), name=f"watch {assignment.token}", daemon=True)
    try:
        watcher.start()
        if assignment.heading:
            context.say(assignment.heading)
        outcome = _perform(worker, assignment, context)
        if context.stopped_by is not None and assignment.lost.is_set():
            raise ClaimLost(f"claim {assignment.token} was lost while its task ran")
        outcome = replace(context.masked(_save(outcome, context)), usage=context.usage)
        if holder is not None:
            with suppress(Halted):
                holder.hold(context, assignment, outcome)
        log_bytes = context.close_log()
        return context.insistently(lambda: assignment.settle(outcome, log_bytes))
    finally:
        done.set()
        assignment.close()
        context.abandon()
        if watcher.is_alive():
            watcher.join()


def _save(outcome: Outcome, context: TaskContext) -> Outcome:
    """Keep the workspace, unless nobody can want it; one that cannot be kept is the task's failure."""
    if outcome.verdict is Verdict.CANCELLED:
        return outcome
    try:
        context.save()
    except Halted as halted:
        return halted.outcome
    except Invalid as error:
        context.say(f"distci: the workspace cannot be kept: {error}")
        return Outcome.failed(f"the workspace cannot be kept: {error}")
    return outcome


def _perform(worker: Worker, assignment: Assignment[Any], context: TaskContext) -> Outcome:
    if assignment.is_called_off:
        return Outcome(Verdict.CANCELLED, "cancelled before it began")
    try:
        context.listen()
        return worker.perform(assignment.task, context)
    except Halted as halted:
        return halted.outcome
    except (Invalid, Missing) as error:
        context.say(f"distci: {error}")
        return Outcome.failed(str(error))


def serve(member: Member[C], serve_claim: Callable[[C], C | None]) -> None:
    """Serve a member's claims, each in a thread of its own, until it is drained; then wait for what is still held."""
    with ThreadPoolExecutor(member.slots, thread_name_prefix=f"slot of {member.name}") as slots:
        for claim in member.claims():
            slots.submit(_serve_one, member, claim, serve_claim)


def _serve_one(member: Member[C], claim: C | None, serve_claim: Callable[[C], C | None]) -> None:
    while claim is not None:
        ticket = claim.ticket
        of_build = {name: str(ticket.body[name]) for name in ("build", "task") if name in ticket.body}
        with tracing.doing(ticket.traceparent, ticket=claim.token, kind=ticket.kind, worker=member.name, **of_build):
            try:
                log.info("claimed")
                with claim, _resting_after_failure(member):
                    claim = serve_claim(claim)
                log.info("done")
            except ClaimLost as error:
                log.warning("%s", error)
                return
            except Exception:
                # Whatever went wrong, it concerns this ticket; it has been put back, and this worker lives on.
                log.exception("claim %s came to nothing", ticket.token)
                return


@contextmanager
def _resting_after_failure(member: Member[Any]) -> Iterator[None]:
    try:
        yield
    except MACHINE_FAULTS:
        with suppress(Unavailable):
            member.rest()
        raise
    member.recover()
