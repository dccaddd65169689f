"""Printing: tables for people, plain columns for pipes, JSON for programs.

rich is imported only when there is a terminal to print on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

import click

from distci.views import to_bytes

Record = TypeVar("Record")

STYLES = {
    "passed": "green",
    "clean": "green",
    "reused": "green",
    "failed": "red",
    "timed-out": "red",
    "lost": "red",
    "dead": "red",
    "problem": "red",
    "violated": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "note": "yellow",
    "running": "cyan",
    "planning": "cyan",
}
"""Colours of the words that a state may be."""


def print_json(value: object) -> None:
    """One JSON value, on a line of its own."""
    click.echo(to_bytes(value))


def print_records(
    records: Sequence[Record],
    titles: Sequence[str],
    row: Callable[[Record], Sequence[object]],
    *,
    is_json: bool,
) -> None:
    """Records for programs, as JSON one a line, or for people, as a table with a row for each."""
    if not is_json:
        print_table(titles, map(row, records))
        return
    for record in records:
        print_json(record)


def cut(records: Iterator[Record], limit: int | None) -> tuple[list[Record], bool]:
    """The first ``limit`` of the records, or all of them, and whether there are more."""
    shown = list(islice(records, limit))
    return shown, next(records, None) is not None


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows below titles; nothing at all where there are no rows."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    if not texts:
        return
    if sys.stdout is not None and sys.stdout.isatty():
        _print_rich(titles, texts)
        return
    _print_columns([titles, *texts])


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values, one pair a line; those without a value are left out."""
    _print_columns([(name, printable(str(value))) for name, value in facts.items() if value not in ("", None, 0)])


def print_bytes(data: bytes) -> None:
    """Bytes as they are."""
    click.echo(data, nl=False)


def print_line(text: str) -> None:
    """A line whose parts may come from anybody."""
    click.echo(printable(text))


def printable(text: str) -> str:
    """The text without what would move the cursor, colour the terminal or break the line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def moment(ms: int) -> str:
    """A time in milliseconds since 1970 as the clock on the wall shows it; empty for 0."""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if ms else ""


def age(since_ms: int) -> str:
    """How long ago that was, for people; empty for 0."""
    return duration(time.time() * 1000 - since_ms) if since_ms else ""


def duration(ms: float) -> str:
    """So many milliseconds, for people."""
    seconds = max(0.0, ms) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(count: float) -> str:
    """So many bytes, for people."""
    if count < 1024:
        return f"{count:.0f} bytes"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(int(count).bit_length() // 10, len(units))
    return f"{count / 1024**power:.1f} {units[power - 1]}"


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _print_rich(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    Console().print(table)
