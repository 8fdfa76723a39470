"""The proxy's own responses, in the shape of the API that the agent's program uses."""

from dataclasses import dataclass
from typing import Final

from labrats.executor.key_proxy.model_server import Api
from labrats.model.protocol import OVER_LIMIT
from labrats.model.record import encode

_KINDS: Final = {
    400: ("invalid_request_error", "invalid_request_error"),
    401: ("authentication_error", "invalid_api_key"),
    OVER_LIMIT: ("permission_error", "budget_exceeded"),
    404: ("not_found_error", "model_not_found"),
    413: ("request_too_large", "request_too_large"),
    415: ("invalid_request_error", "unsupported_encoding"),
    502: ("api_error", "server_error"),
    503: ("overloaded_error", "overloaded"),
}
"""The error type of the Messages API and the error code of OpenAI's APIs, by status."""

_OTHER_KINDS: Final = ("api_error", "server_error")
"""The type and code for another status, with which the model's server has answered."""


class Refused(Exception):
    """The proxy does not forward the request. model: set if the reason is the model that the request names."""

    def __init__(self, status: int, message: str, model: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.model = model


class Unanswered(Refused):
    """The model's server has got the request, and has closed the connection without an answer."""


@dataclass(frozen=True)
class ErrorBody:
    """The body of an error response."""

    status: int
    message: str

    def encoded(self, api: Api) -> bytes:
        kind, code = _KINDS.get(self.status, _OTHER_KINDS)
        if api == "anthropic":
            return encode({"type": "error", "error": {"type": kind, "message": self.message}})
        return encode({"error": {"message": self.message, "type": kind, "code": code, "param": None}})
