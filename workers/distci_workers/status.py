"""Telling forges how builds of their commits stand."""

from __future__ import annotations

import logging

import requests

from distci.work import Call, Claim, Lifecycle

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 15 * 60.0
"""How long a forge that does not take a status is left alone; twice as long each time."""

PATIENCE_S = 24 * 3600.0
"""How long it is tried again."""

TIMEOUT_S = (5.0, 10.0)
"""To connect, and between two signs of life."""

ANSWER_BYTES_MAX = 4096
WORTH_ANOTHER_TRY = (401, 403, 404, 408, 425, 429)
"""Refusals that somebody may put right: a token that is wrong or has expired, a repository that it may not see yet."""

log = logging.getLogger(__name__)


class StatusWorker:
    """Says what a ticket has to say, unless it is out of date; what has been said late, it corrects.

    A forge that is away, or refuses what may be put right, is told again later, for a day.
    """

    kind = "status"

    def serve(self, claim: Claim, lifecycle: Lifecycle) -> Claim | None:
        statuses = lifecycle.statuses
        said, latest = statuses.note(claim.ticket), None
        if claim.ticket.tries > 1 or statuses.latest(said) == said:
            # An earlier try may have been heard late, and after what came later: then that is said once more.
            while latest != (latest := statuses.latest(said)):
                problem = self._tell(statuses.call(latest), claim)
                if problem:
                    return self._try_again(claim, lifecycle, problem)
        return claim.finish()

    def _tell(self, call: Call | None, claim: Claim) -> str:
        """What keeps a forge from hearing now; empty when it has heard, or never will."""
        if call is None:
            log.warning("status %s is told to nobody: the settings have no token for its receiver", claim.token)
            return ""
        if claim.lost.is_set():
            return "the claim is lost"
        try:
            with requests.post(
                call.url,
                json=call.body,
                headers=call.headers,
                timeout=TIMEOUT_S,
                allow_redirects=False,  # the token is for this address alone
                stream=True,
            ) as answer:
                code = answer.status_code
                if 200 <= code < 300:
                    return ""
                text = next(answer.iter_content(ANSWER_BYTES_MAX), b"").decode(errors="replace")
        except (requests.RequestException, OSError) as error:
            return type(error).__name__
        if any(code == known and part in text for known, part in call.is_done_by):
            return ""
        if code >= 500 or code < 400 or code in WORTH_ANOTHER_TRY:
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
