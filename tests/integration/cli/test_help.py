"""Help, its examples, and completion."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

import click
import pytest
from integration.cli.homes import HELLO
from program import TIME_MAX_S, Home

import distci
from distci.cli import cli, elsewhere
from distci.cli.command import Group, Invocation


def commands(group: Group, *names: str) -> Iterator[tuple[str, ...]]:
    """Every command of the program, the groups too."""
    yield names
    context = click.Context(group, obj=Invocation())
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name)


EVERY = [*commands(cli)]


class TestHelp:
    @pytest.mark.parametrize("command", EVERY, ids=" ".join)
    def test_it_has_examples_that_are_valid_commands(
        self, home: Home, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOKEN", "for an example that reads it")

        shown = home.ask(*command, "--help")

        head, mark, examples = shown.stdout.partition("\nExamples:\n")
        assert shown.exit_code == 0
        assert head.startswith("Usage: distci")
        assert mark
        for example in examples.splitlines():
            check_usage(example)

    def test_a_group_shows_the_first_sentence_of_each_command_in_full(self, home: Home) -> None:
        listed = home.ask("job", "--help").stdout.partition("\nCommands:\n")[2].partition("\nOptions:\n")[0]

        assert "history" in listed
        assert "..." not in listed

    def test_options_may_stand_before_or_after_the_command(self, home: Home) -> None:
        data = str(home.folder / "here")
        home.ask("job", "put", home.file(HELLO), "--data", data)

        before = home.ask("--data", data, "job", "list").stdout
        between = home.ask("job", "--data", data, "list").stdout

        assert before == between == "team/hello\n"

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("logs team/hello", "No such command 'logs'; did you mean `distci build log`?"),
            ("job run job.json", "No such command 'run'; did you mean `distci build trigger`?"),
            ("job lits", "No such command 'lits'; did you mean 'list'?"),
            ("why# x", "No such command 'why#'; did you mean 'why'?"),
            ("audit purge", "No such command 'purge'; known are: list"),
            ("up --port 80", "Did you mean --listen?"),
            ("job list --limt 3", "'--limt'. Did you mean '--limit'?"),
            (
                "build trigger team/hello A=b",
                "Got unexpected extra argument (A=b); a parameter is given as --parameter A=b",
            ),
            ("job list a b", "Got unexpected extra argument (b)\n"),
        ],
    )
    def test_what_is_called_otherwise_elsewhere_is_answered_with_its_name_here(
        self, home: Home, words: str, told: str
    ) -> None:
        asked = home.ask(*words.split())

        assert asked.exit_code == 2
        assert told in asked.stderr

    def test_what_is_meant_by_names_from_elsewhere_is_there(self) -> None:
        meant = {tuple(words.split()) for words in elsewhere.COMMANDS.values() if not words.startswith("--")}
        assert meant <= {*EVERY}

    def test_the_version(self, home: Home) -> None:
        assert home.ask("--version").stdout == f"distci {distci.__version__}\n"

    @pytest.mark.parametrize("code", ["import distci.cli", "from distci.cli import main; main()"])
    def test_it_is_quick_since_it_loads_no_back_end(self, code: str) -> None:
        slow = ("kazoo", "boto3", "rich", "jsonschema", "structlog")
        report = f"import sys, atexit; atexit.register(lambda: print([m for m in {slow} if m in sys.modules])); {code}"

        ran = subprocess.run(
            [sys.executable, "-c", report, "--help"], capture_output=True, text=True, timeout=TIME_MAX_S
        )

        assert ran.stdout.splitlines()[-1] == "[]"


def check_usage(example: str) -> None:
    """Raise what is wrong with a line of a help page as a command."""
    words = shlex.split(example.strip().partition("   ")[0])
    if words[0] == "eval":
        words = shlex.split(words[1].strip("$()"))
    words = words[: next((index for index, word in enumerate(words) if word in "|<>"), None)]
    assert words.pop(0) == "distci"
    command: click.Command = cli
    while isinstance(command, Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    command.make_context(command.name, words, obj=Invocation())


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_there_is_a_script_for_each_shell(self, home: Home, shell: str) -> None:
        script = home.ask("completion", shell)

        assert script.exit_code == 0
        assert f"_DISTCI_COMPLETE={shell}_complete" in script.stdout

    def test_the_script_is_one_that_bash_takes(self, home: Home) -> None:
        script = home.file(home.ask("completion", "bash").stdout, "completion.bash")

        checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=TIME_MAX_S)

        assert (checked.returncode, checked.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("words", "found"),
        [("distci be", ["bench"]), ("distci build tr", ["trigger"]), ("distci job put --rea", ["--reason"])],
    )
    def test_commands_and_options_are_completed(self, home: Home, words: str, found: Sequence[str]) -> None:
        home.environment |= {
            "_DISTCI_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }

        ran = home.run()

        assert [line.partition(",")[2] for line in ran.stdout.splitlines()] == [*found]

    def test_another_shell_is_refused(self, home: Home) -> None:
        assert home.ask("completion", "csh").exit_code == 2


def test_who_only_looks_makes_no_system_where_there_is_none(home: Home) -> None:
    data = home.folder / "tipo here"
    for command in (
        ("job", "list"),
        ("build", "show", "a#1"),
        ("cluster", "status"),
        ("ticket", "list"),
        ("token", "list"),
    ):
        ran = home.ask(*command, "--data", str(data))
        assert (ran.exit_code, data.exists()) == (5, False)
        assert f"`distci up --data '{data}'`" in ran.stderr


def test_who_names_no_system_is_told_which_one_was_looked_at(home: Home) -> None:
    data = home.folder / ".local" / "share" / "distci"
    none = home.ask("job", "list")
    assert (none.exit_code, data.exists()) == (5, False)
    assert none.stderr == (
        f"distci: there is no system in {data}; `distci up` makes one there and runs it, --data or --url names another\n"
    )

    home.ask("cluster", "resume")

    for what, command in (("jobs", "job"), ("live workers", "worker"), ("tickets", "ticket")):
        asked = home.ask(command, "list")
        assert (asked.exit_code, asked.stdout) == (0, "")
        assert asked.stderr == f"distci: no {what} in {data}; --data or --url names another system\n"
    missing = home.ask("build", "trigger", "team/none")
    assert missing.stderr.endswith(f" (in {data}; --data or --url names another system)\n")
    assert home.ask("job", "list", "--data", str(data)).stderr == ""


def test_commands_that_are_told_are_about_the_same_system(home: Home) -> None:
    data = str(home.folder / "a folder")
    home.ask("job", "put", home.file(HELLO), "--data", data)
    home.ask("build", "trigger", "team/hello", "--data", data)

    shown = home.ask("build", "show", "team/hello#1", "--data", data)
    why = home.ask("why", "team/hello#1", "--data", data)
    missing = home.ask("--data", data, "job", "get", "team/none")

    assert f"distci --data '{data}' worker run control" in shown.stdout
    assert "no live worker serves control" in shown.stdout
    assert f"`distci --data '{data}' why team/hello#1`" in shown.stderr
    assert f"distci --data '{data}' worker run control" in why.stdout
    assert f"`distci --data '{data}' job list`" in missing.stderr


def test_what_may_be_secret_is_not_told_again() -> None:
    invocation = Invocation(flags={"store": "s3://builds?secret_key=hidden"})
    assert invocation.pasteable("see `distci job list`") == "see `distci --store 's3://builds?...' job list`"
