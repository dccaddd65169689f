"""What an endpoint is: everything that dispatching a request and describing the API need to know about it, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from distci.access import Action, Principal
from distci.frontend.access import Access
from distci.frontend.rates import REQUESTS
from distci.model import BuildId, Json, check_job_id
from distci.settings import API

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from distci.app import DistCI

ROOT = API
JSON = "application/json"
PAGE_MAX = 1000
GROUPS = ("why", "log", "artifacts", "builds", "jobs", "tickets", "workers")
"""What an endpoint is about, by the first of these that its path holds."""

Schema = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or a header; those of the path are known by their names (:data:`IN_PATH`)."""

    name: str
    schema: Schema
    description: str
    place: str = "query"
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Returns:
    """An answer that an endpoint may give."""

    description: str
    schema: str = ""
    """The name of its schema in ``schemas/api.json``; empty where the answer is no JSON."""
    media_type: str = JSON
    headers: Sequence[str] = ()
    """Names of the headers that such an answer has, of those in :mod:`distci.frontend.openapi`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint's function answers with: a JSON value, as the command line prints it."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""
    """What tells this state of the thing from any other; by default it is a digest of the body."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a known number, that are fetched when they are sent."""

    open: Callable[[int], BinaryIO]
    """A stream of them, from an offset on."""
    size_bytes: int
    etag: str
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is well formed and allowed, as an endpoint's function gets it."""

    system: DistCI
    access: Access
    principal: Principal
    request: Request
    path: Mapping[str, str]
    query: Mapping[str, Any]
    """With the defaults filled in; None for what has none and was not given."""
    headers: Mapping[str, str]
    """Those that the endpoint declares and that were given, by their names in lower case."""
    body: Any = None

    @property
    def actor(self) -> str:
        return self.principal.name

    @property
    def job(self) -> str:
        """The job that the path names; Invalid when it cannot be the id of one."""
        return check_job_id(self.path["job"])

    @property
    def build(self) -> BuildId:
        return BuildId(self.job, int(self.path["number"]))

    @property
    def may_read(self) -> Callable[[str], bool]:
        """Whether the caller may read a job or a project; to be asked of many."""
        return self.access.reader(self.principal)

    def may(self, action: Action, job: str) -> bool:
        return self.access.may(self.principal, action, job)


Handler = Callable[[Call], Answer | Content] | Callable[[Call], Awaitable["Answer | Response"]]
"""A function, which is called in a thread, or a coroutine function, which may make its response by itself."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """Below ``root``, with its parameters in braces."""
    name: str
    """Tells it from all others; what programs that are made of the description call it."""
    summary: str
    handle: Handler
    action: Action | None
    """The right that it takes: on the job that the path names, else on the system; None for what anybody who is known may ask."""
    returns: Mapping[int, Returns]
    parameters: Sequence[Parameter] = ()
    body: str = ""
    """The name of the schema of its JSON body; empty for none."""
    is_body_optional: bool = False
    takes: str = ""
    """The media type of a body that comes as it is: then the function, a coroutine function, reads it (:mod:`distci.frontend.bodies`)."""
    is_for_workers: bool = False
    """Whether it is for workers alone, whatever project they are of."""
    is_public: bool = False
    """Whether it is for those, too, of whom nobody knows who they are."""
    is_filtered: bool = False
    """Whether it shows just what they may read: then it is for those, too, as long as there is anything that everybody may."""
    makes_job: bool = False
    """Whether the job that the path names need not be there: it may make it."""
    is_verbatim: bool = False
    """Whether it shows what people wrote or programs printed, word for word; else names of jobs that the caller may not read are left out."""
    takes_any_query: bool = False
    """Whether others than we say what is in its query."""
    rate: str = REQUESTS
    """The setting that says how often somebody may ask it."""
    needs_tree: bool = True
    """Whether it is refused at once while there is no session with the tree."""
    tag: str = ""
    """The group that it is described in; what its path begins with by default."""
    description: str = ""
    root: str = ROOT

    @property
    def address(self) -> str:
        """The whole path."""
        return self.root + self.path

    @property
    def group(self) -> str:
        parts = self.path.split("/")
        return self.tag or next((part for part in GROUPS if part in parts), parts[1])

    @property
    def has_etag(self) -> bool:
        """Whether who has its answer already is told so."""
        return self.method == "GET" and any("ETag" in returns.headers for returns in self.returns.values())


SEGMENT = "[A-Za-z0-9][A-Za-z0-9._-]*"

IN_PATH: Mapping[str, tuple[str, Schema, str]] = {
    "job": (
        # A segment that is "-" alone ends the job.
        r"[^/]+(?:/(?!-(?:/|\Z))[^/]+)*",
        {"type": "string", "maxLength": 128, "pattern": f"^{SEGMENT}(/{SEGMENT}){{0,3}}$"},
        "The id of a job, as it is: `team/hello`. Its slashes may be escaped, and need not be.",
    ),
    "number": ("[1-9][0-9]{0,8}", {"type": "integer", "minimum": 1, "maximum": 999_999_999}, "The number of a build."),
    "task": (
        r"[^/\[\]]+(?:\[[^\[\]]*\])?",
        {"type": "string", "minLength": 1, "maxLength": 300, "pattern": r"^[^/\[\]]+(\[[^\[\]]*\])?$"},
        "The name of a task, with the values of its matrix: `test[3.11]`.",
    ),
    "artifact": (
        ".+",
        {"type": "string", "minLength": 1},
        "The name of an artifact, which is a path: `dist/hello.whl`.",
    ),
    "ticket": ("[^/]+", {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}, "A ticket's id, or its token."),
    "change": ("[0-9a-f]{16}", {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "The id of a change that is held."),
    "source": (
        "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"},
        "What the system is called that sends it: `lab`.",
    ),
    "receiver": (
        "[a-z][a-z0-9.-]*",
        {"type": "string", "pattern": "^[a-z][a-z0-9.-]*$"},
        "The name of a receiver: `github`, `gitlab`, `gitea` or that of one which was installed.",
    ),
    "token": (
        "[0-9a-f]{1,64}",
        {"type": "string", "pattern": "^[0-9a-f]{1,64}$"},
        "A token's id, or the beginning of it.",
    ),
    "claim": (
        "[^/]+",
        {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
        "The token of a claim, which is its fence.",
    ),
    "terminal": (
        "[0-9a-f]{32}",
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "The id of a terminal: 32 hexadecimal digits that whoever opens it makes up by chance.",
    ),
    "worker": ("[^/]+", {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}, "The name of a worker."),
}
"""What the parameters of paths are: an expression that takes them out of a path, a schema, a description."""


def limit(default: int, most: int = PAGE_MAX) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", schema, "How many at most.")


PROJECT = Parameter(
    "project",
    {"type": "string", "default": "", "maxLength": 128},
    "A project or a job; the whole system by default.",
)
CURSOR = Parameter("cursor", {"type": "string", "minLength": 1, "maxLength": 1000}, "`next` of the page before.")
REASON = Parameter("reason", {"type": "string", "default": "", "maxLength": 1000}, "Why, for the record.")
RANGE = Parameter("Range", {"type": "string"}, "`bytes=FIRST-LAST`, `bytes=FIRST-`, `bytes=-COUNT`.", place="header")
