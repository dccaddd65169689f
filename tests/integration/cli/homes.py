"""Jobs for people to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELLO = {
    "job": "team/hello",
    "parameters": {"WHO": {"default": "world"}},
    "tasks": [
        {"name": "say", "type": "shell", "script": 'echo "hello $WHO" | tee greeting.txt'},
        {"name": "keep", "type": "publish-artifacts", "paths": ["greeting.txt"]},
    ],
}

BROKEN = {
    "job": "team/broken",
    "tasks": [
        {"name": "fall", "type": "shell", "script": "exit 7"},
        {"name": "late", "type": "shell", "script": "echo"},
    ],
}

WRONG = {"job": "team/wrong", "tasks": [{"name": "a", "type": "shell", "scrpt": "true"}, {"name": "a", "type": "x"}]}

BYTES = {"job": "team/bytes", "tasks": [{"name": "print", "type": "shell", "script": r"printf '\377\0\r\n\033[31m'"}]}

LARGE = {"job": "team/large", "tasks": [{"name": "print", "type": "shell", "script": "seq 100000"}]}


def waits_for(file: Path, **task: Any) -> dict[str, Any]:
    """A job whose task writes ``begun`` beside the file, with its process id, and ends when the file is there."""
    script = f"echo $$ > {file.parent}/begun.part; mv {file.parent}/begun.part {file.parent}/begun\n"
    script += f"until test -e {file}; do sleep 0.05; done; echo went"
    return {"job": "team/slow", "tasks": [{"name": "wait", "type": "shell", "script": script, **task}]}
