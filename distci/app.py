"""The composition root: settings in, a working system out. The only place that chooses adapters.

Adapters are imported when they are chosen, so that nobody pays for boto3 who keeps objects in a directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from socket import gethostname
from types import TracebackType
from typing import TYPE_CHECKING, Self

from distci.errors import CoordinationUnavailable, InvalidSettings
from distci.settings import CREDENTIALS, PREFIX, Settings, argument_of_connect, find_file, load, secret_keys_of

if TYPE_CHECKING:
    from distci.access.oidc import OidcLogin
    from distci.brokers.remote import Remote
    from distci.coordination.port import Coordination
    from distci.isolation.cgroups import ControlGroups
    from distci.isolation.choice import ChosenIsolation
    from distci.isolation.port import Isolation
    from distci.store.port import Store

    Around = Callable[[Coordination, Store], tuple[Coordination, Store]]

ROOT = "/distci"
"""Where the tree is in ZooKeeper, unless the URL says otherwise."""


def connect(
    data: str | os.PathLike[str] | None = None,
    *,
    coordination: str | None = None,
    store: str | None = None,
    settings: Settings | None = None,
    actor: str = "",
) -> DistCI:
    """A system to work with: by its back ends' URLs, by its data folder (embedded back ends), or by ready settings.

    With no argument it is the one that the settings file and the environment name, as for the command line; where an argument
    names it, the environment gives no more than credentials.

    Raises InvalidSettings for what cannot be understood and Unavailable for what cannot be reached. Close it when done, or
    use it as a context manager.

    >>> import distci
    >>> with distci.connect(folder) as system:
    ...     list(system.jobs.list())
    []
    """
    if settings is None:
        flags = {
            "data": os.fspath(data) if data else None,
            "coordination": coordination,
            "store": store,
            "actor": actor or None,
        }
        if any((data, coordination, store)):
            taken = ("HOME", "XDG_DATA_HOME", *(f"{PREFIX}{name.upper()}" for name in CREDENTIALS))
            settings = load(
                None, {name: os.environ[name] for name in taken if name in os.environ}, flags, argument_of_connect
            )
        else:
            settings = load(find_file(os.environ), os.environ, flags, argument_of_connect)
    if settings.url:
        raise InvalidSettings(
            "these settings name a front end, not back ends:",
            [f"{settings.origin('url')}: use distci.client.connect(), or leave it out"],
        )
    return DistCI(settings)


class DistCI:
    """One system: its jobs, builds, artifacts, tickets and workers, and who may do what. Any thread may use it."""

    def __init__(self, settings: Settings, around: Around | None = None) -> None:
        """``around`` may put something in front of the tree and the store, to measure them for example."""
        from distci.access import Access, Acting, Audit, LoginLinks, Sessions, Signing
        from distci.access.audited import (
            AuditedBuilds,
            AuditedHolds,
            AuditedHooks,
            AuditedJobs,
            AuditedPublished,
            AuditedQuarantine,
            AuditedReports,
            AuditedSecrets,
            AuditedTickets,
        )
        from distci.access.rights import rules
        from distci.access.sharing import Sharing
        from distci.events import Events
        from distci.following import Following
        from distci.gateway import Gateway
        from distci.lifecycle import Lifecycle
        from distci.logs import Logs
        from distci.protocol import paths
        from distci.providers import load as load_providers
        from distci.rebuild import Rebuild, new_epoch
        from distci.reproductions import Reproductions
        from distci.sealing import MasterKeys
        from distci.status import Status
        from distci.statuses import Statuses
        from distci.why import Why

        self.settings = settings
        providers = load_providers(settings.secret_providers, os.environ)
        self.store: Store = open_store(settings)
        self.coordination: Coordination = open_coordination(settings)
        if settings.history:
            self._record(Path(settings.history))
        if around is not None:
            self.coordination, self.store = around(self.coordination, self.store)
        try:
            self.tickets = AuditedTickets(self.coordination, new_epoch=lambda: new_epoch(self.store))
        except BaseException:
            self.coordination.close()
            raise
        self.audit = self.tickets.audit = Audit(self.store, Acting(settings.actor, gethostname()))
        self.jobs = AuditedJobs(self.store, self.audit)
        self.secrets = AuditedSecrets(self.store, lambda: MasterKeys(secret_keys_of(settings)), providers, self.audit)
        self.access = Access(self.store, self.tickets.tree, self.audit, rules(settings.oidc_roles))
        self.events = Events(
            self.store,
            retention=settings.events_retention,
            watch=lambda woken: self.coordination.watch(paths.EVENTS, woken),
        )
        sharing = Sharing(self.access, self.jobs)
        self.lifecycle = Lifecycle(
            self.tickets,
            self.store,
            self.jobs,
            statuses=Statuses(self.store, settings),
            may_use=sharing.may_use,
            may_start=sharing.may_start,
            events=self.events,
        )
        self.builds = AuditedBuilds(self.lifecycle, self.jobs, settings.actor, self.audit)
        self.artifacts = AuditedPublished(self.builds, self.store, self.audit)
        self.reports = AuditedReports(self.builds, self.jobs, self.store, self.audit)
        self.quarantine = AuditedQuarantine(self.store, self.jobs, self.audit)
        self.signing = Signing(self.tickets.tree)
        self.sessions = Sessions(self.tickets.tree, self.signing)
        self.login_links = LoginLinks(self.tickets.tree)
        self.hooks = AuditedHooks(
            self.builds,
            self.jobs,
            self.store,
            settings.receivers,
            self.audit,
            self.access,
            holds_untrusted=settings.untrusted_builds == "hold",
            retention=settings.held_retention,
        )
        self.rebuild = Rebuild(self.lifecycle)
        self.logs = Logs(self.builds, self.store)
        self.reproductions = Reproductions(self.lifecycle, self.builds, self.store, settings.build_pages)
        self.holds = AuditedHolds(self.lifecycle, self.builds, self.store, settings.actor, self.audit)
        self.gateway = Gateway(self.lifecycle, self.store, self.artifacts, settings.build_pages, self.secrets)
        self.status = Status(self.tickets, self.rebuild)
        self.why = Why(self.builds, self.lifecycle)
        self.following = Following(self.builds, self.tickets, self.events, self.store)

    def oidc_login(self) -> OidcLogin | None:
        """Logins by the provider that the settings name; None when they name none. Keep it: it remembers the provider's keys."""
        if not self.settings.oidc_issuer:
            return None
        from distci.access.oidc import OidcLogin, Provider

        told = self.settings
        provider = Provider(
            told.oidc_issuer, told.oidc_client_id, told.oidc_client_secret, told.oidc_scopes, told.oidc_groups
        )
        return OidcLogin(provider, self.signing)

    def close(self) -> None:
        """End the session. Nothing that was accepted depends on it."""
        self.following.close()
        self.audit.close()
        self.coordination.close()

    def _record(self, history: Path) -> None:
        from distci.recording import Recorder, RecordingCoordination, RecordingStore

        recorder = Recorder(history)
        self.coordination = RecordingCoordination(self.coordination, recorder)
        self.store = RecordingStore(self.store, recorder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_coordination(settings: Settings) -> Coordination:
    """The coordination tree that the settings name; CoordinationUnavailable when it cannot be reached."""
    address = settings.coordination_address
    timeout_s = settings.session_timeout_s
    if address.scheme == "zookeeper":
        from distci.coordination.zookeeper import Account, Tls, ZooKeeperCoordination

        ca, certificate, key = (
            Path(file) if file else None
            for file in (settings.zookeeper_ca, settings.zookeeper_certificate, settings.zookeeper_key)
        )
        return ZooKeeperCoordination(
            address.host,
            address.path.rstrip("/") or ROOT,
            session_timeout_s=timeout_s,
            account=Account(settings.zookeeper_user, settings.zookeeper_password) if settings.zookeeper_user else None,
            tls=Tls(ca, certificate, key) if ca else None,
        )
    from distci.coordination.sqlite import SqliteCoordination

    path = Path(address.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CoordinationUnavailable(f"{path.parent}: {error.strerror}") from error
    return SqliteCoordination(path, session_timeout_s=timeout_s)


def open_store(settings: Settings) -> Store:
    """The object store that the settings name."""
    address = settings.store_address
    if address.scheme == "s3":
        from distci.store.s3 import S3Store

        options = address.options
        return S3Store(
            address.host,
            address.path.strip("/"),
            endpoint_url=options.get("endpoint_url"),
            access_key=options.get("access_key"),
            secret_key=options.get("secret_key"),
            region=options.get("region"),
        )
    if address.scheme == "rados":
        from distci.store.rados import RadosObjects, RadosStore

        namespace = address.path.strip("/") or "distci"
        conf = address.options.get("conf", "/etc/ceph/ceph.conf")
        name = address.options.get("name", "client.distci")
        return RadosStore(RadosObjects(address.host, namespace, conf=conf, name=name))
    from distci.store.directory import DirectoryStore

    return DirectoryStore(Path(address.path))


def open_front_end(settings: Settings, elsewhere: str | None = None) -> Remote:
    """Work through the front end that the settings name, for workers that reach no back end. InvalidSettings for a token or an authority that cannot be read.

    ``elsewhere`` is what :func:`distci.attempts.heading` goes by.
    """
    from distci.brokers.remote import Remote
    from distci.client.link import Link
    from distci.client.patience import Patience

    return Remote(Link(settings, partial(Patience, settings.patience_s)), open_scratch_store, elsewhere)


def open_scratch_store(folder: Path) -> Store:
    """A store in a folder of this machine, for what may be lost with it."""
    from distci.store.directory import DirectoryStore

    return DirectoryStore(folder, durable=False)


def open_isolation(allowed: Sequence[str] = ("host",), settings: Settings | None = None) -> ChosenIsolation:
    """Where the commands of tasks run on this machine: what of these types can be had here, the first one where a task names none."""
    from distci.isolation.cgroups import find_cgroups
    from distci.isolation.choice import ChosenIsolation
    from distci.isolation.host import HostIsolation

    cgroups = find_cgroups()
    host = HostIsolation(cgroups)
    drivers: dict[str, Isolation] = {}
    missing: dict[str, str] = {}
    notes: dict[str, str] = {}
    for name in allowed:
        if name == "host":
            drivers[name] = host
            continue
        driver, problem, note = _open_driver(name, cgroups, settings or Settings())
        if driver is None or problem:
            missing[name] = problem
        else:
            drivers[name] = driver
            notes[name] = note
    return ChosenIsolation(drivers, host, missing, {name: note for name, note in notes.items() if note})


def _open_driver(name: str, cgroups: ControlGroups | None, settings: Settings) -> tuple[Isolation | None, str, str]:
    """A driver; or why it does not work here, and what to do; and what is to be known of one that does."""
    folder = settings.data_folder / "containers"
    hidden = [str(settings.data_folder)] if settings.data else []
    if name == "sandbox":
        from distci.isolation.sandbox import SandboxIsolation

        sandbox = SandboxIsolation(cgroups, settings.visible_paths, hidden)
        return sandbox, sandbox.problem(), ""
    if name == "lxc":
        from distci.isolation.lxc import LxcIsolation
        from distci.isolation.seen import Seen
        from distci.isolation.users import find_subordinates

        images = Path(settings.lxc_images) if settings.lxc_images else None
        seen = Seen(settings.visible_paths, hidden)
        lxc = LxcIsolation(folder, cgroups, seen, images, find_subordinates())
        return lxc, lxc.problem(), lxc.note()
    if name == "vm":
        from distci.isolation.machine_images import images_of
        from distci.isolation.vm import VmIsolation

        machines = VmIsolation(
            images_of(settings.machine_images),
            settings.data_folder / "vms",
            memory_bytes=settings.machine_memory_bytes,
            cpus=settings.machine_cpus,
            accelerator=settings.vm_accelerator,
            cgroups=cgroups,
        )
        return machines, machines.problem(), ""
    from distci.isolation.engines import NO_ENGINE, find_engine

    engine = settings.container_engine or find_engine()
    if not engine:
        return None, NO_ENGINE, ""
    from distci.isolation.container import ContainerIsolation

    container = ContainerIsolation(engine, folder, settings.container_network, settings.visible_paths)
    return container, container.problem(), ""
