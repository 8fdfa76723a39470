"""Shorten the texts and values of events, so that each event fits into a line."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_LONG_STRING_BYTES: Final = 1024
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f]")
_FIELD_CHARACTERS: Final = 100
_LAYOUT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
"""Control characters, and others that begin a line or change the direction of the text."""

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


def one_line(text: str) -> str:
    """Return `text` without line breaks and other control characters."""
    return _LAYOUT.sub(" ", text).strip()


def short_field(text: str) -> str:
    """Return the beginning of `text` in one line, as a part of a sentence. The text must already be redacted."""
    line = one_line(text)
    return line if len(line) <= _FIELD_CHARACTERS else f"{line[: _FIELD_CHARACTERS - 1]}…"


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
