"""Beginning and ending builds."""

from __future__ import annotations

from distci.errors import Invalid
from distci.work import Claim, Lifecycle, approvals, calls


class ControlWorker:
    """Plans builds that were triggered, archives those that have ended, and sees to tasks that only wait."""

    kind = "control"

    def serve(self, claim: Claim, lifecycle: Lifecycle) -> Claim | None:
        match claim.ticket.body.get("action"):
            case "plan":
                return lifecycle.plan(claim)
            case "archive":
                return lifecycle.archive(claim)
            case "expire":
                return approvals.expire(lifecycle, claim)
            case "call":
                return calls.serve(lifecycle, claim)
            case action:
                raise Invalid(f"ticket {claim.token}: no such action: {action!r}")
