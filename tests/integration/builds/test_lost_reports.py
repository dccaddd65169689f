"""Reports of attempts that do not come to their end."""

from __future__ import annotations

from collections.abc import Callable

from integration.builds.playing import by_hand, end, job_of, reclaim, shell

from distci import stored_reports
from distci.app import DistCI
from distci.brokers.direct import Direct
from distci.process import WorkerProcess
from distci.reports.results import Case, CaseOutcome, Report
from distci.store import keys
from distci.store.port import objects

SCRIPT = """echo '<testsuite name="s"><testcase name="a"/><testcase name="b"/></testsuite>' > r.xml"""


def test_what_a_worker_had_read_that_died_before_it_was_on_record_counts_for_nothing(
    ci: DistCI, another: Callable[[], DistCI], employ: Callable[..., WorkerProcess]
) -> None:
    ci.jobs.put(job_of(shell("test", SCRIPT, reports={"junit": ["r.xml"]})))
    with employ(ci.lifecycle, kinds=("control",), name="control"):
        build = ci.builds.trigger("team/job")
        dying = another()
        with by_hand(dying.tickets, "shell") as claim:
            first = Direct(dying.lifecycle, dying.store).take(claim())
            first.put_report(stored_reports.write(Report([Case("half", CaseOutcome.FAILED)])))
            assert ci.reports.list(build) == []
            dying.coordination.close()
        while not reclaim(ci):
            pass
        with employ(ci.lifecycle, kinds=("shell",)):
            view = end(ci, build)

    assert [(told.summary.tests, told.summary.failed) for told in ci.reports.list(build)] == [(2, 0)]
    assert [told.case.name for told in ci.reports.cases(build)] == ["s::a", "s::b"]
    reports = [info.key for info in objects(ci.store, keys.task(build, "test")) if info.key.endswith("/report")]
    assert reports == [keys.report(build, "test", token) for token in (first.token, view.task("test").token)]
