"""The description of the API says what there is, no more and no less, and programs that go by it find nothing amiss."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from frontends import BUILD, SCOPES, Api, Stage, job, problem, shell
from schemathesis.checks import CHECKS
from starlette.routing import Route

from distci.app import connect
from distci.documents.schema import api_schemas
from distci.frontend import openapi, pages
from distci.frontend.app import create

EXAMPLES = 12
"""Of each kind, for each operation: it takes some 30 seconds."""


class TestDescription:
    def test_each_route_is_described_and_the_reverse(self, tmp_path: Path) -> None:
        with connect(tmp_path) as ci:
            application = create(ci)
            routed = {
                (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
                for route in application.routes
                if isinstance(route, Route)
                for method in (route.methods or set()) - {"HEAD"}
            }
        routed -= {("GET", route.path.replace("{rest:path}", "{rest}")) for route in pages.routes()}
        paths = described(tmp_path)["paths"]
        assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == routed

    def test_it_is_openapi_and_each_reference_leads_somewhere(self, tmp_path: Path) -> None:
        document = described(tmp_path)
        assert document["openapi"] == "3.1.0"
        for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
            found = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
        names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
        assert len(set(names)) == len(names)
        used = {name for name in api_schemas() if f'"#/components/schemas/{name}"' in json.dumps(document)}
        assert used == set(api_schemas())

    def test_the_page_asks_nobody_else_for_anything(self, local: Stage) -> None:
        api, _ = local.front_end()
        page = api.get("/")
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert not re.findall(r"(?:src|href)=['\"]?(?:https?:)?//", page.text)
        assert "<script" not in page.text
        for operation in ("list_jobs", "trigger_build", "read_artifact", "get_metrics"):
            assert f"id='{operation}'" in page.text
        assert api.get("/", headers={"If-None-Match": page.headers["ETag"]}).status_code == 304


def described(folder: Path) -> Any:
    """The description of an application that nobody asks."""
    with connect(folder) as ci:
        return openapi.document(create(ci).state.endpoints, "0")


@pytest.mark.timeout(240)
def test_s02_programs_that_are_made_of_the_description_find_nothing(local: Stage) -> None:
    """Requests as described and others, made of the description: no 5xx, and no answer that is not described."""
    local.start_workers()
    api, process = local.front_end()
    keep = {"name": "keep", "type": "publish-artifacts", "paths": ["*"]}
    api.put("/jobs/team/hello", json=job("team/hello", shell("echo hello | tee a"), keep))
    api.post("/jobs/team/hello/-/builds")
    local.end("team/hello#1")
    schema = schemathesis.openapi.from_url(f"{api.url}/api/v1/openapi.json")
    checks: list[Any] = [
        check
        for check in CHECKS.get_all()
        if check.__name__
        in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
        )
    ]
    assert len(checks) == 5
    asked = 0
    shown: dict[str, str] = {}

    def owner() -> Api:
        return Api(api.url, local.ci.access.create_token("fuzz", SCOPES).text)

    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # it is described
        if operation.label == "GET /api/v1/events":
            continue  # a stream without an end, which would be waited for
        # Ids that an answer told are tried elsewhere, and so a request may revoke its own token: that is the end of it for one operation alone.
        shown.update(owner().authorization)

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def fuzz(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(checks=checks, headers=shown)

        fuzz()
    assert asked > 100
    assert not process.has_ended
    last = owner()
    assert last.get(BUILD).json()["state"] == "passed"
    problem(last.get("/jobs/team/none"), 404, "NoSuchJob")
