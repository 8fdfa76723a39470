"""The answers that the agent gets: the proxy's own errors in the shape of its API, and others without the key."""

import re
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


class KeyRedactor:
    """Replaces the key by as many asterisks, also if it is escaped in JSON. key: may be empty."""

    def __init__(self, key: bytes) -> None:
        self._forms = [_forms_of(character) for character in key]
        self._key = re.compile(b"".join(map(_pattern_of, key)))
        self._longest = len(key) * _LONGEST_FORM
        self._first = key[:1] + b"\\"
        self._unsent = b""

    def redact(self, text: bytes) -> bytes:
        """Return a complete text without the key."""
        return self._key.sub(lambda found: b"*" * len(found[0]), text) if self._longest else text

    def feed(self, data: bytes) -> bytes:
        """Take the next part of a text. Return what can be sent: all but an end with which the key may begin."""
        text = self.redact(self._unsent + data)
        starts = range(max(0, len(text) - self._longest), len(text))
        sent = next((at for at in starts if text[at] in self._first and self._may_begin_with(text[at:])), len(text))
        self._unsent = text[sent:]
        return text[:sent]

    def flush(self) -> bytes:
        """Return the end of the text."""
        rest, self._unsent = self._unsent, b""
        return rest

    def _may_begin_with(self, end: bytes) -> bool:
        """Return whether the key, in any form, may begin with the end of a text. Capital letters count as small."""
        end = end.lower()
        for forms in self._forms:
            if any(form.startswith(end) for form in forms):
                return True
            if (found := next(filter(end.startswith, forms), None)) is None:
                return False
            end = end[len(found) :]
        return False


_LONGEST_FORM: Final = len(b"\\u002d")


def _forms_of(character: int) -> tuple[bytes, ...]:
    """Return the forms of a character of the key, in small letters: itself, and its escapes in JSON."""
    plain = bytes([character]).lower()
    return (plain, b"\\u00%02x" % character, *([b"\\/"] if plain == b"/" else []))


def _pattern_of(character: int) -> bytes:
    """Return a pattern of a character of the key: itself, or its escape in JSON."""
    plain, number = bytes([character]), b"%02x" % character
    digits = b"".join(b"[%s%s]" % (digit.lower(), digit.upper()) for digit in (number[:1], number[1:]))
    return b"(?:" + re.escape(plain) + rb"|\\u00" + digits + (rb"|\\/" if plain == b"/" else b"") + b")"
