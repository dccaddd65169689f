"""A file of another system, of which every part is either translated or told.

Importers walk :class:`Source` and ask for what they know. What nobody has asked for in the end is told as dropped: so nothing is lost without
a line, whatever a file holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distci.documents.foreign import ForeignFile
from distci.documents.schema import Place, place_text
from distci.documents.strict_json import canonical
from distci.model import Json

SHOWN_MAX = 80
"""Letters of a value that a note repeats."""


@dataclass(frozen=True, order=True)
class Note:
    """What became of a part of the file, where it is not simply translated."""

    file: str
    line: int
    column: int
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: line {self.line}, column {self.column}: {self.place}: {self.text}"


@dataclass
class Notes:
    """What an import has to tell, and which values have been looked at."""

    notes: list[Note] = field(default_factory=list)
    used: set[tuple[str, Place | int]] = field(default_factory=set)
    """By file and place; and by where in the file the value begins, for anchors, whose values are looked at elsewhere."""

    def all(self) -> list[Note]:
        return sorted(dict.fromkeys(self.notes))


@dataclass(eq=False)
class Source:
    """A value of the file: a text, number, truth value or None; or a dict or list of further ones."""

    file: ForeignFile
    notes: Notes
    place: Place
    value: Json
    is_missing: bool = False
    """Whether the file has nothing of that name: there is no more than a place to tell something at."""

    @classmethod
    def of(cls, file: ForeignFile, notes: Notes) -> Source:
        return cls._of(file, notes, (), file.document)

    @classmethod
    def _of(cls, file: ForeignFile, notes: Notes, place: Place, value: Json) -> Source:
        if isinstance(value, dict):
            value = {key: cls._of(file, notes, (*place, key), item) for key, item in value.items()}
        elif isinstance(value, list):
            value = [cls._of(file, notes, (*place, number), item) for number, item in enumerate(value)]
        return cls(file, notes, place, value)

    # What is there

    @property
    def is_object(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)

    @property
    def is_text(self) -> bool:
        return isinstance(self.value, str)

    @property
    def is_there(self) -> bool:
        return self.value is not None

    @property
    def name(self) -> str:
        """The last key of its place."""
        return str(self.place[-1]) if self.place else ""

    def __contains__(self, key: str) -> bool:
        return self.is_object and key in self.value

    def __getitem__(self, key: str) -> Source:
        """The part of that name; one whose value is None where there is none."""
        found = self.value.get(key) if self.is_object else None
        return found if found is not None else Source(self.file, self.notes, (*self.place, key), None, True)

    def get(self, key: str, otherwise: Source) -> Source:
        """The part of that name, or another where there is none."""
        return self[key] if key in self else otherwise  # noqa: SIM401

    def items(self) -> Iterator[tuple[str, Source]]:
        if self.is_object:
            yield from self.value.items()

    def each(self) -> list[Source]:
        """The items of a list; of what is no list, the one that it is; none where there is nothing."""
        if self.is_list:
            return list(self.value)
        return [self] if self.is_there else []

    def plain(self) -> Json:
        """The value without places."""
        if self.is_object:
            return {key: item.plain() for key, item in self.value.items()}
        return [item.plain() for item in self.value] if self.is_list else self.value

    def with_parts(self, parts: Mapping[str, Source]) -> Source:
        """The same object with other parts, each of which stays where it is written."""
        return Source(self.file, self.notes, self.place, dict(parts))

    # Looked at

    def use(self) -> Json:
        """The whole value, which is translated by whoever asks."""
        self._mark()
        return self.plain()

    def text(self) -> str:
        """A text, or a number or truth value as it is written; empty where there is none, told where it is something else."""
        if self.is_object or self.is_list:
            self.note("is no text")
            return ""
        self._mark()
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        return "" if self.value is None else str(self.value)

    def texts(self) -> list[str]:
        """The texts of a list, or of the one text."""
        return [item.text() for item in self.each()]

    def truth(self, otherwise: bool = False) -> bool:
        """A truth value; what is none is told."""
        if self.value is None:
            self._mark()
            return otherwise
        if isinstance(self.value, bool):
            self._mark()
            return self.value
        if self.is_text and self.value.lower() in ("yes", "on", "no", "off", "true", "false"):
            self._mark()
            return self.value.lower() in ("yes", "on", "true")
        self.note(f"is neither true nor false; taken as {'true' if otherwise else 'false'}")
        return otherwise

    def number(self) -> int | None:
        """A whole number; what is none is told."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            self._mark()
            return self.value
        if self.is_text and self.value.isdecimal():
            self._mark()
            return int(self.value)
        if self.is_there:
            self.note("is no whole number; dropped")
        return None

    # Told

    def note(self, text: str) -> None:
        """Tell what becomes of this value, all of it; nothing where there is none."""
        if self.is_missing:
            return
        self._mark()
        parts = self._parts()
        if parts and len(self._in_full()) > SHOWN_MAX:
            for part in parts:
                part.note(text)
        else:
            self.say(f"{self.shown()}{text}")

    def say(self, text: str) -> None:
        """Tell something at this place; its parts are still to be looked at."""
        line, column = self.file.written.position(self.place)
        self.notes.notes.append(Note(self.file.name, line, column, place_text(self.place), text))

    def shown(self) -> str:
        """The value as notes repeat it: of a long one how it begins and ends."""
        text = self._in_full()
        if len(text) > SHOWN_MAX:
            text = f"{text[: SHOWN_MAX * 2 // 3]} ... {text[-SHOWN_MAX // 4 :]}"
        return f"{text} " if text else ""

    def _in_full(self) -> str:
        if not self.is_there:
            return ""
        return " ".join((self.value if self.is_text else canonical(self.plain()).decode()).split())

    def tell_the_rest(self) -> None:
        """Tell of all that nobody has looked at, each part as a whole where none of it has been."""
        if self._is_used_somewhere():
            for part in self._parts():
                part.tell_the_rest()
        else:
            self.note("(dropped: nothing here stands for it)")
        if self.place in self.file.doubts:
            self.say(self.file.doubts[self.place])

    def _parts(self) -> list[Source]:
        return list(self.value.values()) if self.is_object else self.value if self.is_list else []

    def _mark(self) -> None:
        self.notes.used.add((self.file.name, self.place))
        if (offset := self.file.sources.get(self.place)) is not None:
            self.notes.used.add((self.file.name, offset))
        for part in self._parts():
            part._mark()

    def _is_used(self) -> bool:
        if (self.file.name, self.place) in self.notes.used:
            return True
        offset = self.file.sources.get(self.place)
        is_anchor = offset is not None and self.file.origins[offset] == self.place
        return is_anchor and (self.file.name, offset) in self.notes.used

    def _is_used_somewhere(self) -> bool:
        return self._is_used() or any(part._is_used_somewhere() for part in self._parts())
