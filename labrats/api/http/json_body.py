"""JSON in requests and responses. A body that two parsers could read differently is refused."""

import asyncio
import json
import re
from math import isinf
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from labrats.api.http.body_bounds import bounds_of
from labrats.api.http.errors import ApiError
from labrats.api.schemas.base import MAX_INTEGER, int_if_whole
from labrats.model.record import encode

MAX_DEPTH: Final = 64
_LARGE_BYTES: Final = 2**20
"""Size above which a body is parsed in a thread, so that other requests do not wait."""

_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\[\s*+\]|\{\s*+\}|(?P<value>[\[{,])', re.DOTALL)
"""Strings, even unterminated ones; empty lists and objects; and, as `value`, the character before a value."""

_SHOWN: Final = 100
"""Maximum length of a caller's text in an error message."""


class StrictRequest(Request):
    """A request whose JSON must have no duplicate keys, NaN or lone surrogates, and bounded depth, size and numbers."""

    _parsed: Any

    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            body, max_values = await self.body(), bounds_of(self.method, self.scope["path"]).values
            if len(body) > _LARGE_BYTES:
                self._parsed = await asyncio.to_thread(parse_json, body, max_values)
            else:
                self._parsed = parse_json(body, max_values)
        return self._parsed


def json_response(answer: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response. `answer` may contain records and times."""
    return Response(encode(answer), status_code=status, media_type="application/json")


def require_json(request: Request) -> None:
    """Raise ApiError 415 unless the Content-Type is JSON."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "unsupported_media_type", "the body must be JSON, with Content-Type: application/json")


def parse_json(body: bytes, max_values: int) -> Any:
    """Parse `body`, whose lists and objects may hold at most `max_values` values. Raises ApiError 400."""
    if has_more_values(body, max_values):  # before parsing, which takes about 100 bytes of memory per value
        raise _malformed(f"the body holds more than {max_values} values")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"the body is not UTF-8 (byte {error.start})") from None
    try:
        value = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
        )
    except json.JSONDecodeError as error:
        raise _malformed(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise _malformed(f"the body is nested more than {MAX_DEPTH} deep") from None
    _check_depth(value)
    if "\\u" in text and _has_lone_surrogate(value):
        raise _malformed("the body holds half of a surrogate pair, which is not a character")
    return value


def _malformed(message: str) -> ApiError:
    return ApiError(400, "malformed", message)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        # In ASCII, since the key may contain a lone surrogate, which cannot be sent.
        raise _malformed(f"an object has the field {duplicate[:_SHOWN]!a} twice")
    return found


def _no_constant(name: str) -> Any:
    raise _malformed(f"{name} is not a JSON value")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -MAX_INTEGER <= (number := int(digits)) < MAX_INTEGER:
        raise _malformed(f"the number {digits[:_SHOWN]} does not fit in 64 bits")
    return number


def _number(digits: str) -> int | float:
    number = float(digits)
    if isinf(number):
        raise _malformed(f"the number {digits[:_SHOWN]} is too large")
    return int_if_whole(number)


def has_more_values(body: bytes, limit: int) -> bool:
    """Return whether the lists and objects of the JSON `body` hold more than `limit` values. Parses none of them."""
    if sum(map(body.count, (b"[", b"{", b","))) <= limit:  # fast path for nearly all bodies
        return False
    values, max_tokens = 0, 3 * (limit + 1)  # valid JSON has at most three tokens per value
    for tokens, token in enumerate(_TOKENS.finditer(body)):
        values += token.lastgroup == "value"
        if values > limit or tokens > max_tokens:
            return True
    return False


def _check_depth(value: Any) -> None:
    """Raise ApiError 400 if lists and objects are nested too deeply in `value`. Works without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
        if depth > MAX_DEPTH:
            raise _malformed(f"the body is nested more than {MAX_DEPTH} deep")


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
