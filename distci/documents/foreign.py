"""Files of other systems, YAML or JSON: read as strictly as jobs are, but for what people cannot be without there.

Anchors are read, and merging, as long as what comes of them stays small; a plain word that readers disagree about is a text, and told;
of tags those alone that the system has itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distci.documents.schema import Place
from distci.documents.strict_json import DEPTH_MAX
from distci.documents.written import DECIMAL, KINDS, Written, YamlReader, read_nodes, read_written, yaml_text
from distci.model import Json

if TYPE_CHECKING:
    import yaml

VALUES_MAX = 50_000
"""Anchors written out: a few lines of them can make gigabytes."""

TRUTH: Mapping[str, bool] = {"true": True, "false": False}


@dataclass(frozen=True)
class ForeignFile:
    """The document of a file, and where in the text each part of it stands."""

    written: Written
    name: str
    sources: Mapping[Place, int]
    """Where the value of each part begins: the same for all the places to which anchors bring it."""
    doubts: Mapping[Place, str]
    """Plain words that readers of YAML disagree about, and why."""

    @cached_property
    def origins(self) -> Mapping[int, Place]:
        """The place at which each value is written, which is the first of those that it has."""
        return {offset: place for place, offset in reversed([*self.sources.items()])}

    @property
    def document(self) -> Json:
        return self.written.document


def read_foreign(data: bytes | str, name: str, tags: Collection[str] = ()) -> ForeignFile:
    """What another system's file says. A list with one of the tags is an object whose only key is the tag.

    InvalidDocument, with line and column, where it is refused.
    """
    if data.lstrip()[:1] in (b"{", b"[", "{", "["):
        return ForeignFile(read_written(data, name), name, {}, {})
    text = yaml_text(data, name)
    reader = ForeignReader(name, tags)
    return ForeignFile(read_nodes(text, name, reader), name, reader.sources, reader.doubts)


class ForeignReader(YamlReader):
    """Reads what other systems read, within bounds."""

    def __init__(self, what: str, tags: Collection[str] = ()) -> None:
        super().__init__(what)
        self._tags = tags
        self._count = 0
        self.sources: dict[Place, int] = {}
        self.doubts: dict[Place, str] = {}

    def anchor_problem(self, mark: str) -> str:
        return ""

    def value(self, node: yaml.Node, place: Place) -> Json:
        self._count += 1
        if self._count > VALUES_MAX:
            raise self.wrong(node, f"with its anchors written out it has more than {VALUES_MAX} values")
        if len(place) > DEPTH_MAX:
            raise self.wrong(node, f"nested deeper than {DEPTH_MAX} levels, or within itself")
        self.sources[place] = node.start_mark.index
        return super().value(node, place)

    def pairs(self, node: yaml.MappingNode) -> Sequence[tuple[yaml.ScalarNode, yaml.Node]]:
        return self._merged(node, ())

    def _merged(
        self, node: yaml.MappingNode, around: Sequence[yaml.Node]
    ) -> Sequence[tuple[yaml.ScalarNode, yaml.Node]]:
        """The pairs of an object over those that it merges, of which the first counts."""
        import yaml

        if node in around:
            raise self.wrong(node, "is merged into itself")
        own = super().pairs(node)
        found: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        for key, item in own:
            if key.value == "<<" and key.style is None:
                for base in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    if not isinstance(base, yaml.MappingNode):
                        raise self.wrong(base, "only objects can be merged into an object")
                    for pair in self._merged(base, [*around, node]):
                        self._count += 1
                        found.setdefault(pair[0].value, pair)
                    if self._count > VALUES_MAX:
                        raise self.wrong(key, f"with its anchors written out it has more than {VALUES_MAX} values")
        return [*{**found, **{key.value: (key, item) for key, item in own if not _is_merge(key)}}.values()]

    def merging(self, key: yaml.ScalarNode) -> None:
        return

    def items(self, node: yaml.SequenceNode, place: Place) -> list[Json]:
        """As they are; an object that only merges a list is what that list is, as some systems have it."""
        import yaml

        spread: list[yaml.Node] = []
        for item in node.value:
            pairs: Sequence[Any] = item.value if isinstance(item, yaml.MappingNode) else ()
            merged = pairs[0][1] if len(pairs) == 1 and _is_merge(pairs[0][0]) else None
            parts = merged.value if isinstance(merged, yaml.SequenceNode) else ()
            spread += parts if parts and all(isinstance(part, yaml.ScalarNode) for part in parts) else [item]
        return super().items(yaml.SequenceNode(node.tag, spread, node.start_mark, node.end_mark), place)

    def tagged(self, node: yaml.Node, place: Place) -> Json:
        import yaml

        if isinstance(node, yaml.SequenceNode) and node.tag in self._tags:
            self.offsets[(*place, node.tag)] = node.start_mark.index
            return {node.tag: self.items(node, (*place, node.tag))}
        return super().tagged(node, place)

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Json:
        is_plain = node.style is None
        if is_plain and node.value == "~":
            return None
        if is_plain and node.value.lower() in TRUTH and node.tag.endswith(":bool"):
            return TRUTH[node.value.lower()]
        self._place = place
        return super().scalar(node, place)

    def doubtful(self, node: yaml.ScalarNode, kind: str) -> Json:
        other = f"the number {float(node.value)}" if DECIMAL.fullmatch(node.value) else KINDS[kind]
        self.doubts[self._place] = f"is {other} to some readers of YAML: taken as the text {node.value!r}"
        return str(node.value)


def _is_merge(key: yaml.Node) -> bool:
    return key.value == "<<" and getattr(key, "style", "") is None
