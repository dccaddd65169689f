"""The ticket gateway: workers that reach neither tree nor store do their work by these calls, each at any front end.

What a call may do is told by two tokens: that of the worker, by which it claims, and that of the claim, which is the fence: it stands in
the path of all that is done for it, and a call with one that does not hold any more gets 409 and changes nothing.
"""

from __future__ import annotations

import asyncio
import io
import math
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import BinaryIO, TypeVar
from urllib.parse import quote

import anyio
from starlette.responses import Response

from distci import tarballs
from distci.access import Action, Worker
from distci.app import DistCI
from distci.artifacts import Artifact
from distci.errors import Damaged, Forbidden, InvalidDocument, Unavailable
from distci.frontend import bodies, etags
from distci.frontend.access import origin_of
from distci.frontend.artifacts import HEADERS as ARTIFACT_HEADERS
from distci.frontend.artifacts import artifact_content
from distci.frontend.bell import Bell, Wake
from distci.frontend.builds import BUILD, address
from distci.frontend.content import until_gone
from distci.frontend.endpoint import CURSOR, RANGE, Answer, Call, Content, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import page
from distci.frontend.problems import BadRequest
from distci.frontend.reproductions import TAR, from_byte
from distci.frontend.threads import Threads
from distci.gateway import CHUNK_BYTES_MAX, HEARTBEAT_S, Asking, Attempt, Caller
from distci.holds import NAME as NAME_OF_PIECE
from distci.holds import unwritten, written
from distci.model import BuildId, Hold, Json, Outcome, Usage, Verdict
from distci.process import NAME
from distci.protocol.claiming import LEFT_TO_OTHERS_S
from distci.protocol.leases import LEASE_S
from distci.protocol.records import Offer
from distci.reports.results import Summary
from distci.stored_reports import PACKED_BYTES_MAX
from distci.views import from_json

ATTEMPT = f"{BUILD}/tasks/{{task}}/attempts/{{claim}}"
BYTES, TEXT = "application/octet-stream", "text/plain; charset=utf-8"
WAIT_MAX_S = 50.0
PAUSE_MIN_S = 0.05
"""Least time between two looks, where somebody else was faster."""

STOP_POLL_S = 0.1
"""How soon those who wait are told that the front end ends: well within the time that it gives to what it still does."""

KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"},
    "Another one for each claim. Asked again with the same, after an answer that was lost, it is the same claim, as long as that stands.",
    place="header",
)

SOURCE = Parameter(
    "build",
    {"type": "string", "pattern": "^[^#]+#[1-9][0-9]{0,8}$"},
    "Another build, as `job#number`, of the job that the task names; by default the one that it is part of.",
)

HOLD_NAME = Parameter(
    "name", {"type": "string", "pattern": f"^({NAME_OF_PIECE.pattern})$"}, "The name of a piece.", is_required=True
)
NEVER_KEPT = {"Cache-Control": "no-store"}

Result = TypeVar("Result")


class Desk:
    """Where workers ask for work, and hand it in."""

    def __init__(self, system: DistCI, threads: Threads, stopping: Event) -> None:
        """Once ``stopping`` is set, whoever waits is told to ask another front end."""
        self._stopping = stopping
        self._bell: Bell | None = None
        self._waiting: set[Wake] = set()
        self._watch: asyncio.Task[None] | None = None
        self._gateway = system.gateway
        self._published = system.artifacts
        self._store = system.store
        self._threads = threads

    async def claim(self, call: Call) -> Answer | Response:
        """A claim, as soon as there is one. Waiting for it costs no thread."""
        wanted = call.body
        self._bell = self._bell or Bell()
        woken = Wake(self._bell)
        asking = self._asking(call, woken)
        found: list[Attempt | None] = []
        raised: list[Exception] = []

        async def serve() -> None:
            try:
                found.append(await self._wait(asking, woken, wanted.get("wait_s", 0)))
            except Exception as error:
                # The group would wrap it.
                raised.append(error)

        self._waiting.add(woken)
        self._watch = self._watch or asyncio.create_task(self._watch_for_the_end())
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(until_gone, call.request.receive, group.cancel_scope.cancel)
                await serve()
                group.cancel_scope.cancel()
        finally:
            self._waiting.discard(woken)
            with anyio.CancelScope(shield=True):
                await self._look(asking.close, math.inf)
        if raised:
            raise raised[0]
        if not found or found[0] is None:
            return Response(None, 204)
        document = await self._threads.run(_document, found[0])
        return Answer(document, 201, {"Location": document["url"]})

    async def write_log(self, call: Call) -> Answer:
        data = await bodies.read_bytes(call.request, CHUNK_BYTES_MAX)
        end = await self._threads.run(lambda: self._attempt(call).write_log(call.query["offset"], data))
        return Answer({"next": end})

    async def put_artifact(self, call: Call) -> Answer:
        await self._threads.run(self._attempt, call)

        def keep(file: BinaryIO) -> Artifact:
            # Its time may have come while the body did.
            return self._attempt(call).put_artifact(call.path["artifact"], file)

        most = call.system.settings.artifact_bytes_max
        return Answer(await bodies.take_in(call.request, self._threads, most, keep))

    async def put_report(self, call: Call) -> Answer:
        await self._threads.run(self._attempt, call)

        def keep(file: BinaryIO) -> Summary:
            try:
                return self._attempt(call).put_report(file.read())
            except (Damaged, InvalidDocument) as error:
                raise BadRequest(str(error)) from error

        return Answer(await bodies.take_in(call.request, self._threads, PACKED_BYTES_MAX, keep))

    def quarantine(self, call: Call) -> Answer:
        return Answer({"items": self._attempt(call).quarantine()})

    def list_artifacts(self, call: Call) -> Answer:
        after = call.query["cursor"] or ""
        found = self._attempt(call).artifacts(_source(call), _worker(call).project)
        return page(call, (each for each in found if each.name > after), lambda artifact: artifact.name)

    def read_artifact(self, call: Call) -> Content:
        found = self._attempt(call).find_artifact(call.path["artifact"], _source(call), _worker(call).project)
        return artifact_content(self._published, found)

    def find_source(self, call: Call) -> Answer:
        return Answer({"build": self._attempt(call).source(_worker(call).project)})

    def pin(self, call: Call) -> Answer:
        return Answer({"value": self._attempt(call).pin(call.body["name"], call.body.get("value"))})

    def assignment(self, call: Call) -> Answer:
        attempt = self._attempt(call)
        return Answer(
            {
                "plan": attempt.plan,
                "variables": attempt.variables(),
                "is_called_off": attempt.is_called_off,
                "silence_s": attempt.ticket.limit_s / 2,
            }
        )

    def secrets(self, call: Call) -> Answer:
        return Answer({"values": self._attempt(call).secrets()}, headers={"Cache-Control": "no-store"})

    async def put_workspace(self, call: Call) -> Answer:
        await self._threads.run(self._attempt, call)
        most = call.system.settings.workspace_bytes_max

        def keep(file: BinaryIO) -> int:
            if tarballs.is_larger(file, most):
                raise BadRequest(
                    f"the workspace has more than {most} bytes, headers and all, once it is unpacked", status=413
                )
            return self._attempt(call).put_workspace(file, Path(tempfile.gettempdir()))

        return Answer({"files": await bodies.take_in(call.request, self._threads, most, keep)})

    def read_workspace(self, call: Call) -> Content:
        snapshot = self._attempt(call).workspace()
        return Content(
            lambda start: from_byte(tarballs.write(self._store, snapshot), start),
            tarballs.size_bytes(snapshot),
            f"{call.path['claim']}-workspace",
            TAR,
        )

    def keep(self, call: Call) -> Answer:
        told = call.body or {}
        hold = from_json(Hold, told["hold"]) if told.get("hold") else None
        return Answer({"stop": self._attempt(call).keep(told.get("progress"), hold)})

    def hold_names(self, call: Call) -> Answer:
        return Answer({"names": self._attempt(call).drawer.names()}, headers=NEVER_KEPT)

    def hold_piece(self, call: Call) -> Answer:
        data = self._attempt(call).drawer.get(call.query["name"])
        return Answer({"data": None if data is None else written(data)}, headers=NEVER_KEPT)

    def put_hold_piece(self, call: Call) -> Answer:
        try:
            data = unwritten(call.body["data"])
        except InvalidDocument as error:
            raise BadRequest(str(error)) from error
        self._attempt(call).drawer.put(call.query["name"], data)
        return Answer({"name": call.query["name"]})

    def remove_hold_piece(self, call: Call) -> Answer:
        self._attempt(call).drawer.remove(call.query["name"])
        return Answer({"name": call.query["name"]})

    def script(self, call: Call) -> Content:
        return _content(self._attempt(call).script())

    def prelude(self, call: Call) -> Content:
        return _content(self._attempt(call).prelude().encode(errors="surrogateescape"))

    def complete(self, call: Call) -> Answer:
        given = call.body
        outcome = Outcome(
            Verdict(given["verdict"]),
            given.get("reason", ""),
            given.get("exit_status"),
            given.get("signal"),
            given.get("details", {}),
            from_json(Usage, given["usage"]) if "usage" in given else None,
        )
        publishes = given.get("publishes", True)
        recorded = self._gateway.complete(
            _worker(call).id, call.build, call.path["task"], call.path["claim"], outcome, publishes=publishes
        )
        told = ("verdict", "reason", "exit_status", "signal", "details")
        return Answer({name: recorded[name] for name in told})

    def give_back(self, call: Call) -> Answer:
        reason = call.query["reason"] or "given back by its worker"
        self._attempt(call).give_back(reason, uses_attempt=call.query["uses_attempt"])
        return Answer({"token": call.path["claim"], "is_given_back": True})

    def _asking(self, call: Call, woken: Event) -> Asking:
        worker, wanted = _worker(call), call.body
        offer = Offer(*(tuple(dict.fromkeys(wanted.get(part, ()))) for part in ("kinds", "labels", "only")))
        if not worker.may_offer(offer.kinds, offer.labels):
            raise Forbidden(
                f"{worker.name} may serve {' '.join(sorted(worker.kinds))} and offer {' '.join(worker.labels) or 'no label'}, nothing else"
            )
        name = wanted.get("name") or (worker.label if NAME.fullmatch(worker.label) else "worker")
        key = call.headers.get("idempotency-key") or uuid.uuid4().hex
        origin = origin_of(call.request)
        caller = Caller(worker.id, name, origin, wanted.get("slots", 1), wanted.get("version", ""))
        return self._gateway.ask(caller, offer, key, worker.project, woken)

    async def _wait(self, asking: Asking, woken: Wake, wait_s: float) -> Attempt | None:
        began = anyio.current_time()
        attempt = await self._look(asking.begin)
        while attempt is None:
            if self._stopping.is_set():
                raise Unavailable("this front end ends; ask another")
            woken.begin()
            attempt, pause_s = await self._look(asking.look)
            if 0 < pause_s <= LEFT_TO_OTHERS_S:
                # There are tickets that others were woken for. Were they not waited for, who never waits would never have one.
                wait_s = max(wait_s, 2 * LEFT_TO_OTHERS_S)
            left_s = began + wait_s - anyio.current_time()
            if attempt is None and left_s <= 0:
                # Another front end may have answered it meanwhile.
                return await self._look(asking.served)
            if attempt is None:
                await woken.until_set(min(max(pause_s, PAUSE_MIN_S), left_s))
        return attempt

    async def _watch_for_the_end(self) -> None:
        """One for all who wait."""
        while self._waiting and not self._stopping.is_set():
            await anyio.sleep(STOP_POLL_S)
        for woken in self._waiting:
            woken.set()
        self._watch = None

    async def _look(self, function: Callable[[], Result], wait_max_s: float = WAIT_MAX_S) -> Result:
        """One step of a request, to its end: the next one must not begin before."""
        return await self._threads.run(function, wait_max_s=wait_max_s, is_left_alone=False)

    def _attempt(self, call: Call) -> Attempt:
        return self._gateway.attempt(_worker(call).id, call.build, call.path["task"], call.path["claim"])


def _worker(call: Call) -> Worker:
    # Nobody else has the right that the endpoints take.
    assert isinstance(call.principal, Worker)
    return call.principal


def _source(call: Call) -> BuildId:
    """The build whose files are meant: that of the claim, if nothing else is said."""
    return BuildId.parse(call.query["build"]) if call.query["build"] else call.build


def _content(data: bytes) -> Content:
    return Content(lambda start: io.BytesIO(data[start:]), len(data), etags.digest(data), TEXT)


def _document(attempt: Attempt) -> dict[str, Json]:
    """What a worker needs to know of its claim."""
    task, is_untrusted = attempt.task, attempt.plan.trigger.is_untrusted
    return {
        "token": attempt.token,
        "build": str(attempt.build),
        "task": task.name,
        "type": task.type,
        "attempt": attempt.ticket.attempt,
        "url": f"{address(attempt.build)}/tasks/{quote(task.name, safe='')}/attempts/{quote(attempt.token, safe='')}",
        "labels": [*task.labels],
        "isolation": dict(task.isolation),
        "arguments": dict(task.arguments),
        "environment": attempt.environment(),
        # Whoever gives what is named here gives none to strangers, also if they never heard of these.
        "secrets": [] if is_untrusted else [*task.secrets],
        "secret_files": [] if is_untrusted else [*task.secret_files],
        "is_untrusted": is_untrusted,
        "timeout_s": task.timeout_s,
        "is_workspace_wanted": attempt.is_workspace_wanted,
        "lease_s": LEASE_S,
        "heartbeat_s": HEARTBEAT_S,
        "traceparent": attempt.ticket.traceparent,
    }


def endpoints(desk: Desk) -> Sequence[Endpoint]:
    text = {200: Returns("Its bytes.", media_type=TEXT, headers=("ETag",))}
    return (
        Endpoint(
            "POST",
            "/claims",
            "claim_ticket",
            "Claim a task to work on",
            desk.claim,
            None,
            {
                201: Returns("The claim, and where all that is done for it begins.", "claim", headers=("Location",)),
                204: Returns("There was nothing for this worker to do.", media_type=""),
            },
            (KEY,),
            body="claim-wanted",
            is_for_workers=True,
            tag="gateway",
            description="The answer may be waited for (`wait_s`). A claim that nobody is told of is given up after its lease.",
        ),
        Endpoint(
            "POST",
            f"{ATTEMPT}/heartbeat",
            "keep_claim",
            "Keep a claim, and learn whether its work shall end",
            desk.keep,
            Action.WORK,
            {200: Returns("Whether to go on.", "heartbeat")},
            body="progress",
            is_body_optional=True,
            tag="gateway",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/hold",
            "list_hold_pieces",
            "List what goes to and from a task that is held",
            desk.hold_names,
            Action.WORK,
            {200: Returns("The names of all pieces.", "hold-names")},
            tag="gateway",
            description="For the terminals that people open in it: `guest`, `released`, `typed/ID/NUMBER`, `shown/ID/OFFSET`, `over/ID`.",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/hold/piece",
            "read_hold_piece",
            "Read one of them",
            desk.hold_piece,
            Action.WORK,
            {200: Returns("Its bytes.", "hold-piece")},
            (HOLD_NAME,),
            tag="gateway",
        ),
        Endpoint(
            "PUT",
            f"{ATTEMPT}/hold/piece",
            "write_hold_piece",
            "Put one there",
            desk.put_hold_piece,
            Action.WORK,
            {200: Returns("It is there. Sent again, it is there once.", "hold-piece-name")},
            (HOLD_NAME,),
            body="hold-piece-data",
            tag="gateway",
        ),
        Endpoint(
            "DELETE",
            f"{ATTEMPT}/hold/piece",
            "remove_hold_piece",
            "Remove one",
            desk.remove_hold_piece,
            Action.WORK,
            {200: Returns("It is gone, or was never there.", "hold-piece-name")},
            (HOLD_NAME,),
            tag="gateway",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/script",
            "read_script",
            "Read the task's script as a file to be executed",
            desk.script,
            Action.WORK,
            text,
            tag="gateway",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/prelude",
            "read_prelude",
            "Read what a shell does before the script: variables and directory",
            desk.prelude,
            Action.WORK,
            text,
            tag="gateway",
        ),
        Endpoint(
            "PUT",
            f"{ATTEMPT}/log",
            "write_log",
            "Put bytes into the task's log",
            desk.write_log,
            Action.WORK,
            {200: Returns("They are there.", "log-written")},
            (
                Parameter(
                    "offset",
                    {"type": "integer", "minimum": 0, "maximum": 10**15},
                    "Where in the log they belong.",
                    is_required=True,
                ),
            ),
            takes=BYTES,
            tag="gateway",
            description="Sent again, the same bytes at the same place are there once.",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/workspace",
            "read_workspace",
            "Fetch the workspace to work in",
            desk.read_workspace,
            Action.WORK,
            {
                200: Returns("A tar file of it.", media_type=TAR, headers=("ETag",)),
                206: Returns("A range of it.", media_type=TAR, headers=("ETag", "Content-Range")),
            },
            (RANGE,),
            tag="gateway",
        ),
        Endpoint(
            "PUT",
            f"{ATTEMPT}/workspace",
            "write_workspace",
            "Hand in the workspace for the tasks that need it",
            desk.put_workspace,
            Action.WORK,
            {200: Returns("It counts once the attempt has completed.", "workspace-written")},
            takes=BYTES,
            tag="gateway",
            description="A tar file, which may be compressed by gzip, bzip2 or xz.",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/assignment",
            "read_assignment",
            "Read what there is to know besides the claim: the build's plan, and DistCI's own variables",
            desk.assignment,
            Action.WORK,
            {200: Returns("All of it.", "assignment", headers=("ETag",))},
            tag="gateway",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/secrets",
            "read_secrets",
            "Read the values of the secrets that the task names",
            desk.secrets,
            Action.WORK,
            {200: Returns("Those that the system has, and no others.", "secret-values")},
            tag="gateway",
            description="For the script of this one claim: mask them in what it prints, and keep them nowhere. A build of what strangers wrote has none.",
        ),
        Endpoint(
            "POST",
            f"{ATTEMPT}/pins",
            "pin_value",
            "Learn what the whole build goes by, such as the commit that a branch stands for, or say it first",
            desk.pin,
            Action.WORK,
            {200: Returns("What it goes by now.", "pinned")},
            body="pin",
            tag="gateway",
            description="With a `value`, that is what the build goes by unless somebody was first. So does a build that runs this one again.",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/source",
            "find_source",
            "Find the build whose artifacts the task is to copy",
            desk.find_source,
            Action.WORK,
            {200: Returns("What the task's `job` and `build` mean just now.", "source", headers=("ETag",))},
            tag="gateway",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/artifacts",
            "list_input_artifacts",
            "List the artifacts of this build, or of the one to copy from",
            desk.list_artifacts,
            Action.WORK,
            {200: Returns("A page of artifacts.", "artifact-page", headers=("ETag", "Link"))},
            (limit(100), CURSOR, SOURCE),
            tag="gateway",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/artifacts/{{artifact}}",
            "read_input_artifact",
            "Fetch an artifact of this build, or of the one to copy from",
            desk.read_artifact,
            Action.WORK,
            {
                200: Returns("Its bytes.", media_type=BYTES, headers=ARTIFACT_HEADERS),
                206: Returns("A range of them.", media_type=BYTES, headers=(*ARTIFACT_HEADERS, "Content-Range")),
            },
            (RANGE, SOURCE),
            tag="gateway",
        ),
        Endpoint(
            "PUT",
            f"{ATTEMPT}/artifacts/{{artifact}}",
            "write_artifact",
            "Hand in a file to be published",
            desk.put_artifact,
            Action.WORK,
            {200: Returns("It is published once the attempt has completed.", "artifact")},
            takes=BYTES,
            tag="gateway",
        ),
        Endpoint(
            "PUT",
            f"{ATTEMPT}/report",
            "write_report",
            "Hand in what the task's reports tell",
            desk.put_report,
            Action.WORK,
            {200: Returns("What it comes to. It counts once the attempt has completed.", "report-summary")},
            takes=BYTES,
            tag="gateway",
            description="Lines of JSON, compressed by zstd: first a `format` (1) and a `summary`, then for each test a `case`. The outcome's `details` have the summary as `reports`.",
        ),
        Endpoint(
            "GET",
            f"{ATTEMPT}/quarantine",
            "read_quarantine",
            "Read which tests' failures count for nothing now",
            desk.quarantine,
            Action.WORK,
            {200: Returns("All of the job.", "quarantine-in-force", headers=("ETag",))},
            tag="gateway",
        ),
        Endpoint(
            "PUT",
            f"{ATTEMPT}/outcome",
            "complete_attempt",
            "Say how the work ended, which ends the claim",
            desk.complete,
            Action.WORK,
            {200: Returns("What is on record. Said again, that is the same.", "attempt-outcome")},
            body="outcome",
            tag="gateway",
        ),
        Endpoint(
            "DELETE",
            ATTEMPT,
            "give_back_claim",
            "Give the ticket back: let another worker have it",
            desk.give_back,
            Action.WORK,
            {
                200: Returns(
                    "It waits for another worker, unless this was the last of its attempts.", "claim-given-back"
                )
            },
            (
                Parameter("reason", {"type": "string", "default": "", "maxLength": 400}, "Why, for the record."),
                Parameter(
                    "uses_attempt",
                    {"type": "boolean", "default": False},
                    "Whether the task has lost one of its attempts: it was begun, and nobody knows how it ended.",
                ),
            ),
            tag="gateway",
        ),
    )
