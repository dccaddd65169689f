"""Files of images that are read as a whole, which an image may have made without end."""

from __future__ import annotations

from itertools import repeat

import pytest

from distci.errors import Invalid
from distci.isolation.container import FILE_BYTES_MAX, whole


def test_a_file_is_what_its_pieces_are_together() -> None:
    assert whole([b"ada:x:", b"", b"1000"], "/etc/passwd").read() == b"ada:x:1000"


def test_a_file_without_end_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match=f"/etc/passwd has more than {FILE_BYTES_MAX} bytes"):
        whole(repeat(bytes(4096)), "/etc/passwd")
