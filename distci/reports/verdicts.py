"""How a task ended, where its job leaves that to its tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distci.model import Outcome, Verdict
from distci.reports.asked import Asked
from distci.reports.results import Summary

NAMED_MAX = 3


def decided(outcome: Outcome, summary: Summary, asked: Asked, unmatched: Sequence[str]) -> Outcome:
    """The outcome that the job means. Without a word of it, that is the script's own.

    Where tests decide, a script that did not end well passes only if its failed tests are all known, and all in quarantine: what could not be read may have
    had others.
    """
    if outcome.verdict not in (Verdict.PASSED, Verdict.FAILED) or outcome.exit_status is None:
        return outcome
    tests_decide = outcome.exit_status in asked.exit_statuses
    if summary.failed and tests_decide:
        outcome = replace(outcome, verdict=Verdict.FAILED, reason=_failed(summary))
    elif outcome.verdict is Verdict.FAILED and summary.quarantined and not summary.failed and not summary.problems:
        known = "1 test" if summary.quarantined == 1 else f"{summary.quarantined} tests"
        reason = f"exit status {outcome.exit_status}, for {known} in quarantine and no other"
        if tests_decide:
            outcome = replace(outcome, verdict=Verdict.PASSED, reason=reason)
        elif not asked.exit_statuses:
            hint = f'which its `reports` let pass with "exit_statuses": [{outcome.exit_status}]'
            outcome = replace(outcome, reason=f"{reason}, {hint}")
    if outcome.verdict is Verdict.PASSED and unmatched and asked.is_missing_bad:
        return replace(outcome, verdict=Verdict.FAILED, reason=f"no file matches {', '.join(map(repr, unmatched))}")
    return outcome


def _failed(summary: Summary) -> str:
    names = [failing.name for failing in summary.failing if not failing.is_quarantined][:NAMED_MAX]
    more = summary.failed - len(names)
    return f"{'1 test' if summary.failed == 1 else f'{summary.failed} tests'} failed: {', '.join(names)}{f' and {more} more' if more else ''}"
