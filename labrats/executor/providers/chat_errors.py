"""Errors of an OpenAI-compatible server: parse them, and translate those of the HTTP client."""

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import httpx2

from labrats.executor.failure_advice import add_advice
from labrats.executor.model_errors import ERROR_BODY_BYTES, code_of_error, reason_in_body, status_and_reason
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import Task
from labrats.net.retry_after import retry_after_seconds

CONNECT_SECONDS: Final = 15.0


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
        return code_of_error(self.status, self.reason)

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
    content = await read_at_most(response, ERROR_BODY_BYTES)
    reason = f"moved to {response.headers['Location']}" if response.has_redirect_location else reason_in_body(content)
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
    return ErrorResponse(*status_and_reason(error))


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
