"""Reading back what a performance left: in the tree, in the store, in the files of its processes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from distci import console
from distci.app import DistCI
from distci.artifacts import Artifacts
from distci.builds import TaskView
from distci.chaos.history import History, read
from distci.chaos.output_rules import BuildOutput, Mark, TaskOutput
from distci.chaos.reference import MARKS
from distci.chaos.workers import Site
from distci.coordination.port import leaves_first
from distci.errors import DistCIError
from distci.model import BuildId
from distci.protocol import paths
from distci.store import keys

_WRITTEN_OVER = re.compile(rb"[^\r\n]*\r(?!\n)")
_PACE = re.compile(rb"^(remote: .*|(Receiving|Unpacking) objects: .*|Resolving deltas: .*)\n", re.MULTILINE)
"""What git prints of how it gets on, and how fast: no two fetches have it in common, since two processes print it, in an order of their own."""


def steady(log: bytes) -> bytes:
    """What two logs of one task have in common."""
    return _PACE.sub(b"", _WRITTEN_OVER.sub(b"", log))


def history(site: Site) -> History:
    """What all processes wrote down."""
    files = sorted(site.histories.glob("*.jsonl"))
    return read({file.stem: file.read_text().splitlines() for file in files})


def marks(site: Site) -> Sequence[Mark]:
    """What scripts wrote about themselves."""
    lines = site.marks.read_text().splitlines() if site.marks.exists() else []
    return [Mark(*line.split()) for line in lines]


def survivors(site: Site) -> Sequence[str]:
    """Processes of scripts that are still there: all that a task starts has its environment."""
    mark = f"\0{MARKS}={site.marks}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in b"\0" + (process / "environ").read_bytes():
                words = (process / "cmdline").read_bytes().split(b"\0")
                found.append(f"{process.name} ({b' '.join(words).decode(errors='replace').strip()})")
    return found


def tree(system: DistCI) -> Mapping[str, bytes]:
    """All nodes by path."""
    coordination = system.coordination
    found = {path for folder in paths.FOLDERS for path in leaves_first(coordination, folder)}
    nodes = {path: coordination.read(path) for path in found | {paths.FORMAT, paths.CONTROL}}
    return {path: node.data for path, node in nodes.items() if node}


def unfinished(system: DistCI) -> Sequence[str]:
    """The builds that are live, and the tickets that are anywhere."""
    coordination = system.coordination
    builds = [
        str(paths.build_of(name))
        for shard in coordination.children(paths.BUILDS)
        for name in coordination.children(f"{paths.BUILDS}/{shard}")
    ]
    return [*builds, *(view.token for view in system.tickets.list())]


def outputs(system: DistCI, triggered: Mapping[str, BuildId]) -> Iterator[tuple[str, BuildOutput]]:
    """The finished builds by what caused them: a trigger, or the end of another build."""
    todo = list(triggered.items())
    while todo:
        cause, build = todo.pop(0)
        view = system.builds.get(build)
        if not view.is_archived:
            continue
        record = json.loads(system.store.get(keys.build_record(build)))
        tasks = {task.name: _output(system, build, task) for task in view.tasks}
        yield cause, BuildOutput(str(build), str(view.result), tasks, record)
        todo += [(f"{follower.job} after {cause}", follower) for follower in map(BuildId.parse, view.downstream)]


def _output(system: DistCI, build: BuildId, task: TaskView) -> TaskOutput:
    log, artifacts, problem = b"", {}, ""
    told = task.attempts[-1] if task.attempts else {}
    try:
        if task.token:
            log = b"".join(console.read_log(system.store, keys.log(build, task.name, task.token), is_complete=True))
        if told.get("log_bytes", 0) != len(log):
            problem = f"a log of {len(log)} bytes, and {told['log_bytes']} on record"
        if told.get("artifacts"):
            kept = Artifacts(system.store)
            for artifact in kept.index(build, task.name, task.token):
                artifacts[artifact.name] = artifact.sha256
                with kept.open(build, task.name, task.token, artifact.name, 0) as stream:
                    if hashlib.sha256(stream.read()).hexdigest() != artifact.sha256:
                        problem = f"artifact {artifact.name} is not as it was published"
    except DistCIError as error:
        problem = str(error)
    log = steady(log)
    return TaskOutput(str(task.state), len(log), hashlib.sha256(log).hexdigest(), artifacts, problem)
