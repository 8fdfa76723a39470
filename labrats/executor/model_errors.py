"""Errors of a model's server: the reason in the body of an answer, and the code of a failure with that reason."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from labrats.model.job import FailedCode

ERROR_BODY_BYTES: Final = 64 * 1024
"""Largest part of an error's body that is read."""

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


def code_of_error(status: int, reason: str) -> FailedCode:
    """Return the code of a failure with this HTTP status, or the one that fits it, and this reason."""
    if status in (400, 422, 500) and _TOO_LONG.search(reason):
        return FailedCode.CONTEXT_TOO_LONG
    if status in (403, 429) and _NO_QUOTA.search(reason):
        return FailedCode.QUOTA
    if status in (400, 404) and _NO_MODEL.search(reason):
        return FailedCode.MODEL_NOT_FOUND
    return _CODE_OF_STATUS.get(status, FailedCode.AGENT_ERROR)


def status_and_reason(error: Any) -> tuple[int, str]:
    """Return the status and the reason in the field `error` of a body or an event, which is an object or a text."""
    if not isinstance(error, dict):
        return 500, one_line(str(error))
    status = error.get("code")
    reason = error.get("message") or error
    types = {str(status), str(error.get("type"))} & _SPECIFIC_TYPES
    if types & _TOO_LONG_TYPES:
        return 400, one_line(f"{reason} (context_length_exceeded)")
    reason = f"{reason} ({', '.join(sorted(types))})" if types else reason
    return status if isinstance(status, int) else 500, one_line(str(reason))


def reason_in_body(content: bytes) -> str:
    """Return the reason in the body of an error. Servers use different fields for it."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return one_line(content.decode("utf-8", "replace"))
    if isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail") or body
    return status_and_reason(body)[1]


def one_line(text: str) -> str:
    """Return at most 1000 characters of the text, in one line."""
    return " ".join(text.split())[:_REASON_CHARACTERS]
