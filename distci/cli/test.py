"""``distci test``: what the tests of builds came to, which of them are flaky, and which are in quarantine."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from distci.cli.build import build_argument
from distci.cli.command import Group, Invocation, json_option, pasteable, reason_option
from distci.cli.output import duration, moment, print_json, print_line, print_records
from distci.model import BuildId
from distci.reports.results import CaseOutcome, in_words

if TYPE_CHECKING:
    from distci.build_reports import ToldCase

LISTED = 100


@click.group(
    cls=Group,
    examples=(
        "distci test list team/hello#12 --failed",
        "distci test flaky team/hello",
        "distci test quarantine team/hello tests.test_net::test_slow --owner ada@example.org",
    ),
)
def test() -> None:
    """See the tests of builds; find flaky ones; put them in quarantine.

    A task's `reports` say which files and lines tell of its tests. Other systems may tell more, once the task is over.
    """


@test.command(
    "list",
    examples=(
        "distci test list team/hello#12 --failed",
        "distci test list team/hello#12 --task 'test[3.12]' --limit 1000",
        "distci test list team/hello#12 --json | jq .case.name",
    ),
)
@build_argument
@click.option("--failed", is_flag=True, help="Only those that failed; the same as --outcome failed.")
@click.option("--outcome", type=click.Choice([*CaseOutcome]), help="Only those that ended so.")
@click.option("--task", default="", help="Only those of this task.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="How many at most.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="POSITION", help="Only those behind this one.")
@json_option
@click.pass_obj
def list_(
    invocation: Invocation, wanted: BuildId, failed: bool, outcome: str | None, task: str, limit: int, after: int
) -> None:
    """List the tests of a build, as its tasks and other systems tell of them."""
    outcome = CaseOutcome.FAILED if failed else outcome or ""
    with invocation.look_at() as system:
        cases = system.reports.cases(wanted, outcome=outcome, task=task, after=after)
        found = [*islice(cases, limit + 1)]
    shown = found[:limit]
    print_records(
        shown,
        ("TEST", "OUTCOME", "TIME", "TASK", "MESSAGE"),
        lambda told: (
            told.case.name,
            _outcome(told),
            duration(told.case.duration_ms),
            f"{told.task} ({told.source})" if told.source else told.task,
            told.case.message,
        ),
        is_json=invocation.is_json,
    )
    if len(found) > limit and not invocation.is_json:
        more = f"distci test list {quote(str(wanted))} --after {shown[-1].position}"
        click.echo(pasteable(f"distci: there are more: {more}"), err=True)


@test.command(examples=("distci test flaky team/hello", "distci test flaky team/hello --builds 200 --json"))
@click.argument("job")
@click.option(
    "--builds", type=click.IntRange(1, 200), default=50, show_default=True, help="How many of the latest are looked at."
)
@json_option
@click.pass_obj
def flaky(invocation: Invocation, job: str, builds: int) -> None:
    """List the tests of JOB that have both passed and failed with the same commit, parameters and version of the job."""
    with invocation.look_at() as system:
        found = system.reports.flaky(job, builds)
    print_records(
        found,
        ("TEST", "TASK", "FAILED", "PASSED", "LAST FAILED", "COMMIT"),
        lambda each: (each.test, each.task, each.failed, each.passed, each.last_failed, each.commit[:12]),
        is_json=invocation.is_json,
    )


@test.command(
    examples=(
        "distci test report team/hello#12 test lab.xml --source lab",
        "distci test report team/hello#12 test lab.xml --source lab --url https://ci.example.org --json",
    )
)
@build_argument
@click.argument("task")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--source", required=True, metavar="NAME", help="What the system is called that tells it.")
@json_option
@click.pass_obj
def report(invocation: Invocation, wanted: BuildId, task: str, file: Path, source: str) -> None:
    """Add what another system tells of a TASK that is over: JUnit XML. How the task ended stays. Sent again, it changes nothing."""
    with invocation.connect() as system:
        told = system.reports.put(wanted, task, source, file.read_bytes())
    print_json(told) if invocation.is_json else print_line(f"{wanted} {task} {source}: {in_words(told.summary)}")


@test.command(
    examples=(
        "distci test quarantine team/hello tests.test_net::test_slow --owner ada@example.org",
        "distci test quarantine team/hello 'tests.test_net::*' --owner ada@example.org --days 3 --reason 'the proxy moves'",
    )
)
@click.argument("job")
@click.argument("name", metavar="TEST")
@click.option("--owner", required=True, help="Who sees to it.")
@click.option("--days", type=click.IntRange(1, 90), default=14, show_default=True, help="For how long.")
@reason_option
@json_option
@click.pass_obj
def quarantine(invocation: Invocation, job: str, name: str, owner: str, days: int, reason: str) -> None:
    """Let the failures of a test of JOB count for nothing for a while; TEST may be the beginning of names, and *.

    They are shown as such. A task with `exit_statuses` in its reports passes if no other test failed.
    """
    with invocation.connect() as system:
        put = system.quarantine.put(job, name, owner=owner, days=days, reason=reason, actor=system.settings.actor)
    print_json(put) if invocation.is_json else print_line(f"{name} is in quarantine until {moment(put.until_ms)}")


@test.command(examples=("distci test quarantined team/hello", "distci test quarantined team/hello --json | jq .owner"))
@click.argument("job")
@json_option
@click.pass_obj
def quarantined(invocation: Invocation, job: str) -> None:
    """List the tests of JOB that are in quarantine, or were until their time was up."""
    with invocation.look_at() as system:
        found = system.quarantine.list(job)
    print_records(
        found,
        ("TEST", "UNTIL", "OWNER", "REASON"),
        lambda each: (each.test, "over" if each.is_over else moment(each.until_ms), each.owner, each.reason),
        is_json=invocation.is_json,
    )


@test.command(examples=("distci test release team/hello tests.test_net::test_slow --reason 'mended'",))
@click.argument("job")
@click.argument("name", metavar="TEST")
@reason_option
@json_option
@click.pass_obj
def release(invocation: Invocation, job: str, name: str, reason: str) -> None:
    """Let a TEST of JOB count again."""
    with invocation.connect() as system:
        system.quarantine.remove(job, name, reason=reason, actor=system.settings.actor)
    if invocation.is_json:
        print_json({"job": job, "test": name, "is_released": True})
    else:
        print_line(f"{name} counts again")


def _outcome(told: ToldCase) -> str:
    marks = [
        word for word, is_so in (("quarantined", told.case.is_quarantined), ("flaky", told.case.is_flaky)) if is_so
    ]
    return f"{told.case.outcome} ({', '.join(marks)})" if marks else told.case.outcome
