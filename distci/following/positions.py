"""Where a follower of logs is: all that is needed to go on, anywhere and at any time. As texts, positions are::

<token>:<offset>                     of one task: so many bytes of the log of that attempt
<task>:<token>:<offset>,...          of a whole build: the same for each task that has begun, by its place in the job, ...
<task>-<task>,...                    ... and those whose logs have been told to their end
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from distci.errors import Invalid
from distci.plan import TASKS_MAX
from distci.protocol import paths

ONLY = 0
"""The place of the task of a follower who follows no other."""

_TOKEN = r"(?P<token>[0-9a-z]{1,32}\.[0-9]{1,9}):(?P<offset>[0-9]{1,15})"
_ONE = re.compile(_TOKEN)
_ITEM = re.compile(rf"(?P<first>[0-9]{{1,5}})(?::{_TOKEN}|(?:-(?P<last>[0-9]{{1,5}}))?)")


@dataclass(slots=True)
class Position:
    """Where a follower of logs is. As a text it is what the module says."""

    is_single: bool
    at: dict[int, tuple[str, int]] = field(default_factory=dict)
    """For tasks by their places: which attempt's log, and how many bytes of it have been told."""
    done: set[int] = field(default_factory=set)
    """The places of tasks of which all has been told."""
    through: set[int] = field(default_factory=set)
    """The places of tasks of whose present attempt all has been told. Not part of the text: it is soon found out again."""

    @classmethod
    def parse(cls, text: str, *, is_single: bool) -> Position:
        """Read a position; Invalid when it is none."""
        position = cls(is_single)
        for item in text.split(",") if text else ():
            match = (_ONE if is_single else _ITEM).fullmatch(item)
            if not match:
                raise Invalid(f"{text[:100]!r} is no place in {'a log' if is_single else 'the logs of a build'}")
            if match["token"]:
                place = ONLY if is_single else int(match["first"])
                position.at[place] = match["token"], int(match["offset"])
            else:
                first = int(match["first"])
                # No job has more: nobody has us hold a long list of none.
                position.done.update(range(first, min(int(match["last"] or first) + 1, TASKS_MAX)))
        return position

    def __str__(self) -> str:
        if self.is_single:
            return ",".join(f"{token}:{offset}" for token, offset in self.at.values())
        begun = sorted(item for item in self.at.items() if item[0] not in self.done)
        return ",".join([*_ranges(self.done), *(f"{place}:{token}:{offset}" for place, (token, offset) in begun)])

    def next_token(self, place: int, tokens: Sequence[str]) -> str | None:
        """Which of the attempts at a task to go on with; None while there is none."""
        if place not in self.at:
            return tokens[0] if tokens else None
        token = self.at[place][0]
        if token in tokens:
            following = tokens[tokens.index(token) + (place in self.through) :]
        else:
            # One that was lost leaves no record. Its ticket goes on with a higher attempt.
            following = [later for later in tokens if _is_later(later, token)]
        return following[0] if following else None

    def begin(self, place: int, token: str) -> int:
        """Be at that attempt; from which byte on."""
        self.through.discard(place)
        if place not in self.at or self.at[place][0] != token:
            self.at[place] = token, 0
        return self.at[place][1]


def _is_later(token: str, than: str) -> bool:
    return paths.ticket_of(token) == paths.ticket_of(than) and paths.attempt_of(token) > paths.attempt_of(than)


def _ranges(places: Iterable[int]) -> Iterator[str]:
    """Numbers as ``first-last``, and as they are where they stand alone."""
    for _, group in groupby(enumerate(sorted(places)), lambda item: item[1] - item[0]):
        run = [place for _, place in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
