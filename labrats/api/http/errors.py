"""Gives each error its status and the one shape in which a caller sees it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from labrats.api.http.head_requests import GET_HAS_EFFECT
from labrats.api.schemas.patterns import IN_WORDS
from labrats.model.errors import (
    AccessDenied,
    Conflict,
    IllegalMove,
    Invalid,
    LabratsError,
    NotFound,
    Overloaded,
    Problem,
    RetryLater,
    TooLarge,
)

log = structlog.get_logger()

MAX_DETAILS: Final = 50
MAX_FIELD_LENGTH: Final = 200
"""An answer names no more fields than this, and none at greater length, whatever the request was."""


class ApiError(LabratsError):
    """An answer that is an error. `code` is for programs, the text for people."""

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
    """One offending field: its dotted path in the request, and what would be right."""

    field: str = Field(examples=["config.effort"])
    message: str = Field(examples=["must be 'low', 'medium' or 'high'"])


class ErrorBody(BaseModel):
    """What every error looks like."""

    error: str = Field(description="One sentence for people.")
    code: str = Field(description="For programs, snake_case.")
    details: list[Detail] = Field(default=[], description="Each offending field, on a 422.")


def error_body(code: str, message: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """An error as ErrorBody describes it."""
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


def install_error_answers(app: FastAPI) -> None:
    """Have `app` answer every error in our shape."""
    app.add_exception_handler(LabratsError, _answer_labrats_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_labrats_error(request: Request, error: Exception) -> JSONResponse:
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
            return error_response(409, "conflict", str(error))
        case AccessDenied():
            return error_response(403, "forbidden", str(error))
        case IllegalMove():
            return error_response(400, "not_allowed_in_this_state", str(error))
        case Overloaded():
            headers = {"Retry-After": str(round(error.delay_seconds))}
            return error_response(429, "overloaded", str(error), headers=headers)
        case RetryLater():
            log.warning("request refused for now", path=request.url.path, reason=str(error))
            request.app.state.services.metrics.store_errors.inc()
            headers = {"Retry-After": str(max(1, round(error.delay_seconds)))}
            return error_response(503, "unavailable", str(error), headers=headers)
    return await _answer_bug(request, error)


async def _answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _unprocessable([problem_of(each) for each in error.errors()])


A_TIME: Final = "a time, such as 2030-01-31T12:00:00Z"

_PLAIN_WORDS: Final = {
    "datetime_from_date_parsing": f"must be {A_TIME}",
    "timezone_aware": "must say its time zone, as 2030-01-31T12:00:00Z does",
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
"""For pydantic's types of error whose own words are those of Python."""


_OF_KEY: Final = "[key]"
"""How pydantic says that it means not a value in a mapping, but the name by which that stands there."""


def problem_of(error: Mapping[str, Any]) -> Problem:
    """A pydantic error as a problem, its place as callers write it: `workspaceFiles[0].name`."""
    _, *place = error["loc"]  # the first part says where in the request: body, query, path or header
    message = _message_of(error)
    if place and place[-1] == _OF_KEY:
        place.pop()
        message = f"its name {message}"
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return Problem(field[:MAX_FIELD_LENGTH] or "body", message)


def _message_of(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if words := IN_WORDS.get(context.get("pattern")):
        return words
    if words := _PLAIN_WORDS.get(error["type"]):
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


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        return error_response(404, "not_found", f"there is nothing at {path}")
    if error.status_code == 405:
        allow = {"Allow": ", ".join(_methods_at(request))}
        return error_response(405, "method_not_allowed", f"{request.method} is not possible at {path}", headers=allow)
    return error_response(error.status_code, "http_error", str(error.detail), headers=error.headers)


def _methods_at(request: Request) -> list[str]:
    """What can be done at the request's path, by all its routes: Starlette's own answer names the first one's only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    meant = next(route.path for route in routes if route.path_regex.match(request.url.path))
    methods = {method for route in routes if route.path == meant for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods and meant not in GET_HAS_EFFECT else methods)


async def _answer_nobody(_: Request, error: Exception) -> Response:
    """The caller has gone before it had sent all: nobody reads this."""
    return Response(status_code=400)


async def _answer_bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return error_response(500, "internal", "the engine met an error of its own; its log says more")
