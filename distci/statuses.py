"""What forges are told of commits: that a build of one has begun, and how it ended.

Each status is a ticket of the kind ``status``, posted in the transaction that it is about; whoever serves it tells the forge until it has heard, and
no build waits for that. A forge takes the last word that it hears, and what was sent may arrive late: a worker may have slept, the forge
itself may have. So every word is noted in the store before it is said, in an order that never goes back (by the build's number, then
begun before over), and whoever has said one looks whether a later one is noted by now, and says that. Who dies before has a ticket
that is claimed anew. The last word that a forge hears is therefore the latest, whoever else was late.

It hears no word twice: tickets about the same commit and job take turns, by a permit, and who says what may have been said before, since it was noted
before, asks the forge first. That leaves a forge that acts on a request after it was asked, and a worker that was taken for dead while it said something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distci import receivers
from distci.documents.strict_json import read_json
from distci.errors import Invalid, InvalidDocument
from distci.model import BUILD_IN_TEXT, BuildId, Json, Permit, Result, Trigger
from distci.protocol import paths
from distci.protocol.records import Ticket, to_bytes
from distci.protocol.waits import Wait
from distci.receivers.port import Call, Receiver, Status
from distci.settings import ReceiverSettings, Settings, page
from distci.store import keys
from distci.store.port import Store

KIND = "status"
ATTEMPTS = 20
"""It is cheap, and may be repeated; it is given up only when it kills every worker that touches it."""

LIMIT_S = 2 * 60.0
"""How long a claim may stand: more than a call to a forge can take."""

REASON_LENGTH_MAX = 200

ANOTHER = "a build of another job"
"""What is told of one: whoever sees the commit sees the status, and need not know that there is that job."""

TURN_LENGTH = 2
"""Characters that tell the permits apart by which tickets take turns: few, since their folders stay in the tree, and enough that those about
different commits rarely share one."""

LABEL = "receiver"
"""The label that names whom a ticket is for: who has no token for one takes no ticket for it."""


@dataclass(frozen=True, slots=True)
class Word:
    """What is to be said of a build, and to whom."""

    build: BuildId
    receiver: str
    repository: str
    commit: str
    result: Result | None
    """None: it has begun."""
    reason: str = ""

    @property
    def key(self) -> str:
        is_over = self.result is not None
        return keys.status(self.receiver, self.repository, self.commit, self.build, is_over)

    @property
    def folder(self) -> str:
        return keys.statuses(self.receiver, self.repository, self.commit, self.build.job)

    def to_json(self) -> dict[str, Json]:
        document = {
            "build": str(self.build),
            "receiver": self.receiver,
            "repository": self.repository,
            "commit": self.commit,
            "result": self.result,
            "reason": self.reason,
        }
        return {key: value for key, value in document.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Json], where: str) -> Word:
        """Read it back; InvalidDocument, naming ``where``, when it is something else."""
        try:
            result = document.get("result")
            return cls(
                BuildId.parse(document["build"]),
                str(document["receiver"]),
                str(document["repository"]),
                str(document["commit"]),
                Result(result) if result else None,
                str(document.get("reason", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, Invalid) as error:
            raise InvalidDocument(f"{where}: not a status: {error}") from error


def tickets(
    build: BuildId, project: str, trigger: Trigger, result: Result | None, reason: str = ""
) -> Sequence[Ticket]:
    """The ticket that tells how a build stands; none when nobody wants to know. It names builds of no other job."""
    delivery = trigger.delivery
    if delivery is None or not delivery.wants_status:
        return []
    told = BUILD_IN_TEXT.sub(lambda found: found[0] if found[1] == build.job else ANOTHER, reason)
    word = Word(build, delivery.receiver, delivery.repository, trigger.commit, result, told[:REASON_LENGTH_MAX])
    return [
        Ticket(
            id=paths.digest(f"{build}\n{KIND}\n{result or 'begun'}", 20),
            kind=KIND,
            body=word.to_json(),
            labels=[label(word.receiver)],
            project=project,
            attempts=ATTEMPTS,
            permits=[Permit(f"{KIND}:{paths.digest(word.folder, TURN_LENGTH)}")],
            uses_quota=False,
            limit_s=LIMIT_S,
        )
    ]


def label(receiver: str) -> str:
    """What the tickets for a receiver ask for."""
    return f"{LABEL}={receiver}"


def without_token(ticket: Ticket) -> Wait:
    """Why one waits whose label no live worker offers."""
    word = Word.from_json(ticket.body, f"ticket {ticket.token}")
    return Wait(
        f"no live worker has a token for {word.receiver}, to tell it of {word.repository}",
        f"set receivers.{word.receiver}.token where distci worker run {KIND} runs",
    )


class Statuses:
    """What is to be told to forges, as the store knows it. Any thread may use it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    @property
    def labels(self) -> Sequence[str]:
        """What those offer who can tell what these settings let them: a label for each receiver that there is a token for."""
        return [label(name) for name in receivers.installed() if self._api_url(receivers.load(name))]

    def note(self, ticket: Ticket) -> tuple[Word, bool]:
        """What a ticket has to say, noted before it is said, and whether it is noted for the first time: then nobody can have said it.

        InvalidDocument when it is no such ticket.
        """
        word = Word.from_json(ticket.body, f"ticket {ticket.token}")
        return word, self._store.put_if_absent(word.key, to_bytes(word.to_json()))

    def latest(self, word: Word) -> Word:
        """The latest that is noted of that commit and job."""
        last = position = ""
        while page := self._store.list(word.folder, position):
            last = position = page[-1].key
        return Word.from_json(read_json(self._store.get(last), last), last) if last else word

    def call(self, word: Word) -> Call | None:
        """The request that says it; None when there is nobody to say it to, or nothing to prove ourselves with. Raises NoSuchReceiver."""
        receiver = receivers.load(word.receiver)
        api_url = self._api_url(receiver)
        if not api_url:
            return None
        status = Status(
            repository=word.repository,
            commit=word.commit,
            result=word.result,
            context=f"distci/{word.build.job}",
            description=_description(word),
            url=page(self._settings.build_pages, word.build),
        )
        return receiver.call(api_url, self._settings_of(receiver).token, status)

    def _api_url(self, receiver: Receiver) -> str:
        """Where it is told; empty when there is no such place, or nothing to prove ourselves with."""
        settings = self._settings_of(receiver)
        return (settings.api_url or receiver.api_url) if settings.token else ""

    def _settings_of(self, receiver: Receiver) -> ReceiverSettings:
        return self._settings.receivers.get(receiver.name, ReceiverSettings())


def _description(word: Word) -> str:
    what = word.result or "has been accepted"
    reason = word.reason.splitlines()[0] if word.reason.strip() else ""
    return f"{word.build} {what}: {reason}" if reason else f"{word.build} {what}"
