"""What every command has in common: which system it works on, ``--json``, examples in its help, a number that it exits with.

A command's function may return the exit code; None is 0. What it raises is reported in one place, :mod:`distci.cli`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from getpass import getuser
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from distci.app import Around, DistCI
    from distci.client import Client
    from distci.settings import Settings

    System = DistCI | Client
    """What most commands work on: type checkers hold both to what is used of them."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

BACK_ENDS_FLAGS = ("coordination", "store", "data")

COMMAND = re.compile(
    r"\bdistci (?=(?:up|job|build|reproduce|hook|artifact|frontend|worker|ticket|events|why|cluster|login|access|secret|token|audit|check)\b)"
    r"(?![^`;]* --data )"
)
"""Where a text says what to type, of what works on a system, and does not say on which."""

SECRET_PART = re.compile(r"[?].*", re.DOTALL)

SENTENCE_MAX = 200
"""Most letters of a command's first sentence beside its name; a longer one is cut."""


@dataclass
class Invocation:
    """What one call of the program was told, before or after the name of its command."""

    flags: dict[str, str | None] = field(default_factory=dict)
    config: str | None = None
    verbosity: int = 0
    is_json: bool = False
    unnamed: str = ""
    """The folder of the system that was connected to though nobody named any."""

    def connect(self) -> System:
        """The system to work on, through a front end where a URL names one. Close it when done."""
        from distci.app import DistCI

        settings = self._load()
        if not settings.url:
            self.unnamed = str(settings.data_folder) if _is_default(settings) else ""
            return DistCI(settings)
        from distci.client import Client

        return Client(settings)

    def look_at(self) -> System:
        """The same for commands that only look: a folder is not made into a new, empty system. Missing where there is none."""
        from distci.errors import Missing

        settings = self._load()
        if not (settings.url or settings.coordination or settings.store):
            folder = settings.data_folder
            if not Path(settings.coordination_address.path).exists():
                if _is_default(settings):
                    raise Missing(
                        f"there is no system in {folder}; `distci up` makes one there and runs it, --data or --url names another"
                    )
                raise Missing(
                    f"{settings.origin('data')}: there is no system in {folder}; `distci up --data {quote(str(folder))}` makes one there and runs it"
                )
        return self.connect()

    def note_none(self, what: str) -> None:
        """Tell people that there are none, and where, when nobody named the system that was looked at."""
        if self.unnamed and not self.is_json:
            click.echo(f"distci: no {what} in {self.unnamed}; --data or --url names another system", err=True)

    def pasteable(self, text: str) -> str:
        """A text whose ``distci ...`` commands are about the system that this call was told of, and so work when they are pasted."""
        told = [*self.flags.items(), ("config", self.config)]
        # What stands behind a question mark may be secret: whoever pastes it fills it in.
        flags = "".join(f" --{name} {quote(SECRET_PART.sub('?...', value))}" for name, value in told if value)
        return COMMAND.sub(lambda found: f"distci{flags} ", text)

    def connect_directly(self, around: Around | None = None) -> DistCI:
        """The system on its back ends, with something in front of its tree and store if need be; Invalid where a front end is named."""
        from distci.app import DistCI

        return DistCI(self.settings(), around)

    def settings(self) -> Settings:
        """Settings of back ends; Invalid where a front end is named, InvalidSettings names all that is wrong with them."""
        from distci.errors import Invalid

        loaded = self.any_settings()
        if loaded.url:
            command = click.get_current_context().command_path.removeprefix("distci ")
            raise Invalid(
                f"`{command}` works on the back ends themselves, not through a front end; leave out {loaded.origin('url')}, or name them: "
                "--coordination, --store, --data"
            )
        return loaded

    def any_settings(self) -> Settings:
        """Settings of back ends, or of a front end where one is named."""
        return self._load()

    def settings_without_system(self) -> Settings:
        """The same for what brings back ends of its own, and so needs neither them nor a front end."""
        return self._load(url="")

    def _load(self, **more: str) -> Settings:
        """Settings from file, environment and flags. Whoever names back ends by a flag means them, whatever else names a front end."""
        from distci import settings
        from distci.errors import Invalid

        named = [f"--{name}" for name in BACK_ENDS_FLAGS if self.flags.get(name)]
        if named and self.flags.get("url"):
            raise Invalid(f"--url names a front end, {' and '.join(named)} back ends; leave out one or the other")
        flags = {**self.flags, **({"url": ""} if named else {}), **more}
        loaded = settings.load(self._file(), os.environ, flags)
        return loaded if loaded.actor else replace(loaded, actor=_user())

    def _file(self) -> Path | None:
        from distci import settings

        return Path(self.config) if self.config else settings.find_file(os.environ)


def _is_default(settings: Settings) -> bool:
    """Whether nobody named the system that these settings lead to."""
    return not (settings.url or settings.coordination or settings.store or "data" in settings.origins)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep the value of an option that many commands share; the one closest to the command's own name counts."""
    invocation = context.ensure_object(Invocation)
    if parameter.name in ("url", *BACK_ENDS_FLAGS):
        if value is not None:
            invocation.flags[parameter.name] = value
    elif value:
        setattr(invocation, str(parameter.name), value)


def _shared(*names: str, **attributes: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_remember, **attributes)


VERBOSITY = _shared("-v", "--verbose", "verbosity", count=True, help="Log to stderr what is done; twice for more.")
CONFIG = _shared("--config", metavar="FILE", help="Settings to go by.  [DISTCI_CONFIG]")
DATA = _shared("--data", metavar="DIR", help="Folder of the embedded back ends and of scratch space.  [DISTCI_DATA]")
BACK_ENDS = (
    _shared(
        "--coordination", metavar="URL", help="The coordination tree: sqlite:// or zookeeper://.  [DISTCI_COORDINATION]"
    ),
    _shared("--store", metavar="URL", help="The object store: file://, s3:// or rados://.  [DISTCI_STORE]"),
)
URL = _shared(
    "--url",
    metavar="URL",
    help="A front end to work through instead: https://.  [DISTCI_URL; DISTCI_TOKEN or DISTCI_TOKEN_FILE]",
)
SYSTEM = (*BACK_ENDS, DATA, URL, CONFIG, VERBOSITY)
SHARED = frozenset(SYSTEM)

reason_option = click.option("--reason", default="", help="Why, for the record.")
within_option = click.option(
    "--project", default="", metavar="PROJECT", help="There, and in all within it.  [everywhere]"
)
json_option = click.option(
    "--json",
    "is_json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Print JSON: one object a line.",
)


class Command(click.Command):
    """A command on a system, with examples of its use."""

    shared: Sequence[click.Option] = SYSTEM

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params += self.shared

    def invoke(self, ctx: click.Context) -> Any:
        from distci.cli import logs

        logs.begin(ctx.ensure_object(Invocation).verbosity)
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; what it does not know is answered with what may be meant."""
        ctx.allow_extra_args = True
        options = {name: option for option in self.params for name in option.opts}
        try:
            left = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from distci.cli.elsewhere import OPTIONS

            if (meant := OPTIONS.get(error.option_name)) in options:
                ctx.fail(f"{error.message} Did you mean {meant}?")
            raise
        if left and not ctx.resilient_parsing:
            is_parameter = "--parameter" in options and "=" in left[0]
            hint = f"; a parameter is given as --parameter {quote(left[0])}" if is_parameter else ""
            ctx.fail(f"Got unexpected extra {'argument' if len(left) == 1 else 'arguments'} ({' '.join(left)}){hint}")
        return left

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, those that many share below."""
        write_options(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


class LocalCommand(Command):
    """A command that needs no system."""

    shared = (VERBOSITY,)


class Group(click.Group):
    """Commands on one sort of thing."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params += SYSTEM

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a command that is not there is answered with what may be meant."""
        word = args[0]
        if word[:1].isalnum() and not ctx.resilient_parsing and self.get_command(ctx, word) is None:
            from distci.cli.elsewhere import meant

            group = "" if ctx.parent is None else str(self.name)
            ctx.fail(f"No such command {word!r}{meant(group, word, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        write_options(self.get_params(ctx), ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with the whole first sentence of its help."""
        commands = [self.commands[name] for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(str(item.name), item.get_short_help_str(SENTENCE_MAX)) for item in commands])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


def write_options(parameters: Sequence[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The options of a help page, in two sections; arguments are in its first line."""
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    own = [option for option in options if option not in SHARED]
    shared = [option for option in options if option in SHARED]
    for title, members in (("Options", own), ("System", shared)):
        records = [record for member in members if (record := member.get_help_record(ctx))]
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """The examples of a help page, as they are typed."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` taken apart; what is wrong with it as click's BadParameter, which repeats the name at most."""
    name, mark, value = text.partition("=")
    if not mark:
        raise click.BadParameter(f"{name!r} has no value; write NAME=VALUE.")
    if not name:
        raise click.BadParameter("there is a value without a name; write NAME=VALUE.")
    return name, value


parameter_option = click.option(
    "--parameter",
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda ctx, param, values: dict(map(pair, values)),
    help="A parameter of the job; may be repeated.",
)


def pasting() -> Callable[[str], str]:
    """:meth:`Invocation.pasteable` of the call that this thread serves, for other threads of it; nothing is changed where it serves none."""
    context = click.get_current_context(silent=True)
    invocation = context.find_object(Invocation) if context else None
    return invocation.pasteable if invocation else str


def pasteable(text: str) -> str:
    """A text with its commands as they work when they are pasted."""
    return pasting()(text)


def _user() -> str:
    """Who asks, for the record; nobody where the machine knows no name for us."""
    try:
        return getuser()
    except (KeyError, OSError):
        return ""
