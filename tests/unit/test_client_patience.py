"""When a client asks again, and for how long; and what JSON becomes of records, and records of JSON."""

from __future__ import annotations

import pytest

from distci import errors
from distci.builds import BuildView
from distci.client.patience import PAUSE_MAX_S, PAUSE_MIN_S, Patience
from distci.documents.problems import CLASSES, document, error_of, status_of
from distci.errors import (
    DistCIError,
    Invalid,
    InvalidDocument,
    InvalidJob,
    Missing,
    NoSuchJob,
    StoreUnavailable,
    Unavailable,
    VersionConflict,
    WithProblems,
)
from distci.logs import Line
from distci.views import from_json, to_json


class Clock:
    """Stands still but for who sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def pauses(patience_s: float, share: float, at_least_s: float = 0.0) -> list[float]:
    """How long somebody waits between tries until patience ends, with that share of the jitter."""
    clock = Clock()
    patience = Patience(patience_s, clock, clock.sleep, lambda least, most: least + share * (most - least))
    while patience.again(at_least_s):
        pass
    return clock.slept_s


class TestPatience:
    def test_pauses_grow_to_a_bound_and_end_in_time(self) -> None:
        slept = pauses(60, share=1)

        assert slept[:4] == [PAUSE_MIN_S, 2 * PAUSE_MIN_S, 4 * PAUSE_MIN_S, 8 * PAUSE_MIN_S]
        assert max(slept) == PAUSE_MAX_S
        assert 60 - PAUSE_MAX_S < sum(slept) <= 60

    def test_anything_down_to_nothing_is_added_by_chance(self) -> None:
        clock = Clock()
        asked: list[tuple[float, float]] = []
        patience = Patience(60, clock, clock.sleep, lambda least, most: asked.append((least, most)) or 0.0)  # type: ignore[func-returns-value]

        assert all(patience.again() for _ in range(3))
        assert asked == [(0.0, PAUSE_MIN_S), (0.0, 2 * PAUSE_MIN_S), (0.0, 4 * PAUSE_MIN_S)]

    def test_who_wants_to_be_left_alone_is_and_chance_comes_on_top(self) -> None:
        assert pauses(10, share=1, at_least_s=3) == [3.2, 3.4]

    def test_more_than_patience_is_not_begun(self) -> None:
        assert pauses(10, share=0, at_least_s=11) == []


class TestProblems:
    @pytest.mark.parametrize("name", CLASSES)
    def test_each_error_comes_back_as_it_was(self, name: str) -> None:
        kind = CLASSES[name]
        told = kind("a job", ["a: b"]) if issubclass(kind, WithProblems) else kind("there is none")
        listed = [*told.problems] if isinstance(told, WithProblems) else []
        detail = told.subject if isinstance(told, WithProblems) else str(told)

        back = error_of(status_of(told), document(status_of(told), name, detail, listed), "")

        assert (type(back), str(back)) == (type(told), str(told))
        assert getattr(back, "problems", ()) == getattr(told, "problems", ())

    def test_every_error_of_the_library_is_in_the_table(self) -> None:
        def below(kind: type[DistCIError]) -> set[str]:
            return {kind.__name__}.union(*(below(each) for each in kind.__subclasses__()))

        ours = {name for name in below(DistCIError) if name in vars(errors)}
        assert ours - {"WithProblems"} == {*CLASSES}

    @pytest.mark.parametrize(
        ("status", "error", "kind"),
        [
            (404, "NoSuchGate", Missing),
            (404, None, Missing),
            (412, None, VersionConflict),
            (413, None, Invalid),
            (500, "Unexpected", DistCIError),
            (502, None, Unavailable),
            (503, "StoreUnavailable", StoreUnavailable),
            (404, "WithProblems", Missing),
            (418, "NoSuchJob", NoSuchJob),
        ],
    )
    def test_one_that_is_not_known_is_told_by_its_status(
        self, status: int, error: str | None, kind: type[DistCIError]
    ) -> None:
        assert type(error_of(status, {"error": error} if error else "<html>", "what it was")) is kind

    def test_all_that_is_wrong_is_told_whatever_the_class(self) -> None:
        told = error_of(400, document(400, "Invalid", "the query:", ["limit: is 0"]), "")

        assert str(told) == "the query:\n  - limit: is 0"
        assert isinstance(error_of(422, document(422, "InvalidJob", "a", []), ""), InvalidJob)


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
