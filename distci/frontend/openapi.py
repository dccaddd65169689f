"""The description of the API (OpenAPI 3.1), made of the endpoints and of ``schemas/``, and a page of it for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from distci.access import Action
from distci.documents.schema import api_schemas
from distci.frontend import problems
from distci.frontend.endpoint import IN_PATH, JSON, Endpoint, Parameter, Returns
from distci.model import Json

SCHEMAS = "#/components/schemas/"

HEADERS: Mapping[str, tuple[Mapping[str, Json], str]] = {
    "ETag": ({"type": "string"}, "Tells this state from any other: for `If-None-Match` and `If-Match`."),
    "Link": ({"type": "string"}, 'The address of the next page, as `<...>; rel="next"`.'),
    "Location": ({"type": "string"}, "Where what was made is found."),
    "Content-Range": ({"type": "string"}, "Which bytes these are, and how many there are."),
    "Content-Disposition": ({"type": "string"}, "The name to keep the file under."),
    "DistCI-SHA-256": ({"type": "string"}, "The digest of all of its bytes."),
    "DistCI-Attempt": ({"type": "string"}, "Whose log it is; empty while there was no attempt."),
    "DistCI-Log-Complete": ({"enum": ["true", "false"]}, "Whether nothing will be added."),
    "DistCI-Log-Offset": ({"type": "string"}, "Where in the log the first of all these bytes is."),
}

SECURITY: Mapping[str, Json] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of `distci token create`."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-distci-session",
        "description": "What a browser has once somebody has logged in; without TLS, `distci-session-PORT`.",
    },
}

IF_NONE_MATCH = Parameter(
    "If-None-Match", {"type": "string"}, "The ETag of what you have: 304 where it is unchanged.", place="header"
)


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Json]:
    """The description of these endpoints."""
    by_path: dict[str, dict[str, Json]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.address, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DistCI",
            "version": version,
            "description": "Continuous integration with no master. Every error is an `application/problem+json`.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": by_path,
        "components": {
            "schemas": _schemas(),
            "headers": _headers(),
            "responses": {"problem": _problem()},
            "securitySchemes": SECURITY,
        },
        "security": [{name: []} for name in SECURITY],
    }


def _operation(endpoint: Endpoint) -> dict[str, Json]:
    told: dict[str, Json] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.group],
        "parameters": [*_in_path(endpoint), *map(_parameter, endpoint.parameters)],
        "responses": {str(status): _response(returns) for status, returns in endpoint.returns.items()}
        | {"default": {"$ref": "#/components/responses/problem"}},
    }
    if endpoint.has_etag:
        told["parameters"].append(_parameter(IF_NONE_MATCH))
        told["responses"]["304"] = {"description": "It is as you have it."}
    if endpoint.description:
        told["description"] = endpoint.description
    if endpoint.body:
        schema = {"$ref": SCHEMAS + endpoint.body}
        told["requestBody"] = {"required": not endpoint.is_body_optional, "content": {JSON: {"schema": schema}}}
    if endpoint.takes:
        told["requestBody"] = {"required": True, "content": {endpoint.takes: {}}}
    if endpoint.is_public or endpoint.is_filtered:
        told["security"] = [] if endpoint.is_public else [{}, *({name: []} for name in SECURITY)]
    if endpoint.action is not None:
        told["x-distci-right"] = str(endpoint.action)
    elif endpoint.is_for_workers:
        told["x-distci-right"] = str(Action.WORK)
    return told


def _in_path(endpoint: Endpoint) -> Iterator[dict[str, Json]]:
    for name, (_, schema, description) in IN_PATH.items():
        if f"{{{name}}}" in endpoint.path:
            yield {"name": name, "in": "path", "required": True, "schema": dict(schema), "description": description}


def _parameter(parameter: Parameter) -> dict[str, Json]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "schema": dict(parameter.schema),
        "description": parameter.description,
    }


def _response(returns: Returns) -> dict[str, Json]:
    told: dict[str, Json] = {"description": returns.description}
    if returns.headers:
        told["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in returns.headers}
    if returns.schema == "problem":
        told["content"] = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{SCHEMAS}problem"}}}
    elif not returns.media_type:
        pass
    elif returns.schema:
        told["content"] = {returns.media_type: {"schema": {"$ref": SCHEMAS + returns.schema}}}
    elif returns.media_type:
        told["content"] = {returns.media_type: {}}
    return told


def _problem() -> dict[str, Json]:
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{SCHEMAS}problem"}}}
    return {
        "description": "What went wrong. Of 503, the header `Retry-After` says when to come again.",
        "content": content,
    }


def _headers() -> dict[str, Json]:
    return {name: {"schema": dict(schema), "description": told} for name, (schema, told) in HEADERS.items()}


def _schemas() -> dict[str, Json]:
    """Those of ``api.json``, with the whole of ``job.json`` for a job and its parts beside it."""
    job = json.loads(files("distci.schemas").joinpath("job.json").read_text())
    parts = {f"job-{name}": part for name, part in job.pop("$defs").items()}
    for key in ("$schema", "$id"):
        del job[key]
    hoisted = {name: _rebased(part, f"{SCHEMAS}job-") for name, part in {"job": job, **parts}.items()}
    return {name: _rebased(part, SCHEMAS) for name, part in api_schemas().items()} | hoisted


def _rebased(schema: Any, start: str) -> Any:
    """A schema with its references to definitions beside it pointing to where these are now."""
    if isinstance(schema, list):
        return [_rebased(item, start) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("#/$defs/", start) if key == "$ref" and isinstance(value, str) else _rebased(value, start)
        for key, value in schema.items()
    }
