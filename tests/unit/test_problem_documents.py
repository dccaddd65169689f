"""Errors that go over HTTP come back as they were."""

from __future__ import annotations

import pytest

from distci import errors
from distci.documents.problems import CLASSES, document, error_of, status_of
from distci.errors import (
    DistCIError,
    Invalid,
    InvalidJob,
    Missing,
    NoSuchJob,
    StoreUnavailable,
    Unavailable,
    VersionConflict,
    WithProblems,
)


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
