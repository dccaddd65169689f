"""What it takes to run a task of a build once more on a machine of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from distci import tarballs
from distci.access import Action
from distci.frontend.builds import BUILD
from distci.frontend.content import PIECE_BYTES
from distci.frontend.endpoint import RANGE, Answer, Call, Content, Endpoint, Returns
from distci.store.sources import stream_of

TAR = "application/x-tar"
REPRODUCTION = f"{BUILD}/tasks/{{task}}/reproduction"


def get_reproduction(call: Call) -> Answer:
    found = call.system.reproductions.get(call.build, call.path["task"])
    # Which other build has started it is for those to know who may read that one.
    trigger = replace(found.plan.trigger, upstream=None, caller="")
    return Answer(replace(found, plan=replace(found.plan, trigger=trigger)))


def read_inputs(call: Call) -> Content:
    found = call.system.reproductions.get(call.build, call.path["task"])
    snapshot = call.system.reproductions.snapshot(call.build, call.path["task"])
    return Content(
        lambda start: from_byte(tarballs.write(call.system.store, snapshot), start),
        tarballs.size_bytes(snapshot),
        f"{found.token}-workspace",
        TAR,
    )


def from_byte(pieces: Iterator[bytes], start: int) -> BinaryIO:
    """A stream of what comes in pieces, from an offset on."""
    stream = stream_of(pieces)
    while start > 0 and (skipped := stream.read(min(start, PIECE_BYTES))):
        start -= len(skipped)
    return stream


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        REPRODUCTION,
        "get_reproduction",
        "Read what the latest attempt at a task went by",
        get_reproduction,
        Action.TRIGGER,
        {200: Returns("Its plan, its variables, and what the build goes by.", "reproduction", headers=("ETag",))},
        description="For `distci reproduce`. Who may start builds may ask this: what tasks leave for each other was never published.",
        is_verbatim=True,
    ),
    Endpoint(
        "GET",
        f"{REPRODUCTION}/workspace",
        "read_reproduction_workspace",
        "Fetch the workspace that a task began with",
        read_inputs,
        Action.TRIGGER,
        {
            200: Returns("A tar file of it.", media_type=TAR, headers=("ETag",)),
            206: Returns("A range of it.", media_type=TAR, headers=("ETag", "Content-Range")),
        },
        (RANGE,),
        is_verbatim=True,
    ),
)
