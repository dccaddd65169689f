"""Server-sent events: what followers (:mod:`distci.following`) are told, as it comes, over connections that stay open.

A stream costs a coroutine and no thread. What it is told is written when the client has taken what came before: nothing is kept for a
client that is slow, which goes on from where it is; one that takes nothing at all is dropped. Whoever was cut off, whatever the reason,
goes on at any front end with the id of the last event that it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distci.access import Action
from distci.errors import DistCIError, Unavailable
from distci.following.told import Follower
from distci.frontend import admission, problems
from distci.frontend.admission import Admitted
from distci.frontend.bell import Bell, Wake
from distci.frontend.builds import BUILD
from distci.frontend.content import until_gone
from distci.frontend.endpoint import Call, Endpoint, Parameter, Returns
from distci.frontend.hiding import hidden_document
from distci.frontend.threads import Threads

MEDIA_TYPE = "text/event-stream"
OVER = "over"
"""The id of the last event of a stream that has come to its end: there is nothing to go on from."""

STREAMS_MAX = 5000
HEARTBEAT_S = 15.0
"""After so long without an event a comment is sent, so that both sides notice when the other is gone."""

SLOW_S = 30.0
"""How long a client may take nothing of what it is sent."""

READY_S = 10.0
"""How long the first look may take before the client is told to come again."""

READERS = 16
"""How many threads read the store for those who are behind, apart from those that answer requests."""

WRITE_BYTES = 64 * 1024
TROUBLE_S = 1.0
"""How long a stream waits before it asks again for what the store did not give."""

RETRY_MS = 1000
"""How long clients wait before they come again; when this front end ends, ..."""

RETRY_MS_MIN = 100
"""... from this on, each another time, so that they do not come all at once."""

log = logging.getLogger(__name__)


class Streams:
    """The open streams of one front end. Belongs to its event loop; :meth:`end` may be called from any thread."""

    def __init__(self, threads: Threads, heartbeat_s: float = HEARTBEAT_S, slow_s: float = SLOW_S) -> None:
        self.readers = Threads(READERS)
        self.heartbeat_s = heartbeat_s
        self.slow_s = slow_s
        self.is_ending = False
        self._threads = threads
        self._open: set[Stream] = set()
        self._bell: Bell | None = None
        self._confirming: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def end(self) -> None:
        """End all streams now; their clients go on elsewhere."""
        self.is_ending = True
        for stream in [*self._open]:
            stream.wake.set()

    async def follow(self, call: Call, make: Callable[[Callable[[], None], str], Follower]) -> Response:
        """The stream of a follower that goes on from where the client is, once it is known that there is something to follow."""
        position = call.headers.get("last-event-id") or call.query["after"]
        if position == OVER:
            return Response(None, 204)
        if self.is_ending or len(self._open) >= STREAMS_MAX:
            raise Unavailable(f"this front end has {len(self._open)} streams open and takes no more; try again")
        grants = await self._threads.run(call.access.grants)
        self._bell = self._bell or Bell()
        wake = Wake(self._bell)
        stream = Stream(self, make(wake.set, position), wake, Admitted(call, grants, wake.set))
        self._open.add(stream)
        try:
            await stream.prepare()
        except BaseException:
            self.close(stream)
            raise
        if call.request.method == "HEAD":
            self.close(stream)
            return Response(None, 200, stream.headers)
        if self._confirming is None or self._confirming.done():
            self._confirming = asyncio.create_task(self._confirm())
        return stream

    def close(self, stream: Stream) -> None:
        self._open.discard(stream)
        stream.follower.close()

    async def _confirm(self) -> None:
        """Keep asking whether those who are here may stay, until nobody is."""
        while self._open:
            await asyncio.sleep(admission.CONFIRM_S)
            # While no thread is free they are asked about later.
            with suppress(Unavailable):
                await self._threads.run(admission.confirm, [stream.admitted for stream in self._open])


class Stream(Response):
    """What one follower is told, as server-sent events."""

    def __init__(self, streams: Streams, follower: Follower, wake: Wake, admitted: Admitted) -> None:
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, MEDIA_TYPE)
        del self.headers["content-length"]
        self.follower = follower
        self.wake = wake
        self.admitted = admitted
        self._streams = streams
        self._trouble = ""

    async def prepare(self) -> None:
        """Wait until it is known that there is something to follow; raises why there is not."""
        with anyio.move_on_after(READY_S):
            while not self.follower.is_ready:
                if self.follower.trouble:
                    raise Unavailable(self.follower.trouble)
                self.wake.begin()
                if not self.follower.is_ready:
                    await self.wake.until_set(math.inf)
        if not self.follower.is_ready:
            raise Unavailable("the tree or the store does not answer in time; try again")
        self.follower.check()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(until_gone, receive, group.cancel_scope.cancel)
                await self._serve(send)
                group.cancel_scope.cancel()
        finally:
            self._streams.close(self)

    async def _serve(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._write(send, b"retry: %d\n\n" % RETRY_MS)
        try:
            last = await self._tell(send)
        except DistCIError as error:
            last = b"event: problem\ndata: %s\n\n" % problems.of(error).body
        except TimeoutError:
            log.info("a client of a stream took nothing for %g s, and is dropped", self._streams.slow_s)
            return
        with suppress(TimeoutError):
            await self._write(send, last, is_last=True)

    async def _tell(self, send: Send) -> bytes:
        """Tell all there is, until that is over or this front end ends; what to say at last."""
        while not self._streams.is_ending:
            if self.admitted.is_over:
                return b""
            self.wake.begin()
            if await self._tell_what_there_is(send):
                continue
            if self.follower.is_over:
                return b"id: %s\nevent: end\ndata: %s\n\n" % (OVER.encode(), self.follower.end)
            cannot_fetch = ""
            if self.follower.must_fetch:
                cannot_fetch = await self._fetch()
                if not cannot_fetch:
                    continue
            trouble = cannot_fetch or self.follower.trouble
            if trouble != self._trouble:
                self._trouble = trouble
                await self._write(send, _comment(trouble or "going on"))
            # Not all at once: those who came together would be heard together for ever.
            heartbeat_s = self._streams.heartbeat_s * random.uniform(0.8, 1.0)
            if not await self.wake.until_set(TROUBLE_S if cannot_fetch else heartbeat_s):
                await self._write(send, _comment(trouble))
        return b"retry: %d\n\n" % random.randint(RETRY_MS_MIN, RETRY_MS)

    async def _tell_what_there_is(self, send: Send) -> bool:
        """Whether there was anything."""
        waiting = bytearray()
        is_anything = False
        for told in self.follower.take():
            is_anything = True
            if told.job is not None and not self.admitted.may_read(told.job):
                continue
            document = told.document if told.piece else hidden_document(told.document, self.admitted.may_read)
            waiting += _event(told.name, told.position, document)
            if len(waiting) >= WRITE_BYTES:
                await self._write(send, bytes(waiting))
                waiting.clear()
        if waiting:
            await self._write(send, bytes(waiting))
        return is_anything

    async def _fetch(self) -> str:
        """Fetch what the feeds do not keep; why that cannot be done at present, else nothing."""
        try:
            await self._streams.readers.run(self.follower.fetch, wait_max_s=math.inf)
        except Unavailable as error:
            return str(error)
        return ""

    async def _write(self, send: Send, data: bytes, *, is_last: bool = False) -> None:
        """Send bytes once the client has taken those before; TimeoutError when it does not."""
        with anyio.fail_after(self._streams.slow_s):
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})


def _event(name: str, position: str, document: bytes) -> bytes:
    at = f"id: {position}\n" if position else ""
    return f"{at}event: {name}\ndata: ".encode() + document + b"\n\n"


def _comment(text: str) -> bytes:
    return f": {' '.join(text.split())}\n\n".encode()


LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    {"type": "string", "maxLength": 8000},
    "The id of the last event that was seen: what is told is all that comes after it.",
    place="header",
)
AFTER = Parameter(
    "after", {"type": "string", "default": "", "maxLength": 8000}, "The same, for who cannot send the header."
)


def endpoints(streams: Streams) -> Sequence[Endpoint]:
    """The endpoints that answer with streams."""

    async def follow_build(call: Call) -> Response:
        return await streams.follow(call, lambda wake, mark: call.system.following.build(call.build, wake, mark))

    async def follow_logs(call: Call) -> Response:
        return await streams.follow(call, lambda wake, at: call.system.following.logs(call.build, wake, at))

    async def follow_log(call: Call) -> Response:
        task = call.path["task"]
        return await streams.follow(call, lambda wake, at: call.system.following.logs(call.build, wake, at, task))

    async def follow_system(call: Call) -> Response:
        return await streams.follow(call, call.system.following.system)

    def stream(
        path: str, name: str, summary: str, handle: Callable[[Call], Awaitable[Response]], told: str
    ) -> Endpoint:
        return Endpoint(
            "GET",
            path,
            name,
            summary,
            handle,
            Action.READ if "{job}" in path else None,
            {
                200: Returns(told, media_type=MEDIA_TYPE),
                204: Returns("It had come to its end before: there is nothing more.", media_type=""),
            },
            (LAST_EVENT_ID, AFTER),
            is_filtered="{job}" not in path,
        )

    return (
        stream(
            f"{BUILD}/events",
            "follow_build",
            "Follow how a build and its tasks stand, to its end",
            follow_build,
            "`build`: the build as it stands. `change`: what is other than in the event before. `end`: it is over, and archived.",
        ),
        stream(
            f"{BUILD}/log/events",
            "follow_build_logs",
            "Follow all that a build prints, to its end",
            follow_logs,
            "`attempt`: an attempt at a task begins. `log`: bytes of its log, from `offset` on, as `text` or `base64`. `end`: it is over.",
        ),
        stream(
            f"{BUILD}/tasks/{{task}}/log/events",
            "follow_log",
            "Follow what a task prints, to its end",
            follow_log,
            "As of a whole build. Its ids are `<token>:<offset>`: so many bytes of the log of that attempt.",
        ),
        stream(
            "/events",
            "follow_system",
            "Follow the system: builds that begin and end, workers, what waits",
            follow_system,
            "`build-begun`, `build-ended`: of builds that whoever follows may read, with the numbers of the events as ids. "
            "`gap`: events behind `after` are not there any more, or numbers have begun anew; it goes on behind `number`. For who may read "
            "the whole system also `workers`, then `workers-changed`: who serves; and `queue`: how many tickets of each kind wait, how many run.",
        ),
    )
