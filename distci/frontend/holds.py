"""Terminals in failed tasks that are held: what is typed goes one way, what is shown the other, in pieces that may be sent again."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import anyio
from starlette.responses import Response

from distci.access import Action
from distci.errors import InvalidDocument
from distci.frontend.builds import BUILD
from distci.frontend.endpoint import REASON, Answer, Call, Endpoint, Parameter, Returns
from distci.frontend.problems import BadRequest
from distci.frontend.threads import Threads
from distci.holds import COLUMNS, DUMB, LINES, NUMBER_MAX, OFFSET_MAX, POLL_S, WAIT_MAX_S, Shown, Typed, Visit
from distci.model import Json

TASK = f"{BUILD}/tasks/{{task}}"
TERMINAL = f"{TASK}/attempts/{{claim}}/terminals/{{terminal}}"
NUMBER = Parameter(
    "number",
    {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX},
    "Of the piece: 0, 1, 2, and so on, whatever is in it.",
    is_required=True,
)
OFFSET = Parameter(
    "offset",
    {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX},
    "The byte from which on to show: how many have arrived.",
    is_required=True,
)
WAIT = Parameter(
    "wait_s",
    {"type": "integer", "minimum": 0, "maximum": int(WAIT_MAX_S), "default": 0},
    "How long to wait for something to come, in seconds.",
)


def open_terminal(call: Call) -> Answer:
    wanted = call.body or {}
    visit = call.system.holds.open(
        call.build,
        call.path["task"],
        lines=wanted.get("lines", LINES),
        columns=wanted.get("columns", COLUMNS),
        kind=wanted.get("kind", DUMB),
        terminal=call.path["terminal"],
        actor=call.actor,
    )
    return Answer(visit)


def type_on_terminal(call: Call) -> Answer:
    try:
        typed = Typed.from_json(call.body)
    except InvalidDocument as error:
        raise BadRequest(str(error)) from error
    call.system.holds.type(_visit(call), call.query["number"], typed)
    return Answer({"number": call.query["number"]})


def release_task(call: Call) -> Answer:
    return Answer(call.system.holds.release(call.build, call.path["task"], call.query["reason"], actor=call.actor))


class Screens:
    """Shows what comes to terminals. Who waits for it takes no thread meanwhile."""

    def __init__(self, threads: Threads, stopping: Event) -> None:
        """Once ``stopping`` is set, nobody waits here any more."""
        self._threads = threads
        self._stopping = stopping

    async def show(self, call: Call) -> Answer | Response:
        holds, visit, offset = call.system.holds, _visit(call), call.query["offset"]
        until = anyio.current_time() + call.query["wait_s"]
        # Who waits for what does not stand, or does no more, is told so at once, and in the end.
        found = await self._threads.run(holds.shown, visit, offset)
        while found is None and anyio.current_time() < until and not self._stopping.is_set():
            await anyio.sleep(POLL_S)
            found = await self._threads.run(holds.look, visit, offset)
        if found is None:
            found = await self._threads.run(holds.shown, visit, offset)
        return Response(None, 204) if found is None else Answer(_told(found), headers={"Cache-Control": "no-store"})


def _told(shown: Shown) -> Json:
    return {"data": shown.data, "over": shown.over}


def _visit(call: Call) -> Visit:
    return Visit(call.build, call.path["task"], call.path["claim"], call.path["terminal"], 0)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "PUT",
        f"{TASK}/terminals/{{terminal}}",
        "open_terminal",
        "Open a terminal in a failed task that is held",
        open_terminal,
        Action.SHELL,
        {200: Returns("It is being opened. Asked again, it is the same.", "visit")},
        body="terminal-wanted",
        is_body_optional=True,
        # The build that it names is the one that was asked for: `shell` without `read` is enough.
        is_verbatim=True,
        description="One at a time: while another one is there, the answer says who is in it. It has all that the task had, secrets too.",
    ),
    Endpoint(
        "PUT",
        f"{TERMINAL}/typed",
        "type_on_terminal",
        "Type on a terminal",
        type_on_terminal,
        Action.SHELL,
        {200: Returns("The worker will have it typed. Sent again, it is typed once.", "typed-number")},
        (NUMBER,),
        body="typed",
        description="At least every 30 seconds, be it with nothing in it: who is not heard of for a minute is taken to have gone.",
    ),
    Endpoint(
        "DELETE",
        f"{TASK}/hold",
        "release_task",
        "End the hold of a task",
        release_task,
        Action.SHELL,
        {200: Returns("The task, which ends within seconds.", "task")},
        (REASON,),
    ),
)


def endpoints(screens: Screens) -> Sequence[Endpoint]:
    return (
        Endpoint(
            "GET",
            f"{TERMINAL}/shown",
            "read_terminal",
            "Read what stands on a terminal",
            screens.show,
            Action.SHELL,
            {
                200: Returns("What has come, secrets masked.", "shown"),
                204: Returns("Nothing has come.", media_type=""),
            },
            (OFFSET, WAIT),
            is_verbatim=True,
        ),
    )
