"""Reading reports: the dialects there are, what is hostile or broken, lines of logs, and what of it decides."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from distci import stored_reports
from distci.documents.jobs import job_from_json
from distci.errors import Damaged, Invalid, InvalidDocument, InvalidJob
from distci.masking import Masker
from distci.model import Outcome, Verdict
from distci.patterns import Pattern
from distci.reporting import SecretMask
from distci.reports import junit
from distci.reports.asked import asked
from distci.reports.lines import Lines
from distci.reports.results import (
    Annotation,
    Case,
    CaseOutcome,
    Failing,
    Level,
    Report,
    Summary,
    added,
    in_words,
    shortened,
)
from distci.reports.verdicts import decided
from distci.views import from_json, to_json

PASSED, FAILED, SKIPPED = CaseOutcome.PASSED, CaseOutcome.FAILED, CaseOutcome.SKIPPED

ONE_FAILED = Summary(tests=9, failed=1, failing=[Failing("a::b")])

PYTEST = """<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="0.035" timestamp="2026-01-01T00:00:00" hostname="h">
<testcase classname="tests.test_a" name="test_good[1]" time="0.001" /><testcase classname="tests.test_a" name="test_bad" time="0.002"><failure message="assert 1 == 2">def test_bad():
&gt;       assert 1 == 2</failure></testcase><testcase classname="tests.test_a" name="test_skip" time="0.000"><skipped type="pytest.skip" message="not here">x.py:5: not here</skipped></testcase>
<testcase classname="tests.test_a" name="test_fixture" time="0.1"><error message="failed on setup with &quot;OSError&quot;">E</error></testcase></testsuite></testsuites>"""

SUREFIRE = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="https://maven.apache.org/surefire/maven-surefire-plugin/xsd/surefire-test-report.xsd" name="org.AppTest" time="1,234.5" tests="3" errors="0" skipped="0" failures="1">
  <properties><property name="java.version" value="21"/></properties>
  <testcase name="adds" classname="org.AppTest" time="1,234.5"/>
  <testcase name="divides" classname="org.AppTest" time="0.1"><failure message="expected: &lt;1&gt; but was: &lt;2&gt;" type="org.opentest4j.AssertionFailedError"><![CDATA[org.opentest4j
	at org.AppTest.divides(AppTest.java:7)]]></failure><rerunFailure type="x"><stackTrace>again</stackTrace></rerunFailure><system-out>noise</system-out></testcase>
  <testcase name="wobbles" classname="org.AppTest" time="0.1"><flakyFailure message="once" type="x"><stackTrace>t</stackTrace></flakyFailure></testcase>
</testsuite>"""

GOTESTSUM = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="3" failures="1" errors="0" time="0.5"><testsuite tests="3" failures="1" time="0.2" name="example.org/hello" timestamp="2026-01-01T00:00:00Z"><properties><property name="go.version" value="go1.22"></property></properties>
<testcase classname="example.org/hello" name="TestHello" time="0.010000"></testcase><testcase classname="example.org/hello" name="TestHello/sub" time="0.0"><failure message="Failed" type="">=== RUN   TestHello/sub&#xA;    hello_test.go:9: no</failure></testcase>
<testcase classname="example.org/hello" name="TestSkip" time="0.0"><skipped message="=== RUN   TestSkip"></skipped></testcase></testsuite></testsuites>"""

JEST = """<?xml version="1.0" encoding="UTF-8"?><testsuites name="jest tests" tests="2" failures="1" errors="0" time="1.2"><testsuite name="Calculator" errors="0" failures="1" skipped="0" timestamp="2026-01-01T00:00:00" time="0.9" tests="2">
<testcase classname="Calculator adds" name="Calculator adds" time="0.005"></testcase><testcase classname="Calculator divides" name="Calculator divides" time="0.003"><failure>Error: expect(received).toBe(expected)
    at Object.toBe</failure><failure>second</failure></testcase></testsuite></testsuites>"""

GTEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="3" failures="1" disabled="1" errors="0" time="0.035" timestamp="2026-01-01T00:00:00" name="AllTests"><testsuite name="Math" tests="3" failures="1" disabled="1" skipped="0" errors="0" time="0.015">
<testcase name="Addition" file="m.cc" line="3" status="run" result="completed" time="0.007" classname="Math" /><testcase name="Bad" status="run" result="completed" time="0" classname="Math"><failure message="m.cc:9&#x0A;Expected: 1" type=""><![CDATA[m.cc:9
Expected: 1]]></failure></testcase><testcase name="DISABLED_Old" status="notrun" result="suppressed" time="0" classname="Math" /></testsuite></testsuites>"""


def read(xml: str | bytes, mask: junit.Mask | None = None, most: int = 100) -> list[Case]:
    data = xml.encode() if isinstance(xml, str) else xml
    return junit.read(data, "r.xml", mask or junit.Mask(), lambda: None, most)


class TestJUnit:
    @pytest.mark.parametrize(
        ("xml", "wanted"),
        [
            (
                PYTEST,
                [
                    ("tests.test_a::test_good[1]", PASSED, 1, ""),
                    ("tests.test_a::test_bad", FAILED, 2, "assert 1 == 2"),
                    ("tests.test_a::test_skip", SKIPPED, 0, "not here"),
                    ("tests.test_a::test_fixture", FAILED, 100, 'failed on setup with "OSError"'),
                ],
            ),
            (
                SUREFIRE,
                [
                    ("org.AppTest::adds", PASSED, 1_234_500, ""),
                    ("org.AppTest::divides", FAILED, 100, "expected: <1> but was: <2>"),
                    ("org.AppTest::wobbles", PASSED, 100, "once"),
                ],
            ),
            (
                GOTESTSUM,
                [
                    ("example.org/hello::TestHello", PASSED, 10, ""),
                    ("example.org/hello::TestHello/sub", FAILED, 0, "Failed"),
                    ("example.org/hello::TestSkip", SKIPPED, 0, "=== RUN   TestSkip"),
                ],
            ),
            (
                JEST,
                [
                    ("Calculator::Calculator adds", PASSED, 5, ""),
                    ("Calculator::Calculator divides", FAILED, 3, "Error: expect(received).toBe(expected)"),
                ],
            ),
            (
                GTEST,
                [
                    ("Math::Addition", PASSED, 7, ""),
                    ("Math::Bad", FAILED, 0, "m.cc:9"),
                    ("Math::DISABLED_Old", SKIPPED, 0, ""),
                ],
            ),
        ],
        ids=["pytest", "surefire", "gotestsum", "jest", "gtest"],
    )
    def test_each_dialect_is_read(self, xml: str, wanted: list[tuple[str, CaseOutcome, int, str]]) -> None:
        assert [(case.name, case.outcome, case.duration_ms, case.message) for case in read(xml)] == wanted

    def test_what_surefire_ran_again_at_once_is_flaky_and_what_a_failed_test_said_is_kept(self) -> None:
        _, divides, wobbles = read(SUREFIRE)
        assert (wobbles.is_flaky, divides.is_flaky) == (True, False)
        assert divides.text.splitlines()[0] == "org.opentest4j"
        assert "noise" not in divides.text

    @pytest.mark.parametrize(
        ("xml", "problem"),
        [
            (
                '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "bb">]><testsuite/>',
                "r.xml:2:13: a document type declaration",
            ),
            ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><testsuite/>', "r.xml:1:40: a document type declaration"),
            ("<testsuite>&lol;</testsuite>", "r.xml:1:12: undefined entity"),
            ("<html><body/></html>", "r.xml:1:1: <html> is no JUnit report"),
            ("<testsuite>" * 60, "r.xml:1:551: elements nested deeper than 50"),
            (PYTEST[:400], "r.xml:3:18: no element found"),
            ("", "r.xml:1:1: no element found"),
            ("PASS\n", "r.xml:1:1: syntax error"),
            ("<testsuite><testcase name='\x1b[1m'/></testsuite>", "r.xml:1:28: not well-formed"),
            (b"<testsuite>\xff\xfe</testsuite>", "r.xml:1:12: not well-formed"),
            ('<?xml version="1.0" encoding="zip"?><testsuite/>', "r.xml:1:"),
            (f"<testsuite a='{'x' * 1_100_000}'/>", "r.xml:1:1: attributes of more than"),
            ("<testsuite>" + "<testcase name='a'/>" * 101 + "</testsuite>", "r.xml:1:2012: more than"),
        ],
        ids=lambda value: value[:20] if isinstance(value, str) else "bytes",
    )
    def test_what_is_hostile_or_broken_is_refused_with_its_place(self, xml: str | bytes, problem: str) -> None:
        with pytest.raises(Invalid) as refused:
            read(xml)
        assert str(refused.value).startswith(problem)

    def test_a_bomb_of_entities_is_refused_before_it_is_built(self) -> None:
        levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        began = time.process_time()
        with pytest.raises(Invalid, match="document type declaration"):
            read(f'<!DOCTYPE a [<!ENTITY l0 "lol">{levels}]><testsuite name="&l9;"/>')
        assert time.process_time() - began < 1

    def test_a_file_in_another_encoding_is_read(self) -> None:
        xml = '<?xml version="1.0" encoding="iso-8859-1"?><testsuite><testcase name="größe"/></testsuite>'
        assert [case.name for case in read(xml.encode("latin-1"))] == ["größe"]

    def test_secrets_are_masked_wherever_they_are_and_wherever_a_text_is_cut(self) -> None:
        mask = SecretMask(Masker(["hunter2<&>sesame"]))
        secret = "hunter2&lt;&amp;&gt;sesame"
        long = f"{'x' * (8 * 1024 - 4)}{secret}"
        xml = (
            f'<testsuite name="s"><testcase name="a {secret}"><failure message="m {secret}">{secret} and {long}</failure>'
            f'</testcase><testcase name="b"><failure>{long}</failure></testcase></testsuite>'
        )
        told = [f"{case.name}{case.message}{case.text}" for case in read(xml, mask)]
        assert not [text for text in told if "hunt" in text]
        assert "a ***" in told[0]
        assert told[0].count("***") >= 3

    def test_what_a_test_says_cannot_move_a_cursor_or_turn_a_line_round(self) -> None:
        [case] = read("<testsuite><testcase name='a\u202eb\x85'><failure>\u2066</failure></testcase></testsuite>")
        assert case.name == "a\N{REPLACEMENT CHARACTER}b"
        assert "\u2066" not in case.text + case.message

    def test_a_hundred_thousand_tests_are_counted_stored_and_read_fast(self) -> None:
        tests = "".join(f'<testcase classname="a.b" name="t{n}" time="0.01"/>' for n in range(100_000))
        began = time.process_time()
        report = Report(read(f"<testsuite>{tests}</testsuite>", most=100_000)).counted(lambda name: False)
        data = stored_reports.write(report)
        found = sum(case.outcome is PASSED for case in stored_reports.cases(io.BytesIO(data)))
        assert (found, report.summary().passed) == (100_000, 100_000)
        assert len(data) < 1_000_000
        assert time.process_time() - began < 20


class TestSummary:
    def test_it_is_bounded_however_much_there_is(self) -> None:
        failed = [Case(f"{'n' * 500}{n}", FAILED, message="m" * 300) for n in range(5000)]
        notes = [Annotation("f" * 400, 1, Level.ERROR, "t" * 300)] * 900
        summary = Report(failed, notes, ["p" * 300] * 20).summary()

        assert (summary.failed, len(summary.failing), summary.annotations) == (5000, 50, 900)
        assert len(str(summary)) < 100_000

    def test_the_same_test_passed_and_failed_in_one_report_is_flaky_and_its_failure_counts(self) -> None:
        summary = (
            Report([Case("a", FAILED), Case("a", PASSED), Case("b", PASSED)]).counted(lambda name: False).summary()
        )
        assert (summary.tests, summary.failed, summary.flaky) == (3, 1, 1)

    def test_what_is_in_quarantine_is_counted_apart_and_named_last(self) -> None:
        report = Report([Case("a", FAILED), Case("b", FAILED), Case("a2", PASSED)]).counted(lambda name: name[0] == "a")
        summary = report.summary()
        assert (summary.failed, summary.quarantined, summary.passed) == (1, 1, 1)
        assert [(each.name, each.is_quarantined) for each in summary.failing] == [("b", False), ("a", True)]

    def test_in_a_record_it_takes_as_little_room_as_it_must_and_its_counts_stay(self) -> None:
        failed = [Case(f"{'n' * 300}{n}", FAILED, message="m" * 300) for n in range(5000)]
        told = to_json(Report(failed, problems=["p" * 300] * 20).summary())
        for most in (0, 1000, 4000, 10**6):
            short = shortened(told, most)
            assert len(str(short)) <= most + 300
            assert from_json(Summary, short).failed == 5000
        assert from_json(Summary, shortened(told, 10**6)) == from_json(Summary, told)

    def test_several_are_added_up(self) -> None:
        one = Report([Case("a", FAILED, 5)], problems=["x"]).summary()
        total = added([one, Report([Case("b", PASSED, 7)]).summary()])
        assert (total.tests, total.failed, total.passed, total.duration_ms, total.problems) == (2, 1, 1, 12, ("x",))
        assert in_words(total) == "2 tests, 1 failed, 1 not read"


class TestStored:
    def test_what_is_written_is_read(self) -> None:
        cases = [Case("a", FAILED, 3, "m\nn", "t", "r.xml", True, True), Case("b\u2028", PASSED)]
        report = Report(cases, [Annotation("f", 1, Level.ERROR, "x")], ["p"], 81.5)
        data = stored_reports.write(report)
        assert [*stored_reports.read(io.BytesIO(data))] == [*report.annotations, *cases]
        assert stored_reports.check(data) == stored_reports.summary(io.BytesIO(data))
        assert stored_reports.write(report) == data

    def test_what_is_none_or_cut_off_is_told(self) -> None:
        data = stored_reports.write(Report([Case(str(n), PASSED) for n in range(50_000)]))
        for broken in (b"", b"nonsense", data[: len(data) // 2]):
            with pytest.raises((Damaged, InvalidDocument)):
                stored_reports.check(broken)


def told_of(lines: str, **reports: Any) -> Report:
    report = Report()
    found = Lines(asked(reports), report)
    data = lines.encode()
    for start in range(0, len(data), 7):
        found.write(data[start : start + 7])
    found.end()
    return report


class TestLines:
    def test_tests_are_found_by_named_groups_and_put_right(self) -> None:
        report = told_of(
            "== net\n\x1b[32mPASS\x1b[0m: build/17/get (1.5s)\nFAIL: build/18/put (0.1s)\nBROKE: build/19/x (0s)\nother\n== disk\nSKIP: build/1/w (0s)",
            log={
                "result": r"^(?P<result>[A-Z]+): (?P<name>\S+) \((?P<seconds>[0-9.]+)s\)",
                "suite": r"^== (?P<suite>\w+)$",
                "results": {"BROKE": "failed"},
                "rename": [{"pattern": r"build/\d+/", "by": ""}, {"pattern": "::(.)", "by": r".\1"}],
            },
        )
        assert [(case.name, case.outcome, case.duration_ms, case.origin) for case in report.cases] == [
            ("net.get", PASSED, 1500, "log"),
            ("net.put", FAILED, 100, "log"),
            ("net.x", FAILED, 0, "log"),
            ("disk.w", SKIPPED, 0, "log"),
        ]

    def test_a_result_that_nobody_knows_is_told_of_and_not_counted(self) -> None:
        report = told_of("odd a\nodd b\nok c\n", log={"result": r"^(?P<result>\w+) (?P<name>\w+)$"})
        assert [case.name for case in report.cases] == ["c"]
        assert report.problems == ["log: tests with the result 'odd' are not counted: say what it means in `results`"]

    def test_the_last_coverage_counts_and_nonsense_does_not(self) -> None:
        pattern = r"^TOTAL .* (?P<percent>[0-9.,]+)%"
        assert told_of("TOTAL 1 20%\nTOTAL 9 81.5%\nTOTAL 9 999%\nTOTAL 9 1.2.3%\n", coverage=pattern).coverage == 81.5

    @pytest.mark.parametrize("line", ["lines: 81.5 %", "81,5%", "covered 81.5 of 100"])
    def test_the_first_number_of_the_group_is_meant(self, line: str) -> None:
        assert told_of(f"{line}\nnone\n", coverage="(?P<percent>.*)").coverage == 81.5

    def test_annotations_are_bounded_and_harmless(self) -> None:
        pattern = r"^(?P<file>[^:]+):(?P<line>\d+): (?P<level>\w+): (?P<text>.*)"
        report = told_of(
            f"a.c:7: Warning: <b>\u202e{'x' * 999}\nb.c:1: odd: y\n" + "c:1: error: z\n" * 1100, annotations=pattern
        )
        first, second, *_ = report.annotations
        assert (first.file, first.line, first.level) == ("a.c", 7, Level.WARNING)
        assert first.text.startswith("<b>\N{REPLACEMENT CHARACTER}x")
        assert len(first.text) == 300
        assert (second.level, len(report.annotations)) == (Level.NOTICE, 1000)

    def test_a_catastrophic_expression_takes_linear_time(self) -> None:
        pattern = r"^(?P<name>(a+)+)(?P<result>$)"
        began = time.process_time()
        told_of(("a" * 16_000 + "!\n") * 5, log={"result": pattern})
        assert time.process_time() - began < 5

    @pytest.mark.parametrize(
        ("reports", "problem"),
        [
            ({"coverage": "("}, "tasks[0].reports.coverage: is no regular expression as RE2 has them: missing )"),
            ({"coverage": "[0-9]+%"}, "tasks[0].reports.coverage: has no (?P<percent>...)"),
            ({"log": {"result": r"(?P<name>.)\1"}}, "tasks[0].reports.log.result: is no regular expression"),
            ({"log": {"result": "(?P<name>.)"}}, "tasks[0].reports.log.result: has no (?P<result>...)"),
            ({"log": {"result": "(?P<name>.)(?P<result>.)", "rename": [{"pattern": "(((a{999}){999})", "by": ""}]}}, "tasks[0].reports.log.rename[0].pattern: is no"),
            ({"junit": ["../x.xml"]}, "tasks[0].reports.junit[0]:"),
            ({"junit": ["x.xml"], "mising": "fail"}, "tasks[0].reports.mising: unknown key; did you mean 'missing'?"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_meant_is_refused_when_the_job_is_saved(
        self, reports: Mapping[str, Any], problem: str
    ) -> None:
        task = {"name": "t", "type": "shell", "script": "true", "reports": reports}
        with pytest.raises(InvalidJob) as refused:
            job_from_json({"job": "a", "tasks": [task]})
        assert [told for told in refused.value.problems if told.startswith(problem)]

    def test_no_expression_is_compiled_to_more_than_a_little_memory(self) -> None:
        with pytest.raises(Invalid, match="as RE2 has them"):
            Pattern("((((a{100}){100}){100}){100})")


class TestVerdicts:
    @pytest.mark.parametrize(
        ("status", "summary", "reports", "verdict", "reason"),
        [
            (1, Summary(tests=9, failed=1), {}, "failed", "exit status 1"),
            (0, Summary(tests=9, failed=1), {}, "passed", ""),
            (0, ONE_FAILED, {"exit_statuses": [0, 1]}, "failed", "1 test failed: a::b"),
            (1, Summary(tests=9, quarantined=1), {"exit_statuses": [1]}, "passed", "exit status 1, for 1 test in quarantine and no other"),
            (1, Summary(tests=9, quarantined=1), {}, "failed", 'exit status 1, for 1 test in quarantine and no other, which its `reports` let pass with "exit_statuses": [1]'),
            (2, Summary(tests=9, quarantined=1), {"exit_statuses": [1]}, "failed", "exit status 2"),
            (1, replace(ONE_FAILED, quarantined=1), {"exit_statuses": [1]}, "failed", "1 test failed: a::b"),
            (1, Summary(tests=9), {"exit_statuses": [1]}, "failed", "exit status 1"),
            (1, Summary(tests=9, quarantined=1, problems=["x"]), {"exit_statuses": [1]}, "failed", "exit status 1"),
            (0, Summary(problems=["r.xml:1:1: cut off"]), {"missing": "fail"}, "passed", ""),
        ],
    )  # fmt: skip
    def test_the_script_decides_unless_its_job_leaves_it_to_the_tests(
        self, status: int, summary: Summary, reports: Mapping[str, Any], verdict: str, reason: str
    ) -> None:
        own = Outcome(Verdict.FAILED, f"exit status {status}", status) if status else Outcome(Verdict.PASSED, "", 0)
        found = decided(own, summary, asked({"junit": ["r.xml"], **reports}), [])
        assert (found.verdict, found.reason) == (verdict, reason)

    def test_a_missing_file_is_what_the_job_says(self) -> None:
        own = Outcome(Verdict.PASSED, "", 0)
        assert decided(own, Summary(), asked({"junit": ["a"]}), ["a"]) == own
        failed = decided(own, Summary(), asked({"junit": ["a"], "missing": "fail"}), ["a"])
        assert (failed.verdict, failed.reason) == (Verdict.FAILED, "no file matches 'a'")

    def test_a_script_that_was_killed_or_not_done_in_time_has_not_passed(self) -> None:
        for own in (Outcome(Verdict.FAILED, "signal 9", None, 9), Outcome(Verdict.TIMED_OUT, "x", 1)):
            assert decided(own, Summary(quarantined=1), asked({"exit_statuses": [1]}), []) == own
