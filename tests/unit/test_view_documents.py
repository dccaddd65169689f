"""What becomes of records as JSON, and of JSON as records."""

from __future__ import annotations

import pytest

from distci.builds import BuildView
from distci.errors import InvalidDocument
from distci.logs import Line
from distci.views import from_json, to_json


class TestRecords:
    def test_what_a_later_version_added_is_left_out_and_what_may_be_missing_may(self) -> None:
        document = {"line": 1, "offset": 0, "size_bytes": 2, "text": "ab", "colour": "red"}

        assert from_json(Line, document) == Line(1, 0, 2, "ab")

    @pytest.mark.parametrize(
        "change", [{"id": "a"}, {"config": "1"}, {"config": True}, {"tasks": {}}, {"result": "odd"}, {"trigger": None}]
    )
    def test_another_shape_is_told(self, change: dict[str, object]) -> None:
        build = {
            "id": "a#1",
            "state": "passed",
            "result": "passed",
            "reason": "",
            "config": 1,
            "trigger": {"kind": "manual"},
            "created_ms": 1,
            "finished_ms": 2,
            "downstream": [],
            "unreadable_downstream": {},
            "tasks": [],
            "is_archived": True,
        }
        read = from_json(BuildView, build)
        assert from_json(BuildView, to_json(read)) == read

        with pytest.raises(InvalidDocument, match="not a BuildView"):
            from_json(BuildView, build | change)
