"""Shorten the texts and values of events, so that each event fits into a line."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_LONG_STRING_BYTES: Final = 1024
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f]")

_encode = msgspec.json.Encoder().encode


def split_text(text: str, limit: int) -> Iterator[str]:
    """Split `text` between characters into pieces of at most `limit` bytes of UTF-8. An empty text is one piece."""
    if _CONTROL_CHARACTER.search(text):
        limit //= 2  # each takes six bytes in JSON; half as much text still fits a line
    data = text.encode()
    start = 0
    while len(data) - start > limit:
        end = _character_start(data, start + limit)
        yield data[start:end].decode()
        start = end
    yield data[start:].decode()


def truncate(text: str, limit: int) -> str:
    """Return `text`, or its head and a note with the full size if it is longer than `limit` bytes."""
    head = next(split_text(text, limit))
    return head if len(head) == len(text) else f"{head} [… cut, {len(text.encode())} bytes in total]"


def shorten_value(value: Any, limit: int) -> Any:
    """Return a JSON value that encodes to about `limit` bytes or less.

    A larger object has its long strings truncated; if that is not enough, the head of its JSON is returned as a string.
    """
    if len(_encode(value)) <= limit:
        return value
    if isinstance(value, dict):
        briefer = {
            key: truncate(item, _LONG_STRING_BYTES) if isinstance(item, str) else item for key, item in value.items()
        }
        if len(_encode(briefer)) <= limit:
            return briefer
    return truncate(_encode(value).decode(), limit)


def _character_start(data: bytes, position: int) -> int:
    """Return the position of the UTF-8 character that contains the byte at `position`."""
    while data[position] & 0xC0 == 0x80:
        position -= 1
    return position
