"""The OpenAPI document, with the errors, examples and permissions of each operation."""

import json
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from labrats.api.auth.permissions import Access
from labrats.api.http.errors import ErrorBody, error_body
from labrats.api.schemas.examples import add_examples
from labrats.model.errors import Problem

Responses = dict[int | str, dict[str, Any]]

SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, as `Authorization: Bearer KEY`."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "auth_token",
        "description": "The cookie of a signed-in user. Writes must come from a page of the engine itself. Requests of "
        "a session that began with the header `Labrats-Session-Secret` also need this header.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Hub-Signature-256",
        "description": "The HMAC-SHA256 of the body with the source's secret, as `sha256=` and hex digits. A generic "
        "source also accepts the `webhook-signature` of Standard Webhooks.",
    },
}
_KEY: Final[dict[str, list[str]]] = {"apiKey": []}
_SESSION: Final[dict[str, list[str]]] = {"session": []}
SECURITY: Final[Mapping[Access, list[dict[str, list[str]]]]] = {
    Access.OPEN: [],
    Access.SIGNED: [{"signature": []}],
    Access.CALLER: [_KEY, _SESSION],
    Access.OWNER: [_KEY, _SESSION],
    Access.ADMIN: [_KEY, _SESSION],
}
"""The security schemes of operations, by access. A caller needs one of them."""

_REFERENCE: Final = "#/components/schemas/{model}"

_ERRORS: Final = {
    400: ("Malformed, or not allowed in the current state", error_body("malformed", "the body is not UTF-8 (byte 17)")),
    401: (
        "Missing or invalid credentials",
        error_body("unauthorized", "send a valid API key as `Authorization: Bearer KEY`"),
    ),
    403: ("Not allowed for this caller", error_body("forbidden", "this needs an API key with the scope `admin`")),
    404: ("Not found", error_body("not_found", "there is no job ir-3ab1c2d4")),
    409: (
        "The name is taken, or the resource has changed",
        error_body("conflict", "there is already a key named 'ci'"),
    ),
    413: ("Too large", error_body("too_large", "prompt: must be at most 900 KiB")),
    415: ("Wrong content type", error_body("unsupported_media_type", "the body must be JSON")),
    416: (
        "The file ends before the requested range",
        error_body("range_not_satisfiable", "the file ends before this range; it has 12345 bytes"),
    ),
    422: (
        "Fails validation; `details` names each invalid field",
        error_body("validation_failed", "prompt: is required", [Problem("prompt", "is required")]),
    ),
    429: ("Overloaded; `Retry-After` says when to try again", error_body("overloaded", "too many jobs are waiting")),
    501: (
        "Not supported by this installation",
        error_body("not_implemented", "this installation has no volume for model files"),
    ),
    503: (
        "Unavailable at present; `Retry-After` says when to try again",
        error_body("unavailable", "the database cannot be read"),
    ),
}


def error_responses(*statuses: int) -> Responses:
    """Return the document's entries for error statuses."""
    return {status: _error_entry(*_ERRORS[status]) for status in statuses}


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
    """Return the document's entries for the responses of an operation: its success and its errors.

    body: the model of a JSON body. text: an example for each other media type of the body. headers: the description
    of each header that the response may have.
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
    """Return the operation's id in the document, and so its name in generated clients."""
    return to_camel(route.name)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the document of `app`, cached."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document["components"]
        components["securitySchemes"] = SECURITY_SCHEMES
        _add_schema(components["schemas"], ErrorBody)
        _close_patterns(components["schemas"])
        _describe_defaults(components["schemas"])
        _drop_fastapi_errors(document)
        _add_links(document)
        add_examples(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_schema(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template=_REFERENCE)
    schemas |= schema.pop("$defs", {}) | {model.__name__: schema}


def _close_patterns(schema: Any) -> None:
    """Disallow other names in each object whose names must match a pattern.

    `patternProperties` says the same, but generators of clients drop such fields.
    """
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            [(pattern, values)] = schema.pop("patternProperties").items()
            schema["propertyNames"] = schema.get("propertyNames", {}) | {"pattern": pattern}
            schema["additionalProperties"] = values
        for part in schema.values():
            _close_patterns(part)
    elif isinstance(schema, list):
        for part in schema:
            _close_patterns(part)


def _describe_defaults(schemas: dict[str, Any]) -> None:
    """Move the defaults of optional fields into their descriptions.

    Generators of types take a field with a default for one that is always there, which a request need not have.
    """
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            if name in schema.get("required", ()) or "default" not in field:
                continue
            default = field.pop("default")
            if default not in (None, [], {}) and "Default:" not in field.get("description", ""):
                shown = f"Default: `{json.dumps(default)}`."
                field["description"] = f"{field['description']} {shown}" if "description" in field else shown


def _drop_fastapi_errors(document: dict[str, Any]) -> None:
    """Remove the 422 that FastAPI adds to operations that have parameters but declare no 422."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _add_links(document: dict[str, Any]) -> None:
    """Link each operation that creates an object to the operations that take the object's id."""
    paths, schemas = document["paths"], document["components"]["schemas"]
    for path, operations in paths.items():
        if (created := operations.get("post", {}).get("responses", {}).get("201")) is None:
            continue
        reference = created["content"]["application/json"]["schema"]["$ref"]
        fields = schemas[reference.rpartition("/")[2]]["properties"]
        folder, name = ("/api/jobs", "jobId") if "jobId" in fields else (path, "id")
        created["links"] = {
            operation["operationId"]: _link(operation, name)
            for other, methods in paths.items()
            for operation in methods.values()
            if other.startswith(f"{folder}/{{")
        }


def _link(operation: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a link. The first path parameter is the response's field `name`, others are fields of the same name."""
    parameters = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
    fields = dict(zip(parameters, [name, *parameters[1:]], strict=True))
    expressions = {f"path.{parameter}": f"$response.body#/{field}" for parameter, field in fields.items()}
    return {"operationId": operation["operationId"], "parameters": expressions}
