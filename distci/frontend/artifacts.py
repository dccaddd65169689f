"""Artifacts: the files that builds published, and those that clients have put to them.

They come from scripts and from anybody, so they are never shown as part of a page: always as a file to keep, and of no type that a browser would guess.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import quote

from starlette.responses import Response

from distci.access import Action
from distci.app import DistCI
from distci.artifacts import Artifact
from distci.frontend import bodies, etags
from distci.frontend.builds import BUILD, address
from distci.frontend.endpoint import CURSOR, JSON, RANGE, Answer, Call, Content, Endpoint, Parameter, Returns, limit
from distci.frontend.paging import page
from distci.frontend.problems import BadRequest, PreconditionFailed
from distci.frontend.threads import Threads
from distci.published import Published, Source, other_bytes
from distci.views import to_bytes

MEDIA_TYPE = "application/octet-stream"

_TEXT = {"type": "string"}
IF_NONE_MATCH = Parameter("If-None-Match", _TEXT, "`*`: only if there is no such artifact.", place="header")
DIGESTS = tuple(
    Parameter(name, _TEXT, "`sha-256=:...:`, in base64 (RFC 9530): other bytes are refused.", place="header")
    for name in ("Content-Digest", "Repr-Digest")
)
_DIGEST = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")
_SHA256_BYTES = 32


def list_artifacts(call: Call) -> Answer:
    after = call.query["cursor"] or ""
    found = (artifact for artifact in call.system.artifacts.list(call.build) if artifact.name > after)
    return page(call, found, lambda artifact: artifact.name)


def read_artifact(call: Call) -> Content:
    published = call.system.artifacts
    return artifact_content(published, published.find(call.build, call.path["artifact"]))


def artifact_content(published: Published, source: Source) -> Content:
    """A published file, as it is sent."""
    artifact = source.artifact
    return Content(
        lambda start: published.stream(source, start),
        artifact.size_bytes,
        artifact.sha256,
        MEDIA_TYPE,
        {
            "Content-Disposition": disposition(artifact.name),
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "DistCI-SHA-256": artifact.sha256,
        },
    )


class Intake:
    """Takes in files of clients."""

    def __init__(self, system: DistCI, threads: Threads) -> None:
        self._published = system.artifacts
        self._bytes_max = system.settings.artifact_bytes_max
        self._threads = threads

    async def put_artifact(self, call: Call) -> Response:
        build, name, sha256 = call.build, call.path["artifact"], told_sha256(call.headers)
        is_new_wanted = "if-none-match" in call.headers
        if is_new_wanted and etags.tags("If-None-Match", call.headers["if-none-match"], weak=True) != [etags.ANY]:
            raise BadRequest("If-None-Match can only be * here, which is: only if there is no such artifact")
        # What can be said before the body is read, which may be long, is said then.
        there = await self._threads.run(self._published.taken, build, name)
        if there and is_new_wanted:
            raise PreconditionFailed(f"{build} has an artifact {name!r}, with the SHA-256 {there.sha256}")
        if there and sha256 not in ("", there.sha256):
            raise other_bytes(build, there)
        put = partial(self._published.put, build, name, sha256=sha256)
        artifact = await bodies.take_in(call.request, self._threads, self._bytes_max, put)
        return _taken(call, artifact, 200 if there else 201)


def _taken(call: Call, artifact: Artifact, status: int) -> Response:
    location = f"{address(call.build)}/artifacts/{quote(artifact.name, errors='surrogateescape')}"
    headers = {"Location": location, "ETag": etags.quoted(artifact.sha256)}
    return Response(to_bytes(artifact), status, headers, JSON)


def told_sha256(headers: Mapping[str, str]) -> str:
    """The SHA-256 that a request gives of its body, in hexadecimal; empty where it gives none. BadRequest for what is no digest.

    Bodies come as they are, so that both headers mean the same. Digests of other sorts are left alone, as RFC 9530 lets us.
    """
    found = set()
    for header in (parameter.name for parameter in DIGESTS):
        for member in filter(None, map(str.strip, headers.get(header.lower(), "").split(","))):
            parts = _DIGEST.fullmatch(member)
            digest = _decoded(parts[2]) if parts else b""
            if parts is None or (parts[1] == "sha-256" and len(digest) != _SHA256_BYTES):
                raise BadRequest(f"{header}: {member!r} is no digest: write sha-256=:BASE64:, of all 32 bytes")
            if parts[1] == "sha-256":
                found.add(digest.hex())
    if len(found) > 1:
        raise BadRequest("Content-Digest and Repr-Digest: they give several digests of the same bytes")
    return "".join(found)


def _decoded(text: str) -> bytes:
    """The bytes; none where it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def disposition(name: str) -> str:
    """The header that has a file kept under the last part of its name (RFC 6266), whatever is in that."""
    last = name.rpartition("/")[2]
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\%' else "_" for letter in last
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last, safe='')}"


HEADERS = ("ETag", "Content-Disposition", "DistCI-SHA-256")

ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        f"{BUILD}/artifacts",
        "list_artifacts",
        "List the artifacts of a build, by name",
        list_artifacts,
        Action.READ,
        {200: Returns("A page of artifacts.", "artifact-page", headers=("ETag", "Link"))},
        (limit(100), CURSOR),
    ),
    Endpoint(
        "GET",
        f"{BUILD}/artifacts/{{artifact}}",
        "read_artifact",
        "Fetch an artifact",
        read_artifact,
        Action.READ,
        {
            200: Returns("Its bytes.", media_type=MEDIA_TYPE, headers=HEADERS),
            206: Returns("A range of them.", media_type=MEDIA_TYPE, headers=(*HEADERS, "Content-Range")),
            416: Returns("There are no such bytes.", "problem", headers=("Content-Range",)),
        },
        (RANGE,),
    ),
)


def endpoints(intake: Intake) -> Sequence[Endpoint]:
    return (
        Endpoint(
            "PUT",
            f"{BUILD}/artifacts/{{artifact}}",
            "put_artifact",
            "Put a file to a build as an artifact",
            intake.put_artifact,
            Action.WRITE,
            {
                201: Returns("It is an artifact of the build now.", "artifact", headers=("ETag", "Location")),
                200: Returns("It was already, with the same bytes.", "artifact", headers=("ETag", "Location")),
            },
            (IF_NONE_MATCH, *DIGESTS),
            takes=MEDIA_TYPE,
            description="Whether the build runs or is over. Artifacts never change: other bytes under a name that is taken get 409. May be repeated.",
        ),
    )
