"""Errors of an OpenAI-compatible server: parse them, and translate those of the HTTP client."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx2
import msgspec

from labrats.executor.failure_advice import add_advice
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import Task
from labrats.net.retry_after import retry_after_seconds

CONNECT_SECONDS: Final = 15.0

_ERROR_BODY_BYTES: Final = 64 * 1024
_REASON_CHARACTERS: Final = 1000
_CODE_OF_STATUS: Final[Mapping[int, FailedCode]] = {
    401: FailedCode.AUTH,
    402: FailedCode.QUOTA,
    403: FailedCode.AUTH,
    413: FailedCode.CONTEXT_TOO_LONG,
    429: FailedCode.RATE_LIMITED,
    503: FailedCode.OVERLOADED,
    529: FailedCode.OVERLOADED,
}
_TOO_LONG: Final = re.compile(
    "context length|context_length_exceeded|exceed_context_size|context size|context window|prompt (is )?too long"
    "|longer than the (maximum )?model length|input is too long"
    r"|inputs?`? (tokens \+|must have less than|length)|max_new_tokens.{0,40}must be",  # the words of TGI
    re.IGNORECASE,
)
_TOO_LONG_TYPES: Final = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_SPECIFIC_TYPES: Final = _TOO_LONG_TYPES | {"insufficient_quota", "model_not_found"}
"""Types and codes of errors that classify a failure. They are appended to the reason, which may not repeat them."""

_NO_QUOTA: Final = re.compile("insufficient_quota|exceeded your current quota|credit balance", re.IGNORECASE)
_NO_MODEL: Final = re.compile(
    r"model\b.{0,300}(does not exist|not found)|model_not_found|(no such|invalid|unknown) model", re.IGNORECASE
)


class ErrorResponse(Exception):
    """An error that the server has returned as its response, or within a completion.

    status: the HTTP status, or the one that fits the error. reason: the server's explanation; may be empty.
    """

    def __init__(
        self, status: int, reason: str, retry_after_seconds: float | None = None, *, in_completion: bool = False
    ) -> None:
        action = "reported an error" if in_completion else f"answered {status}"
        super().__init__(f"the model's server {action}: {reason or 'without a reason'}")
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_too_large(self) -> bool:
        """True if the request has too many bytes: a proxy before the server refuses it, however it is asked."""
        return self.status == 413

    @property
    def code(self) -> FailedCode:
        if self.status in (400, 422, 500) and _TOO_LONG.search(self.reason):
            return FailedCode.CONTEXT_TOO_LONG
        if self.status in (403, 429) and _NO_QUOTA.search(self.reason):
            return FailedCode.QUOTA
        if self.status in (400, 404) and _NO_MODEL.search(self.reason):
            return FailedCode.MODEL_NOT_FOUND
        return _CODE_OF_STATUS.get(self.status, FailedCode.AGENT_ERROR)

    def as_give_up(self, task: Task) -> GiveUp:
        return GiveUp(self.code, add_advice(self.code, str(self), task), self.retry_after_seconds)


class ServerUnreachable(Exception):
    """The server could not be reached, or closed the connection before the end of a completion."""

    def as_give_up(self, task: Task) -> GiveUp:
        return GiveUp(FailedCode.AGENT_ERROR, str(self))


async def raise_for_status(response: httpx2.Response) -> None:
    """Raise ErrorResponse unless the response is a success."""
    if response.is_success:
        return
    content = await read_at_most(response, _ERROR_BODY_BYTES)
    reason = f"moved to {response.headers['Location']}" if response.has_redirect_location else _reason_in_body(content)
    pause = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
    raise ErrorResponse(response.status_code, reason, pause)


async def read_at_most(response: httpx2.Response, limit: int) -> bytes:
    """Return the first `limit` bytes of the response's body."""
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            break
    return content[:limit]


def parse_error(error: Any) -> ErrorResponse:
    """Parse the field `error` of a body or an event, which is an object or a text."""
    if not isinstance(error, dict):
        return ErrorResponse(500, one_line(str(error)))
    status = error.get("code")
    reason = error.get("message") or error
    types = {str(status), str(error.get("type"))} & _SPECIFIC_TYPES
    if types & _TOO_LONG_TYPES:
        return ErrorResponse(400, one_line(f"{reason} (context_length_exceeded)"))
    reason = f"{reason} ({', '.join(sorted(types))})" if types else reason
    return ErrorResponse(status if isinstance(status, int) else 500, one_line(str(reason)))


def one_line(text: str) -> str:
    """Return at most 1000 characters of the text, in one line."""
    return " ".join(text.split())[:_REASON_CHARACTERS]


@contextlib.contextmanager
def translate_errors(address: httpx2.URL) -> Iterator[None]:
    """Raise ServerUnreachable in place of an error of the HTTP client."""
    server = f"the model's server at {address}"
    try:
        yield
    except httpx2.ConnectTimeout as error:
        raise ServerUnreachable(f"{server} accepted no connection within {CONNECT_SECONDS:g} seconds") from error
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
        raise ServerUnreachable(f"{server} cannot be reached: {_reason_of(error)}") from error
    except httpx2.TimeoutException as error:
        raise ServerUnreachable(f"{server} sent nothing") from error
    except httpx2.RequestError as error:
        message = f"{server} closed the connection in the middle of an answer: {_reason_of(error)}"
        raise ServerUnreachable(message) from error


def _reason_in_body(content: bytes) -> str:
    """Return the reason in the body of an error. Servers use different fields for it."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return one_line(content.decode("utf-8", "replace"))
    if isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail") or body
    return parse_error(body).reason


def _reason_of(error: BaseException) -> str:
    """Return the system's message for the cause of `error`, else the first message in its chain, else its type."""
    chain = list(_causes(error))
    messages = [_system_message(each) for each in chain if isinstance(each, OSError)]
    messages += [" ".join(str(each).split()) for each in chain]
    return next(filter(None, messages), "") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()


def _system_message(error: OSError) -> str:
    """Return the system's message for the error, or an empty string. A failed name lookup has a negative number."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else (error.strerror or "") if number < 0 else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__
