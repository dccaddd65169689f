"""Processes of tests, and of the program ``distci``, forked from one that has imported what they need: to begin with nothing takes each of them 0.2 s of
processor time. In all else they are what a shell would start.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("distci")

context = multiprocessing.get_context("forkserver")
"""Starts the processes of all tests: a second list of what is imported would take the place of the first."""
# What front ends and workers import, none of which begins a thread. It does not find the folder of tests: the library alone.
context.set_forkserver_preload(
    [
        "distci.access.audited",
        "distci.brokers.direct",
        "distci.cli.build",
        "distci.cli.frontend",
        "distci.cli.interrupts",
        "distci.cli.job",
        "distci.cli.login",
        "distci.cli.logs",
        "distci.cli.run",
        "distci.cli.up",
        "distci.cli.worker",
        "distci.coordination.sqlite",
        "distci.coordination.zookeeper",
        "distci.frontend.serving",
        "distci.isolation.choice",
        "distci.isolation.host",
        "distci.process",
        "distci.rebuild",
        "distci.reproductions",
        "distci.status",
        "distci.store.directory",
        "distci.testing",
        "distci_workers.control",
        "distci_workers.copy_artifacts",
        "distci_workers.git_checkout",
        "distci_workers.publish_artifacts",
        "distci_workers.shell",
        "distci_workers.status",
        "structlog",
        "uvicorn.protocols.http.h11_impl",
    ]
)


@dataclass(frozen=True)
class Called:
    """A call of the program, and the files that its output goes to."""

    folder: Path
    environment: Mapping[str, str]
    arguments: Sequence[str]
    out: Path
    err: Path


def start(called: Called) -> ForkServerProcess:
    """A process, which leads a session of its own."""
    process = context.Process(target=_call, args=(called,))
    process.start()
    return process


def _call(called: Called) -> None:
    os.setsid()
    os.chdir(called.folder)
    os.environ.clear()
    os.environ.update(called.environment)
    for path, descriptor in ((called.out, sys.stdout.fileno()), (called.err, sys.stderr.fileno())):
        opened = os.open(path, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = [str(PROGRAM), *called.arguments]
    from distci.cli import main

    main()
