"""What is expected of a worker. Each case has work for it, and something that happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from shlex import quote
from time import monotonic

from distci.builds import BuildView
from distci.chaos.waiting import wait_until
from distci.conformance.relay import Weather
from distci.conformance.stage import Stage
from distci.model import BuildId, Result, TaskState

HUGE_LINES = 1_500_000
"""Some 11 MB."""
ALL_BYTES = bytes(range(256))
STRAYS_MAX = 3
"""Calls that may be on their way when a worker learns that its claim is lost."""


class Unmet(Exception):
    """What was seen instead of what was expected."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is expected of a worker."""

    name: str
    expected: str
    play: Callable[[Stage], str]
    """What was seen; Unmet when that is not what was expected."""


def passes(stage: Stage) -> str:
    build = stage.start({"name": "work", "script": "echo hello; echo $WORD", "environment": {"WORD": "there"}})
    _passed(stage, build)
    return _printed(stage, build, b"hello\nthere\n")


def fails(stage: Stage) -> str:
    build = stage.start({"name": "work", "script": "echo so far; exit 7"})
    view = _ended(stage, build)
    task = view.task("work")
    attempt = task.attempts[-1] if task.attempts else {}
    if (view.result, attempt.get("exit_status")) != (Result.FAILED, 7):
        raise Unmet(f"{_told(view)}, exit status {attempt.get('exit_status')}")
    _printed(stage, build, b"so far\n")
    return "failed, exit status 7"


def carries_a_workspace(stage: Stage) -> str:
    build = stage.start(
        {
            "name": "make",
            "script": "mkdir -p bin && echo 'echo made' > bin/tool && chmod 755 bin/tool && ln -s tool bin/link",
        },
        {"name": "work", "script": "bin/link"},
    )
    _passed(stage, build)
    return _printed(stage, build, b"made\n")


def prints_much(stage: Stage) -> str:
    build = stage.start({"name": "work", "script": f"seq 1 {HUGE_LINES}"})
    _passed(stage, build)
    return _printed(stage, build, b"".join(b"%d\n" % number for number in range(1, HUGE_LINES + 1)))


def prints_all_bytes(stage: Stage) -> str:
    octal = "".join(f"\\{byte:03o}" for byte in ALL_BYTES)
    build = stage.start({"name": "work", "script": f"printf {quote(octal)}"})
    _passed(stage, build)
    return _printed(stage, build, ALL_BYTES)


def is_cancelled(stage: Stage) -> str:
    build = stage.start(_lasting(stage, "cancelled"))
    _begun(stage, build, "cancelled")
    stage.ci.builds.cancel(build)
    began_s = monotonic()
    view = stage.end(build, stage.options.time_max_s)
    if view.result is not Result.CANCELLED:
        raise Unmet(f"{stage.options.time_max_s:g} s after the cancel: {_told(view)}{_still(stage, 'cancelled')}")
    took_s = monotonic() - began_s
    if stage.is_alive("cancelled"):
        raise Unmet("cancelled, but its script still runs")
    return f"over after {took_s:.1f} s, its script gone"


def runs_out_of_time(stage: Stage) -> str:
    build = stage.start({**_lasting(stage, "late"), "timeout": "2s"})
    view = stage.end(build, stage.options.time_max_s + 2)
    if view.task("work").state is not TaskState.TIMED_OUT:
        raise Unmet(f"{_told(view)}{_still(stage, 'late')}")
    if stage.is_alive("late"):
        raise Unmet("timed out, but its script still runs")
    return "timed out, its script gone"


def loses_its_claim(stage: Stage) -> str:
    lasting = _lasting(stage, "lost")
    script = f'if [ "$DISTCI_ATTEMPT" = 1 ]; then {lasting["script"]}; fi; echo again'
    build = stage.start({"name": "work", "script": script})
    _begun(stage, build, "lost")
    token = stage.claimed(build)
    stage.take_away(token)
    view = stage.end(build, stage.options.time_max_s)
    told = _refusals(stage, token)
    if view.result is not Result.PASSED:
        raise Unmet(f"{told}; {_told(view)}{_still(stage, 'lost')}")
    _printed(stage, build, b"again\n")
    if stage.is_alive("lost"):
        raise Unmet(f"{told}; the script of the lost attempt still runs")
    refused = [call for call in stage.relay.calls if call.token == token and call.status == 409]
    if len(refused) > STRAYS_MAX:
        raise Unmet(f"{told}: it did not heed the first")
    return f"{told}; passed at attempt {_attempt(view)}"


def lives_with_lost_answers(stage: Stage) -> str:
    stage.relay.begin(Weather(doubles=True))
    build = stage.start({"name": "work", "script": "seq 1 2000; sleep 2; seq 2001 4000"})
    view = _passed(stage, build)
    if _attempt(view) != 1:
        raise Unmet(f"passed at attempt {_attempt(view)}: a claim was lost on the way")
    lost = sum(call.is_lost for call in stage.relay.calls)
    return f"{_printed(stage, build, _numbers(4000))}; {lost} answers were lost"


def lives_with_a_slow_store(stage: Stage) -> str:
    stage.relay.begin(Weather(write_pause_s=1.0, outages=chain([1, 1], repeat(0))))
    build = stage.start({"name": "work", "script": "seq 1 2000; sleep 1; seq 2001 4000"})
    _passed(stage, build)
    return _printed(stage, build, _numbers(4000))


def lives_with_a_front_end_killed(stage: Stage) -> str:
    killed: list[int] = []

    def kill(path: str, front: int) -> None:
        if "/attempts/" in path and path.partition("?")[0].endswith(("/log", "/heartbeat")) and not killed:
            killed.append(front)
            stage.kill_front_end(front)

    stage.relay.begin(Weather(while_called=kill))
    build = stage.start({"name": "work", "script": "seq 1 2000; sleep 4; seq 2001 4000"})
    view = _passed(stage, build)
    if not killed:
        raise Unmet("it sent neither log nor heartbeat while its script ran")
    if _attempt(view) != 1:
        raise Unmet(f"passed at attempt {_attempt(view)}: the claim did not go on at the other front end")
    return _printed(stage, build, _numbers(4000))


CASES: Sequence[Case] = (
    Case("passes", "a script with exit status 0 passes; its variables, its output", passes),
    Case("fails", "a script with exit status 7 fails with that on record", fails),
    Case("workspace", "a task finds what the one before it has left: files, modes, links", carries_a_workspace),
    Case("huge-log", f"{HUGE_LINES:,} lines arrive as they were printed", prints_much),
    Case("any-bytes", "bytes that are no UTF-8 arrive as they were printed", prints_all_bytes),
    Case("cancel", "cancelled while it runs, the script is ended and the task is cancelled", is_cancelled),
    Case("timeout", "after the task's timeout the script is ended and the task has timed out", runs_out_of_time),
    Case(
        "claim-lost",
        "refused with 409, it ends the script, writes no more for that token, and claims again",
        loses_its_claim,
    ),
    Case(
        "lost-answers", "with each call doubled and every other answer lost, all happens once", lives_with_lost_answers
    ),
    Case("slow-store", "with 503 at first and 1 s for each write, nothing is lost", lives_with_a_slow_store),
    Case(
        "front-end-killed",
        "with a front end killed in the middle of a call, the attempt goes on",
        lives_with_a_front_end_killed,
    ),
)


def _lasting(stage: Stage, mark: str) -> dict[str, object]:
    """A task that runs until it is ended, and shows that it does."""
    path = quote(str(stage.marks / mark))
    return {"name": "work", "script": f"echo begun; while :; do date +%s%N > {path}; sleep 0.2; done"}


def _begun(stage: Stage, build: BuildId, mark: str) -> None:
    try:
        wait_until(
            lambda: stage.has_ended or ((stage.marks / mark).exists() and bool(stage.claimed(build))),
            stage.options.time_max_s,
        )
    except TimeoutError:
        raise Unmet(
            f"after {stage.options.time_max_s:g} s its script does not run: {_told(stage.view(build))}"
        ) from None
    if stage.has_ended:
        raise Unmet(_told(stage.view(build)))


def _ended(stage: Stage, build: BuildId) -> BuildView:
    view = stage.end(build, stage.options.time_max_s)
    if view.result is None and stage.has_ended:
        raise Unmet(_told(view))
    if view.result is None:
        raise Unmet(f"not over after {stage.options.time_max_s:g} s: {_told(view)}")
    return view


def _passed(stage: Stage, build: BuildId) -> BuildView:
    view = _ended(stage, build)
    if view.result is not Result.PASSED:
        raise Unmet(_told(view))
    return view


def _printed(stage: Stage, build: BuildId, wanted: bytes) -> str:
    got = stage.log(build)
    if got == wanted:
        return f"passed, {len(got)} bytes of log"
    differs = next(
        (place for place, (one, other) in enumerate(zip(got, wanted, strict=False)) if one != other),
        min(len(got), len(wanted)),
    )
    raise Unmet(
        f"the log has {len(got)} bytes instead of {len(wanted)}, and differs from byte {differs} on: {got[differs : differs + 30]!r} instead of {wanted[differs : differs + 30]!r}"
    )


def _numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, count + 1))


def _attempt(view: BuildView) -> int:
    attempts = view.task("work").attempts
    return int(attempts[-1]["attempt"]) if attempts else 0


def _told(view: BuildView) -> str:
    tasks = ", ".join(f"{task.name} {task.state}{f' ({task.reason})' if task.reason else ''}" for task in view.tasks)
    return f"the build is {view.result or 'not over'}: {tasks}"


def _still(stage: Stage, mark: str) -> str:
    return "; its script still runs" if stage.is_alive(mark) else ""


def _refusals(stage: Stage, token: str) -> str:
    """What came of the calls for a claim that was taken away."""
    refused = sum(call.status == 409 for call in stage.relay.calls if call.token == token)
    return f"{refused} calls with the old token were refused"
