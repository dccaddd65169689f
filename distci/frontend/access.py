"""Who asks, and what they may do: what a request shows, looked up in the access control of the system (:mod:`distci.access`).

Nothing is allowed unless something allows it, wherever a request comes from: others have accounts on this machine, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache

from starlette.requests import HTTPConnection

from distci.access import (
    NOBODY,
    Action,
    Allowed,
    Denied,
    Grants,
    Nobody,
    Principal,
    Visibility,
    Worker,
    decide,
    disguised,
    may_give,
)
from distci.access.texts import masked
from distci.app import DistCI
from distci.errors import Forbidden, Missing, NotAuthenticated
from distci.frontend.site import SESSION, Site
from distci.projects import called

LOG_IN = "nobody is known to ask; log in, or send a token: Authorization: Bearer distci_..."
FORWARDED_CHARS_MAX = 100


class Access:
    """The access control of one system, for requests. It may ask tree and store: call it in threads that may wait, from many at once."""

    def __init__(self, system: DistCI, site: Site) -> None:
        self._system = system
        self._site = site

    def principal(self, request: HTTPConnection) -> Principal:
        """Who asks: by the token they show, else by their session; NOBODY without either, or with a session that is over.

        NotAuthenticated for a token that is good for nothing; Unavailable when that cannot be found out.
        """
        token = bearer_of(request)
        if token is not None:
            return self._system.access.authenticate(token, origin_of(request))
        cookie = self._site.cookie(request, SESSION)
        if not cookie:
            return NOBODY
        try:
            return self._system.sessions.read(cookie).person
        except NotAuthenticated:
            # It would keep them even from what everybody sees. To all else they are told to log in.
            return NOBODY

    def may(self, principal: Principal, action: Action, job: str = "") -> bool:
        """Whether they may do that to a job or to what belongs to it; to the system as a whole where ``job`` is empty."""
        return isinstance(self._system.access.decide(principal, action, job), Allowed)

    def grants(self) -> Grants:
        """All that is in force, to decide with on many jobs."""
        return self._system.access.grants()

    def actions(self, principal: Principal, project: str) -> Collection[Action]:
        """All that they are told they may do in a project; of one that is hidden from them, what they are told of a name that nobody has given."""
        grants = self.grants()
        return [action for action in Action if isinstance(disguised(principal, grants, action, project), Allowed)]

    def require_to_give(self, principal: Principal, scopes: Collection[Action], project: str) -> None:
        """Return if they may make a token with these scopes for a project; Forbidden otherwise, whether they see it or not."""
        if not isinstance(may_give(principal, self.grants(), scopes, project), Allowed):
            what = " ".join(scopes) or "anything"
            raise Forbidden(
                f"{principal.name} may not give {what} in {called(project)}; its owners may, as far as they may do that themselves"
            )

    def reader(self, principal: Principal) -> Callable[[str], bool]:
        """Whether they may read a job or a project, to be asked of many; what is in force is looked up once, when it is asked first."""
        grants = cache(self.grants)
        return cache(lambda job: isinstance(decide(principal, grants(), Action.READ, job), Allowed))

    def require(self, principal: Principal, action: Action, job: str, missing: Missing) -> None:
        """Return if they may.

        Raises NotAuthenticated for nobody; Forbidden for somebody who sees the thing; ``missing`` where it must seem not to be there.
        """
        grants = self.grants()
        decision = decide(principal, grants, action, job)
        if isinstance(decision, Allowed):
            return
        told = disguised(principal, grants, action, job)
        if isinstance(principal, Nobody) and not isinstance(told, Allowed):
            raise NotAuthenticated(LOG_IN)
        if isinstance(told, Denied):
            raise Forbidden(told.reason)
        if not job:
            raise Forbidden(f"{principal.name} may not {action} in the whole system")
        raise missing

    def require_somebody(self, principal: Principal) -> None:
        """NotAuthenticated for nobody."""
        if isinstance(principal, Nobody):
            raise NotAuthenticated(LOG_IN)

    def require_worker(self, principal: Principal) -> None:
        """NotAuthenticated for nobody, Forbidden for whoever else is no worker."""
        self.require_somebody(principal)
        if not isinstance(principal, Worker):
            raise Forbidden(
                f"{principal.name} is no worker; `distci token create NAME --worker KIND` makes a token for one"
            )

    def require_something(self, principal: Principal) -> None:
        """NotAuthenticated for nobody, unless there is something that everybody sees; Forbidden for a worker who sees nothing."""
        is_anything_public = Visibility.PUBLIC in self.grants().visibilities.values()
        if not is_anything_public:
            self.require_somebody(principal)
        # Outside its project a worker is anybody; within, it sees nothing.
        if isinstance(principal, Worker) and not (is_anything_public and principal.project):
            raise Forbidden(
                "this token is a worker's, for its work alone: it may list nothing; `distci token create` makes one for people"
            )


def bearer_of(request: HTTPConnection) -> str | None:
    """The token that a request shows; None where it shows none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def origin_of(request: HTTPConnection) -> str:
    """Where a request comes from, for the record: who has connected, and for whom they say they did it, as proxies do."""
    peer = request.client.host if request.client else ""
    claimed = masked(request.headers.get("x-forwarded-for", ""))[:FORWARDED_CHARS_MAX]
    return f"{peer} for {claimed}" if claimed else peer
