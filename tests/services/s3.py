"""An S3 endpoint: moto's server, which keeps objects in memory and takes any credentials."""

from __future__ import annotations

import sys
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import boto3

from services.daemon import Daemon, accepts, free_port


class S3Server:
    """One server process."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        program = Path(sys.executable).with_name("moto_server")
        self._daemon = Daemon("s3", [str(program), "-H", "127.0.0.1", "-p", str(port)], folder)
        self._daemon.wait_until_ready(lambda: accepts(port))
        self.endpoint = f"http://127.0.0.1:{port}"

    @property
    def pids(self) -> list[int]:
        return [self._daemon.pid]

    def stop(self) -> None:
        self._daemon.stop()


def new_bucket(endpoint: str) -> str:
    """The name of an empty bucket of that server."""
    name = f"tests-{uuid.uuid4().hex}"
    client(endpoint).create_bucket(Bucket=name)
    return name


@cache
def client(endpoint: str) -> Any:
    """A bare client of a server, with the credentials that all of ours take."""
    return boto3.session.Session("tests", "tests", region_name="us-east-1").client("s3", endpoint_url=endpoint)
