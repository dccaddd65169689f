"""Ctrl-C to a program."""

import signal
import subprocess
import sys

PROGRAM = """
import time
from distci.cli import interrupts

interrupts.REPEATED_S = 0.1
interrupts.repeat_unheard()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    pass
try:
    print("dropped", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    interrupts.heard()
    print("heard", flush=True)
time.sleep(0.5)
"""


def test_an_interrupt_that_nobody_heard_is_repeated_until_it_is() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "dropped\nheard\n"
    assert process.returncode == 0
