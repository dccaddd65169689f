"""How a job's last build ended, as a small picture for pages elsewhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from itertools import islice

from distci.access import Action
from distci.frontend import etags
from distci.frontend.endpoint import Call, Content, Endpoint, Parameter, Returns
from distci.model import Result

MEDIA_TYPE = "image/svg+xml"
LOOKED_AT_MAX = 20
"""So many builds back a result is looked for: those before it have none yet."""
OF_REF_LOOKED_AT_MAX = 100
"""So many, where it must be one of a ref."""

GREY, RED, GREEN = "#57606a", "#b3202c", "#17692c"
"""White letters on each have a contrast of 4.5 at least (WCAG AA)."""

COLOURS = {Result.PASSED: GREEN, Result.FAILED: RED, Result.CANCELLED: GREY}
NOT_YET = "not built"

LETTER_PX = 6.6
"""About as wide as a letter is. The text is told how wide it is, so that it fits in whatever font it gets."""
PADDING_PX = 6
HEADERS = {
    # A page elsewhere must show what is so now; with the tag, asking costs a few bytes.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


def read_badge(call: Call) -> Content:
    job = call.job
    ref = call.query["ref"]
    wanted = (ref, f"refs/heads/{ref}", f"refs/tags/{ref}")
    most = OF_REF_LOOKED_AT_MAX if ref else LOOKED_AT_MAX
    builds = (build for build in islice(call.system.builds.list(job), most) if not ref or build.trigger.ref in wanted)
    last = next((build.result for build in builds if build.result), None)
    if last is None:
        # A job that there never was is an error, one that was not built yet is not.
        next(call.system.jobs.history(job))
    says, colour = (last.value, COLOURS[last]) if last else (NOT_YET, GREY)
    drawn = picture(call.query["label"] or job, says, colour).encode()
    return Content(lambda start: io.BytesIO(drawn[start:]), len(drawn), etags.digest(drawn), MEDIA_TYPE, HEADERS)


def picture(label: str, says: str, colour: str) -> str:
    """An SVG of a text beside a state on a colour. Whatever the texts hold, they are text."""
    left, right = (round(len(text) * LETTER_PX) + 2 * PADDING_PX for text in (label, says))
    width = left + right
    label, says = escape(_drawable(label)), escape(_drawable(says))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {says}">'
        f"<title>{label}: {says}</title>"
        f'<clipPath id="r"><rect width="{width}" height="20" rx="4"/></clipPath><g clip-path="url(#r)">'
        f'<rect width="{left}" height="20" fill="#30363d"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14" textLength="{left - 2 * PADDING_PX}">{label}</text>'
        f'<text x="{left + right / 2}" y="14" textLength="{right - 2 * PADDING_PX}">{says}</text></g></svg>'
    )


def _drawable(text: str) -> str:
    """Without what XML has no way to say."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "GET",
        "/jobs/{job}/-/badge.svg",
        "read_badge",
        "See how a job's last build ended, as a picture",
        read_badge,
        Action.READ,
        {200: Returns("An SVG.", media_type=MEDIA_TYPE, headers=("ETag",))},
        (
            Parameter(
                "label",
                {"type": "string", "default": "", "maxLength": 100},
                "What it says before that; the job's id by default.",
            ),
            Parameter(
                "ref",
                {"type": "string", "default": "", "maxLength": 200},
                "Only of this branch or tag, as `main` or `refs/heads/main`; of the last 100 builds.",
            ),
        ),
        description="Of a job that is not public, whoever shows nothing is not told even that it is there.",
    ),
)
