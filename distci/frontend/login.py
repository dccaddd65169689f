"""Logging in and out: by a link that is good for one time, or by the provider that the settings name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.responses import Response

from distci.access import Nobody, Person, Token, Worker, acting
from distci.access.sessions import LIFETIME_S
from distci.errors import Missing, NotAuthenticated
from distci.frontend.access import origin_of
from distci.frontend.endpoint import JSON, PROJECT, Answer, Call, Endpoint, Handler, Parameter, Returns
from distci.frontend.site import LOGIN, SESSION, Site
from distci.frontend.threads import Threads
from distci.model import check_project
from distci.settings import LOGIN_PAGE
from distci.views import to_bytes

if TYPE_CHECKING:
    from distci.access.oidc import OidcLogin
    from distci.app import DistCI

BEGIN, CALLBACK = "/login", "/login/callback"
NOT_KEPT = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
KINDS = {Nobody: "nobody", Person: "person", Token: "token", Worker: "worker"}


class Login:
    """What people log in and out by."""

    def __init__(self, system: DistCI, site: Site, threads: Threads) -> None:
        self._system = system
        self._site = site
        self._threads = threads
        self._provider: OidcLogin | None = system.oidc_login()

    def session(self, call: Call) -> Answer:
        """Who asks, what they may do, and how they can log in: all that the page needs to say it, and to offer no more."""
        principal = call.access.principal(call.request)
        is_known = not isinstance(principal, Nobody)
        return Answer(
            {
                "kind": KINDS[type(principal)],
                "name": principal.name if is_known else None,
                "login": BEGIN if self._provider else None,
                "may": call.access.actions(principal, check_project(call.query["project"])),
            }
        )

    async def by_link(self, call: Call) -> Response:
        """Let in whoever has opened a login link; its page has sent what lets them in."""
        person = await self._threads.run(self._system.login_links.use, call.body["link"])
        response = Response(to_bytes({"is_logged_in": True}), headers=NOT_KEPT, media_type=JSON)
        return await self._welcome(call, person, response)

    async def begin(self, call: Call) -> Response:
        from distci.access.oidc import FLOW_S

        begun = await self._threads.run(
            self._asked().begin, self._site.address(call.request) + CALLBACK, call.query["then"]
        )
        response = _sent_to(begun.url)
        self._site.keep(response, call.request, LOGIN, begun.cookie, FLOW_S)
        return response

    async def finish(self, call: Call) -> Response:
        if call.request.method == "HEAD":
            return _sent_to("/")
        query = dict(parse_qsl(call.request.url.query))
        finished = await self._threads.run(self._asked().finish, query, self._site.cookie(call.request, LOGIN))
        response = await self._welcome(call, finished.person, _sent_to(finished.then))
        self._site.forget(response, call.request, LOGIN)
        return response

    async def end(self, call: Call) -> Response:
        await self._threads.run(self._ended, call)
        response = Response(to_bytes({"is_logged_out": True}), headers=NOT_KEPT, media_type=JSON)
        self._site.forget(response, call.request, SESSION)
        return response

    def _asked(self) -> OidcLogin:
        if self._provider is None:
            raise Missing("no login provider is set here; `distci login` prints a link that lets you in")
        return self._provider

    async def _welcome(self, call: Call, person: Person, response: Response) -> Response:
        """The response with a session of that person."""
        cookie = await self._threads.run(self._begun, call, person)
        self._site.keep(response, call.request, SESSION, cookie, LIFETIME_S)
        return response

    def _begun(self, call: Call, person: Person) -> str:
        with acting(person.name, origin_of(call.request)), self._system.audit.note("session.begin"):
            return self._system.sessions.begin(person)

    def _ended(self, call: Call) -> None:
        cookie = self._site.cookie(call.request, SESSION)
        try:
            person = self._system.sessions.read(cookie).person
        except NotAuthenticated:
            return
        with acting(person.name, origin_of(call.request)), self._system.audit.note("session.end"):
            self._system.sessions.end(cookie)


def _sent_to(address: str) -> Response:
    return Response(None, 303, {"Location": address, **NOT_KEPT})


def endpoints(login: Login) -> Sequence[Endpoint]:
    sent = {303: Returns("Go there, with the cookie that is set.", media_type="", headers=("Location",))}
    then = {"type": "string", "default": "/", "maxLength": 2000}
    return (
        Endpoint(
            "GET",
            "/session",
            "get_session",
            "See who you are here, and what you may do",
            login.session,
            None,
            {200: Returns("Who asks.", "session", headers=("ETag",))},
            (PROJECT,),
            is_public=True,
            needs_tree=False,
            tag="access",
        ),
        _public(
            "GET",
            BEGIN,
            "begin_login",
            "Log in by the provider",
            login.begin,
            sent,
            (Parameter("then", then, "The path to go to afterwards."),),
        ),
        _public(
            "GET", CALLBACK, "finish_login", "Come back from the provider", login.finish, sent, takes_any_query=True
        ),
        _public(
            "POST",
            LOGIN_PAGE,
            "use_login_link",
            "Log in by a link, which is good for one time",
            login.by_link,
            {200: Returns("Logged in, with the cookie that is set.", "logged-in")},
            body="login-link",
        ),
        _public(
            "POST",
            "/logout",
            "log_out",
            "End the session that the cookie is of",
            login.end,
            {200: Returns("It is good for nothing any more, here and elsewhere.", "logged-out")},
        ),
    )


def _public(
    method: str,
    path: str,
    name: str,
    summary: str,
    handle: Handler,
    returns: dict[int, Returns],
    parameters: Sequence[Parameter] = (),
    *,
    takes_any_query: bool = False,
    body: str = "",
) -> Endpoint:
    return Endpoint(
        method,
        path,
        name,
        summary,
        handle,
        None,
        returns,
        parameters,
        is_public=True,
        takes_any_query=takes_any_query,
        body=body,
        root="",
        tag="access",
    )
