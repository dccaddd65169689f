"""Processes of the program ``distci``, forked from one that has imported what it needs: to begin with nothing takes each of them 0.2 s of
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

_context = multiprocessing.get_context("forkserver")
# What front ends and workers import, none of which begins a thread.
_context.set_forkserver_preload(
    [
        "distci.cli.frontend",
        "distci.cli.logs",
        "distci.cli.worker",
        "distci.coordination.sqlite",
        "distci.coordination.zookeeper",
        "distci.frontend.serving",
        "distci.process",
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
    process = _context.Process(target=_call, args=(called,))
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
