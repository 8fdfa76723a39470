"""The OpenAPI document is complete and valid, and describes the engine's behaviour."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from starlette.routing import Route

from labrats.api.app import create_api
from labrats.api.auth.permissions import TABLE, Access, access_to
from labrats.api.openapi import SECURITY
from labrats.api.schemas.base import Provider
from labrats.api.schemas.job import Status
from labrats.api.schemas.patterns import PATTERN_MESSAGES
from labrats.model.phases import API_STATUS
from labrats.model.provider_spec import PROVIDERS
from tests.acceptance.engine import LocalEngine
from tests.api.conftest import Api, a_submission
from tests.support.github import a_github

OPERATIONS: Final = Path(__file__).with_name("operations.json")

EXAMPLES_PER_OPERATION: Final = int(os.environ.get("LABRATS_SCHEMA_EXAMPLES", "6"))
"""Number of random requests per operation, beside those that cover its schema."""

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
async def document(api: Api) -> Any:
    async with api.client(None) as nobody:
        return (await nobody.get("/api/openapi.json")).json()


@pytest.fixture
def operations(document: Any) -> list[Operation]:
    """The method, path and object of each operation."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def schema_in(document: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with the components that it may refer to."""
    return {"components": document["components"]} | schema


async def test_the_document_is_valid_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


async def test_the_table_of_permissions_has_exactly_the_existing_routes(api: Api) -> None:
    routes = [route for route in create_api(api.services).routes if isinstance(route, Route)]
    named = {(method, re.sub(r"\{[^}]*\}", "{}", route.path)) for route in routes for method in route.methods or ()}

    assert {(method, path) for method, path in named if method != "HEAD"} == set(TABLE)


async def test_every_operation_has_the_security_of_its_access(operations: list[Operation]) -> None:
    for method, path, operation in operations:
        assert operation["security"] == SECURITY[access_to(method.upper(), path)], path


async def test_operation_ids_are_stable(operations: list[Operation]) -> None:
    """A changed id would break all generated clients."""
    named = {operation["operationId"]: f"{method.upper()} {path}" for method, path, operation in operations}

    assert named == json.loads(OPERATIONS.read_text())


async def test_every_operation_has_an_id_a_summary_and_a_description(operations: list[Operation]) -> None:
    names = [operation["operationId"] for _, _, operation in operations]

    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names)
    assert all(operation["summary"] and operation["description"] and operation["tags"] for *_, operation in operations)


async def test_every_operation_documents_its_errors_with_error_body(operations: list[Operation]) -> None:
    for method, path, operation in operations:
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        expected = {"401", "503"} if operation["security"] else set()
        if "{" in path:
            expected |= {"404"} if operation["security"] == SECURITY[Access.SIGNED] else {"403", "404"}
        if access_to(method.upper(), path) is Access.ADMIN:
            expected |= {"403"}
        if "requestBody" in operation:
            expected |= {"400", "413", "415", "422"}
        assert expected <= set(errors), f"{method} {path}"
        for status, answer in errors.items():
            content = answer["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
            assert set(content["example"]) >= {"error", "code"}
            assert ("details" in content["example"]) == (status == "422")


async def test_every_example_is_valid_for_its_schema(document: Any, operations: list[Operation]) -> None:
    for method, path, operation in operations:
        for content in contents_of(operation):
            assert "example" in content, f"{method} {path}"
            validator = jsonschema_rs.validator_for(schema_in(document, content["schema"]), validate_formats=True)
            validator.validate(content["example"])
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] != "path" or parameter["schema"]["examples"], f"{method} {path}"


async def test_the_fields_of_an_example_have_the_order_of_the_schema(document: Any) -> None:
    example = document["paths"]["/api/jobs/submit"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert list(example)[:3] == ["source", "type", "prompt"]


async def test_the_engine_accepts_examples_of_request_bodies(
    document: Any, operations: list[Operation], admin: httpx2.AsyncClient
) -> None:
    """The objects that they name do not exist, but the bodies are valid."""
    for method, path, operation in operations:
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if example is not None and operation["security"] != SECURITY[Access.SIGNED]:
            url = "https://engine.test" + re.sub(r"{\w+}", "none", path)  # Secrets are refused without TLS
            answer = await admin.request(method, url, json=example)
            is_refused = answer.status_code == 404 or path in ("/api/models/download", "/api/jobs/bulk")
            is_refused = is_refused or (path.startswith("/api/github/") and answer.status_code == 503)  # unreachable
            assert answer.status_code < 300 or is_refused, answer.text


async def test_every_pattern_has_an_error_message(document: Any) -> None:
    patterns = {pattern for pattern in fields_called("pattern", document) if isinstance(pattern, str)}

    assert patterns
    assert patterns <= PATTERN_MESSAGES.keys()


def fields_called(name: str, value: Any) -> Iterator[Any]:
    """Yield the field `name` of every object in `value`."""
    if isinstance(value, dict) and name in value:
        yield value[name]
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from fields_called(name, each)


def contents_of(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the contents of the request body and of each response."""
    holders = [operation.get("requestBody", {}), *operation["responses"].values()]
    return [content for holder in holders for content in holder.get("content", {}).values()]


async def test_operations_that_create_objects_link_to_those_that_take_them(document: Any) -> None:
    links = {
        path: {name: link["parameters"] for name, link in methods["post"]["responses"]["201"]["links"].items()}
        for path, methods in document["paths"].items()
        if "201" in methods.get("post", {"responses": {}})["responses"]
    }

    assert links["/api/jobs/submit"]["cancel"] == {"path.job_id": "$response.body#/jobId"}
    assert links["/api/uploads/{upload_id}/extract"].keys() == links["/api/jobs/submit"].keys()
    assert links["/api/agents"]["deleteAgent"] == {"path.name": "$response.body#/id"}
    assert links["/api/workspace-uploads"]["downloadWorkspaceFile"] == {
        "path.upload_id": "$response.body#/id", "path.name": "$response.body#/name",
    }  # fmt: skip


def test_enums_of_the_document_match_the_model() -> None:
    assert get_args(Provider) == PROVIDERS
    assert set(get_args(Status)) == set(API_STATUS.values())


async def test_the_example_submission_is_accepted(document: Any, user: httpx2.AsyncClient) -> None:
    (example,) = document["components"]["schemas"]["Submission"]["examples"]

    assert (await user.post("/api/jobs/submit", json=example)).status_code == 201


async def test_a_submission_with_only_required_fields_is_accepted(document: Any, user: httpx2.AsyncClient) -> None:
    required = document["components"]["schemas"]["Submission"]["required"]

    minimal = {field: value for field, value in a_submission().items() if field in (*required, "prompt")}

    assert set(minimal) == {"source", "type", "prompt"}
    assert (await user.post("/api/jobs/submit", json=minimal)).status_code == 201


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    with (
        a_github() as github,
        LocalEngine(tmp_path_factory.mktemp("engine"), LABRATS_GITHUB_API_URL=github.url) as engine,
    ):
        yield engine


# Others than an admin are refused some valid requests. And schemathesis sends a random key, which overrides a cookie.
_NOT_ADMIN: Final = ("--exclude-checks", "positive_data_acceptance")
RUNS: Final = {
    "admin": ("--phases", "examples,coverage,fuzzing,stateful"),
    "user": ("--phases", "examples,coverage", *_NOT_ADMIN),
    "signed-in": ("--phases", "examples", "--mode", "positive", *_NOT_ADMIN),
}
"""Options of schemathesis, by caller: an admin's key, a user's key, or a page of the dashboard."""


@pytest.fixture(scope="module")
def credentials(engine: LocalEngine) -> dict[str, Sequence[str]]:
    """The headers of each caller."""
    output = engine.run_labrats("api-key", "create", "somebody", "--url", engine.url)
    opened = httpx2.get(asyncio.run(engine.login_link()))
    return {
        "admin": (f"Authorization: Bearer {engine.admin_key}",),
        "user": (f"Authorization: Bearer {output.split()[0]}",),
        "signed-in": (f"Cookie: auth_token={opened.cookies['auth_token']}", "Sec-Fetch-Site: same-origin"),
    }


@pytest.mark.timeout(0)
@pytest.mark.parametrize("caller", RUNS)
def test_schemathesis_finds_nothing(
    engine: LocalEngine, credentials: dict[str, Sequence[str]], caller: str, tmp_path: Path
) -> None:
    """Run all checks, on valid examples, and with a key also on valid and invalid edge cases of each schema. For an
    admin, who may call everything, also on random requests and on sequences of requests.

    A signed-in page differs from a key only before the body is read, so examples suffice for it. Streams that do not
    end are excluded: the log of a waiting job, and the feed of changes.
    """
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file", Path(__file__).with_name("schemathesis.toml"),
            "run", f"{engine.url}/api/openapi.json",
            *(word for header in credentials[caller] for word in ("--header", header)),
            "--exclude-path", "/api/jobs/{job_id}/logs",
            "--exclude-path", "/api/changes",
            "--checks", "all",
            *RUNS[caller],
            "--max-examples", str(EXAMPLES_PER_OPERATION),
            "--generation-deterministic",
            "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "Traceback" not in engine.log
