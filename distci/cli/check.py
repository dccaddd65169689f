"""``distci check``: whether this machine and its back ends are fit for DistCI; everything that is wrong at once."""

from __future__ import annotations

import os
import resource
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import click

from distci.cli.command import Command, Invocation, json_option, pasteable
from distci.cli.output import print_json, print_line, print_table
from distci.errors import DistCIError, Invalid, InvalidSettings, Unavailable

if TYPE_CHECKING:
    from distci.coordination.port import Coordination
    from distci.protocol import Tickets
    from distci.settings import Settings
    from distci.store.port import Store

CLOCK_DIFFERENCE_MAX_S = 2.0
SESSION_DIFFERENCE_MAX_S = 0.01
"""ZooKeeper counts in whole milliseconds."""
OPEN_FILES_MIN = 1024
FREE_BYTES_MIN = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: str
    """``ok``, ``problem``, or ``note`` for what is no problem by itself."""
    detail: str
    remedy: str = ""
    exit_code: int = 0


@click.command(cls=Command, examples=("distci check", "distci check --coordination zookeeper://zk1:2181/distci --json"))
@json_option
@click.pass_obj
def check(invocation: Invocation) -> int:
    """See whether this machine and its back ends are fit. Each problem comes with what to do about it.

    Exits with 0 when there is none, 4 when a back end cannot be reached, 2 otherwise.
    """
    findings = list(look(invocation))
    if invocation.is_json:
        for finding in findings:
            print_json(finding)
    else:
        print_table(("WHAT", "STATE", "DETAIL"), [(item.subject, item.state, item.detail) for item in findings])
        for remedy in dict.fromkeys(f"{item.subject}: {item.remedy}" for item in findings if item.remedy):
            print_line(pasteable(remedy))
    codes = {finding.exit_code for finding in findings}
    return Unavailable.exit_code if Unavailable.exit_code in codes else max(codes)


def look(invocation: Invocation) -> Iterator[Finding]:
    """Look at everything, whatever is wrong with the rest."""
    yield from _open_files()
    yield from _kinds()
    try:
        settings = invocation.settings()
    except InvalidSettings as error:
        for problem in error.problems:
            yield _problem("settings", problem, "correct it; until then the back ends cannot be looked at")
        return
    yield Finding("settings", "ok", _sources(settings))
    yield from _commands(settings)
    yield from _isolation(settings)
    yield from _data_folder(settings)
    yield from _secrets(settings)
    yield from _coordination(settings)
    yield from _store(settings)


def _problem(subject: str, detail: str, remedy: str, exit_code: int = Invalid.exit_code) -> Finding:
    return Finding(subject, "problem", detail, remedy, exit_code)


def _sources(settings: Settings) -> str:
    return ", ".join(settings.origins.values()) or "none given; embedded back ends in the data folder"


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN:
        yield _problem("open files", f"at most {soft}", f"raise the limit to {OPEN_FILES_MIN}: ulimit -n, LimitNOFILE=")
    else:
        yield Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft} of {hard}")


def _kinds() -> Iterator[Finding]:
    from distci.process import installed_kinds, load_kind

    for kind in installed_kinds():
        try:
            load_kind(kind)
        except Exception as error:
            yield _problem(f"kind {kind}", f"cannot be loaded: {error}", "install its package anew, or remove it")
        else:
            yield Finding(f"kind {kind}", "ok", "installed")


def _commands(settings: Settings) -> Iterator[Finding]:
    for name, needed_by in (("sh", "shell tasks"), ("git", "git-checkout tasks")):
        found = shutil.which(name, path=settings.search_path)
        if found:
            yield Finding(name, "ok", found)
        else:
            remedy = f"install it, or name its folder in search_path; {needed_by} need it"
            yield _problem(name, f"not in {settings.search_path}", remedy)


def _isolation(settings: Settings) -> Iterator[Finding]:
    """What tasks can run in here. What is not there is a problem only where the settings ask for it, or name images for it."""
    from distci.app import open_isolation
    from distci.settings import ISOLATIONS

    opened = open_isolation(ISOLATIONS, settings)
    allowed = settings.isolation_types or ISOLATIONS
    for name in ISOLATIONS:
        subject = f"isolation {name}"
        if name in opened.missing:
            problem, _, remedy = opened.missing[name].partition(": ")
            wanted = name in settings.expected_isolation_types
            yield _problem(subject, problem, remedy) if wanted else Finding(subject, "note", problem, remedy)
        elif name not in allowed:
            yield Finding(subject, "ok", "not allowed by the setting isolation")
        elif name in opened.notes:
            note, _, remedy = opened.notes[name].partition(": ")
            yield Finding(subject, "note", f"allowed; {note}", remedy)
        elif name == "host" and not settings.isolation_types:
            remedy = 'where that is too much, set isolation = "sandbox"'
            yield Finding(subject, "note", "tasks that want it may do whatever the worker's user may", remedy)
        else:
            yield Finding(subject, "ok", "allowed")


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"distci")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield _problem("data folder", f"{folder}: {error.strerror}", "make it writable, or name another with --data")
        return
    if free < FREE_BYTES_MIN:
        yield _problem("data folder", f"{folder}: {free >> 20} MiB left", "make room, or name another with --data")
    else:
        yield Finding("data folder", "ok", f"{folder}, {free >> 30} GiB free")


def _secrets(settings: Settings) -> Iterator[Finding]:
    from distci import memory
    from distci.providers import load
    from distci.sealing import MasterKeys
    from distci.settings import secret_keys_of

    folder = Path(settings.secret_folder)
    if problem := memory.problem(folder):
        yield _problem(
            "secret files", problem, "until then no task gets a secret as a file, and no checkout credentials"
        )
    else:
        yield Finding("secret files", "ok", f"below {folder}, in memory")
    try:
        load(settings.secret_providers, os.environ)
        first = MasterKeys(secret_keys_of(settings)).first
    except Invalid as error:
        yield _problem("secrets", str(error), "correct it; until then none can be set or handed to tasks")
    else:
        yield Finding("secrets", "ok", f"sealed with master key {first}" if first else "no master key: none can be set")
        yield from _master_keys(settings)


def _master_keys(settings: Settings) -> Iterator[Finding]:
    file = Path(settings.secret_keys_file).expanduser()
    if settings.secret_keys_file and file.exists() and file.stat().st_mode & 0o077:
        yield _problem(
            "secrets", f"{file} can be read by others than its owner", f"they can open every secret: chmod 600 {file}"
        )


def _coordination(settings: Settings) -> Iterator[Finding]:
    from distci.app import open_coordination

    yield from _back_end("coordination", lambda: _tree_findings(open_coordination(settings), settings))
    if settings.coordination_address.scheme == "zookeeper":
        yield _protection(settings)


def _tree_findings(coordination: Coordination, settings: Settings) -> Iterator[Finding]:
    from distci.protocol import Tickets
    from distci.protocol.members import workers

    try:
        tickets = Tickets(coordination)
        yield _session(coordination.session.timeout_s, settings.session_timeout_s)
        for problem in coordination.probe() if hasattr(coordination, "probe") else ():
            yield _problem(
                "coordination", problem, "give it to that user alone, with setAcl -R of ZooKeeper's zkCli.sh"
            )
        yield _clock(coordination)
        yield from _set_aside(tickets)
        live = list(workers(tickets))
    finally:
        coordination.close()
    kinds = sorted({kind for view in live for kind in view.offer.kinds})
    if live:
        yield Finding("workers", "ok", f"{len(live)} live: {', '.join(kinds)}")
    else:
        yield Finding("workers", "note", "none is live", "start some: distci up, or distci worker run KIND")


def _set_aside(tickets: Tickets) -> Iterator[Finding]:
    """What somebody should look at: tickets that were set aside, and nodes that nobody can read."""
    from distci.live import unreadable

    for view in tickets.list():
        if view.place == "dead":
            remedy = f"see distci ticket show {view.token}; distci ticket requeue {view.token} puts it back"
            yield Finding(f"ticket {view.token}", "note", f"set aside: {view.reason}", remedy)
        elif view.ticket is None:
            yield Finding(f"ticket {view.token}", "note", view.reason, "whoever comes across it sets it aside")
    for path, problem in unreadable(tickets):
        yield Finding(
            "build", "note", problem, f"no build uses the node {path}; remove it if you know where it came from"
        )


def _protection(settings: Settings) -> Finding:
    """What keeps others out of ZooKeeper, told without values."""
    certificate = " with a certificate of ours" if settings.zookeeper_certificate else ""
    locks = [f"TLS{certificate}"] if settings.zookeeper_ca else []
    locks += ["an access list for one user"] if settings.zookeeper_user else []
    remedy = (
        ""
        if len(locks) == 2
        else "set zookeeper_ca, zookeeper_certificate, zookeeper_key; zookeeper_user, zookeeper_password"
    )
    if not locks:
        return Finding("protection", "note", "none: whoever reaches ZooKeeper may read and write the tree", remedy)
    return Finding("protection", "note" if remedy else "ok", " and ".join(locks), remedy)


def _session(granted_s: float, wanted_s: float) -> Finding:
    """ZooKeeper keeps the timeout of a session within bounds of its own, and tells nobody."""
    detail = f"session timeout {granted_s:g} s"
    if abs(granted_s - wanted_s) < SESSION_DIFFERENCE_MAX_S:
        return Finding("coordination", "ok", detail)
    remedy = (
        "claims of lost workers are free after the granted time: set session_timeout to it, or change minSessionTimeout or"
        " maxSessionTimeout of the servers (2 and 20 times tickTime unless set)"
    )
    return Finding("coordination", "note", f"{detail}, not the {wanted_s:g} s of session_timeout", remedy)


def _clock(coordination: Coordination) -> Finding:
    """Our clock beside the tree's, by the time that it gives a node of ours."""
    from distci.coordination.port import Create, Delete

    path = f"/check-{uuid.uuid4().hex}"
    before = time.time()
    coordination.commit(Create(path, ephemeral=True))
    middle = (before + time.time()) / 2
    stat = coordination.exists(path)
    coordination.commit(Delete(path))
    if stat is None:
        return _problem("clock", "the tree kept no node of ours", "see whether we may write there")
    difference_s = middle - stat.created_ms / 1000
    detail = f"{abs(difference_s):.1f} s {'ahead of' if difference_s > 0 else 'behind'} the coordination tree's"
    if abs(difference_s) > CLOCK_DIFFERENCE_MAX_S:
        return _problem("clock", detail, "let NTP or chrony set it: times on record and the order of queues follow it")
    return Finding("clock", "ok", detail)


def _store(settings: Settings) -> Iterator[Finding]:
    from distci.app import open_store

    yield from _back_end("store", lambda: _store_findings(open_store(settings)))


def _store_findings(store: Store) -> Iterator[Finding]:
    from distci.store import keys

    store.list(keys.JOBS, limit=1)
    problems = store.probe() if hasattr(store, "probe") else ()
    for problem in problems:
        yield _problem("store", problem, "use a server and settings that do")
    if not problems:
        yield Finding("store", "ok", "reads and lists")


def _back_end(subject: str, look_at: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings, and one more when the back end gives an error instead of the rest."""
    try:
        yield from look_at()
    except Unavailable as error:
        remedy = "see whether it runs, and whether the URL is right"
        yield _problem(subject, str(error), remedy, Unavailable.exit_code)
    except (DistCIError, OSError) as error:
        yield _problem(subject, str(error), "see to the cause, or name another in the settings")
