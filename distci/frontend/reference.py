"""The description of the API where programs look for it, and as a page for people that asks nobody else for anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from starlette.responses import Response

import distci
from distci.frontend import etags, openapi
from distci.frontend.endpoint import JSON, Call, Endpoint, Handler, Returns
from distci.views import to_bytes

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; overflow-wrap: anywhere }
details { border-top: 1px solid; padding: .4rem 0 } summary { cursor: pointer }
b { display: inline-block; min-width: 4.5rem } table { border-collapse: collapse }
td, th { text-align: left; vertical-align: top; padding: .1rem 1rem .1rem 0 }
pre { overflow-x: auto }
"""


def endpoints(others: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """Those that describe the others, and themselves."""
    made: dict[str, bytes] = {}

    def described() -> Mapping[str, Any]:
        return openapi.document([*others, *own], distci.__version__)

    def served(name: str, media_type: str, make: Callable[[], bytes]) -> Handler:
        async def serve(call: Call) -> Response:
            # Made when it is first asked for, and the same ever after.
            data = made.get(name) or made.setdefault(name, make())
            etag = etags.digest(data)
            headers = {"ETag": etags.quoted(etag), "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
            if etags.is_unchanged(call.request.headers.get("if-none-match"), etag):
                return Response(None, 304, headers)
            return Response(data, headers=headers, media_type=media_type)

        return serve

    document = Endpoint(
        "GET",
        "/openapi.json",
        "get_description",
        "Read this description, as OpenAPI 3.1",
        served("document", JSON, lambda: to_bytes(described())),
        None,
        {200: Returns("The description.", headers=("ETag",))},
        is_public=True,
        needs_tree=False,
        tag="description",
    )
    page = Endpoint(
        "GET",
        "/",
        "get_reference",
        "Read this description, as a page",
        served("page", "text/html", lambda: "".join(_page(described())).encode()),
        None,
        {200: Returns("The page.", media_type="text/html", headers=("ETag",))},
        is_public=True,
        needs_tree=False,
        tag="description",
    )
    own = (document, page)
    return own


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>DistCI API</title><style>{STYLE}</style>"
    yield f"<h1>DistCI API <small>{escape(document['info']['version'])}</small></h1>"
    yield f"<p>{_text(document['info']['description'])} <a href=openapi.json>OpenAPI 3.1</a></p>"
    operations = [
        (operation["tags"][0], method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for group, members in groupby(sorted(operations, key=lambda item: item[0]), key=lambda item: item[0]):
        yield f"<h2 id='{escape(group)}'>{escape(group)}</h2>"
        for _, method, path, operation in members:
            yield from _operation(method, path, operation)
    yield "<h2 id=schemas>schemas</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        text = escape(_written(schema))
        yield f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code> {_text(schema.get('description', ''))}</summary><pre>{text}</pre></details>"
    yield "</html>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details id='{escape(operation['operationId'])}'><summary><b>{method.upper()}</b> <code>{escape(path)}</code> {_text(operation['summary'])}</summary>"
    yield f"<p>{_text(operation.get('description', ''))}</p><table>"
    for parameter in operation["parameters"]:
        where = "" if parameter["in"] == "query" else f" ({escape(parameter['in'])})"
        yield f"<tr><th><code>{escape(parameter['name'])}</code>{where}<td>{_text(parameter['description'])}"
    if "requestBody" in operation:
        yield f"<tr><th>body<td>{_schema_of(operation['requestBody'])}"
    for status, response in operation["responses"].items():
        if status != "default":
            yield f"<tr><th>{status}<td>{_text(response['description'])} {_schema_of(response)}"
    yield "</table></details>"


def _schema_of(part: Mapping[str, Any]) -> str:
    for content in part.get("content", {}).values():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name:
            return f"<a href='#schema-{escape(name)}'><code>{escape(name)}</code></a>"
    return ""


def _text(text: str) -> str:
    """With what stands in backquotes as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _written(schema: Mapping[str, Any]) -> str:
    import json

    return json.dumps(schema, indent=2, ensure_ascii=False)
