"""Documents as people write them, JSON or YAML, and where in the text each part of one stands.

Of YAML only what means the same to everybody is read: no anchors (of which a few lines can make gigabytes), no tags, no key twice, and no
plain word that is a truth value, a number or a date to some readers and a text to others.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distci.documents.schema import Place, place_text
from distci.documents.strict_json import DEPTH_MAX, read_json
from distci.errors import InvalidDocument
from distci.model import Json

if TYPE_CHECKING:
    import yaml

YAML_BYTES_MAX = 256 * 1024
"""More than any job needs, and read within a second or two."""

PLAIN: Mapping[str, Json] = {"true": True, "false": False, "null": None, "": None}
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
KINDS = {"bool": "true or false", "null": "nothing", "int": "a number", "float": "a number", "timestamp": "a date"}
"""What readers of YAML may take a plain word for."""

OTHERS = {
    "bool": re.compile("[yYnN]"),
    "int": re.compile("0o[0-7]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+"),
}
"""Plain words that are a text to the reader that is used here, and by versions 1.1 or 1.2 of YAML none."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True)
class Written:
    """A document, and the text that it was read from."""

    document: Json
    _text: str
    _offsets: Mapping[Place, int]
    """Where each part begins; of a part that has a key, the key."""

    @cached_property
    def _starts(self) -> Sequence[int]:
        return [0, *(match.end() for match in re.finditer("\n", self._text))]

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, int]]:
        return {place_text(place): self._position(offset) for place, offset in self._offsets.items()}

    def _position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def position(self, place: Place) -> tuple[int, int]:
        """Line and column of what is there of a place."""
        while place not in self._offsets:
            place = place[:-1]
        return self._position(self._offsets[place])

    def under(self, key: str) -> Written:
        """The same as the one part of an object."""
        places = {(key, *place) if place else (key,): offset for place, offset in self._offsets.items()}
        return Written({key: self.document}, self._text, {(): 0, **places})

    def located(self, problem: str) -> str:
        """A problem that begins with its place (``tasks[0].script: is missing``), behind line and column of what is there of it."""
        place = problem.partition(": ")[0]
        while place and place not in self._places:
            # Names may hold dots and brackets, so that what is left may be no place for a while.
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        line, column = self._places.get(place, (1, 1))
        return f"line {line}, column {column}: {problem}"


def read_written(data: bytes | str, what: str) -> Written:
    """A document of JSON, if it begins as that does, or else of YAML. InvalidDocument, naming ``what``, line and column, for anything else."""
    start = data.lstrip()[:1]
    if start in (b"{", b"[", "{", "["):
        document = read_json(data, what)
        text = data if isinstance(data, str) else data.decode()
        return Written(document, text, dict(_json_offsets(text)))
    return _read_yaml(yaml_text(data, what), what)


def yaml_text(data: bytes | str, what: str) -> str:
    """The text of YAML, if it is one and not too long."""
    if len(data) > YAML_BYTES_MAX:
        raise InvalidDocument(f"{what}: {len(data)} bytes are too many; at most {YAML_BYTES_MAX} of YAML are read")
    try:
        return data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{what}: {error}") from error


# JSON that has been read already


def _json_offsets(text: str) -> Iterator[tuple[Place, int]]:
    yield (), 0
    path: list[str | int] = []
    key: tuple[str, int] | None = None
    tokens = list(_TOKEN.finditer(text))
    for number, match in enumerate(tokens):
        token = match[0]
        following = tokens[number + 1][0] if number + 1 < len(tokens) else ""
        if token in "}]":
            path.pop()
        elif token == ",":
            if isinstance(path[-1], int):
                path[-1] += 1
        elif token == ":":
            continue
        elif token.startswith('"') and following == ":":
            key = read_json(token, "a key"), match.start()
            path[-1] = key[0]
            yield tuple(path), match.start()
        else:
            if path and isinstance(path[-1], int):
                yield tuple(path), match.start()
            if token in "{[" and following not in "}]":
                path.append("" if token == "{" else 0)
            elif token in "{[":
                path.append("")


# YAML


def _read_yaml(text: str, what: str) -> Written:
    return read_nodes(text, what, YamlReader(what))


def read_nodes(text: str, what: str, reader: YamlReader) -> Written:
    """What a reader makes of a text of YAML; InvalidDocument, with line and column, where it makes nothing of it."""
    import yaml

    try:
        return reader.written(reader.compose(text), text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidDocument(f"{what}: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # An escape may name a character that there is none of, such as \U00110000: the reader does not look.
        raise InvalidDocument(f"{what}: {' '.join(str(error).split())}") from error


class YamlReader:
    """Makes a document of a text of YAML: what is not the same to everybody is refused."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.offsets: dict[Place, int] = {(): 0}

    def compose(self, text: str) -> yaml.Node | None:
        node: yaml.Node | None = _composer(text, self.anchor_problem).get_single_node()
        return node

    def written(self, node: yaml.Node | None, text: str) -> Written:
        document = self.value(node, ()) if node is not None else None
        return Written(document, text, self.offsets)

    def anchor_problem(self, mark: str) -> str:
        """Why an anchor (``&x``) or an alias (``*x``) is not read; empty where it is."""
        return f"{mark}: anchors are not read; write it out, or use a matrix"

    def value(self, node: yaml.Node, place: Place) -> Json:
        import yaml

        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        standard = "tag:yaml.org,2002:" + ("map" if isinstance(node, yaml.MappingNode) else "seq")
        if node.tag != standard:
            return self.tagged(node, place)
        if isinstance(node, yaml.SequenceNode):
            return self.items(node, place)
        assert isinstance(node, yaml.MappingNode)
        document: dict[str, Json] = {}
        for key, item in self.pairs(node):
            self.offsets[(*place, key.value)] = key.start_mark.index
            document[key.value] = self.value(item, (*place, key.value))
        return document

    def items(self, node: yaml.SequenceNode, place: Place) -> list[Json]:
        found = []
        for number, item in enumerate(node.value):
            self.offsets[(*place, number)] = item.start_mark.index
            found.append(self.value(item, (*place, number)))
        return found

    def pairs(self, node: yaml.MappingNode) -> Sequence[tuple[yaml.ScalarNode, yaml.Node]]:
        """Keys, none of them twice, and what they stand for."""
        import yaml

        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.wrong(key, "a key must be a text")
            if key.value in seen:
                raise self.wrong(key, f"the key {key.value!r} is there twice")
            if key.value == "<<" and key.style is None:
                self.merging(key)
            seen.add(key.value)
        return node.value  # type: ignore[no-any-return]

    def merging(self, key: yaml.ScalarNode) -> None:
        raise self.wrong(key, "<<: merging is not read; write it out")

    def tagged(self, node: yaml.Node, place: Place) -> Json:
        raise self.wrong(node, f"the tag {node.tag} is not read")

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Json:
        text: str = node.value
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if node.style is None and kind == "str":
            kind = next((other for other, words in OTHERS.items() if words.fullmatch(text)), kind)
        if node.style is not None or kind == "str":
            return text if kind == "str" else self.tagged(node, place)
        if text in PLAIN:
            return PLAIN[text]
        if INTEGER.fullmatch(text):
            return int(text)
        if DECIMAL.fullmatch(text) and str(float(text)) == text:
            return float(text)
        if kind not in KINDS:
            return self.tagged(node, place)
        return self.doubtful(node, kind)

    def doubtful(self, node: yaml.ScalarNode, kind: str) -> Json:
        """A plain word that some readers take for something else than a text, or for another number than it looks."""
        if DECIMAL.fullmatch(node.value):
            raise self.wrong(node, f"{node.value} is the number {float(node.value)}: put it in quotes")
        instead = "write true or false, or put it in quotes" if kind == "bool" else "put it in quotes"
        raise self.wrong(
            node, f"{node.value} is {KINDS[kind]} to some readers of YAML, and a text to others: {instead}"
        )

    def wrong(self, node: yaml.Node, problem: str) -> InvalidDocument:
        mark = node.start_mark
        return InvalidDocument(f"{self.what}: line {mark.line + 1}, column {mark.column + 1}: {problem}")


def _composer(text: str, anchor_problem: Callable[[str], str]) -> Any:
    """A reader that stops at the first anchor that is not read, before anything could be made of it."""
    import yaml

    class Composer(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                mark = f"{'*' if isinstance(event, yaml.AliasEvent) else '&'}{event.anchor}"
                if problem := anchor_problem(mark):
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
            self.depth += 1
            if self.depth > DEPTH_MAX:
                raise yaml.MarkedYAMLError(
                    problem=f"nested deeper than {DEPTH_MAX} levels", problem_mark=event.start_mark
                )
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    return Composer(text)


def located(problems: Sequence[str], written: Written) -> list[str]:
    """Problems, each behind its line and column, in the order of the text."""

    def order(text: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", text)[:2]))

    return sorted(map(written.located, problems), key=order)
