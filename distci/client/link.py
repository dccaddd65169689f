"""One request to a front end and what becomes of it: who asks, what may be repeated, which error an answer means.

Whatever is away is asked again with patience, but only where that is safe. A change whose answer was lost may have been made: it is repeated
only if making it twice is making it once; else the caller is told that nobody knows. That it failed is never said of it.

The token goes to the front end that was named and nowhere else: redirections are not followed, and it is in no message.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import requests
import urllib3.exceptions

from distci.client.patience import Patience
from distci.documents.problems import error_of
from distci.errors import DistCIError, Invalid, InvalidDocument, InvalidSettings, NotAuthenticated, Unavailable
from distci.model import Json
from distci.settings import Settings, is_loopback, token_of

ROOT = "/api/v1"
CONNECTIONS_KEPT = 50
"""As many as threads may ask at once without making new ones: a worker with many slots has some for each."""
log = logging.getLogger(__name__)

SILENCE_S = 2.0
"""After so long it is told that a front end is asked in vain."""

CONNECT_S = 10.0
ANSWER_S = 30.0
"""Longer than a front end waits for tree, store and threads together."""

UPLOADED_S = 300.0
"""How long a front end may take to put into the store what it was sent: as long as a proxy before it waits."""

BYTES = "application/octet-stream"
PIECE_BYTES = 64 * 1024
"""Most of what a stream says that is taken at a time."""

NOTHING, UNCHANGED, NO_SUCH_BYTES, TOO_MANY = 204, 304, 416, 429
AWAY = (502, 503, 504)

Look = Callable[[], Json]
"""Finds out what became of a change whose answer was lost: what would have been answered; None where it was not made, or nobody can tell."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as often as it is sent."""

    method: str
    path: str
    """Below :data:`ROOT`, quoted."""
    query: Mapping[str, Any] = field(default_factory=dict)
    """None is left out."""
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = True
    """Whether it may be sent once more when it may have been served already."""
    is_streamed: bool = False
    data: Callable[[], Content] | None = None
    """A body that is no JSON, made anew each time."""
    answer_s: float = 0.0
    """How long the answer may take; 0: as long as patience lasts, and :data:`ANSWER_S` at most."""

    @property
    def is_change(self) -> bool:
        return self.method not in ("GET", "HEAD")


class Body(Protocol):
    """Bytes of a known number, as they are sent."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, size: int = -1) -> bytes: ...


Content = Body | BinaryIO | bytes
"""A body that is no JSON, as it is sent once."""


class Link:
    """The way to one front end, or to several: behind one address, or each at its own, of which the next is asked where one is away. Any thread may use it."""

    def __init__(self, settings: Settings, patience: Callable[[], Patience]) -> None:
        """``settings`` are those of a front end; ``token`` is in them, or can be read."""
        self.patience = patience
        self._addresses = _Addresses([url.rstrip("/") for url in settings.urls])
        self._verify: str | bool = _authority(settings) or True
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS_KEPT))
        token = token_of(settings)
        self._has_token = bool(token)
        self._session.auth = _Bearer(token)
        self._session.headers["Accept-Encoding"] = "identity"  # what is counted are bytes of logs and files
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        # What is on this machine is not reached by a proxy, which would read the token.
        self._session.trust_env = not all(map(is_loopback, settings.url_hosts))

    def close(self) -> None:
        self._session.close()

    def with_patience(self, patience: Callable[[], Patience]) -> Link:
        """The same way, for calls that are to be repeated otherwise."""
        link = copy(self)
        link.patience = patience
        return link

    @property
    def _url(self) -> str:
        return self._addresses.current

    def get(self, path: str, **query: Any) -> Json:
        """The JSON of an answer."""
        return self._json(self._ask(Asked("GET", path, query)))

    def get_unless(self, path: str, etag: str) -> tuple[Json, str]:
        """The same with its ETag; None when that is still ``etag``."""
        headers = {"If-None-Match": etag} if etag else {}
        answer = self._ask(Asked("GET", path, headers=headers))
        return (None, etag) if answer.status_code == UNCHANGED else (self._json(answer), answer.headers.get("ETag", ""))

    def items(self, path: str, **query: Any) -> Iterator[Json]:
        """The items of all pages, each fetched when it is needed."""
        page = self.get(path, **query)
        while True:
            yield from page["items"]
            if page["next"] is None:
                return
            page = self.get(path, **query | {"cursor": page["next"]})

    def head(self, path: str, **query: Any) -> Mapping[str, str]:
        """The headers that a GET would be answered with."""
        try:
            return self._ask(Asked("HEAD", path, query)).headers
        except Unavailable:
            raise
        except DistCIError:
            # The answer has no body that says which.
            self.get(path, **query)
            raise

    def stream(self, path: str, headers: Mapping[str, str], **query: Any) -> requests.Response:
        """An answer whose body has not been read; close it."""
        return self._ask(Asked("GET", path, query, headers=headers, is_streamed=True))

    def pieces(self, path: str) -> Iterator[bytes]:
        """What a stream says, as it comes, until it ends or breaks off."""
        with suppress(requests.RequestException), self.stream(path, {}) as answer:
            yield from answer.iter_content(PIECE_BYTES)

    def change(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        headers: Mapping[str, str] | None = None,
        is_repeatable: bool = True,
        look: Look | None = None,
        answer_s: float = 0.0,
        **query: Any,
    ) -> Json:
        """The JSON that a change is answered with.

        After a lost answer it is asked again if it is repeatable, and ``look`` is asked when that is refused, or would not be right. Unavailable
        when it is not known whether the change was made.
        """
        try:
            return self._json(
                self._ask(Asked(method, path, query, body, headers or {}, is_repeatable, answer_s=answer_s))
            )
        except _Unsure as unsure:
            error = unsure.error
        found = None
        with suppress(DistCIError):
            found = look() if look else None
        if found is None:
            raise error
        return found

    def upload(
        self,
        path: str,
        data: Callable[[], Content],
        *,
        headers: Mapping[str, str] | None = None,
        answer_s: float = 0.0,
        **query: Any,
    ) -> Json:
        """The JSON that bytes are answered with which are put there; once more, it is the same. Unavailable when they may not have arrived."""
        try:
            return self._json(self._ask(Asked("PUT", path, query, headers=headers or {}, data=data, answer_s=answer_s)))
        except _Unsure as unsure:
            raise unsure.error from None

    def _ask(self, asked: Asked) -> requests.Response:
        """The answer, if it is no error. Of a change that may have been made before it was refused or lost, _Unsure."""
        # How long a body is sent is nobody's silence: there patience begins with the first trouble.
        patience = None if asked.data else self.patience()
        may_be_done = is_told = False
        while True:
            at_least_s, url = 0.0, self._url
            try:
                answer = self._send(asked, url, patience)
            except requests.RequestException as error:
                trouble = self._away(error)
                self._addresses.leave(url)
                may_be_done |= _may_have_arrived(error)
            else:
                if answer.status_code < 300 or answer.status_code in (UNCHANGED, NO_SUCH_BYTES):
                    return answer
                refused = self._refused(asked, answer)
                if not isinstance(refused, Unavailable):
                    raise _Unsure(refused) if may_be_done and asked.is_change else refused
                trouble = refused
                self._addresses.leave(url)
                at_least_s = _retry_after_s(answer)
                may_be_done |= answer.status_code != TOO_MANY
            patience = patience or self.patience()
            if not is_told and patience.spent_s >= SILENCE_S:
                is_told = True
                log.warning("%s; asking again for %.0f s at most", trouble, patience.left_s)
            if (asked.is_repeatable or not may_be_done) and patience.again(at_least_s):
                continue
            if may_be_done and asked.is_change:
                raise _Unsure(type(trouble)(f"{trouble}; it is not known whether it was done"))
            raise trouble

    def _send(self, asked: Asked, url: str, patience: Patience | None) -> requests.Response:
        answer_s = asked.answer_s or max(1.0, min(ANSWER_S, patience.left_s if patience else ANSWER_S))
        return self._session.request(
            asked.method,
            f"{url}{ROOT}{asked.path}",
            params={name: _in_query(value) for name, value in asked.query.items() if value is not None},
            json=asked.body,
            data=asked.data() if asked.data else None,
            headers={"Content-Type": BYTES, **asked.headers} if asked.data else asked.headers,
            timeout=(CONNECT_S, answer_s),
            allow_redirects=False,
            stream=asked.is_streamed,
            verify=self._verify,
        )

    def _refused(self, asked: Asked, answer: requests.Response) -> DistCIError:
        if answer.is_redirect:
            return Invalid(
                f"{self._url} sends us on to {answer.headers['Location']}; name that as the URL, if it is right"
            )
        place = f"{self._url}: {asked.method} {asked.path}"
        error = error_of(
            answer.status_code, _read(answer), f"{place} was answered with {answer.status_code} {answer.reason}"
        )
        if isinstance(error, NotAuthenticated) and not self._has_token:
            return NotAuthenticated(
                f"{self._url} has to be shown a token: name one by DISTCI_TOKEN or DISTCI_TOKEN_FILE; its owner makes one on the page, or by `token create` where the back ends are named"
            )
        is_away = answer.status_code in AWAY and not isinstance(error, Unavailable | Invalid)
        return Unavailable(str(error)) if is_away or answer.status_code == TOO_MANY else error

    def _away(self, error: requests.RequestException) -> Unavailable:
        """What it means that there was no answer. InvalidSettings for a certificate that is not trusted."""
        if isinstance(error, ValueError):
            raise Invalid(f"{self._url} cannot be asked: {type(error).__name__}") from error
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise InvalidSettings(
                    f"{self._url} cannot be trusted:",
                    [f"its certificate: {cause.verify_message}; a private authority is named by ca (DISTCI_CA)"],
                ) from error
        if self._url.startswith("https:") and any(_speaks_no_tls(cause) for cause in _causes(error)):
            return Unavailable(
                f"{self._url} does not answer by TLS; a front end itself speaks http://, to this machine"
            )
        said = [cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror]
        silence = "no answer in time" if isinstance(error, requests.Timeout) else "the connection broke"
        return Unavailable(f"{self._url} does not answer ({said[-1] if said else silence})")

    def _json(self, answer: requests.Response) -> Json:
        if answer.status_code == NOTHING:
            return None
        found = _read(answer)
        if found is None:
            kind = answer.headers.get("Content-Type", "nothing")
            raise InvalidDocument(
                f"{self._url} answers with {kind} where JSON was expected; is it a front end of DistCI?"
            )
        return found


class _Addresses:
    """Where the front ends are. All who share it ask the same one, until that is away."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._place = 0

    @property
    def current(self) -> str:
        return self._urls[self._place]

    def leave(self, url: str) -> None:
        """That one is away: on to the next, unless somebody has gone on already."""
        if self.current == url:
            self._place = (self._place + 1) % len(self._urls)


class _Unsure(Exception):
    """A change may have been made."""

    def __init__(self, error: DistCIError) -> None:
        self.error = error


class _Bearer(requests.auth.AuthBase):
    """Shows a token. With it, what ``~/.netrc`` has for the host is left alone."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _authority(settings: Settings) -> str:
    """The file of the authority that is trusted; empty for those that are known everywhere. InvalidSettings when it is none."""
    if not settings.ca:
        return ""
    file = str(Path(settings.ca).expanduser())
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        said = error.strerror if isinstance(error, FileNotFoundError) else "no certificate in PEM"
        raise InvalidSettings("nobody can be trusted:", [f"{settings.origin('ca')}: {file}: {said}"]) from error
    return file


def _in_query(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(answer: requests.Response) -> Json:
    """The JSON of an answer; None where it is something else."""
    if "json" not in answer.headers.get("Content-Type", ""):
        return None
    try:
        return json.loads(answer.content)
    except ValueError:
        return None


def _retry_after_s(answer: requests.Response) -> float:
    """How long the front end, or a proxy before it, wants to be left alone: as seconds or as a date (RFC 9110, 10.2.3)."""
    said = answer.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return 0.0


def _may_have_arrived(error: requests.RequestException) -> bool:
    """Whether the request may have been served: not if there was never a connection for it."""
    never = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return not any(isinstance(cause, never) for cause in _causes(error))


def _speaks_no_tls(cause: BaseException) -> bool:
    return isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of; requests and urllib3 have that in their arguments, too."""
    found: list[BaseException] = [error]
    for cause in found:
        yield cause
        inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        found += [each for each in inner if isinstance(each, BaseException) and each not in found]
