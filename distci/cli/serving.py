"""Worker processes as the command line starts them: which kinds, how many slots, which secrets, until when."""

from __future__ import annotations

import os
import resource
import sys
import threading
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from distci.errors import Invalid, InvalidSettings

if TYPE_CHECKING:
    from distci.app import DistCI
    from distci.brokers.port import Broker
    from distci.frontend.serving import FrontEnd
    from distci.isolation.choice import ChosenIsolation
    from distci.process import Post, WorkerProcess
    from distci.settings import Settings
    from distci.work import Cache

OWN_SLOTS = 2
ON_ONE_MACHINE = ("sandbox", "host", "container", "lxc", "vm")
"""What tasks run in where somebody has a system on a machine of their own, unless the settings say otherwise."""
AS_EVER = ("host", "sandbox", "container", "lxc", "vm")
"""The same for workers of a system on many machines: what tasks run in that name nothing must not hang on what is installed where."""
NOT_MISSED = ("container", "lxc", "vm")
ENDING = "taking no more requests; once more to leave those there are"
DRAINING = "taking nothing more, finishing what runs; once more to leave it"


def worker_process(
    system: DistCI,
    kinds: Sequence[str],
    slots: int,
    isolation: ChosenIsolation,
    elsewhere: str | None = None,
    **options: Any,
) -> WorkerProcess:
    """A process that serves these kinds on a system; ``options`` are those of WorkerProcess. Invalid for an unknown kind.

    ``elsewhere`` is what logs say of the system, as :func:`elsewhere` has it; None for one that will not be there any more.
    """
    from distci.brokers.direct import Direct

    settings = system.settings
    direct = Direct(system.lifecycle, system.store, settings.build_pages, system.secrets, elsewhere)
    return process_for(direct, settings, kinds, slots, isolation, **options)


def process_for(
    broker: Broker[Any],
    settings: Settings,
    kinds: Sequence[str],
    slots: int,
    isolation: ChosenIsolation,
    **options: Any,
) -> WorkerProcess:
    """The same for whoever gives the work."""
    from distci.process import WorkerProcess

    return WorkerProcess(
        broker,
        isolation,
        scratch(settings),
        _posts(kinds, slots),
        search_path=settings.search_path,
        memory=Path(settings.secret_folder),
        cache=_cache(settings),
        diagnose_after_s=settings.diagnose_after_s,
        **{"hold_max_s": settings.hold_max_s, **options},
    )


def isolation_of(settings: Settings, usual: Sequence[str], kinds: Sequence[str]) -> ChosenIsolation:
    """What tasks of these kinds run in: what the settings allow, else what is usual. Invalid where none of that can be had here."""
    from distci.app import open_isolation
    from distci.documents.schema import NO_TASKS

    opened = open_isolation(settings.isolation_types or usual, settings)
    if not opened.types and any(kind not in NO_TASKS for kind in kinds):
        raise Invalid(f"{settings.origin('isolation')} allows nothing that can be had here: {opened.reasons}")
    return opened


def said(isolation: ChosenIsolation, settings: Settings) -> str:
    """What tasks run in, and why not in what would be preferred, or what the settings expect."""
    usual, *others = isolation.types
    also = f", or {' and '.join(others)} where they say so" if others else ""
    # Who has no engine, or has named no machine, has no images either, and misses nothing; so does who has the sandbox.
    missed = {*isolation.missing}.difference(NOT_MISSED).union(settings.expected_isolation_types)
    return f"{usual}{also}{_without(isolation, missed)}"


def unmet(isolation: ChosenIsolation, settings: Settings) -> str:
    """Why what the settings expect is not there; empty when all is."""
    return _without(isolation, settings.expected_isolation_types)


def _without(isolation: ChosenIsolation, names: Collection[str]) -> str:
    return "".join(f"; no {name}: {reason}" for name, reason in isolation.missing.items() if name in names)


def scratch(settings: Settings) -> Path:
    """Where worker processes keep what they work with, each in a folder of its own. InvalidSettings when nothing says where that may be."""
    if not settings.data:
        raise InvalidSettings("there is no scratch space:", ["data: no data folder; set DISTCI_DATA"])
    return settings.data_folder / "scratch"


def _cache(settings: Settings) -> Cache | None:
    from distci.work import Cache

    return Cache(settings.data_folder / "cache", settings.cache_bytes_max) if settings.cache_size_max else None


def serve(process: WorkerProcess, welcome: str) -> None:
    """Serve until somebody drains the workers or a signal comes; then finish what is held. The welcome is said once it serves.

    Raises WrongFormat when the tree went on to a format that is not spoken here, and what front ends refuse its workers with.
    """
    from distci.cli.interrupts import interrupts

    with process, interrupts(process.drain, DRAINING):
        if not process.refused:
            click.echo(welcome)
        process.wait()
    if process.refused:
        raise process.refused


def serve_http(front_end: FrontEnd, invitation: str) -> None:
    """Serve until a signal comes; then end within two seconds, whatever still goes on."""
    from distci.cli.interrupts import interrupts

    with front_end, interrupts(front_end.stop, ENDING):
        click.echo(f"DistCI is at {front_end.address}\nLog in: {invitation}\nCtrl-C ends this front end.")
        front_end.wait_for_stop()
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        # One that waits for a tree or a store that is away. Nothing that matters is held here, so it need not be waited for.
        sys.stdout.flush()
        os._exit(0)


def told(settings: Settings) -> str:
    """The flags, as they are pasted, by which a command elsewhere finds the back ends that this one was told of by flags."""
    places = {"coordination": settings.coordination, "store": settings.store, "data": str(settings.data_folder)}
    return "".join(f" --{name} {quote(place)}" for name, place in places.items() if is_flag(settings, name))


def elsewhere(settings: Settings) -> str | None:
    """The flags, as they are pasted, by which somebody who reads a log finds the system; None where nothing that all may know leads there.

    Back ends are not named: their addresses may hold passwords, and few who read a log can reach them.
    """
    url = settings.public_url or next(iter(settings.urls), "") if settings.url or settings.public_url else ""
    if url:
        return f" --url {quote(url)}"
    is_embedded = not (settings.coordination or settings.store)
    return f" --data {quote(str(settings.data_folder))}" if is_embedded and is_flag(settings, "data") else None


def is_flag(settings: Settings, name: str) -> bool:
    return settings.origins.get(name, "").startswith("--")


def allow_many_files() -> None:
    """Let this process have as many open files and connections as it may; the usual 1,024 are soon taken by streams."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def slots_here() -> int:
    """As many slots as this process may use processors, and two at least."""
    return max(2, len(os.sched_getaffinity(0)))


def read_secrets(file: str | None) -> Mapping[str, Mapping[str, str]]:
    """Secrets by project, from a TOML file of tables; none without a file. Invalid names the file, never a value."""
    if file is None:
        return {}
    try:
        secrets = tomllib.loads(Path(file).read_text())
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The cause may quote a line, and with it a secret.
        raise Invalid(
            f"{file}: not TOML; write a line [\"team/web\"], and below it NAME = 'value', one a line"
        ) from None
    homeless = [name for name, table in secrets.items() if not isinstance(table, dict)]
    if homeless:
        raise Invalid(
            f'{file}: {", ".join(homeless)}: of which project? Write them below a line ["team/web"]; below [""] they are for every job that these workers take'
        )
    wrong = [name for table in secrets.values() for name, value in table.items() if not isinstance(value, str)]
    if wrong:
        raise Invalid(f"{file}: {', '.join(wrong)} must be a text in quotes")
    return secrets


def _posts(kinds: Sequence[str], slots: int) -> list[Post]:
    """What is no task has slots of its own: it must not wait until some long task is done, nor any task for a forge that hangs."""
    from distci.documents.schema import NO_TASKS
    from distci.process import Post

    tasks = tuple(kind for kind in dict.fromkeys(kinds) if kind not in NO_TASKS)
    posts = [Post((kind,), OWN_SLOTS) for kind in dict.fromkeys(kinds) if kind in NO_TASKS]
    return [*posts, Post(tasks, slots)] if tasks else posts
