"""The application: every endpoint behind its path."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Event

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from distci.app import DistCI
from distci.frontend import (
    artifacts,
    audit,
    badges,
    builds,
    cluster,
    events,
    gateway,
    grants,
    health,
    holds,
    hooks,
    jobs,
    login,
    logs,
    overview,
    pages,
    problems,
    reference,
    reports,
    reproductions,
    secrets,
    streams,
    tickets,
    tokens,
    why,
    workers,
)
from distci.frontend import metrics as exposed
from distci.frontend.access import Access
from distci.frontend.dispatch import Dispatcher
from distci.frontend.endpoint import IN_PATH, Endpoint
from distci.frontend.guard import Guard
from distci.frontend.health import Health
from distci.frontend.metrics import Exposition, Metrics
from distci.frontend.rates import Rates
from distci.frontend.site import Site
from distci.frontend.streams import Streams
from distci.frontend.threads import Threads

GROUPS: Sequence[Sequence[Endpoint]] = (
    jobs.ENDPOINTS,
    builds.ENDPOINTS,
    logs.ENDPOINTS,
    reproductions.ENDPOINTS,
    holds.ENDPOINTS,
    artifacts.ENDPOINTS,
    reports.ENDPOINTS,
    why.ENDPOINTS,
    tickets.ENDPOINTS,
    workers.ENDPOINTS,
    cluster.ENDPOINTS,
    grants.ENDPOINTS,
    audit.ENDPOINTS,
    events.ENDPOINTS,
    badges.ENDPOINTS,
    secrets.ENDPOINTS,
    tokens.ENDPOINTS,
)
"""Those that need nothing but the system. Of two paths that a request might mean, the one that comes first is meant."""


def create(
    system: DistCI,
    *,
    is_local: bool = True,
    hosts: Sequence[str] = (),
    metrics: Metrics | None = None,
    stopping: Event | None = None,
) -> Starlette:
    """The front end of a system as an ASGI application.

    One that ``is_local`` listens on loopback alone, and answers to its names, to that of the setting ``public_url``, and to ``hosts``.
    ``metrics`` are the figures that the system's calls are counted in. Once ``stopping`` is set, it says that it is not ready.
    """
    site = Site(system.settings.public_url, is_local, frozenset(hosts))
    access = Access(system, site)
    metrics = metrics or Metrics()
    stopping = stopping or Event()
    threads = Threads()
    open_streams = Streams(threads)
    endpoints = [endpoint for group in GROUPS for endpoint in group]
    endpoints += artifacts.endpoints(artifacts.Intake(system, threads))
    endpoints += reports.endpoints(reports.Intake(system, threads))
    rates = Rates(system.settings)
    endpoints += streams.endpoints(open_streams)
    endpoints += health.endpoints(Health(system, stopping))
    endpoints += holds.endpoints(holds.Screens(threads, stopping))
    endpoints += hooks.endpoints(hooks.Intake(rates, threads))
    endpoints += exposed.endpoints(Exposition(system, metrics, threads))
    endpoints += overview.endpoints(overview.Overview())
    endpoints += login.endpoints(login.Login(system, site, threads))
    endpoints += gateway.endpoints(gateway.Desk(system, threads, stopping))
    endpoints += reference.endpoints(endpoints)
    application = Starlette(
        routes=[
            *routes(endpoints, Dispatcher(system, access, rates, threads, metrics)),
            *pages.routes(),
        ],
        middleware=[Middleware(Guard, site=site)],
        exception_handlers={HTTPException: pages.nothing_here, Exception: problems.unexpected},
    )
    application.router.redirect_slashes = False
    application.state.endpoints = endpoints
    application.state.stopping = stopping
    application.state.streams = open_streams
    return application


def routes(endpoints: Sequence[Endpoint], dispatcher: Dispatcher) -> list[Route]:
    """A route for each path, whatever the method: so that a method that a path does not take is told which it does take."""
    for name, (expression, _, _) in IN_PATH.items():
        register_url_convertor(name, _convertor(expression))
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.address, {})[endpoint.method] = endpoint
    return [
        Route(_template(path), partial(_serve, dispatcher, methods), methods=[*methods])
        for path, methods in by_path.items()
    ]


async def _serve(dispatcher: Dispatcher, methods: dict[str, Endpoint], request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    return await dispatcher.serve(methods[method], request)


def _template(path: str) -> str:
    """The path as the router has it: each parameter with its own expression."""
    for name in IN_PATH:
        path = path.replace(f"{{{name}}}", f"{{{name}:{name}}}")
    return path


def _convertor(expression: str) -> StringConvertor:
    made: type[StringConvertor] = type("PathParameter", (StringConvertor,), {"regex": expression})
    return made()
