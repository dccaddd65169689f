"""JSON that is read strictly: nothing is believed before it is checked, neither the whole nor a field of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from distci.errors import InvalidDocument
from distci.model import Json

DOCUMENT_BYTES_MAX = 4 * 1024 * 1024

DEPTH_MAX = 64


def read_json(data: bytes | str, what: str, bytes_max: int = DOCUMENT_BYTES_MAX) -> Any:
    """Strict JSON: UTF-8, no key twice, finite numbers, whole characters, at most 4 MiB (or ``bytes_max``) and 64 levels.

    InvalidDocument, naming ``what``, otherwise.
    """
    if len(data) > bytes_max:
        raise InvalidDocument(f"{what}: {len(data)} bytes are too many; at most {bytes_max} are read")
    try:
        written = data if isinstance(data, str) else data.decode()
        document = json.loads(written, object_pairs_hook=_unique_keys, parse_constant=_finite, parse_float=_finite)
        if _depth(document) > DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
        if "\\u" in written:
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"{what}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"{what}: {error}") from error
    return document


def canonical(document: Json) -> bytes:
    """Equal documents are equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# Fields of an object: TypeError names the one that is not what it must be, KeyError the one that is missing


def text(document: Mapping[str, Json], key: str, default: str | None = None) -> str:
    """The text of a field."""
    value = document[key] if default is None else document.get(key, default)
    if not isinstance(value, str):
        raise TypeError(f"{key}: {value!r} is not a text")
    return value


def texts(document: Mapping[str, Json], key: str) -> tuple[str, ...]:
    """The texts of a field that is a list; none where it is missing."""
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{key}: {value!r} is not a list of texts")
    return tuple(value)


def mapping(document: Mapping[str, Json], key: str) -> dict[str, Json]:
    """The object of a field; an empty one where it is missing."""
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise TypeError(f"{key}: {value!r} is not an object")
    return value


def values(document: Mapping[str, Json], key: str) -> dict[str, str]:
    """The texts of a field that is an object; none where it is missing."""
    value = mapping(document, key)
    if not all(isinstance(item, str) for item in value.values()):
        raise TypeError(f"{key}: holds what is not a text")
    return value


def number(document: Mapping[str, Json], key: str) -> int | None:
    """The whole number of a field, or None where it is null."""
    value = document[key]
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{key}: {value!r} is not a number")
    return value


def flag(document: Mapping[str, Json], key: str) -> bool:
    """Whether a field is true; one that is missing is not."""
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"{key}: {value!r} is neither true nor false")
    return value


# What strict means


def _unique_keys(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return document


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a number that JSON has")
    return value


def _depth(document: Json) -> int:
    if isinstance(document, dict):
        return 1 + max(map(_depth, document.values()), default=0)
    if isinstance(document, list):
        return 1 + max(map(_depth, document), default=0)
    return 0
