"""A system with something in every view: builds of all sorts, work that waits, a ticket that was set aside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deliveries
from looking import BUILD_TIME_MAX_S, Site, set_aside, shell
from waiting import wait_until

from distci.access import Action
from distci.app import DistCI
from distci.protocol import depths

FORK, FORKED = "gitea/pull-request-event", "example/example"

COLOURS = r"printf '\033[1mBuilding\033[0m\n\033[32mok\033[0m   parser (12 tests)\n\033[31mFAIL\033[0m printer: expected 3, got 4\n\033[33mwarning:\033[0m 2 tests were skipped\n'"
SHELL = "make dist\nmkdir -p dist/docs && echo wheel > dist/hello-1.0.whl && echo page > dist/docs/index.html"


LAB = b"""<testsuite name="lab"><testcase name="boots" time="3.5"/><testcase name="halts" time="9">
<failure message="it went on">line 7: still there</failure></testcase></testsuite>"""
"""What another system tells of a task."""

PROXY = (
    r"if [ $((DISTCI_BUILD % 2)) = 0 ]; then echo 'ok net::put'; else echo 'not ok net::put'; fi; echo 'ok net::get'"
)
"""Tests, one of which fails every other time."""


def fill_history(ci: DistCI) -> None:
    """What waited in the last hours: a crowd that came at once and was worked off, and a queue that came and went."""
    now_ms = int(time.time() * 1000)
    for minute in range(300, 5, -1):
        kinds = {}
        if 150 <= minute < 190:
            kinds["shell"] = depths.Depth(minute - 149, (190 - minute) * 38)
        if minute % 70 < 12:
            kinds["git-checkout"] = depths.Depth(1 + minute % 5, 20 + minute % 50)
        depths.record(ci.tickets.tree, depths.Sample(now_ms - minute * depths.MINUTE_MS, kinds))


@contextmanager
def filled(site: Site, gate: Path) -> Iterator[None]:
    """Fill it. The build that runs ends when the gate is there."""
    ci = site.ci
    hello = {
        "job": "team/hello",
        "description": "Build and test hello.",
        "parameters": {
            "LEVEL": {"default": "fast", "choices": ["fast", "full"], "description": "how thoroughly it is tested"},
            "NOTE": {"description": "for the record"},
        },
        "tasks": [
            shell(SHELL.replace("make dist", "echo building"), "compile", needs=[]),
            shell("echo no complaints", "lint", needs=[]),
            shell(f"{COLOURS}; test $LEVEL = fast", "test", matrix={"python": ["3.11", "3.12"]}, needs=["compile"]),
            shell("echo manual", "docs", needs=["compile"]),
            {"name": "publish", "type": "publish-artifacts", "paths": ["dist/**"], "needs": ["test", "docs", "lint"]},
            shell("echo it broke", "tell", when="failure"),
        ],
    }
    ci.jobs.put({**hello, "description": "Build hello."}, actor="ada", reason="the first of it")
    ci.jobs.put(hello, actor="grace", reason="say that it is tested, too")
    ci.jobs.put({"job": "team/lib", "tasks": [shell("true")]}, actor="ada")
    counted = {"log": {"result": r"^(?P<result>ok|not ok) (?P<name>\S+)"}}
    ci.jobs.put({"job": "team/net", "tasks": [shell(PROXY, reports=counted)]}, actor="ada")
    ci.quarantine.put("team/net", "proxy::*", owner="grace@example.org", reason="the proxy moves", actor="ada")
    ci.jobs.put({"job": "team/slow", "tasks": [shell(f"echo working; while [ ! -e {gate} ]; do sleep 0.05; done")]})
    ci.jobs.put({"job": "team/gpu", "tasks": [shell("true", "train", labels=["gpu=*"])]})
    of_forge = {"type": "gitea", "repository": FORKED, "events": ["pull_request"]}
    ci.jobs.put({"job": "sites/blog", "tags": ["docs"], "tasks": [shell("true")], "triggers": [of_forge]})
    forked = deliveries.recorded(FORK)
    ci.hooks.play("gitea", deliveries.headers(FORK, forked), forked)
    fill_history(ci)
    set_aside(ci, "resize-cat", "the picture is no picture")
    ci.access.create_token("nightly", [Action.READ, Action.TRIGGER], project="team", actor="ada")
    ci.access.create_worker_token("lab-7", ["shell", "git-checkout"], ["os=linux", "gpu=*"], actor="grace")
    leaked = ci.access.create_token("laptop", [Action.READ], actor="ada")
    ci.access.revoke_token(leaked.record.id, actor="ada", reason="was in a log")
    with site.worker("worker-1"):
        ended = [ci.builds.trigger("team/hello", actor="ada"), ci.builds.trigger("team/hello", {"LEVEL": "full"})]
        ended += [
            ci.builds.trigger("team/lib", actor="grace"),
            ci.builds.trigger("team/net", actor="ada"),
            ci.builds.trigger("team/net", actor="ada"),
            ci.builds.trigger("team/hello", actor="ada", commit="c" * 40),
        ]
        for build in ended:
            assert ci.builds.wait(build, BUILD_TIME_MAX_S).is_archived
        ci.reports.put("team/lib#1", "test", "lab", LAB)
        running = ci.builds.trigger("team/slow", actor="ada")
        ci.builds.trigger("team/gpu", actor="ada")
        wait_until(lambda: [task.state.value for task in ci.builds.get(running).tasks] == ["running"])
        wait_until(lambda: [task.state.value for task in ci.builds.get("team/gpu#1").tasks] == ["ready"])
        try:
            yield
        finally:
            gate.touch()
            ci.builds.wait(running, BUILD_TIME_MAX_S)
