"""What the reports of a build's tasks come to, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distci.build_reports import summary_of
from distci.cli.output import print_line, print_table
from distci.reports.results import in_words

if TYPE_CHECKING:
    from distci.builds import BuildView

SHOWN = 10
"""How many failed tests of a task are named, and how many annotations."""


def print_reports(view: BuildView) -> None:
    """A line for each task that has reports, then the first of its failed tests, of its annotations, and of what could not be read."""
    for task in view.tasks:
        summary = summary_of(task.attempts[-1]) if task.state.is_final and task.attempts else None
        if summary is None:
            continue
        click.echo()
        print_line(f"{task.name}: {in_words(summary) or 'no tests'}")
        failing = [
            (f"  {each.name}", "quarantined" if each.is_quarantined else "", each.message) for each in summary.failing
        ]
        print_table(("  FAILED", "", "MESSAGE"), failing[:SHOWN])
        if len(failing) > SHOWN:
            print_line(f"  and more; `distci test list {view.id} --failed` has all of them")
        for note in summary.first_annotations[:SHOWN]:
            print_line(f"  {note.file}:{note.line}: {note.level}: {note.text}")
        for problem in summary.problems:
            print_line(f"  not read: {problem}")
