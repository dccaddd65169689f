"""The provider port: values of secrets that somebody else keeps.

Promises that hold for every provider:

* It gives a secret to the project that its own settings give it to, and to no other: projects are what rights hang on. It is asked for each project that a job lies
  within, the nearest first.
* Any thread may call it at any time; it is asked anew for each task, and keeps nothing.
* A secret that it does not have is None; what cannot be told just now raises :class:`~distci.errors.Unavailable`, never None: a task waits for that.
* Nothing that it raises or logs has a value in it.

Names of projects are prefixes of job ids (``team/web``, ``""`` for the whole system), names of secrets are letters, digits and ``_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Options = Mapping[str, str]
"""What the settings say of a provider: the table ``[secret_providers.NAME]``."""


class Provider(Protocol):
    """One such place. Made with its options and the process's environment; Invalid for options that it cannot use."""

    def get(self, project: str, name: str) -> str | None:
        """The value of a secret of just that project."""


def without_line_end(value: str) -> str:
    """A value as a file or a pipe has it: one of a single line loses the newline that editors and ``echo`` end it with; keys of several lines keep theirs."""
    return value.removesuffix("\n").removesuffix("\r") if value.count("\n") <= 1 else value
