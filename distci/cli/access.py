"""``distci access``: who has which role in which project, and who sees it."""

from __future__ import annotations

import click

from distci.cli.command import Group, Invocation, json_option, reason_option, within_option
from distci.cli.output import print_json, print_line, print_records
from distci.cli.token import warn_untold
from distci.projects import called

ROLES = ("viewer", "runner", "editor", "owner")
VISIBILITIES = ("private", "internal", "public")


@click.group(
    cls=Group,
    examples=(
        "distci access grant ada@example.org owner",
        "distci access grant group:web editor --project team/web",
        "distci access show internal",
    ),
)
def access() -> None:
    """Say who may do what: roles and visibility of projects.

    viewer looks; runner also starts, cancels and repeats builds; editor also changes jobs; owner also says who may do what. A project is a prefix
    of job ids; what is said of one holds for all within it.
    """


@access.command(
    examples=(
        "distci access grant ada@example.org owner",
        "distci access grant '*@example.org' viewer --project team",
        "distci access grant group:web editor --project team/web --reason 'they build it'",
    )
)
@click.argument("subject", metavar="WHO")
@click.argument("role", type=click.Choice(ROLES))
@within_option
@reason_option
@json_option
@click.pass_obj
def grant(invocation: Invocation, subject: str, role: str, project: str, reason: str) -> None:
    """Give WHO a role: a person, '*@example.org', group:NAME, or everybody for all who log in."""
    from distci.access import Role

    with invocation.connect() as system:
        done = system.access.grant(subject, Role(role), project, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json({"subject": subject, "role": role, "project": project, "is_told": done.is_told})
    else:
        print_line(f"{subject} is {role} in {called(project)}")
    warn_untold(done.is_told)


@access.command(examples=("distci access revoke ada@example.org", "distci access revoke group:web --project team/web"))
@click.argument("subject", metavar="WHO")
@within_option
@reason_option
@json_option
@click.pass_obj
def revoke(invocation: Invocation, subject: str, project: str, reason: str) -> None:
    """Take away the role that WHO was given just there. Every front end goes by that within a second."""
    with invocation.connect() as system:
        done = system.access.revoke_role(subject, project, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json({"subject": subject, "role": None, "project": project, "is_told": done.is_told})
    else:
        print_line(f"{subject} has no role of its own in {called(project)}")
    warn_untold(done.is_told)


@access.command("list", examples=("distci access list", "distci access list --json | jq .subject"))
@json_option
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List all roles, then what was said of who sees projects."""
    with invocation.look_at() as system:
        roles = system.access.roles()
        visibilities = system.access.visibilities()
    if invocation.is_json:
        for role in roles:
            print_json(role)
        for project, visibility in sorted(visibilities.items()):
            print_json({"project": project, "visibility": visibility})
        return
    rows = [(called(role.project), role.subject, role.role.value) for role in roles]
    rows += [(called(project), "(seen)", told.value) for project, told in sorted(visibilities.items())]
    print_records(rows, ("PROJECT", "WHO", "WHAT"), lambda row: row, is_json=False)


@access.command(
    examples=(
        "distci access show internal",
        "distci access show private --project team/secret",
        "distci access show as-around --project team/web",
    )
)
@click.argument("visibility", type=click.Choice([*VISIBILITIES, "as-around"]))
@within_option
@reason_option
@json_option
@click.pass_obj
def show(invocation: Invocation, visibility: str, project: str, reason: str) -> None:
    """Say who sees a project without a role in it: nobody (private), all who log in (internal), everybody (public).

    To others it is not there. as-around: like what the project is within, which is private unless something else was said.
    """
    from distci.access import Visibility

    wanted = None if visibility == "as-around" else Visibility(visibility)
    with invocation.connect() as system:
        done = system.access.set_visibility(project, wanted, actor=system.settings.actor, reason=reason)
    if invocation.is_json:
        print_json({"project": project, "visibility": wanted, "is_told": done.is_told})
    else:
        print_line(f"{called(project)} is {visibility}")
    warn_untold(done.is_told)
