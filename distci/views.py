"""The JSON form of what the library returns: the one that the command line prints and that the front end answers with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from distci.model import BuildId, Json


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
