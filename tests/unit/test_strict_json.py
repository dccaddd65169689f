"""What is no JSON, or more than JSON, is refused by name."""

from __future__ import annotations

import pytest

from distci.documents.strict_json import DOCUMENT_BYTES_MAX, read_json
from distci.errors import InvalidDocument


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b"[NaN]", "NaN is not a number"),
        (b"[Infinity]", "Infinity is not a number"),
        (b"[1e999]", "1e999 is not a number"),
        (b'{\n  "a": }', "line 2, column 8"),
        (b"\xff", "can't decode byte 0xff"),
        (b'["\\ud800"]', "surrogates"),
        (b"", "line 1, column 1"),
        (b"[" * 100_000, "recursion"),
        (b"[" * 70 + b"]" * 70, "deeper than 64"),
        (b"9" * 5000, "digits"),
        (b" " * (DOCUMENT_BYTES_MAX + 1), "too many"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_not_strict_json_is_refused_by_name(data: bytes, told: str) -> None:
    with pytest.raises(InvalidDocument, match=told) as refused:
        read_json(data, "the thing")
    assert str(refused.value).startswith("the thing: ")


@pytest.mark.parametrize("data", ['{"a": ["\\u00e4", 1.5, null]}', b'{"a": ["\xc3\xa4", 1.5, null]}'])
def test_json_is_read_from_text_and_bytes(data: str | bytes) -> None:
    assert read_json(data, "it") == {"a": ["ä", 1.5, None]}
