"""The OpenAPI document is the truth: complete, well-formed, and what the engine does."""

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
from labrats.api.schemas.patterns import IN_WORDS
from labrats.model.config import PROVIDERS
from labrats.model.phases import API_STATUS
from tests.acceptance.engine import LocalEngine
from tests.api.conftest import Api, a_submission

OPERATIONS: Final = Path(__file__).with_name("operations.json")

EXAMPLES_PER_OPERATION: Final = int(os.environ.get("LABRATS_SCHEMA_EXAMPLES", "6"))
"""How many requests are made up for each operation, beside those that cover its schema."""

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
async def document(api: Api) -> Any:
    async with api.client(None) as nobody:
        return (await nobody.get("/api/openapi.json")).json()


@pytest.fixture
def operations(document: Any) -> list[Operation]:
    """Method, path and description of each."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def schema_in(document: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """`schema`, which may refer to others of the document, on its own."""
    return {"components": document["components"]} | schema


async def test_it_is_a_valid_openapi_3_1_document(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


async def test_the_table_of_access_names_every_route_and_no_other(api: Api) -> None:
    routes = [route for route in create_api(api.services).routes if isinstance(route, Route)]
    named = {(method, re.sub(r"\{[^}]*\}", "{}", route.path)) for route in routes for method in route.methods or ()}

    assert {(method, path) for method, path in named if method != "HEAD"} == set(TABLE)


async def test_every_operation_says_who_may_call_it(operations: list[Operation]) -> None:
    for method, path, operation in operations:
        assert operation["security"] == SECURITY[access_to(method.upper(), path)], path


async def test_operations_keep_their_names(operations: list[Operation]) -> None:
    """Generated clients call them so: a name that changes here breaks every one of them."""
    named = {operation["operationId"]: f"{method.upper()} {path}" for method, path, operation in operations}

    assert named == json.loads(OPERATIONS.read_text())


async def test_every_operation_has_a_name_a_summary_and_a_description(operations: list[Operation]) -> None:
    names = [operation["operationId"] for _, _, operation in operations]

    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names)
    assert all(operation["summary"] and operation["description"] and operation["tags"] for *_, operation in operations)


async def test_every_operation_names_its_errors_in_the_one_shape(operations: list[Operation]) -> None:
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


async def test_every_operation_gives_examples_that_fit(document: Any, operations: list[Operation]) -> None:
    for method, path, operation in operations:
        for content in contents_of(operation):
            assert "example" in content, f"{method} {path}"
            validator = jsonschema_rs.validator_for(schema_in(document, content["schema"]), validate_formats=True)
            validator.validate(content["example"])
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] != "path" or parameter["schema"]["examples"], f"{method} {path}"


async def test_an_example_has_its_fields_in_the_order_of_the_schema(document: Any) -> None:
    example = document["paths"]["/api/jobs/submit"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert list(example)[:3] == ["source", "type", "prompt"]


async def test_examples_of_bodies_are_taken_by_the_engine(
    document: Any, operations: list[Operation], admin: httpx2.AsyncClient
) -> None:
    """What they name is not there, but nothing else is wrong with any of them."""
    for method, path, operation in operations:
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if example is not None and operation["security"] != SECURITY[Access.SIGNED]:
            answer = await admin.request(method, re.sub(r"{\w+}", "none", path), json=example)
            assert answer.status_code < 300 or path == "/api/models/download" or answer.status_code == 404, answer.text


async def test_an_error_says_in_words_what_each_pattern_asks_for(document: Any) -> None:
    patterns = {pattern for pattern in fields_called("pattern", document) if isinstance(pattern, str)}

    assert patterns
    assert patterns <= IN_WORDS.keys()


def fields_called(name: str, value: Any) -> Iterator[Any]:
    """What any object in `value` has under that name."""
    if isinstance(value, dict) and name in value:
        yield value[name]
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from fields_called(name, each)


def contents_of(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """What goes to and fro: the request's body, and what each answer holds."""
    holders = [operation.get("requestBody", {}), *operation["responses"].values()]
    return [content for holder in holders for content in holder.get("content", {}).values()]


async def test_what_one_operation_makes_others_take(document: Any) -> None:
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


def test_the_words_of_the_document_are_those_of_the_model() -> None:
    assert get_args(Provider) == PROVIDERS
    assert set(get_args(Status)) == set(API_STATUS.values())


async def test_the_example_submission_is_accepted(document: Any, user: httpx2.AsyncClient) -> None:
    (example,) = document["components"]["schemas"]["Submission"]["examples"]

    assert (await user.post("/api/jobs/submit", json=example)).status_code == 201


async def test_a_submission_with_nothing_but_what_is_required_is_accepted(
    document: Any, user: httpx2.AsyncClient
) -> None:
    required = document["components"]["schemas"]["Submission"]["required"]

    minimal = {field: value for field, value in a_submission().items() if field in (*required, "prompt")}

    assert set(minimal) == {"source", "type", "prompt"}
    assert (await user.post("/api/jobs/submit", json=minimal)).status_code == 201


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    with LocalEngine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="module", params=["admin", "user", "signed-in"])
def credential(request: pytest.FixtureRequest, engine: LocalEngine) -> Sequence[str]:
    """Headers by which somebody is known to the engine: an admin's key, anybody's key, or a page of the dashboard."""
    match request.param:
        case "admin":
            return (f"Authorization: Bearer {engine.admin_key}",)
        case "user":
            made = engine.run_labrats("api-key", "create", "somebody", "--url", engine.url)
            return (f"Authorization: Bearer {made.split()[0]}",)
    opened = httpx2.get(asyncio.run(engine.login_link()))
    return (f"Cookie: auth_token={opened.cookies['auth_token']}", "Sec-Fetch-Site: same-origin")


@pytest.mark.timeout(0)
def test_schemathesis_finds_nothing(engine: LocalEngine, credential: Sequence[str], tmp_path: Path) -> None:
    """All its checks: of examples and of the edges of each schema; and for the admin, whom nothing is forbidden, of
    requests that are made up, and of such that follow each other.

    The log streams are left out: that of a job that waits does not end.
    """
    is_admin = engine.admin_key in credential[0]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file", Path(__file__).with_name("schemathesis.toml"),
            "run", f"{engine.url}/api/openapi.json",
            *(word for header in credential for word in ("--header", header)),
            "--exclude-path", "/api/jobs/{job_id}/logs",
            "--checks", "all",
            # What is valid may be forbidden to others; and a made-up key, which is tried too, spoils a good cookie.
            *(() if is_admin else ("--exclude-checks", "positive_data_acceptance")),
            "--phases", "examples,coverage,fuzzing,stateful" if is_admin else "examples,coverage",
            "--max-examples", str(EXAMPLES_PER_OPERATION),
            "--generation-deterministic",
            "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "Traceback" not in engine.log
