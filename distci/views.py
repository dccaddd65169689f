"""The JSON form of what the library returns: the one that the command line prints and that the front end answers with; and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from distci.errors import Invalid, InvalidDocument
from distci.model import BuildId, Json

Record = TypeVar("Record")


def to_json(value: Any) -> Json:
    """Records become objects, builds are written ``job#number``, what is JSON already stays what it is."""
    if isinstance(value, BuildId):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [to_json(item) for item in value]
    return value


def to_bytes(value: Any) -> bytes:
    """The same, written: UTF-8 without line breaks. What is half a character, as file names may have it, is escaped."""
    return json.dumps(to_json(value), ensure_ascii=False).encode(errors="backslashreplace")


def from_json(kind: type[Record], value: Json) -> Record:
    """The record of that type whose JSON form this is; sequences are tuples. What a later version has added to it is left out.

    InvalidDocument when it is the form of something else.
    """
    try:
        found: Record = _read(kind, value)
    except (KeyError, TypeError, ValueError, Invalid) as error:
        raise InvalidDocument(f"not a {kind.__name__}: {error}") from error
    return found


def _read(kind: Any, value: Json) -> Any:
    if kind is Any:
        return value
    if kind is BuildId:
        return BuildId.parse(value)
    if get_origin(kind) in (Union, UnionType):
        [only] = [part for part in get_args(kind) if part is not NoneType]
        return None if value is None else _read(only, value)
    if get_origin(kind) is Sequence:
        return tuple(_read(get_args(kind)[0], item) for item in _checked(list, value))
    if get_origin(kind) is Mapping:
        return {name: _read(get_args(kind)[1], item) for name, item in _checked(dict, value).items()}
    if is_dataclass(kind):
        return _record(kind, _checked(dict, value))
    if issubclass(kind, Enum):
        return kind(value)
    return float(_checked((int, float), value)) if kind is float else _checked(kind, value)


def _record(kind: Any, document: Mapping[str, Json]) -> Any:
    hints = _hints(kind)
    optional = {item.name for item in fields(kind) if (item.default, item.default_factory) != (MISSING, MISSING)}
    wanted = [item.name for item in fields(kind) if item.name in document or item.name not in optional]
    return kind(**{name: _read(hints[name], document[name]) for name in wanted})


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _checked(kind: Any, value: Json) -> Any:
    """The value, which must be of that type; a truth value is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is no {getattr(kind, '__name__', 'number')}")
    return value
