"""The OpenAPI document: what each operation may answer, with examples, and who may call it."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from labrats.api.auth.permissions import Access
from labrats.api.examples import add_examples
from labrats.api.http.errors import ErrorBody, error_body
from labrats.model.errors import Problem

Responses = dict[int | str, dict[str, Any]]

SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, as `Authorization: Bearer KEY`."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "auth_token",
        "description": "The cookie of a user who is signed in. Writes must come from a page of the engine's own.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Hub-Signature-256",
        "description": "The HMAC-SHA256 of the body with the source's secret, as `sha256=` and hex. For a generic "
        "source `webhook-signature` of Standard Webhooks will do instead.",
    },
}
_KEY: Final[dict[str, list[str]]] = {"apiKey": []}
_SESSION: Final[dict[str, list[str]]] = {"session": []}
SECURITY: Final[Mapping[Access, list[dict[str, list[str]]]]] = {
    Access.OPEN: [],
    Access.SIGNED: [{"signature": []}],
    Access.KEY: [_KEY],
    Access.CALLER: [_KEY, _SESSION],
    Access.OWNER: [_KEY, _SESSION],
    Access.ADMIN: [_KEY, _SESSION],
}
"""What an operation says of authentication: the schemes, of which one is enough."""

_REFERENCE: Final = "#/components/schemas/{model}"

_MEANINGS: Final = {
    400: ("Malformed, or not allowed in this state", error_body("malformed", "the body is not UTF-8 (byte 17)")),
    401: ("No or bad credentials", error_body("unauthorized", "send a valid API key as `Authorization: Bearer KEY`")),
    403: ("Not yours", error_body("forbidden", "this needs an API key with the scope `admin`")),
    404: ("Unknown", error_body("not_found", "there is no job ir-3ab1c2d4")),
    409: ("Name taken, or somebody else wrote first", error_body("conflict", "there is a key named 'ci' already")),
    413: ("Too large", error_body("too_large", "prompt: must be at most 900 KiB")),
    415: ("Wrong content type", error_body("unsupported_media_type", "the body must be JSON")),
    416: (
        "The file ends before the range that is asked for",
        error_body("range_not_satisfiable", "the file ends before this range; it has 12345 bytes"),
    ),
    422: (
        "Fails validation; each offending field is named in `details`",
        error_body("validation_failed", "prompt: is required", [Problem("prompt", "is required")]),
    ),
    429: ("Overloaded; `Retry-After` says when to come back", error_body("overloaded", "too many jobs are waiting")),
    501: (
        "Not what this installation is set up for",
        error_body("not_implemented", "this installation has no volume for models' files"),
    ),
    503: (
        "Not possible at the moment; `Retry-After` says when to come back",
        error_body("unavailable", "the database cannot be read"),
    ),
}


def error_responses(*statuses: int) -> Responses:
    """The entries for errors that an operation may answer."""
    return {status: _error_entry(*_MEANINGS[status]) for status in statuses}


def _error_entry(description: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": _REFERENCE.format(model=ErrorBody.__name__)}, "example": example}
    return {"description": description, "content": {"application/json": content}}


def answers(
    status: int,
    body: type[BaseModel] | None,
    description: str,
    *errors: int,
    text: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Responses:
    """The entries for what an operation answers: its success, described by a model where it is JSON, and its errors.

    text: where it is text, or may be, an example by media type. headers: those it may have, and what each means.
    """
    success: dict[str, Any] = {"description": description}
    if body:
        success["model"] = body
    if text:
        schema = {"type": "string"}
        success["content"] = {media: {"schema": schema, "example": example} for media, example in text.items()}
    if headers:
        schema = {"type": "string"}
        success["headers"] = {name: {"description": meaning, "schema": schema} for name, meaning in headers.items()}
    return {status: success} | error_responses(*errors)


def operation_id(route: APIRoute) -> str:
    """The name of an operation in the document, and so in clients that are generated from it."""
    return to_camel(route.name)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document["components"]
        components["securitySchemes"] = SECURITY_SCHEMES
        _add_schema(components["schemas"], ErrorBody)
        _close_patterns(components["schemas"])
        _drop_foreign_errors(document)
        _add_links(document)
        add_examples(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_schema(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template=_REFERENCE)
    schemas |= schema.pop("$defs", {}) | {model.__name__: schema}


def _close_patterns(schema: Any) -> None:
    """Say of each object whose names must match a pattern that no others are accepted."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for part in schema.values():
            _close_patterns(part)
    elif isinstance(schema, list):
        for part in schema:
            _close_patterns(part)


def _drop_foreign_errors(document: dict[str, Any]) -> None:
    """Take out FastAPI's own idea of a 422, which it adds to operations that have a parameter but no 422 of ours."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _add_links(document: dict[str, Any]) -> None:
    """Say of each operation that makes something which others take it on, and what of the answer names it to them."""
    paths, schemas = document["paths"], document["components"]["schemas"]
    for path, operations in paths.items():
        if (made := operations.get("post", {}).get("responses", {}).get("201")) is None:
            continue
        reference = made["content"]["application/json"]["schema"]["$ref"]
        fields = schemas[reference.rpartition("/")[2]]["properties"]
        folder, name = ("/api/jobs", "jobId") if "jobId" in fields else (path, "id")
        made["links"] = {
            operation["operationId"]: _link(operation, name)
            for each, on_it in paths.items()
            for operation in on_it.values()
            if each.startswith(f"{folder}/{{")
        }


def _link(operation: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The first parameter in the path is the field `name` of the answer, any further one the field of its own name."""
    parameters = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
    named = dict(zip(parameters, [name, *parameters[1:]], strict=True))
    expressions = {f"path.{parameter}": f"$response.body#/{field}" for parameter, field in named.items()}
    return {"operationId": operation["operationId"], "parameters": expressions}
