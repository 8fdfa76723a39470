"""JSON on the wire. Bodies are read strictly: what two parsers could understand differently is refused."""

import asyncio
import json
import re
from math import isinf
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from labrats.api.http.body_bounds import bounds_of
from labrats.api.http.errors import ApiError
from labrats.model.record import encode

MAX_DEPTH: Final = 64
_LARGE_BYTES: Final = 2**20
"""Larger bodies are read in a thread, so that nobody else waits for them."""

_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\[\s*+\]|\{\s*+\}|(?P<value>[\[{,])', re.DOTALL)
"""Strings, as far as they go, empty lists and objects, and what each other value in a list or object follows."""

_MAX_INTEGER: Final = 2**63
_SHOWN: Final = 100
"""How much of a caller's own text an error repeats."""


class StrictRequest(Request):
    """A request whose JSON has no duplicate keys, no NaN, no lone surrogates, and bounded depth, size and numbers."""

    _parsed: Any

    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            body, most_values = await self.body(), bounds_of(self.method, self.url.path).values
            if len(body) > _LARGE_BYTES:
                self._parsed = await asyncio.to_thread(parse_json, body, most_values)
            else:
                self._parsed = parse_json(body, most_values)
        return self._parsed


def json_response(answer: dict[str, Any], status: int = 200) -> Response:
    """`answer`, in which records and times may stand, as the body of a response."""
    return Response(encode(answer), status_code=status, media_type="application/json")


def require_json(request: Request) -> None:
    """Raises 415 unless the body says that it is JSON."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "unsupported_media_type", "the body must be JSON, with Content-Type: application/json")


def parse_json(body: bytes, most_values: int) -> Any:
    """Return the value in `body`, which holds at most so many in its lists and objects. Raises 400."""
    if has_more_values(body, most_values):  # before they are made: each takes a hundred bytes and time of the engine's
        raise _malformed(f"the body holds more than {most_values} values")
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
        raise _malformed("the body holds half of a surrogate pair, which is no character")
    return value


def _malformed(message: str) -> ApiError:
    return ApiError(400, "malformed", message)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        # As ASCII: the key may hold what is no character, and could not be sent.
        raise _malformed(f"the field {twice[:_SHOWN]!a} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise _malformed(f"{name} is not a JSON value")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -_MAX_INTEGER <= (number := int(digits)) < _MAX_INTEGER:
        raise _malformed(f"the number {digits[:_SHOWN]} does not fit into 64 bits")
    return number


def _number(digits: str) -> int | float:
    number = float(digits)
    if isinf(number):
        raise _malformed(f"the number {digits[:_SHOWN]} is too large")
    return whole(number)


def whole(number: float) -> int | float:
    """3.0 as 3: JSON knows one kind of number, and some write all of theirs with a point."""
    return int(number) if number.is_integer() and abs(number) < _MAX_INTEGER else number


def has_more_values(body: bytes, most: int) -> bool:
    """Return whether the lists and objects of the JSON `body` hold more than `most` values. Builds none of them."""
    if sum(map(body.count, (b"[", b"{", b","))) <= most:  # nearly always, and quick
        return False
    values, most_tokens = 0, 3 * (most + 1)  # valid JSON has a key and a value at most for each of them
    for tokens, token in enumerate(_TOKENS.finditer(body)):
        values += token.lastgroup == "value"
        if values > most or tokens > most_tokens:
            return True
    return False


def _check_depth(value: Any) -> None:
    """Raises 400 when lists and objects are nested too deeply in `value`. Works without recursion."""
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
