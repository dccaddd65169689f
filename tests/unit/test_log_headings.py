"""What stands above the log of a task where several are printed."""

from __future__ import annotations

import pytest

from distci.cli.following import Sections


def test_only_an_attempt_after_the_first_is_told_by_its_number_in_whatever_tree(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    printer = Sections(has_headings=True)

    for token in ("a.1", "b.1001", "b.1002", "c.2"):
        printer.write(token[0], token, b"")

    assert capsysbinary.readouterr().out.splitlines() == [
        b"== a ==",
        b"== b ==",
        b"== b, attempt 1002 ==",
        b"== c, attempt 2 ==",
    ]
