"""From a request to an endpoint's function and back: who asks, may they, is it well formed; then the function, in a thread."""

from __future__ import annotations

import inspect
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from distci import tracing
from distci.access import NOBODY, Action, Principal, acting
from distci.app import DistCI
from distci.coordination.port import SessionState
from distci.documents.schema import value_problems
from distci.errors import CoordinationUnavailable, DistCIError, Missing, NoSuchBuild, NoSuchJob, NotAuthenticated
from distci.frontend import bodies, content, etags, problems
from distci.frontend.access import Access, origin_of
from distci.frontend.endpoint import JSON, Answer, Call, Content, Endpoint, Parameter
from distci.frontend.hiding import HIDDEN, hidden, hidden_document
from distci.frontend.metrics import Metrics
from distci.frontend.problems import BadRequest
from distci.frontend.rates import Rates
from distci.frontend.threads import Threads
from distci.jobs import UnfitChain
from distci.model import BUILD_IN_TEXT, Json
from distci.plan import did_you_mean
from distci.projects import called, project_of
from distci.views import to_bytes

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Dispatcher:
    """Serves the requests for any endpoint of one system."""

    def __init__(self, system: DistCI, access: Access, rates: Rates, threads: Threads, metrics: Metrics) -> None:
        self._system = system
        self._access = access
        self._rates = rates
        self._threads = threads
        self._metrics = metrics

    async def serve(self, endpoint: Endpoint, request: Request) -> Response:
        """The response of an endpoint, or the problem that the request came to."""
        began = time.perf_counter()
        request_id = _id_of(request)
        tracing.note(request.headers.get("traceparent", ""), request=request_id, **_about(request.path_params))
        try:
            response = await self._serve(endpoint, request)
        except Exception as error:
            response = problems.of(error, request.url.path)
        seconds = time.perf_counter() - began
        self._metrics.requested(endpoint.name, response.status_code, seconds)
        response.headers["X-Request-ID"] = request_id
        if not endpoint.is_public or endpoint.method != "GET":
            told = {"method": request.method, "path": request.url.path}
            log.info("served", extra=told | {"status": response.status_code, "seconds": round(seconds, 4)})
        return response

    async def _serve(self, endpoint: Endpoint, request: Request) -> Response:
        if endpoint.needs_tree and self._system.coordination.session.state is not SessionState.CONNECTED:
            # Each call would wait for it until its own time is up, and hold a thread.
            raise CoordinationUnavailable(
                "this front end is cut off from the coordination tree; try again, or ask another"
            )
        # Before the body is read: nobody makes us read one who may not send it.
        try:
            principal = NOBODY if endpoint.is_public else await self._threads.run(self._admit, endpoint, request)
        except NotAuthenticated:
            # Who tries out tokens is held to a rate, too.
            self._rates.check(endpoint.rate, NOBODY, request)
            raise
        self._rates.check(endpoint.rate, principal, request)
        call = Call(
            system=self._system,
            access=self._access,
            principal=principal,
            request=request,
            path=request.path_params,
            query=query_of(endpoint, request),
            headers=headers_of(endpoint, request),
            body=None if endpoint.takes else await bodies.read(request, endpoint),
        )
        try:
            with acting(principal.name, origin_of(request)):
                # A thread gets a copy of the context, and so knows who acts.
                answer = (
                    await cast(Callable[[Call], Awaitable[Answer | Response]], endpoint.handle)(call)
                    if inspect.iscoroutinefunction(endpoint.handle)
                    else await self._threads.run(_handled, endpoint, call)
                )
        except DistCIError as error:
            if endpoint.takes or _is_told_all(endpoint):
                raise
            return await self._threads.run(_refused, error, call)
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, Content):
            return await content.respond(answer, request, self._threads)
        return _answered(answer, request)

    def _admit(self, endpoint: Endpoint, request: Request) -> Principal:
        """Who asks, if they may. Who may not even read a job is told that there is none."""
        principal = self._access.principal(request)
        if endpoint.action is not None:
            path = request.path_params
            self._access.require(principal, endpoint.action, path.get("job", ""), _missing(endpoint, path))
        elif endpoint.is_for_workers:
            self._access.require_worker(principal)
        elif endpoint.is_filtered:
            self._access.require_something(principal)
        else:
            self._access.require_somebody(principal)
        return principal


def _handled(endpoint: Endpoint, call: Call) -> Answer | Content:
    answer = cast(Callable[[Call], Answer | Content], endpoint.handle)(call)
    if isinstance(answer, Content) or endpoint.is_verbatim or _is_told_all(endpoint):
        return answer
    return replace(answer, body=hidden(answer.body, call.may_read))


def _refused(error: DistCIError, call: Call) -> Response:
    """The problem that a request came to, as who asks may be told of it: with the names that they may read, or have said themselves."""
    may_read = call.may_read
    said = {found[1] for found in BUILD_IN_TEXT.finditer(json.dumps(call.body))} | {call.path.get("job", "")}

    def may_name(job: str) -> bool:
        return job in said or may_read(job)

    if isinstance(error, UnfitChain):
        error = error.told(lambda job: job if may_name(job) else HIDDEN)
    response = problems.of(error, call.request.url.path)
    response.body = hidden_document(bytes(response.body), may_name)
    response.headers["Content-Length"] = str(len(response.body))
    return response


def _is_told_all(endpoint: Endpoint) -> bool:
    """Whether it is for workers, who are told all that their tasks name."""
    return endpoint.is_for_workers or endpoint.action is Action.WORK


def _missing(endpoint: Endpoint, path: Mapping[str, str]) -> Missing:
    """What is raised where there is nothing of that name, or must seem so."""
    job = path.get("job", "")
    if endpoint.makes_job:
        what = f"there is no job {job!r} that you may see, and you may not make one of that name"
        return NoSuchJob(f"{what}: it takes a token that may {endpoint.action} in {called(project_of(job))}")
    if "number" in path:
        return NoSuchBuild(f"there is no build {job}#{path['number']}; `distci build list {job}` shows those there are")
    return NoSuchJob(f"there is no job {job!r}; `distci job list` shows all there are")


def _about(path: Mapping[str, str]) -> Mapping[str, str]:
    """What a request is about, for the logs."""
    found = {name: path[name] for name in ("job", "task", "ticket", "worker") if name in path}
    if "number" in path:
        found["build"] = f"{found.pop('job')}#{path['number']}"
    return found


def _id_of(request: Request) -> str:
    """What tells a request from all others in the logs: as a proxy has named it, or a name of ours."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex[:16]


def _answered(answer: Answer, request: Request) -> Response:
    data = to_bytes(answer.body)
    headers = dict(answer.headers)
    # What nobody may keep has no tag, either, which would be a digest of it.
    if request.method in ("GET", "HEAD") and answer.status == 200 and "Cache-Control" not in headers:
        etag = answer.etag or etags.digest(data)
        headers |= {"ETag": etags.quoted(etag), "Cache-Control": "private, no-cache"}
        if etags.is_unchanged(request.headers.get("if-none-match"), etag):
            return Response(None, 304, headers)
    elif answer.etag:
        headers["ETag"] = etags.quoted(answer.etag)
    return Response(data, answer.status, headers, JSON)


def query_of(endpoint: Endpoint, request: Request) -> Mapping[str, Any]:
    """The parameters of a query as an endpoint declares them; BadRequest names all that is wrong with them."""
    if endpoint.takes_any_query:
        return {}
    given: dict[str, str] = {}
    declared = {parameter.name: parameter for parameter in endpoint.parameters if parameter.place == "query"}
    wrong: list[str] = []
    for name, value in parse_qsl(request.url.query, keep_blank_values=True):
        if name not in declared:
            wrong.append(f"{name}: unknown parameter{did_you_mean(name, declared)}")
        elif name in given:
            wrong.append(f"{name}: is there twice")
        given[name] = value
    values: dict[str, Any] = {}
    for name, parameter in declared.items():
        if name in given:
            values[name] = _value(parameter, given[name], wrong)
        else:
            values[name] = parameter.schema.get("default")
            wrong += [f"{name}: is missing"] if parameter.is_required else []
    if wrong:
        raise BadRequest("the query is not as it should be:", wrong)
    return values


def headers_of(endpoint: Endpoint, request: Request) -> Mapping[str, str]:
    """The headers that an endpoint declares and a request has; BadRequest names all that is wrong with them."""
    wrong: list[str] = []
    declared = [parameter for parameter in endpoint.parameters if parameter.place == "header"]
    found = {
        parameter.name.lower(): _value(parameter, request.headers[parameter.name], wrong)
        for parameter in declared
        if parameter.name in request.headers
    }
    if wrong:
        raise BadRequest("the headers are not as they should be:", wrong)
    return found


def _value(parameter: Parameter, text: str, wrong: list[str]) -> Json:
    """The value that a text stands for; what is wrong with it goes to the others."""
    value: Json = text
    kind = parameter.schema.get("type")
    if kind == "integer" and text.isascii() and text.isdigit() and len(text) < 19:
        value = int(text)
    elif kind == "boolean" and text in ("true", "false"):
        value = text == "true"
    wrong += [f"{parameter.name}: {found}" for found in value_problems(value, parameter.schema)]
    return value
