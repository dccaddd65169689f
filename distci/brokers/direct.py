"""Work from the coordination tree and the store themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

from distci import attempts, statuses
from distci.artifacts import Artifacts, Publication
from distci.attempts import Input
from distci.brokers import port
from distci.brokers.port import Chore
from distci.build_tickets import CONTROL_KIND, build_of
from distci.builds import Builds
from distci.console import LOG_BYTES_MAX
from distci.coordination.port import SessionState
from distci.errors import ClaimLost, Damaged, NoSuchObject
from distci.holds import Drawer, StoreDrawer
from distci.lifecycle import Lifecycle
from distci.live import LiveBuild
from distci.model import BuildId, Hold, Outcome, Plan, Verdict
from distci.protocol import outcomes
from distci.protocol.claims import Claim
from distci.protocol.members import Member, workers
from distci.protocol.paths import build as build_path
from distci.protocol.records import Offer
from distci.protocol.sweeps import LOOK_S, SWEEP_S, Sweeper
from distci.published import Published
from distci.quarantine import Quarantine, Quarantined
from distci.rebuild import Rebuild
from distci.secrets import Secrets
from distci.store import keys
from distci.store.attended import AttendedStore, Checkpoint
from distci.store.port import Store
from distci.stored_reports import StoredReports
from distci.workspaces import Restored, Workspaces

NO_ROOM_PAUSE_S = 60.0
"""How long a task waits that no worker has had room for."""


class Direct:
    """A broker for workers that reach tree and store. Whoever serves ``control`` also sweeps, and brings back what a tree that was lost had."""

    has_tree = True

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: Store,
        build_url: str = "",
        secrets: Secrets | None = None,
        elsewhere: str | None = None,
    ) -> None:
        """``build_url`` is where people find a build, as :func:`~distci.settings.page` fills it in; without ``secrets`` the system has none.

        ``elsewhere`` is what :func:`distci.attempts.heading` goes by.
        """
        self._lifecycle = lifecycle
        self._store = store
        self._build_url = build_url
        self._secrets = secrets
        self._elsewhere = elsewhere

    @property
    def is_connected(self) -> bool:
        return self._lifecycle.tickets.tree.coordination.session.state is SessionState.CONNECTED

    def member(self, offer: Offer, name: str, slots: int) -> Member:
        if statuses.KIND in offer.kinds:
            labels = dict.fromkeys((*offer.labels, *self._lifecycle.statuses.labels))
            offer = replace(offer, labels=tuple(labels))
        return Member(self._lifecycle.tickets, offer, name, slots, version("distci"))

    def take(self, claim: Claim) -> DirectAssignment:
        build = build_of(claim.ticket)
        live, plan = outcomes.persist(lambda: self._read(claim, build), claim.lost)
        given = self._lifecycle, self._store, self._build_url, self._secrets
        return DirectAssignment(*given, claim, live, plan, self._elsewhere)

    def serve_ticket(self, worker: Any, claim: Claim) -> Claim | None:
        """A step of control, say. It may be repeated, so it waits for a store or a tree that is away."""

        def step() -> Claim | None:
            claim.renew()
            follow: Claim | None = worker.serve(claim, self._lifecycle)
            return follow

        return outcomes.persist(step, claim.lost)

    def chores(self, members: Sequence[port.Member[Claim]]) -> Sequence[Chore]:
        name = next((member.name for member in members if CONTROL_KIND in member.offer.kinds), None)
        if name is None:
            return ()
        tickets = self._lifecycle.tickets

        def candidates() -> Sequence[str]:
            return [view.name for view in workers(tickets) if CONTROL_KIND in view.offer.kinds]

        # What the tree has is swept meanwhile, however long the store takes to say what it lacks.
        return (
            Chore("sweep", Sweeper(tickets, name, candidates).look, LOOK_S),
            Chore("rebuild", Rebuild(self._lifecycle).once, SWEEP_S, may_be_left=True),
        )

    def _read(self, claim: Claim, build: BuildId) -> tuple[LiveBuild, Plan]:
        """A build that runs, and its plan. To be repeated while store or tree are away: that costs no attempt."""
        claim.renew()
        live = self._lifecycle.read(build)
        if live is None or live.state is None:
            raise ClaimLost(f"{build} is not running")
        return live, self._lifecycle.stored.plan_of(live)


class DirectAssignment:
    """An attempt by somebody who reaches tree and store."""

    log_bytes_max = LOG_BYTES_MAX

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: Store,
        build_url: str,
        secrets: Secrets | None,
        claim: Claim,
        live: LiveBuild,
        plan: Plan,
        elsewhere: str | None = None,
    ) -> None:
        self.build = live.build
        self.plan = plan
        self.task = plan.task(str(claim.ticket.body["task"]))
        self.token = claim.token
        self.lost = claim.lost
        self.changed = Event()
        self.is_called_off = live.is_cancelled and not self.task.on_cancel
        self.silence_s = claim.ticket.limit_s / 2
        self.progress: int | None = None
        self.hold: Hold | None = None
        self.drawer: Drawer | None = StoreDrawer(store, self.build, self.task.name, self.token)
        self.heading = attempts.heading(elsewhere, self.build, self.task)
        self.elsewhere = elsewhere or ""
        self._lifecycle = lifecycle
        self._store = store
        self._build_url = build_url
        self._secrets = secrets
        self._claim = claim
        self._live = live
        self._started_ms = lifecycle.now_ms()
        self._ended_ms = 0
        self._restored: Restored | None = None
        self._has_workspace = False
        self._artifact_count = 0
        self._stop: Verdict | None = None
        self.changed.set()

    def variables(self) -> dict[str, str]:
        commit = attempts.commit(self._inputs())
        return attempts.variables(self.plan, self.task, self._claim.ticket, commit, self._build_url)

    def secrets(self) -> dict[str, str]:
        return attempts.secrets(self._secrets, self.plan, self.task)

    def write_log(self, offset: int, data: bytes) -> None:
        self._store.put(keys.log_chunk(self.build, self.task.name, self.token, offset), data)

    def restore(self, directory: Path, checkpoint: Checkpoint) -> None:
        saved = attempts.workspaces(self._inputs())
        try:
            self._restored = Workspaces(self._store, checkpoint).restore(saved, directory)
        except NoSuchObject as error:
            # Whoever saved it said so after it was there: this is no fault of the task.
            raise Damaged(f"a workspace that {self.task.name} needs is gone: {error}") from error

    def save(self, directory: Path, checkpoint: Checkpoint) -> Sequence[str]:
        assert self._restored is not None, "what is saved was restored"
        key = keys.workspace(self.build, self.task.name, self.token)
        saved = Workspaces(self._store, checkpoint).save(directory, self._restored, self.task.name, key)
        self._has_workspace = True
        return saved.left_out

    def publish(self, root: Path, patterns: Sequence[str], checkpoint: Checkpoint) -> Publication:
        artifacts = Artifacts(AttendedStore(self._store, checkpoint))
        published = artifacts.publish(self.build, self.task.name, self.token, root, patterns)
        self._artifact_count = len(published.artifacts)
        return published

    def put_report(self, data: bytes) -> None:
        StoredReports(self._store).put(self.build, self.task.name, self.token, data)

    def quarantine(self) -> Sequence[Quarantined]:
        return Quarantine(self._store).in_force(self.build.job)

    def pin(self, name: str, find: Callable[[], str]) -> str:
        return self._lifecycle.stored.pin(self._live, name, find)

    def source(self) -> BuildId:
        return attempts.source(self._builds, self._lifecycle, self.plan, self.task)

    def download(self, build: BuildId, directory: Path, names: Sequence[str], checkpoint: Checkpoint) -> Sequence[Path]:
        return Published(self._builds, AttendedStore(self._store, checkpoint)).download(build, directory, names)

    def attend(self, is_well: bool) -> Verdict | None:
        try:
            if self.changed.is_set():
                self.changed.clear()
                self._look()
            if is_well:
                self._claim.renew(self.progress, self.hold)
        except BaseException:
            self.changed.set()
            raise
        return self._stop

    def settle(self, outcome: Outcome, log_bytes: int) -> Claim | None:
        # However often it has to be written, it is the same.
        self._ended_ms = self._ended_ms or self._lifecycle.now_ms()
        record = attempts.record(
            self._claim.running,
            self._inputs(),
            started_ms=self._started_ms,
            ended_ms=self._ended_ms,
            log_bytes=log_bytes,
            has_workspace=self._has_workspace,
            artifacts=self._artifact_count,
        )
        return self._lifecycle.settle(self._claim, self.task.name, outcome, record)

    def wait_for_room(self) -> None:
        if self._claim.ticket.is_exhausted:
            now_ms = outcomes.persist(self._lifecycle.tickets.tree.now_ms, self.lost)
            self._claim.park_until(now_ms + int(NO_ROOM_PAUSE_S * 1000), uses_attempt=False)

    def close(self) -> None:
        """Nobody waits here: who watches is woken by the claim's end."""

    @property
    def _builds(self) -> Builds:
        return Builds(self._lifecycle, self._lifecycle.jobs)

    def _inputs(self) -> Sequence[Input]:
        return [*attempts.inputs(self._lifecycle, self._live, self.task)]

    def _look(self) -> None:
        self._claim.watch(self.changed)
        self._lifecycle.tickets.tree.coordination.watch(build_path(self.build), self.changed)
        live = self._lifecycle.read(self.build)
        if live is None or (live.is_restored and not self._claim.is_ours()):
            self.lost.set()  # with the tree that knew of it
        elif live.is_cancelled and not self.task.on_cancel:
            self._stop = Verdict.CANCELLED
