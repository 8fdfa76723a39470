"""Error responses: their status, and the one shape of their JSON body."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route

from labrats.api.http.head_requests import GET_HAS_EFFECT
from labrats.api.schemas.patterns import PATTERN_MESSAGES
from labrats.api.schemas.variables import OBJECT_TAG, TEXT_TAG
from labrats.files.full_disk import FULL_ERRORS, RETRY_SECONDS, problem_of_full_disk
from labrats.model.errors import (
    AccessDenied,
    Conflict,
    IllegalMove,
    Invalid,
    LabratsError,
    NotEnded,
    NotFound,
    Overloaded,
    Problem,
    RetryLater,
    TooLarge,
)

log = structlog.get_logger()

MAX_DETAILS: Final = 50
"""Maximum number of fields that an error response names."""
MAX_FIELD_LENGTH: Final = 200
"""Maximum length of a field's name in an error response."""


class ApiError(LabratsError):
    """An exception that becomes an error response. `code` is for programs, the text for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.headers, self.problems = status, code, headers, problems


class Detail(BaseModel):
    """An invalid field: its dotted path in the request, and the expected value."""

    field: str = Field(examples=["config.effort"])
    message: str = Field(examples=["must be 'low', 'medium' or 'high'"])


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: str = Field(description="One sentence for people.")
    code: str = Field(description="A code for programs, in snake_case.")
    details: list[Detail] = Field(
        default=[], description="The invalid fields, on a 422; the field whose value is taken, on a 409."
    )


def error_body(code: str, message: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """Return the JSON that ErrorBody describes."""
    body: dict[str, Any] = {"error": message, "code": code}
    if problems:
        body["details"] = [{"field": problem.field, "message": problem.message} for problem in problems[:MAX_DETAILS]]
    return body


def error_response(
    status: int,
    code: str,
    message: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    return JSONResponse(error_body(code, message, problems), status_code=status, headers=dict(headers or {}))


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with an ErrorBody."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return error_answer(request, error)

    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(Exception, answer)


def error_answer(request: Request, error: Exception) -> JSONResponse:
    """Return the response for an error. An error that is not expected here is logged: it is a bug."""
    match error:
        case ApiError():
            return error_response(error.status, error.code, str(error), error.problems, error.headers)
        case TooLarge():
            return error_response(413, "too_large", str(error))
        case Invalid():
            return _unprocessable(error.problems)
        case NotFound():
            return error_response(404, "not_found", str(error))
        case Conflict():
            return error_response(409, "conflict", str(error), [error.problem] if error.problem else ())
        case AccessDenied():
            return error_response(403, "forbidden", str(error))
        case NotEnded():
            return error_response(400, "not_ended", str(error))
        case IllegalMove():
            return error_response(400, "not_allowed_in_this_state", str(error))
        case Overloaded():
            headers = {"Retry-After": str(round(error.delay_seconds))}
            return error_response(429, "overloaded", str(error), headers=headers)
        case RetryLater() | OSError() if full := _full_disk(request, error):
            log.warning("request refused on a full disk", path=request.url.path, reason=str(error))
            request.app.state.services.metrics.store_errors.inc()
            return error_response(503, "disk_full", full, headers={"Retry-After": str(RETRY_SECONDS)})
        case RetryLater():
            log.warning("request refused for now", path=request.url.path, reason=str(error))
            request.app.state.services.metrics.store_errors.inc()
            headers = {"Retry-After": str(max(1, round(error.delay_seconds)))}
            return error_response(503, "unavailable", str(error), headers=headers)
        case RequestValidationError():
            return _unprocessable([problem_of(each) for each in error.errors()])
        case HTTPException():
            return _http_error(request, error)
        case ClientDisconnect():
            return error_response(400, "disconnected", "the client disconnected before the request was complete")
    log.error("request failed", path=request.url.path, exc_info=error)
    return error_response(500, "internal", "internal error; the engine's log has the details")


def _full_disk(request: Request, error: Exception) -> str | None:
    """Return the sentence about a full disk, if that is why the request failed."""
    settings = request.app.state.services.settings
    if isinstance(error, OSError) and error.errno not in FULL_ERRORS:
        return None
    problems = map(problem_of_full_disk, (settings.data_dir, settings.uploads))
    problem = next(filter(None, problems), None)
    if problem is None and isinstance(error, OSError):
        return f"a disk of the engine is full: {error.strerror}; free some space on it"
    return problem


EXAMPLE_TIME: Final = "a time, such as 2030-01-31T12:00:00Z"

_MESSAGES: Final = {
    "datetime_from_date_parsing": f"must be {EXAMPLE_TIME}",
    "timezone_aware": "must have a time zone, such as 2030-01-31T12:00:00Z",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "extra_forbidden": "there is no such field",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be an array",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "string_type": "must be a string",
}
"""Messages by pydantic's error type. They replace messages that use Python's terms."""


_KEY_MARKER: Final = "[key]"
"""Last part of the location of a pydantic error about a mapping's key, not its value."""


def problem_of(error: Mapping[str, Any]) -> Problem:
    """Return a pydantic error as a Problem. The field is a path as callers write it: `workspaceFiles[0].name`."""
    part_of_request, *path = error["loc"]  # body, query, path or header
    if part_of_request == "query":
        path = path[:1]  # a repeated parameter is still one field
    message = _message_of(error)
    path = [part for part in path if part not in (TEXT_TAG, OBJECT_TAG)]
    if path and path[-1] == _KEY_MARKER:
        path.pop()
        message = f"its name {message}"
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return Problem(field[:MAX_FIELD_LENGTH] or "body", message)


def problems_of_body(error: ValidationError) -> list[Problem]:
    """Return the problems of a request body that was validated by itself."""
    return [problem_of({**each, "loc": ("body", *each["loc"])}) for each in error.errors()]


def _message_of(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if words := PATTERN_MESSAGES.get(context.get("pattern")):
        return words
    if words := _MESSAGES.get(error["type"]):
        return words.format(**context)
    message = str(error["msg"]).removeprefix("Value error, ").partition(" after validation, not ")[0]
    return re.sub(r"^(Input|String|List|Dictionary|Value) should ", "must ", message)


def _unprocessable(problems: Sequence[Problem]) -> JSONResponse:
    if len(problems) == 1:
        message = f"{problems[0].field}: {problems[0].message}"
    else:
        named = ", ".join(problem.field for problem in problems[:MAX_DETAILS])
        message = f"these fields are not valid: {named}{', …' if len(problems) > MAX_DETAILS else ''}"
    return error_response(422, "validation_failed", message, problems)


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    path = request.url.path
    if error.status_code == 404:
        return error_response(404, "not_found", f"there is nothing at {path}")
    if error.status_code == 405:
        allow = {"Allow": ", ".join(_methods_at(request))}
        return error_response(405, "method_not_allowed", f"{request.method} is not allowed at {path}", headers=allow)
    return error_response(error.status_code, "http_error", str(error.detail), headers=error.headers)


def _methods_at(request: Request) -> list[str]:
    """Return the methods of all routes at the request's path. Starlette's own `Allow` has only the first route's."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    path = next(route.path for route in routes if route.path_regex.match(request.url.path))
    methods = {method for route in routes if route.path == path for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods and path not in GET_HAS_EFFECT else methods)
