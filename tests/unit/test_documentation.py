"""What the documentation shows is so: its jobs, its Python, its commands; and the examples of docstrings."""

from __future__ import annotations

import base64
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import distci
from distci import plan
from distci.access import Action
from distci.app import DistCI, connect, open_isolation
from distci.brokers.direct import Direct
from distci.cli import cli
from distci.cli.command import Command
from distci.documents.jobs import job_from_json
from distci.documents.written import read_written
from distci.frontend.serving import FrontEnd
from distci.jobs import Jobs
from distci.model import BuildId, Json, Trigger
from distci.process import Post, WorkerProcess
from distci.settings import Settings
from distci.store.directory import DirectoryStore

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.rst"))
KINDS = ("git-checkout", "shell", "publish-artifacts", "copy-artifacts")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
COMMAND_TIME_MAX_S = 60

BLOCK = re.compile(r"^\.\. code-block:: (\S+)\n((?:    :.*\n)*)\n((?:    .*\n|\n)+)", re.MULTILINE)
INLINE = re.compile(r"``(distci [a-z][^`]*)``")

DIFFERING = (
    (re.compile(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d"), "2026-11-25 09:00:00"),
    (re.compile(r"\b\d+\.\d s\b"), "0.1 s"),
    (re.compile(r"\b[\w.-]+-[0-9a-f]{8}\b"), "host-1a2b3c4d"),
)
"""What is another each time: moments, lengths of time, names of worker processes."""


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    language: str
    options: str
    text: str

    @property
    def caption(self) -> str:
        found = re.search(r":caption: (.+)", self.options)
        return found[1] if found else ""

    @property
    def is_run(self) -> bool:
        return ":class: run" in self.options

    def __str__(self) -> str:
        return f"{self.page}: {self.text.strip().splitlines()[0]}"


class Shown(NamedTuple):
    """A command of a ``console`` block, and what is shown below it."""

    line: str
    output: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(page.name, language, options, textwrap.dedent(text))
        for language, options, text in BLOCK.findall(page.read_text())
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
JOBS = [block for block in BLOCKS if block.language == "json" or block.caption == "job.yaml"]


def shown(block: Block) -> list[Shown]:
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [Shown(line, output.rstrip()) for line, _, output in (part.partition("\n") for part in parts)]


LINES = sorted({item.line for block in BLOCKS if block.language == "console" for item in shown(block)})
TESTS = sorted({name for page in PAGES for name in re.findall(r"``(test_\w+)``", page.read_text())})
MENTIONED = sorted({" ".join(text.split()) for page in PAGES for text in INLINE.findall(page.read_text())})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[DistCI]:
    """A system in ``tmp_path / "data"`` as ``distci up`` serves it, but for its front end."""
    settings = Settings(data=str(tmp_path / "data"), actor="ada", secret_keys=base64.b64encode(bytes(32)).decode())
    with connect(settings=settings) as system:
        posts = [Post(("control",), slots=2), Post(KINDS, slots=4)]
        scratch = tmp_path / "scratch"
        process = WorkerProcess(
            Direct(system.lifecycle, system.store, secrets=system.secrets),
            open_isolation(("host", "sandbox")),
            scratch,
            posts,
            search_path=os.defpath,
            name="build-7",
            hold_max_s=COMMAND_TIME_MAX_S,
        )
        with process:
            yield system


@pytest.fixture
def front_end(served: DistCI) -> Iterator[FrontEnd]:
    with FrontEnd(served, "127.0.0.1:0") as front_end:
        yield front_end


# Jobs


@pytest.mark.parametrize("block", JOBS, ids=str)
def test_a_job_that_is_shown_is_valid(block: Block) -> None:
    job_from_json(read_written(block.text, block.page).document)


@pytest.mark.parametrize("block", JOBS, ids=str)
def test_a_job_that_is_shown_has_the_same_tasks_once_it_is_saved(block: Block, tmp_path: Path) -> None:
    document = read_written(block.text, block.page).document
    saved = Jobs(DirectoryStore(tmp_path)).put(document)
    stored = Jobs(DirectoryStore(tmp_path)).get(saved.job)
    assert task_names(stored.document) == task_names(document)


def test_a_job_whose_axes_change_places_is_another_version(tmp_path: Path) -> None:
    def job(**matrix: Json) -> dict[str, Json]:
        return {"job": "a", "tasks": [{"name": "t", "type": "shell", "script": "true", "matrix": matrix}]}

    jobs = Jobs(DirectoryStore(tmp_path))
    jobs.put(job(x=["1"], y=["2"]))
    assert jobs.put(job(y=["2"], x=["1"])).version == 2
    assert task_names(jobs.get("a").document) == ["t[2,1]"]


def task_names(document: Mapping[str, Json]) -> list[str]:
    job = job_from_json(document)
    return [task.name for task in plan.expand(job, BuildId(job.id, 1), 1, Trigger()).tasks]


# Python


def run_examples(examples: Sequence[doctest.DocTest], names: dict[str, Any]) -> int:
    """Run examples one after the other on the same names; how many there were."""
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in examples:
        example.globs = names
        runner.run(example, out=told.append, clear_globs=False)
    assert not told, "".join(told)
    return sum(len(example.examples) for example in examples)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=lambda page: page.name)
def test_the_python_of_a_page_does_what_it_shows(page: Path, served: DistCI, front_end: FrontEnd) -> None:
    examples = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0)
    assert run_examples([examples], names(served, front_end))


def names(served: DistCI, front_end: FrontEnd) -> dict[str, Any]:
    """What examples go by."""
    token = served.access.create_token("docs", [action for action in Action if action is not Action.WORK]).text
    return {"ci": served, "folder": Path(served.settings.data), "url": front_end.address, "token": token}


FIRST = ("distci.jobs.Jobs.put", "distci.builds.Builds.trigger", "distci.builds.Builds.wait")
"""Docstrings whose examples make what the other examples look at."""


def test_the_examples_of_docstrings_do_what_they_show(served: DistCI, front_end: FrontEnd, tmp_path: Path) -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [distci, *map(importlib.import_module, module_names())]
    found = {example.name: example for module in modules for example in finder.find(module) if example.examples}
    ordered = [*(found.pop(name) for name in FIRST), *found.values()]
    assert run_examples(ordered, names(served, front_end) | {"folder": tmp_path / "empty"}) > len(FIRST)


def module_names() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(distci.__path__, "distci.")]


# Commands


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the commands that the program would have run: everything is parsed, nothing is done."""
    paths: list[str] = []
    monkeypatch.setattr(Command, "invoke", lambda self, context: paths.append(context.command_path))
    monkeypatch.setenv("TOKEN", "only there to be named")
    return paths


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_that_is_shown_can_be_typed(
    line: str, parsed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    commands = distci_commands(line)
    assert commands or "distci" not in line
    for words in commands:
        with pytest.raises(SystemExit) as ended:
            cli.main(words[1:], prog_name="distci")
        assert ended.value.code == 0, capsys.readouterr().err
    assert len(parsed) == len(commands)


@pytest.mark.parametrize("text", MENTIONED)
def test_a_command_that_is_mentioned_exists(text: str, parsed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(text)
    with pytest.raises(SystemExit):
        cli.main(words[1:], prog_name="distci")
    told = capsys.readouterr().err
    is_only_begun = "Missing argument" in told or "requires an argument" in told
    assert parsed or is_only_begun or is_group(words[1:]), told


def is_group(words: Sequence[str]) -> bool:
    found: click.Command | None = cli
    for word in words:
        if not isinstance(found, click.Group):
            return False
        found = found.get_command(click.Context(found), word)
    return isinstance(found, click.Group)


def distci_commands(line: str) -> list[list[str]]:
    """The calls of distci in a line of shell, as words."""
    inner = [call for text in re.findall(r"\$\((.*?)\)", line) for call in distci_commands(text)]
    lexer = shlex.shlex(re.sub(r"\$\(.*?\)|\b2(?=>)", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    calls: list[list[str]] = [[]]
    is_file = False
    for word in lexer:
        if word in (">", "<"):
            is_file = True
        elif re.fullmatch(r"[;|&]+", word):
            calls.append([])
        elif is_file:
            is_file = False
        else:
            calls[-1].append(word)
    return inner + [call for call in calls if call[:1] == ["distci"]]


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.is_run}))
def test_a_session_that_is_shown_goes_as_it_shows(
    page: str, served: DistCI, front_end: FrontEnd, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    environment = {
        "CI": f"{front_end.address}/api/v1",
        "FRONT_END": front_end.address,
        "DISTCI_ACTOR": "ada",
        "DISTCI_DATA": served.settings.data,
        "DISTCI_SECRET_KEYS": served.settings.secret_keys,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    others = []
    for block in [block for block in BLOCKS if block.page == page]:
        if block.caption:
            (folder / block.caption).write_text(block.text)
        for line, output in shown(block) if block.is_run else ():
            printed = subprocess.run(
                ["bash", "-c", line],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=COMMAND_TIME_MAX_S,
            ).stdout
            if not doctest.OutputChecker().check_output(f"{settled(output)}\n", settled(printed), FLAGS):
                others.append(f"$ {line}\n{printed}instead of\n{output}")
    assert not others, "\n\n".join(others)


def settled(text: str) -> str:
    """The text with what differs each time made the same."""
    for pattern, same in DIFFERING:
        text = pattern.sub(same, text)
    return text


# The pages


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_exists(name: str) -> None:
    assert any(f"def {name}(" in file.read_text() for file in (DOCS.parent / "tests").rglob("test_*.py"))


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", f"{tmp_path}/doctrees"]
    built = subprocess.run([*build, str(DOCS), f"{tmp_path}/html"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html" / "index.html").is_file()
