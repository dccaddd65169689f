"""What comments on pull requests ask for, done as far as their authors may: to run builds again, to cancel them, to decide of what is held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from distci.builds import Builds
from distci.errors import Forbidden, Invalid, Missing, NoSuchChange
from distci.hooks import Answer, Held, Hooks, Started, causes_of
from distci.jobs import Jobs
from distci.model import BuildId, Delivery
from distci.receivers.commands import EVENT
from distci.receivers.port import Command, Receiver

LOOKED_AT = 100
"""Of each job, how many of the newest builds are looked through for those of a pull request."""

log = logging.getLogger(__name__)


class Comments:
    """Carries out what comments ask for. Any thread may use it."""

    def __init__(self, hooks: Hooks, builds: Builds, jobs: Jobs, may_start: Callable[[str, str], bool]) -> None:
        """``may_start`` says whether somebody whom a forge names, ``github:ada``, may start builds of a job."""
        self._hooks = hooks
        self._builds = builds
        self._jobs = jobs
        self._may_start = may_start

    def carry_out(self, receiver: Receiver, command: Command, seal: str, is_told: Callable[[str], bool]) -> Answer:
        """Do what a comment asks for, as far as its author may.

        What it is about is found once, and noted before anything is done: told again, after whatever has happened, it is about the same. So whoever
        dies in the middle of it is followed by the same delivery, and nothing that came later is cancelled or approved by an old word.
        """
        author = author_of(receiver, command)
        jobs = self._naming(receiver, command)
        mine = [job for job in jobs if self._may_start(author, job)]
        if not mine:
            reason = f"{author} may start no builds of a job that names {command.repository}; who may says: distci access grant {author} runner --project PROJECT"
            return Answer(receiver.name, command.delivery, EVENT, reason)
        others = [
            Started(job, None, f"{author} may not start builds of it")
            for job in jobs
            if job not in mine and is_told(job)
        ]
        decides = command.word in ("approve", "refuse")
        about = self._waiting(receiver, command) if decides else self._builds_of(receiver, command, mine)
        # A body that is sealed is the same whatever id is said beside it, and the other way round.
        causes = causes_of(receiver, command.delivery, seal)
        about = self._builds.noted(f"/distci {causes[-1]}", " ".join(about)).split()
        if decides:
            return self._decide(receiver, command, about, is_told)
        known = [build for build in map(BuildId.parse, about) if build.job in mine]
        if not known:
            reason = (
                f"pull request {command.pull_request} has no build {'that runs' if command.word == 'cancel' else 'yet'}"
            )
            return Answer(receiver.name, command.delivery, EVENT, reason)
        done = [self._do(command.word, build, author, command.pull_request, causes) for build in known]
        in_order = sorted([*done, *others], key=lambda started: started.job)
        return Answer(receiver.name, command.delivery, EVENT, "", in_order)

    def _do(self, word: str, build: BuildId, author: str, number: int, causes: Sequence[str]) -> Started:
        try:
            if word == "retry":
                return Started(build.job, self._builds.rerun(build, author, causes))
            self._builds.cancel(build, f"cancelled by {author} in pull request {number}")
        except (Invalid, Missing) as error:
            return Started(build.job, None, str(error))
        return Started(build.job, None, f"{build} is cancelled")

    def _decide(
        self, receiver: Receiver, command: Command, about: Sequence[str], is_told: Callable[[str], bool]
    ) -> Answer:
        """Approve the one change that is meant, or refuse all that wait."""
        author = author_of(receiver, command)

        def check(held: Held) -> None:
            if not all(self._may_start(author, job) for job in held.jobs or [""]):
                raise Forbidden(f"{author} may not start a build of every job that it concerns")

        def told(reason: str) -> Answer:
            return Answer(receiver.name, command.delivery, EVENT, reason)

        which = f"pull request {command.pull_request}"
        if not about:
            at = f"at {command.commit} " * bool(command.commit)
            return told(
                f"no change of {which} {at}waits for an approval; of a task that does: distci build {command.word} JOB#NUMBER TASK, or the page"
            )
        if command.word == "approve" and len(about) > 1:
            return told(
                f"{len(about)} changes of {which} wait; say which commit you have looked at: /distci approve COMMIT"
            )
        try:
            if command.word == "approve":
                answer = self._hooks.approve(about[0], author, check)
                jobs = [job for job in answer.jobs if job.build or is_told(job.job)]
                return replace(answer, delivery=command.delivery, event=EVENT, jobs=jobs)
            for change in about:
                with suppress(NoSuchChange):  # Refused before whoever was told so first has died.
                    self._hooks.refuse(change, check)
        except NoSuchChange:
            return told(f"what waited of {which} was decided before")
        except Forbidden as error:
            return told(str(error))
        return told(f"what waited of {which} is refused")

    def _naming(self, receiver: Receiver, command: Command) -> Sequence[str]:
        """The jobs that are for pull requests, or whatever else, of a command's repository."""

        def note(job: str, error: Invalid) -> None:
            log.error("%s %s does nothing to %s, which cannot be read: %s", receiver.name, command.delivery, job, error)

        concerned = (self._jobs.concerned(receiver.name, name, note) for name in command.names)
        return sorted({version.job for found in concerned for version, _ in found})

    def _builds_of(self, receiver: Receiver, command: Command, jobs: Sequence[str]) -> Sequence[str]:
        """The builds of a pull request that are meant: of each job the last one, or all that still run."""
        found = []
        for job in jobs:
            mine = [
                view for view in self._builds.list(job, LOOKED_AT) if _is_of(view.trigger.delivery, receiver, command)
            ]
            found += [view for view in mine if view.result is None] if command.word == "cancel" else mine[:1]
        return [str(view.id) for view in found]

    def _waiting(self, receiver: Receiver, command: Command) -> Sequence[str]:
        """The changes of a pull request that wait, by id."""
        return [
            held.id
            for held in self._hooks.held()
            if held.receiver == receiver.name
            and held.change.pull_request == command.pull_request
            and held.change.repository.lower() == command.repository.lower()
            and held.change.commit.startswith(command.commit)
        ]


def author_of(receiver: Receiver, command: Command) -> str:
    """Who asks, as roles and records name them: ``github:ada``."""
    return f"{receiver.name}:{command.author}"


def _is_of(delivery: Delivery | None, receiver: Receiver, command: Command) -> bool:
    """Whether a build was started by what was told of the same pull request."""
    return (
        delivery is not None
        and (delivery.receiver, delivery.pull_request) == (receiver.name, command.pull_request)
        and delivery.repository.lower() == command.repository.lower()
    )
