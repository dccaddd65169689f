"""Images of an engine: those that it has, and those that it fetches; private ones for those alone whom their registry gives them to.

An engine gives what it has to whoever asks. So it is noted in a folder of ours which repositories were fetched with a login, before that is done, and
an image of one of these is asked for again each time, with the login of whoever wants it now: its registry decides. That moves no layer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import docker
from docker.errors import APIError, NotFound

from distci.errors import Invalid, Unavailable
from distci.isolation.image_names import BY_ID, MADE_HERE, has_tag, host_of, repositories, repository_of

REFUSED = re.compile("not found|unknown|denied|unauthorized|no basic auth|invalid|does not exist", re.IGNORECASE)
"""What engines say of images that cannot be had however often they are asked for."""


class Images:
    """The images of one engine."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is where it is noted which repositories are private."""
        self._folder = folder

    def find(self, engine: docker.APIClient, name: str, logins: Mapping[str, str], stop: Event) -> Mapping[str, Any]:
        """What is known of an image, which is fetched where it is not there. Invalid for one that cannot be had."""
        found: Mapping[str, Any] | None = None
        with suppress(NotFound):
            found = engine.inspect_image(name)
        if found and not self._is_private(name, found):
            return found
        if name.startswith(MADE_HERE):
            raise Invalid(f"image {name} cannot be had: it is not on this machine, and no registry has such a name")
        if name.startswith(BY_ID) and not found:
            raise Unavailable(f"image {name} cannot be had: it was made on another machine")
        by_digest = (found or {}).get("RepoDigests", ()) if name.startswith(BY_ID) else ()
        self._fetch_one(engine, by_digest or [name], logins, stop)
        try:
            fetched: Mapping[str, Any] = engine.inspect_image(name)
        except NotFound as error:
            raise Unavailable(f"image {name} cannot be had: it was not fetched to its end") from error
        return fetched

    def digest(
        self, engine: docker.APIClient, name: str, image: Mapping[str, Any], logins: Mapping[str, str], stop: Event
    ) -> str:
        """By what everybody knows an image of that name; for one that no registry has, its id, by which nobody else does."""
        known = () if name.startswith(MADE_HERE) else image.get("RepoDigests") or ()
        digests = sorted(digest for digest in known if repository_of(digest) in repositories(name))
        if len(digests) < 2:
            return digests[0] if digests else str(image["Id"])
        # Of one that was made here, too, an engine may tell a digest that it had before it was pushed.
        return self._fetch_one(engine, digests, logins, stop)

    def _is_private(self, name: str, found: Mapping[str, Any]) -> bool:
        """Whether an image that is there is not for everybody by that name; by its id, if it is so by all of its names."""
        known = (found.get("RepoDigests") or ()) if name.startswith(BY_ID) else [name]
        return bool(known) and all(map(self._is_noted, known))

    def _fetch_one(self, engine: docker.APIClient, names: Sequence[str], logins: Mapping[str, str], stop: Event) -> str:
        """The first of several names of an image by which it can be had, having been fetched."""
        *others, last = names
        for name in others:
            with suppress(Invalid):
                self._fetch(engine, name, logins, stop)
                return name
        self._fetch(engine, last, logins, stop)
        return last

    def _fetch(self, engine: docker.APIClient, name: str, logins: Mapping[str, str], stop: Event) -> None:
        login = logins.get(host_of(name), "")
        user, colon, password = login.partition(":")
        if login and not colon:
            raise Invalid(f"the login to {host_of(name)} has to be USER:PASSWORD")
        if login:
            self._note_private(name)
        options = {} if has_tag(name) else {"tag": "latest"}
        # Without any the engine's client would take those that it finds in the home of the worker's user.
        said = {"username": user, "password": password} if login else {}
        try:
            if self._is_noted(name) and not _asks_always(engine):
                engine.inspect_distribution(name, auth_config=said)
            for step in engine.pull(name, auth_config=said, **options, stream=True, decode=True):
                if stop.is_set():
                    break
                if "error" in step:
                    refuses = REFUSED.search(step["error"])
                    raise (Invalid if refuses else Unavailable)(f"image {name} cannot be had: {step['error']}")
        except APIError as error:
            why = f"image {name} cannot be had: {error.explanation or error}"
            raise (Invalid if REFUSED.search(why) else Unavailable)(why) from error

    def _note_private(self, name: str) -> None:
        try:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            self._note(repository_of(name)).touch()
        except OSError as error:
            raise Unavailable(
                f"it cannot be noted in {self._folder} that {name} is private: {error.strerror}"
            ) from error

    def _is_noted(self, name: str) -> bool:
        return any(self._note(repository).exists() for repository in repositories(name))

    def _note(self, repository: str) -> Path:
        return self._folder / hashlib.sha256(repository.encode()).hexdigest()


def _asks_always(engine: docker.APIClient) -> bool:
    """Whether the engine asks a registry also for what it has by its digest. Docker does not; podman does, and cannot ask otherwise."""
    return any(part["Name"].startswith("Podman") for part in engine.version().get("Components", ()))
