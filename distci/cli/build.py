"""``distci build``: builds from their trigger to their record."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import TYPE_CHECKING

import click

from distci.cli import following
from distci.cli.command import Group, Invocation, json_option, parameter_option, pasteable, reason_option
from distci.cli.missing import looking_for
from distci.cli.output import age, cut, duration, moment, print_facts, print_json, print_line, print_records
from distci.cli.reports import print_reports
from distci.cli.shell import shell
from distci.errors import Denied, Unavailable
from distci.model import BuildId, Trigger

if TYPE_CHECKING:
    from distci.builds import BuildView
    from distci.cli.command import System

LISTED = 20

wait_option = click.option("--wait", "-w", is_flag=True, help="Wait for its end, and exit with its result.")
follow_option = click.option("--follow", "-f", is_flag=True, help="Print its logs as they come, then as --wait.")


build_argument = click.argument("wanted", metavar="BUILD", callback=lambda ctx, param, value: BuildId.parse(value))


@click.group(
    cls=Group,
    examples=("distci build trigger team/hello --follow", "distci build show team/hello#12"),
)
def build() -> None:
    """Start, follow, cancel and repeat builds.

    A build is written JOB#NUMBER. Those who wait for one exit with its result: 0 passed, 1 failed, 3 cancelled.
    """


@build.command(
    examples=(
        "distci build trigger team/hello",
        "distci build trigger team/hello --parameter LEVEL=full --follow",
        "distci build trigger team/hello --commit 4f2a9c1e... --cause delivery-17 --wait",
    )
)
@click.argument("job")
@parameter_option
@click.option("--commit", default="", metavar="SHA", help="The commit to check out.")
@click.option("--ref", default="", help="The ref that the commit was seen on.")
@click.option(
    "--cause", default="", metavar="TEXT", help="What made you ask; asked again within a day: the same build."
)
@wait_option
@follow_option
@json_option
@click.pass_obj
def trigger(
    invocation: Invocation,
    job: str,
    parameters: Mapping[str, str],
    commit: str,
    ref: str,
    cause: str,
    wait: bool,
    follow: bool,
) -> int:
    """Start a build of JOB and print which one it is."""
    with invocation.connect() as system:
        started = system.builds.trigger(job, parameters, commit=commit, ref=ref, cause=cause)
        return _go_on(system, invocation, started, wait=wait, follow=follow)


@build.command(
    "list", examples=("distci build list team/hello", "distci build list team/hello --before 81 --limit 100 --json")
)
@click.argument("job")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="How many at most.")
@click.option("--before", type=click.IntRange(1), metavar="NUMBER", help="Only those of a lower number.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, job: str, limit: int, before: int | None) -> None:
    """List a job's builds, the newest first."""
    with invocation.look_at() as system:
        views, is_cut = cut(system.builds.list(job, before=before), limit)
        if not views:
            # A job that there never was is an error, one that was not built yet is not.
            next(system.jobs.history(job))
            if not invocation.is_json and before is None:
                click.echo(
                    pasteable(f"distci: {job} has no builds yet; `distci build trigger {job}` starts one"), err=True
                )
    print_records(
        views,
        ("BUILD", "STATE", "STARTED", "TIME", "CAUSE", "REASON"),
        lambda view: (view.id, view.state, moment(view.created_ms), _took(view), _cause(view), view.reason),
        is_json=invocation.is_json,
    )
    if is_cut and not invocation.is_json:
        click.echo(pasteable(f"distci: older: distci build list {quote(job)} --before {views[-1].id.number}"), err=True)


@build.command(
    examples=(
        "distci build show team/hello#12",
        "distci build show team/hello#12 --usage",
        "distci build show team/hello#12 --json | jq .state",
    )
)
@build_argument
@click.option(
    "--usage", "wants_usage", is_flag=True, help="What each attempt at each task used, in place of how it ended."
)
@json_option
@click.pass_obj
def show(invocation: Invocation, wanted: BuildId, wants_usage: bool) -> None:
    """Show a build and its tasks as they stand."""
    with invocation.look_at() as system:
        with looking_for(system, str(wanted)):
            view = system.builds.get(wanted)
        why = None if invocation.is_json or view.result else system.why.build(wanted)[0]
    if invocation.is_json:
        print_json(view)
        return
    print_facts(
        {
            "build": view.id,
            "state": view.state,
            "reason": view.reason,
            "why": why.because if why else "",
            "what helps": pasteable(why.remedy) if why else "",
            "cause": _cause(view),
            "parameters": ", ".join(f"{name}={value}" for name, value in view.trigger.parameters.items()),
            "commit": view.trigger.commit,
            "ref": view.trigger.ref,
            **_delivery(view.trigger),
            "job version": view.config,
            "started": moment(view.created_ms),
            "ended": moment(view.finished_ms),
            "time": _took(view) or age(view.created_ms),
            "started builds": ", ".join(view.downstream),
            "not started": ", ".join([*view.unreadable_downstream, *view.refused_downstream]),
        }
    )
    click.echo()
    following.print_usage(view) if wants_usage else following.print_tasks(view)
    print_reports(view)
    following.print_held(view)
    if why:
        click.echo(pasteable(f"distci: `distci why {wanted}` says of each task what it waits for"), err=True)


@build.command(
    examples=(
        "distci build log team/hello#12",
        "distci build log team/hello#12 test > test.log",
        "distci build log team/hello#12 --follow",
    )
)
@build_argument
@click.argument("task", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the build has ended.")
@json_option
@click.pass_obj
def log(invocation: Invocation, wanted: BuildId, task: str | None, follow: bool) -> None:
    """Print what the tasks of a build printed; of one TASK, byte for byte."""
    with invocation.look_at() as system:
        view = system.builds.get(wanted)
        if task is not None and view.tasks:
            view.task(task)
        chosen = [task] if task is not None else []
        if follow:
            following.print_logs(system, wanted, chosen, is_json=invocation.is_json)
            return
        if task is not None and view.tasks and not view.task(task).token:
            click.echo(f"distci: {task} of {wanted} is {view.task(task).state}; it has printed nothing", err=True)
        printer = following.log_printer(view, chosen, invocation.is_json)
        for name in chosen or [item.name for item in view.tasks]:
            for data in system.builds.log(wanted, name):
                printer.write(name, view.task(name).token, data)
        printer.end()


@build.command(examples=("distci build cancel team/hello#12 --reason 'wrong branch'",))
@build_argument
@reason_option
@json_option
@click.pass_obj
def cancel(invocation: Invocation, wanted: BuildId, reason: str) -> None:
    """Ask a build to end. What waits ends at once, what runs is stopped."""
    with invocation.connect() as system:
        system.builds.cancel(wanted, reason)
        view = system.builds.get(wanted)
    print_json(view) if invocation.is_json else print_line(f"{wanted} {view.state}")


@build.command(examples=("distci build approve team/hello#12 deploy --reason 'tried on staging'",))
@build_argument
@click.argument("task")
@reason_option
@json_option
@click.pass_obj
def approve(invocation: Invocation, wanted: BuildId, task: str, reason: str) -> None:
    """Let a task pass that waits for an approval, so that the build goes on."""
    _decide(invocation, wanted, task, True, reason)


@build.command(examples=("distci build refuse team/hello#12 deploy --reason 'not on a Friday'",))
@build_argument
@click.argument("task")
@reason_option
@json_option
@click.pass_obj
def refuse(invocation: Invocation, wanted: BuildId, task: str, reason: str) -> None:
    """Let a task fail that waits for an approval."""
    _decide(invocation, wanted, task, False, reason)


@build.command(examples=("distci build retry team/hello#12 --failed --wait",))
@build_argument
@click.option("--failed", is_flag=True, help="Take over the tasks that passed; run the others only.")
@wait_option
@follow_option
@json_option
@click.pass_obj
def retry(invocation: Invocation, wanted: BuildId, failed: bool, wait: bool, follow: bool) -> int:
    """Run a build that is over once more, as a new build of the same version, parameters and commits."""
    with invocation.connect() as system:
        started = system.builds.retry(wanted, only_failed=failed)
        return _go_on(system, invocation, started, wait=wait, follow=follow)


@build.command("wait", examples=("distci build wait team/hello#12 --timeout 10m",))
@build_argument
@click.option("--timeout", metavar="DURATION", help="Such as 90s or 10m; exits with 124 when it has passed.")
@json_option
@click.pass_obj
def wait_(invocation: Invocation, wanted: BuildId, timeout: str | None) -> int:
    """Wait for a build's end, and exit with its result."""
    from distci.documents.jobs import seconds

    timeout_s = None if timeout is None else seconds(timeout)
    with invocation.look_at() as system:
        return following.wait(system, wanted, timeout_s=timeout_s, is_json=invocation.is_json)


build.add_command(shell)


def _decide(invocation: Invocation, wanted: BuildId, task: str, is_approved: bool, reason: str) -> None:
    with invocation.connect() as system:
        view = system.builds.decide(wanted, task, is_approved, reason)
    print_json(view) if invocation.is_json else print_line(f"{wanted} {task} {view.state}: {view.reason}")


def _go_on(system: System, invocation: Invocation, started: BuildId, *, wait: bool, follow: bool) -> int:
    """What comes after a build was started: its name alone, or its end."""
    _warn_if_nobody_serves(system)
    if wait or follow:
        if not invocation.is_json:
            click.echo(f"distci: {started} has been started", err=True)
        return following.wait(system, started, follow=follow, is_json=invocation.is_json)
    print_json({"id": started}) if invocation.is_json else print_line(str(started))
    return 0


def _warn_if_nobody_serves(system: System) -> None:
    try:
        is_served = system.status.has_workers()
    except (Denied, Unavailable):
        # Who may start builds of a project need not be allowed to look at the whole system; and what was started is told whatever is away by now.
        return
    if not is_served:
        click.echo(pasteable("distci: no worker is live; `distci up` or `distci worker run KIND` starts one"), err=True)


def _delivery(trigger: Trigger) -> dict[str, object]:
    """What a forge told, for those whom it has told anything."""
    facts: dict[str, object] = {
        "trust": "written by somebody without rights; no secrets" if trigger.is_untrusted else ""
    }
    if trigger.delivery is not None:
        facts |= {
            "repository": trigger.delivery.repository,
            "event": trigger.delivery.event,
            "branch": trigger.delivery.branch,
            "pull request": trigger.delivery.pull_request,
            "delivery": trigger.delivery.id,
        }
    return facts


def _took(view: BuildView) -> str:
    return duration(view.finished_ms - view.created_ms) if view.finished_ms else ""


def _cause(view: BuildView) -> str:
    trigger = view.trigger
    if trigger.retry_of is not None:
        what = f"retry of {trigger.retry_of}"
    elif trigger.upstream is not None:
        return f"after {trigger.upstream}"
    else:
        what = trigger.kind
    return f"{what} by {trigger.actor}" if trigger.actor else what
