"""Telling forges how builds of their commits stand."""

from __future__ import annotations

import json
import logging
from itertools import islice

import requests

from distci.model import Json
from distci.work import Call, Claim, Lifecycle
from distci_workers import deadlines

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 15 * 60.0
"""How long a forge that does not take a status is left alone; twice as long each time."""

PATIENCE_S = 24 * 3600.0
"""How long it is tried again."""

TIMEOUT_S = (5.0, 10.0)
"""To connect, and between two signs of life."""

TIME_MAX_S = 20.0
"""For a whole call, whatever signs of life there are."""

PIECE_BYTES, PIECES_MAX = 64 * 1024, 16
"""Of an answer."""

OK = 200
TOO_EARLY = (408, 425, 429)
WORTH_ANOTHER_TRY = (401, 403, 404)
"""Refusals that somebody may put right: a token that is wrong or has expired, a repository that it may not see yet."""

log = logging.getLogger(__name__)


class StatusWorker:
    """Says what a ticket has to say, unless it is out of date or the forge knows it; what has been said late, it corrects.

    A forge that is away, or refuses what may be put right, is told again later, for a day.
    """

    kind = "status"

    def serve(self, claim: Claim, lifecycle: Lifecycle) -> Claim | None:
        statuses = lifecycle.statuses
        word, is_new = statuses.note(claim.ticket)
        latest = statuses.latest(word)
        if is_new and latest != word:
            return claim.finish()
        said = None
        while said != latest:
            if said is None and claim.lost.is_set():
                return claim.finish()  # which raises; but what has been said late is corrected all the same
            problem = self._tell(statuses.call(latest), claim, is_new=is_new)
            if problem:
                return self._try_again(claim, lifecycle, problem)
            said, latest, is_new = latest, statuses.latest(word), False
        return claim.finish()

    def _tell(self, call: Call | None, claim: Claim, *, is_new: bool) -> str:
        """What keeps a forge from hearing now; empty when it has heard, or never will. It is asked first for what is not new."""
        if call is None:
            log.warning("status %s is told to nobody: the settings have no token for its receiver", claim.token)
            return ""
        try:
            if not is_new:
                code, data = _ask("GET", call.shown_at, call)
                if _is_for_later(code):
                    return f"HTTP {code}"
                # Of one who may not look, or cannot, it is not known: it hears it once more.
                if code == OK and call.is_shown_by(_json(data)):
                    return ""
            code, data = _ask("POST", call.url, call)
        except (requests.RequestException, OSError) as error:
            return type(error).__name__
        text = data.decode(errors="replace")
        if 200 <= code < 300 or any(code == known and part in text for known, part in call.is_done_by):
            return ""
        if _is_for_later(code) or code in WORTH_ANOTHER_TRY:
            return f"HTTP {code}"
        log.error("status %s is refused with HTTP %d: %r", claim.token, code, text[:200])
        return ""

    def _try_again(self, claim: Claim, lifecycle: Lifecycle, problem: str) -> Claim | None:
        age_s = (lifecycle.now_ms() - claim.ticket.posted_ms) / 1000
        if age_s > PATIENCE_S:
            log.error("status %s is given up after %.0f s: %s", claim.token, age_s, problem)
            return claim.finish()
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(claim.ticket.tries - 1, 20))
        log.warning("status %s is told again in %.0f s: %s", claim.token, pause_s, problem)
        claim.park_until(lifecycle.tickets.tree.now_ms() + int(pause_s * 1000), uses_attempt=False)
        return None


def _ask(method: str, url: str, call: Call) -> tuple[int, bytes]:
    """The answer of a forge: its code, and as much of its body as anybody looks at."""
    with (
        deadlines.session(TIME_MAX_S) as session,
        session.request(
            method,
            url,
            json=call.body if method == "POST" else None,
            headers=call.headers,
            auth=lambda request: request,  # else what ~/.netrc has for the host would take the token's place
            timeout=TIMEOUT_S,
            allow_redirects=False,  # the token is for this address alone
            stream=True,
        ) as answer,
    ):
        return answer.status_code, b"".join(islice(answer.iter_content(PIECE_BYTES), PIECES_MAX))


def _is_for_later(code: int) -> bool:
    return code >= 500 or code < 200 or 300 <= code < 400 or code in TOO_EARLY


def _json(data: bytes) -> Json:
    """What an answer says; None where that is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
