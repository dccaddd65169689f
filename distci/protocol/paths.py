"""The map of the tree: every path as a function, every name taken apart where it is put together.

::

    /format                                   format number of the tree
    /epoch/<number>                           how many trees there have been, this one among them; every transaction checks it
    /control                                  what is paused, weights and quotas of projects; every claim checks its version
    /jobs/<job>                               config version in force, last build number
    /builds/<shard>/<build>                   a build while it runs
    /queue/<pool>/<bucket>/<name>             a ticket that can be claimed; pool = kind~label~label, bucket 0 = front row
    /running/<bucket>/<token>                 a claimed ticket
    /owners/<bucket>/<token>                  ephemeral: the claim's heartbeat
    /idle/<offer>/<worker>                    ephemeral: "wake me"; deleting it is the wake-up
    /workers/<worker>                         ephemeral: a live worker
    /permits/<name>/<slot>                    a semaphore slot in use; absent is free
    /parked/<why>/<name>                      a ticket that waits for something
    /dead/<token>                             a ticket set aside, with the reason
    /once/<day>/<digest>                      a cause that has been served
    /events                                   written with each event of a build, so that one watch tells
    /depths/<hour>                            how deep the queue was, minute by minute; made when it is needed
    /access/news                              how many changes of access there have been; written with everything below, so that one watch tells
    /access/keys                              what session cookies are signed with
    /access/ended/<session>~<time>            a session that somebody ended before its time
    /access/links/<digest>                    a login link that nobody has used
    /access/used-links/<digest>~<time>        one that somebody has, and who

A *token* is ``<ticket>.<attempt>``. A *name* is ``<priority>-<project tag>-<time>-<token>``, with ``~<worker tag>`` behind it
when a worker was woken for the ticket, or ``~!<worker tag>`` when that worker has declined it, so that a listing of names says all that choosing needs and no node has to be
read for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from distci.errors import Invalid
from distci.model import BuildId

FORMAT = "/format"
EPOCH = "/epoch"
CONTROL = "/control"
JOBS = "/jobs"
BUILDS = "/builds"
QUEUE = "/queue"
RUNNING = "/running"
OWNERS = "/owners"
IDLE = "/idle"
WORKERS = "/workers"
PERMITS = "/permits"
PARKED = "/parked"
DEAD = "/dead"
ONCE = "/once"
DEPTHS = "/depths"
EVENTS = "/events"
ACCESS = "/access"
ACCESS_NEWS = "/access/news"
ACCESS_KEYS = "/access/keys"
ENDED_SESSIONS = "/access/ended"
LOGIN_LINKS = "/access/links"
USED_LINKS = "/access/used-links"

DUE = "due"
"""Why a ticket is parked that waits for a time."""

FOR_PERMIT = "permit-"
"""Begins why a ticket is parked that waits for a permit."""

FOLDERS = (EPOCH, JOBS, BUILDS, QUEUE, RUNNING, OWNERS, IDLE, WORKERS, PERMITS, PARKED, DEAD, ONCE)
"""What every tree has from its first moment on; ``/access``, ``/depths`` and ``/events`` are made when they are needed, since trees without them
are in use."""

EPOCH_ATTEMPTS = 1000
"""Attempts are numbered on from the next thousand in each tree that is made, above all that an earlier one can have given out."""

CLAIM_BUCKETS = 8
"""Folders that claimed tickets are spread over: 500 at once make lists of about 60 names (2 KiB) each."""

FRONT_ROW = "0"
"""The folder of a pool that everybody who claims looks into; the others are numbered from 1."""

QUEUE_WIDTHS = (16, 256)
"""Over how many folders the tickets behind the front row are spread: few, and many once the few are long."""

BUILD_SHARDS = 16

_PLAIN = "=*,.:_-?[]!"
"""Characters of labels that node names carry as they are, besides letters and digits."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: names sort as the numbers do."""

_DIGITS = bytes(b"0123456789abcdefghijklmnopqrstuv?"[_ALPHABET.find(chr(byte))] for byte in range(256))
"""From each letter to the digit that ``int`` knows; from all that are none to something that it refuses."""


def access_mark(folder: str, name: str, until_ms: int) -> str:
    """A node below ``/access`` that is of use until a time only, in milliseconds since 1970."""
    return f"{folder}/{name}~{until_ms}"


def access_mark_of(name: str) -> tuple[str, int]:
    """What such a node is about, and until when."""
    about, _, until_ms = name.rpartition("~")
    return about, int(until_ms)


def login_link(digest: str) -> str:
    return f"{LOGIN_LINKS}/{digest}"


def epoch(number: int) -> str:
    return f"{EPOCH}/{number}"


def attempts_before(epoch_number: int) -> int:
    """The highest attempt that any ticket can have had before the tree of that epoch was made."""
    return (epoch_number - 1) * EPOCH_ATTEMPTS


def comes_back(attempt: int) -> bool:
    """Whether a ticket had been claimed before in its tree, and came to nothing."""
    return (attempt - 1) % EPOCH_ATTEMPTS > 0


def job(job_id: str) -> str:
    return f"{JOBS}/{_flat(job_id)}"


def job_of(name: str) -> str:
    """The job id that a name below ``/jobs`` stands for."""
    return name.replace(":", "/")


def build_shard(build: BuildId) -> str:
    return f"{BUILDS}/{_bucket(str(build), BUILD_SHARDS)}"


def build(build_id: BuildId) -> str:
    return f"{build_shard(build_id)}/{_flat(build_id.job)}:{build_id.number}"


def build_of(name: str) -> BuildId:
    """The build that a name below ``/builds/<shard>`` stands for."""
    job_id, _, number = name.rpartition(":")
    return BuildId(job_of(job_id), int(number))


def pool(kind: str, labels: Sequence[str]) -> str:
    """The folder of all tickets that ask for the same kind and labels; its name says which."""
    return f"{QUEUE}/{words((kind, *sorted(labels)))}"


def pool_of(name: str) -> tuple[str, Sequence[str]]:
    """The kind and the labels that a name below ``/queue`` stands for."""
    kind, *labels = unwords(name)
    return kind, labels


def front_row(pool_path: str) -> str:
    """The folder of a pool that everybody who claims looks into."""
    return f"{pool_path}/{FRONT_ROW}"


def is_front_row(folder: str) -> bool:
    return folder.rpartition("/")[2] == FRONT_ROW


def queue_bucket(pool_path: str, ticket: str, width: int) -> str:
    """The folder where a ticket waits behind the front row, of that many."""
    return f"{pool_path}/{1 + _bucket(ticket, width)}"


def queue_places(pool_path: str, ticket: str) -> Sequence[str]:
    """All folders of a pool in which a ticket may be waiting."""
    return [front_row(pool_path), *(queue_bucket(pool_path, ticket, width) for width in QUEUE_WIDTHS)]


def running(token: str) -> str:
    return f"{RUNNING}/{claim_bucket(token)}/{token}"


def owner(token: str) -> str:
    return f"{OWNERS}/{claim_bucket(token)}/{token}"


def claim_key(worker_name: str, key: str) -> str:
    """Which claim a worker without a session was given when it asked with a key."""
    return f"{OWNERS}/keys/{digest(f'{worker_name} {key}', 26)}"


def claim_bucket(token: str) -> int:
    return _bucket(ticket_of(token), CLAIM_BUCKETS)


def idle(offer: str, worker: str) -> str:
    return f"{IDLE}/{offer}/{worker}"


def worker(name: str) -> str:
    return f"{WORKERS}/{name}"


def permit(name: str, slot: int) -> str:
    return f"{permit_folder(name)}/{slot}"


def permit_folder(name: str) -> str:
    return f"{PERMITS}/{words((name,))}"


def parked_folder(why: str) -> str:
    return f"{PARKED}/{why}"


def parked_until(due_ms: int, name: str) -> str:
    return f"{parked_folder(DUE)}/{base32(due_ms, 9)}-{name}"


def parked_for(permit_name: str) -> str:
    """The folder of the tickets that wait for a permit."""
    return parked_folder(f"{FOR_PERMIT}{words((permit_name,))}")


def waited_for(why: str) -> str:
    """The permit that tickets parked for this reason wait for; empty when they wait for something else."""
    return unwords(why.removeprefix(FOR_PERMIT))[0] if why.startswith(FOR_PERMIT) else ""


def due_ms(name: str) -> int:
    """When a ticket parked under ``/parked/due`` is due; 0, which is at once, for a name that does not say."""
    try:
        return _from_base32(name.partition("-")[0])
    except ValueError:
        return 0


def dead(token: str) -> str:
    return f"{DEAD}/{token}"


def once(day: int, cause: str) -> str:
    """Where ``cause`` is remembered; ``day`` counts from 1970."""
    return f"{once_day(day)}/{digest(cause, 26)}"


def once_day(day: int) -> str:
    return f"{ONCE}/{day}"


def depths(hour: int) -> str:
    """Where samples of the queue are kept; ``hour`` counts from 1970."""
    return f"{DEPTHS}/{hour}"


@dataclass(frozen=True, slots=True)
class Name:
    """A waiting ticket's node name, taken apart."""

    priority: int
    project: str
    """Four letters that stand for the project; equal for equal projects."""
    time_ms: int
    ticket: str
    attempt: int
    reserved: str = ""
    """Stands for the worker that was woken for it, which goes first for a moment; behind a ``!`` for one that has given it back, which
    goes last for a moment; empty: anybody may."""

    def __str__(self) -> str:
        mark = f"~{self.reserved}" if self.reserved else ""
        return f"{self.priority}-{self.project}-{base32(self.time_ms, 9)}-{self.ticket}.{self.attempt}{mark}"

    @classmethod
    def parse(cls, text: str) -> Name:
        """Take a name apart; :class:`~distci.errors.Invalid` when it is not one."""
        try:
            priority, project, time, rest = text.split("-", 3)
            token, _, reserved = rest.partition("~")
            ticket, _, attempt = token.rpartition(".")
            if not ticket or len(time) != 9:
                raise ValueError(text)
            return cls(int(priority), project, _from_base32(time), ticket, int(attempt), reserved)
        except ValueError as error:
            raise Invalid(f"{text!r} is not the name of a waiting ticket") from error


def decliner_tag(worker_name: str) -> str:
    """Stands for a worker that leaves a ticket to others."""
    return f"!{worker_tag(worker_name)}"


def worker_tag(worker_name: str) -> str:
    return digest(worker_name, 6)


def project_tag(project: str) -> str:
    return digest(project, 4) if project else "0000"


def words(items: Iterable[str]) -> str:
    """Any words as one node name."""
    return "~".join(quote(item, safe=_PLAIN).replace("~", "%7E") for item in items)


def unwords(name: str) -> list[str]:
    return [unquote(item) for item in name.split("~")]


def token(ticket: str, attempt: int) -> str:
    return f"{ticket}.{attempt}"


def ticket_of(token_text: str) -> str:
    return token_text.rpartition(".")[0]


def attempt_of(token_text: str) -> int:
    return int(token_text.rpartition(".")[2])


def digest(text: str, length: int) -> str:
    """``length`` characters (5 bits each, at most 32) that stand for a text."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=20).digest(), "big")
    return base32(number, 32)[-length:]


def base32(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, rest = divmod(number, 32)
        letters.append(_ALPHABET[rest])
    return "".join(reversed(letters))


def _from_base32(text: str) -> int:
    # All who claim read very many names: by Python's own conversion it takes a tenth of the time.
    return int(text.encode("ascii").translate(_DIGITS), 32)


def _bucket(text: str, buckets: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") % buckets


def _flat(job_id: str) -> str:
    """A job id as one node name; ``:`` does not occur in it."""
    return job_id.replace("/", ":")
