"""The node of a build in the tree: all that is needed to go on with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from distci.coordination.port import Operation, Write
from distci.documents import stored
from distci.errors import Invalid, InvalidDocument
from distci.model import BuildId, BuildState, Json, Result, Trigger
from distci.protocol import paths
from distci.protocol.records import FORMAT, from_bytes, to_bytes
from distci.protocol.tickets import Tickets


@dataclass(frozen=True, slots=True)
class LiveBuild:
    """The node of a build that is not archived yet."""

    build: BuildId
    nonce: str
    config: int
    trigger: Trigger
    created_ms: int
    plan_digest: str = ""
    state: BuildState | None = None
    """None while the build is being planned."""
    result: Result | None = None
    reason: str = ""
    """Why the build ended without running, or who cancelled it."""
    finished_ms: int = 0
    downstream: Sequence[str] = ()
    """Builds that this one's end has started, as ``job#number``."""
    is_cancelled: bool = False
    waits_for: str = ""
    """The permit that it cannot begin without; empty when it waits for none."""
    slots: Sequence[tuple[str, int]] = ()
    """The permit slots that it holds until it has its result."""
    cause: str = ""
    """What asking again with gives this same build; empty when nothing does."""
    is_restored: bool = False
    """Whether it began in a tree that was lost: then it goes on from what the store has of it."""
    version: int = field(default=-1, compare=False)

    @property
    def path(self) -> str:
        return paths.build(self.build)

    def write(self) -> Operation:
        """Replace the node, unless it has changed since it was read."""
        return Write(self.path, self.to_bytes(), self.version)

    def to_bytes(self) -> bytes:
        document: dict[str, Json] = {
            "f": FORMAT,
            "nonce": self.nonce,
            "config": self.config,
            "trigger": stored.trigger_to_json(self.trigger),
            "created_ms": self.created_ms,
        }
        optional: dict[str, Json] = {
            "plan": self.plan_digest,
            "state": stored.state_to_json(self.state) if self.state else None,
            "result": self.result,
            "reason": self.reason,
            "finished_ms": self.finished_ms,
            "downstream": list(self.downstream),
            "cancelled": self.is_cancelled,
            "waits_for": self.waits_for,
            "slots": [list(slot) for slot in self.slots],
            "cause": self.cause,
            "restored": self.is_restored,
        }
        return to_bytes(document | {key: value for key, value in optional.items() if value})

    @classmethod
    def from_bytes(cls, build: BuildId, data: bytes, version: int) -> LiveBuild:
        """Read a node; InvalidDocument when it is not that of a build."""
        where = paths.build(build)
        document = from_bytes(data, where)
        state = document.get("state")
        result = document.get("result")
        try:
            return cls(
                build=build,
                nonce=document["nonce"],
                config=document["config"],
                trigger=stored.trigger_from_json(document["trigger"]),
                created_ms=document["created_ms"],
                plan_digest=document.get("plan", ""),
                state=stored.state_from_json(state) if state is not None else None,
                result=Result(result) if result else None,
                reason=document.get("reason", ""),
                finished_ms=document.get("finished_ms", 0),
                downstream=tuple(document.get("downstream", ())),
                is_cancelled=document.get("cancelled", False),
                waits_for=document.get("waits_for", ""),
                slots=tuple((name, slot) for name, slot in document.get("slots", ())),
                cause=document.get("cause", ""),
                is_restored=document.get("restored", False),
                version=version,
            )
        except (KeyError, TypeError, ValueError, InvalidDocument) as error:
            raise InvalidDocument(f"{where}: not a build: {error}") from error


def unreadable(tickets: Tickets) -> Iterator[tuple[str, str]]:
    """What stands among the live builds and is none: its path, and what is wrong with it."""
    coordination = tickets.tree.coordination
    for shard in coordination.children(paths.BUILDS):
        for name in coordination.children(f"{paths.BUILDS}/{shard}"):
            path = f"{paths.BUILDS}/{shard}/{name}"
            try:
                node = coordination.read(path)
                if node is not None:
                    LiveBuild.from_bytes(paths.build_of(name), node.data, node.version)
            except (Invalid, ValueError) as error:
                yield path, str(error)
