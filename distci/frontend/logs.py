"""Console logs: bytes as they were printed, lines by number, lines that hold some text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from distci.access import Action
from distci.frontend.builds import BUILD
from distci.frontend.endpoint import CURSOR, RANGE, Answer, Call, Content, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import no_cursor, page, page_of
from distci.logs import Log, Place

LOG = f"{BUILD}/tasks/{{task}}/log"
MEDIA_TYPE = "text/plain; charset=utf-8"
LINES_LISTED = 200
TAIL_MAX = 100_000

_PLACE = re.compile(r"([1-9][0-9]{0,14}):([0-9]{1,15})")

ATTEMPT = Parameter(
    "attempt",
    {"type": "string", "minLength": 1, "maxLength": 200},
    "An earlier attempt, by its token; by default the latest.",
)


def read_log(call: Call) -> Content:
    log = _log(call)
    tail = call.query["tail"]
    first = log.tail(tail) if tail is not None else 0
    return Content(
        lambda start: log.stream(first + start),
        log.size_bytes - first,
        f"{log.token}-{first}-{log.size_bytes}",
        MEDIA_TYPE,
        {
            "DistCI-Attempt": log.token,
            "DistCI-Log-Complete": str(log.is_complete).lower(),
            "DistCI-Log-Offset": str(first),
        },
    )


def list_lines(call: Call) -> Answer:
    log = _log(call)
    first = call.query["first"]
    cursor = call.query["cursor"]
    if cursor is not None:
        first = _place(cursor).line
    answer = page(call, log.lines(first), lambda line: f"{line.line + 1}:0")
    answer.body["lines"] = log.count_lines()
    answer.body["is_complete"] = log.is_complete
    answer.body["attempt"] = log.token
    return answer


def search_log(call: Call) -> Answer:
    log = _log(call)
    most = call.query["limit"]
    start = _place(call.query["cursor"]) if call.query["cursor"] is not None else Place()
    how = {name: call.query[name] for name in ("ignore_case", "at_start")}
    found = [*islice(log.search(call.query["text"], start=start, **how), most + 1)]
    # A place at the end is where it stopped for having read enough; one match more than wanted is where the next page begins.
    beyond = found.pop() if found and (len(found) > most or isinstance(found[-1], Place)) else None
    return page_of(call, found, None if beyond is None else f"{beyond.line}:{beyond.offset}")


def _log(call: Call) -> Log:
    return call.system.logs.open(call.build, call.path["task"], call.query["attempt"] or "")


def _place(cursor: str) -> Place:
    match = _PLACE.fullmatch(cursor)
    if not match:
        raise no_cursor()
    return Place(int(match[1]), int(match[2]))


LINE_NUMBER = {"type": "integer", "minimum": 1, "maximum": 10**12, "default": 1}

ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        LOG,
        "read_log",
        "Read what a task printed",
        read_log,
        Action.READ,
        {
            200: Returns(
                "The bytes as they were printed, as far as they are stored.",
                media_type=MEDIA_TYPE,
                headers=("ETag", "DistCI-Attempt", "DistCI-Log-Complete", "DistCI-Log-Offset"),
            ),
            206: Returns(
                "A range of them.",
                media_type=MEDIA_TYPE,
                headers=("ETag", "Content-Range", "DistCI-Attempt", "DistCI-Log-Complete", "DistCI-Log-Offset"),
            ),
            416: Returns("There are no such bytes (yet).", "problem", headers=("Content-Range",)),
        },
        (
            ATTEMPT,
            Parameter("tail", {"type": "integer", "minimum": 1, "maximum": TAIL_MAX}, "Only so many lines at the end."),
            RANGE,
        ),
        description="To follow it, ask for `bytes=SIZE-` until `DistCI-Log-Complete` is `true`.",
    ),
    Endpoint(
        "GET",
        f"{LOG}/lines",
        "list_lines",
        "Read lines by number",
        list_lines,
        Action.READ,
        {200: Returns("A page of lines.", "line-page", headers=("ETag", "Link"))},
        (ATTEMPT, Parameter("first", LINE_NUMBER, "The number of the first line wanted."), limit(LINES_LISTED), CURSOR),
        is_verbatim=True,
    ),
    Endpoint(
        "GET",
        f"{LOG}/search",
        "search_log",
        "Find the lines that hold some text, or begin with it",
        search_log,
        Action.READ,
        {200: Returns("A page of lines; it may be empty and have a next one.", "match-page", headers=("ETag", "Link"))},
        (
            ATTEMPT,
            Parameter(
                "text",
                {"type": "string", "minLength": 1, "maxLength": 1000},
                "What they hold, or begin with.",
                is_required=True,
            ),
            Parameter("ignore_case", {"type": "boolean", "default": False}, "Whether `a` is also `A`, in ASCII."),
            Parameter("at_start", {"type": "boolean", "default": False}, "Whether they must begin with it."),
            limit(100),
            CURSOR,
        ),
        is_verbatim=True,
    ),
)
