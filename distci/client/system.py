"""A system as somebody has it who reaches a front end of it and nothing else."""

from __future__ import annotations

import os
from functools import partial
from types import TracebackType
from typing import Self

from distci.client.access import RemoteAccess
from distci.client.artifacts import RemoteArtifacts
from distci.client.audit import RemoteAudit
from distci.client.builds import RemoteBuilds
from distci.client.events import RemoteEvents
from distci.client.holds import RemoteHolds
from distci.client.hooks import RemoteHooks
from distci.client.jobs import RemoteJobs
from distci.client.link import Link
from distci.client.logs import RemoteLogs
from distci.client.patience import Patience
from distci.client.reports import RemoteQuarantine, RemoteReports
from distci.client.reproductions import RemoteReproductions
from distci.client.secrets import RemoteSecrets
from distci.client.status import RemoteStatus
from distci.client.tickets import RemoteTickets
from distci.client.why import RemoteWhy
from distci.errors import InvalidSettings
from distci.settings import PREFIX, REMOTE, YES, Settings, argument_of_connect, find_file, load


def connect(
    url: str | None = None,
    *,
    token: str = "",
    ca: str | os.PathLike[str] = "",
    allow_http: bool = False,
    settings: Settings | None = None,
    patience_s: float | None = None,
) -> Client:
    """A system to work with through a front end of it: by its URL, or by ready settings.

    With no argument it is the one that the settings file and the environment name, as for the command line; where an argument names it, the
    environment gives no more than the token and whom to trust. ``ca`` is the file of a private authority. ``patience_s`` is how
    long a call goes on asking while nobody answers.

    Raises InvalidSettings for what cannot be used. Nothing is asked yet. Close it when done, or use it as a context manager.

    >>> import distci.client
    >>> with distci.client.connect(url, token=token) as system:
    ...     list(system.jobs.list("docs/"))
    ['docs/hello']
    """
    if settings is None:
        flags = {
            "url": url,
            "patience": None if patience_s is None else f"{patience_s:f}s",
            "token": token or None,
            "ca": os.fspath(ca) or None,
            "allow_http": YES if allow_http else None,
        }
        if url:
            taken = (f"{PREFIX}{name.upper()}" for name in REMOTE)
            settings = load(
                None, {name: os.environ[name] for name in taken if name in os.environ}, flags, argument_of_connect
            )
        else:
            settings = load(find_file(os.environ), os.environ, flags, argument_of_connect)
    return Client(settings)


class Client:
    """One system through a front end: what :class:`~distci.app.DistCI` has, for whoever is to do without its back ends. Any thread may use it."""

    def __init__(self, settings: Settings) -> None:
        if not settings.url:
            raise InvalidSettings("these settings name no front end:", [f"url: is missing; set {PREFIX}URL or give it"])
        self.settings = settings
        self._link = link = Link(settings, partial(Patience, settings.patience_s))
        self.jobs = RemoteJobs(link)
        self.builds = RemoteBuilds(link)
        self.artifacts = RemoteArtifacts(link)
        self.reports = RemoteReports(link)
        self.quarantine = RemoteQuarantine(link)
        self.logs = RemoteLogs(link)
        self.reproductions = RemoteReproductions(link)
        self.holds = RemoteHolds(link)
        self.events = RemoteEvents(link)
        self.hooks = RemoteHooks(link)
        self.tickets = RemoteTickets(link)
        self.status = RemoteStatus(link)
        self.why = RemoteWhy(link)
        self.access = RemoteAccess(link)
        self.secrets = RemoteSecrets(link)
        self.audit = RemoteAudit(link)

    def close(self) -> None:
        """Let go of connections. Nothing that was accepted depends on them."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DistCI at {self.settings.url}>"
