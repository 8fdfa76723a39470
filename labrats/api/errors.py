"""Gives each error its status and the one shape in which a caller sees it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from labrats.model.errors import Conflict, IllegalMove, Invalid, LabratsError, NotFound, Problem, RetryLater

log = structlog.get_logger()


class ApiError(LabratsError):
    """An answer that is an error. `code` is for programs, the text for people."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class Detail(BaseModel):
    """One offending field: its dotted path in the request, and what would be right."""

    field: str = Field(examples=["config.effort"])
    message: str = Field(examples=["Input should be 'low', 'medium' or 'high'"])


class ErrorBody(BaseModel):
    """What every error looks like."""

    error: str = Field(description="One sentence for people.")
    code: str = Field(description="For programs, snake_case.")
    details: list[Detail] | None = Field(default=None, description="Each offending field, on a 422.")


_MEANINGS: Final = {
    400: "Malformed, or not allowed in this state",
    401: "No or bad credentials",
    403: "Not yours",
    404: "Unknown",
    409: "Name taken, or somebody else wrote first",
    413: "Too large",
    415: "Wrong content type",
    422: "Fails validation; each offending field is named in `details`",
    429: "Overloaded; `Retry-After` says when to come back",
    501: "Valid, but this engine cannot do it yet",
    503: "Not possible at the moment; `Retry-After` says when to come back",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries for errors an operation may answer."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}


def answers(
    status: int, body: type[BaseModel] | str | None, description: str, *errors: int
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of an operation: its success, with a model or a content type for a body, and its errors."""
    success: dict[str, Any] = {"description": description}
    if isinstance(body, str):
        success["content"] = {body: {}}
    elif body is not None:
        success["model"] = body
    return {status: success} | error_responses(*errors)


def error_response(
    status: int,
    code: str,
    message: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body: dict[str, Any] = {"error": message, "code": code}
    if problems:
        body["details"] = [{"field": problem.field, "message": problem.message} for problem in problems]
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))


def install_error_answers(app: FastAPI) -> None:
    """Have `app` answer every error in our shape."""
    app.add_exception_handler(LabratsError, _answer_labrats_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_labrats_error(_: Request, error: Exception) -> JSONResponse:
    match error:
        case ApiError():
            return error_response(error.status, error.code, str(error), headers=error.headers)
        case Invalid():
            return _unprocessable(error.problems)
        case NotFound():
            return error_response(404, "not_found", str(error))
        case Conflict():
            return error_response(409, "conflict", str(error))
        case IllegalMove():
            return error_response(400, "not_allowed_in_this_state", str(error))
        case RetryLater():
            log.warning("request refused for now", reason=str(error))
            headers = {"Retry-After": str(max(1, round(error.delay_seconds)))}
            return error_response(503, "unavailable", str(error), headers=headers)
    return await _answer_bug(_, error)


async def _answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _unprocessable([problem_of(each) for each in error.errors()])


def problem_of(error: Mapping[str, Any]) -> Problem:
    """A pydantic error as a problem, its place as callers write it: `workspaceFiles[0].name`."""
    place = [part for part in error["loc"] if part not in ("body", "query", "path", "header")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if error["type"] == "extra_forbidden":
        return Problem(field, "there is no such field")
    message = str(error["msg"]).removeprefix("Value error, ")
    return Problem(field or "body", message)


def _unprocessable(problems: Sequence[Problem]) -> JSONResponse:
    if len(problems) == 1:
        message = f"{problems[0].field}: {problems[0].message}"
    else:
        message = f"these fields are not valid: {', '.join(problem.field for problem in problems)}"
    return error_response(422, "validation_failed", message, problems)


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(404, "not_found", f"there is nothing at {request.url.path}")
    if error.status_code == 405:
        message = f"{request.method} is not possible at {request.url.path}"
        return error_response(405, "method_not_allowed", message, headers=error.headers)
    return error_response(error.status_code, "http_error", str(error.detail), headers=error.headers)


async def _answer_bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return error_response(500, "internal", "the engine met an error of its own; its log says more")
