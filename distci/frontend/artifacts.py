"""Artifacts: the files that builds published.

They come from scripts, so they are never shown as part of a page: always as a file to keep, and of no type that a browser would guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from distci.access import Action
from distci.frontend.builds import BUILD
from distci.frontend.endpoint import CURSOR, RANGE, Answer, Call, Content, Endpoint, Returns, limit
from distci.frontend.paging import page
from distci.published import Published, Source

MEDIA_TYPE = "application/octet-stream"


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
