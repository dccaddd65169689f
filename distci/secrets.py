"""Secrets of projects: kept sealed in the store, or by somebody else (:mod:`distci.providers`); read by attempts at the tasks that name them, and by nobody else.

Each project has a data key, which seals its secrets; the data key is sealed with a master key, which the settings name and no store has (:mod:`distci.sealing`).
Each secret and each data key is an object of its own, so that whoever sets a secret and whoever rotates the master key are never in each other's way, and each call
may be repeated.

A secret of a project is for all jobs within it; of several of one name, that of the nearest project counts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distci.documents.strict_json import canonical, read_json
from distci.errors import Damaged, Invalid, InvalidDocument, InvalidSettings, NoSuchObject, NoSuchSecret
from distci.masking import check_maskable
from distci.model import Json, Task, check_project
from distci.projects import SYSTEM, called, is_within, lineage
from distci.providers.port import Provider
from distci.sealing import DataKey, MasterKeys, NoSuchKey
from distci.store import keys
from distci.store.port import Store, objects

FORMAT = 1
VALUE_BYTES_MAX = 32 * 1024
"""What a variable can hold with room to spare, and what can be looked for in a log without noticing it."""
NAME = re.compile("(?!CI$|DISTCI)[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class Secret:
    """What is told of a secret: all but its value."""

    project: str
    name: str
    set_ms: int
    """When, in milliseconds since 1970 by the clock of whoever set it."""
    set_by: str


@dataclass(frozen=True, slots=True)
class Rotated:
    """What became of data keys."""

    sealed: int
    """How many were sealed anew, with the first master key."""
    kept: int
    """How many were so already."""


class Secrets:
    """The secrets of one system. Any thread may use it."""

    def __init__(
        self,
        store: Store,
        master_keys: Callable[[], MasterKeys],
        providers: Sequence[Provider] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``master_keys`` is asked whenever one is needed: so nobody needs one who has to do with no secret, and a new one needs no new process."""
        self._store = store
        self._master_keys = master_keys
        self._providers = providers
        self._clock = clock

    def set(self, name: str, value: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Secret:
        """Keep a value under a name, in place of any other. Invalid, which does not repeat it, for one that cannot be kept out of logs.

        >>> secret = ci.secrets.set("DEPLOY_TOKEN", "hunter2-sesame", "docs", actor="ada@example.org")
        >>> [(secret.project, secret.name) for secret in ci.secrets.list("docs")]
        [('docs', 'DEPLOY_TOKEN')]
        """
        sealed = self._data_key(check_project(project)).seal(_value(name, value), _what(project, name))
        secret = Secret(project, name, int(self._clock() * 1000), actor)
        document = {"format": FORMAT, "sealed": sealed, "set_ms": secret.set_ms, "set_by": actor}
        self._store.put(keys.secret(project, name), canonical(document))
        return secret

    def list(self, project: str = SYSTEM) -> Iterator[Secret]:
        """What is set for a project and for those within it, by project and name."""
        check_project(project)
        for info in objects(self._store, keys.SECRETS):
            owner, name = keys.secret_of(info.key)
            if is_within(owner, project) and (document := self._read(info.key)):
                yield Secret(owner, name, document["set_ms"], document["set_by"])

    def delete(self, name: str, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> None:
        """Forget a secret; NoSuchSecret when there is none of that name for just that project."""
        key = keys.secret(check_project(project), _named(name))
        if self._store.head(key) is None:
            raise NoSuchSecret(
                f"no secret {name} is set for {called(project)}; `distci secret list` shows those there are"
            )
        self._store.delete(key)

    def rotate(self, project: str = SYSTEM, *, actor: str = "", reason: str = "") -> Rotated:
        """Seal the data keys of a project and of those within it with the first master key. The others are of no use once that is done everywhere."""
        check_project(project)
        masters = self._master_keys()
        if not masters.first:
            raise _unreadable("their data keys", NoSuchKey("no master key is at hand"))
        sealed = kept = 0
        for info in objects(self._store, keys.SECRET_KEYS):
            owner = keys.project_of_secret_key(info.key)
            document = self._read(info.key) if is_within(owner, project) else None
            if document is None:
                continue
            if document["key"] == masters.first:
                kept += 1
                continue
            self._store.put(info.key, self._wrapped(masters, self._unwrapped(masters, document, owner), owner))
            sealed += 1
        return Rotated(sealed, kept)

    def values(self, job: str, names: Iterable[str]) -> dict[str, str]:
        """The values of secrets as a job has them; those that it has none of are left out.

        Raises Invalid for one that cannot be opened or kept out of a log, Unavailable while that cannot be told.
        """
        found = {name: self._value_of(job, name) for name in dict.fromkeys(names)}
        return {name: value for name, value in found.items() if value is not None}

    def _value_of(self, job: str, name: str) -> str | None:
        value = nearest(job, name, (self._stored, *(provider.get for provider in self._providers)))
        if value is not None:
            check_value(name, value)
        return value

    def _stored(self, project: str, name: str) -> str | None:
        document = self._read(keys.secret(project, name))
        if document is None:
            return None
        wrapped = self._read(keys.secret_key(project))
        if wrapped is None:
            raise Damaged(f"{keys.secret_key(project)} is gone, and with it all secrets of {project or 'the system'}")
        data_key = self._unwrapped(self._master_keys(), wrapped, project)
        return data_key.open(str(document["sealed"]), _what(project, name)).decode()

    def _data_key(self, project: str) -> DataKey:
        """The data key of a project, made when it is the first that is wanted."""
        masters, place = self._master_keys(), keys.secret_key(project)
        document = self._read(place)
        if document is None:
            self._store.put_if_absent(place, self._wrapped(masters, DataKey.new(), project))
            # Somebody else may have been first.
            document = read_json(self._store.get(place), place)
        return self._unwrapped(masters, document, project)

    def _wrapped(self, masters: MasterKeys, data_key: DataKey, project: str) -> bytes:
        try:
            wrapped = masters.wrap(data_key, _what(project))
        except NoSuchKey as error:
            raise _unreadable(f"the data key of {called(project)}", error) from error
        return canonical({"format": FORMAT, "key": masters.first, "wrapped": wrapped})

    def _unwrapped(self, masters: MasterKeys, document: Mapping[str, Any], project: str) -> DataKey:
        try:
            return masters.unwrap(str(document["wrapped"]), str(document["key"]), _what(project))
        except NoSuchKey as error:
            raise _unreadable(f"the data key of {called(project)}", error) from error

    def _read(self, key: str) -> Mapping[str, Any] | None:
        try:
            document: Json = read_json(self._store.get(key), key)
        except NoSuchObject:
            return None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InvalidDocument(f"{key}: not of format {FORMAT}, which this version reads")
        return document


def nearest(job: str, name: str, sources: Sequence[Callable[[str, str], str | None]]) -> str | None:
    """The value of a secret as a job has it: of the nearest project that any source has it for, and of the first such source."""
    for project in reversed(lineage(job)):
        for source in sources:
            if (value := source(project, name)) is not None:
                return value
    return None


def check_trusted(task: Task, is_untrusted: bool) -> None:
    """Return if a build's task may have the secrets that it names; Invalid, which ends it, where strangers wrote what it would run."""
    if is_untrusted and task.named_secrets:
        raise Invalid(
            f"task {task.name}: {_secrets(task)} not given to a build of what somebody without rights to the repository wrote"
        )


def check_value(name: str, value: str) -> None:
    """Return if a secret can be handed to tasks and kept out of logs; Invalid, which does not repeat the value, otherwise."""
    try:
        check_maskable(value)
    except Invalid as error:
        raise Invalid(f"secret {name!r}: {error}") from None


def _secrets(task: Task) -> str:
    names = ", ".join(repr(name) for name in dict.fromkeys(task.named_secrets))
    return f"secret {names} is" if len({*task.named_secrets}) == 1 else f"secrets {names} are"


def _value(name: str, value: str) -> bytes:
    check_value(_named(name), value)
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"secret {name!r} is no text; write it as base64, and have its task decode it") from None
    if b"\0" in data or len(data) > VALUE_BYTES_MAX:
        raise Invalid(
            f"secret {name!r}: a secret is a text of at most {VALUE_BYTES_MAX} bytes, without NUL; write other things as base64, and keep large ones elsewhere"
        )
    return data


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise Invalid(
            "that is no name of a secret: up to 128 letters, digits and '_', not beginning with a digit nor with DISTCI"
        )
    return name


def _what(project: str, name: str = "") -> str:
    """What a sealed text is bound to."""
    return f"{keys.SECRETS}{project}:{name}"


def _unreadable(what: str, error: NoSuchKey) -> InvalidSettings:
    return InvalidSettings(
        f"secrets cannot be sealed or opened here: {what} needs a master key:",
        [f"secret_keys_file (DISTCI_SECRET_KEYS_FILE), or secret_keys: {error}; openssl rand -base64 32 makes one"],
    )
