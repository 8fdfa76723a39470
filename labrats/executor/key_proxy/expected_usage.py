"""Estimate what a request may consume at most, before its response reports the real usage.

An agent chooses each byte of its requests, so that an estimate must not be lower than what it can reach.
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from labrats.executor.key_proxy.approved_request import ApprovedRequest

TOKENS_PER_SECOND: Final = 300
"""Tokens that a fast model writes in a second, also those that it does not send, such as its reasoning."""

IMAGE_TOKENS: Final = 5_000
"""An upper bound for one image, which models scale down."""

_NULL: Final = msgspec.Raw(b"null")

_CHEAP: Final = (string.ascii_letters + " ").encode()
"""A token has at least two of these bytes, also in words that do not exist. Each other byte may be a token."""

_MOST_DIGITS: Final = 18
_LONG: Final = 1000
"""The bytes of shorter images count as text, too."""

_LIMITS_BY_PATH: Final[Mapping[str, Sequence[str]]] = {
    "/messages": ("max_tokens",),
    "/responses": ("max_output_tokens",),
    "/chat/completions": ("max_tokens", "max_completion_tokens"),
}
"""The fields of a request that limit its answer, by the end of its path."""

_CONVERSATIONS: Final = ("messages", "input")
"""The fields of a request with its messages, by the names of the APIs."""

_WINDOW_TOKENS: Final = 400_000
"""Tokens of a large context, all of which the server may remember or fetch for a request."""

_REMEMBERED: Final = ("previous_response_id", "conversation")
"""Fields of a request of the Responses API by which the server adds input that it has stored."""

_MANAGED: Final = ("context_management", "compaction")
"""Fields of a request by which the server may summarise the conversation, for which it reads it once more."""

_SUMMARY: Final = b"compact"

_FETCHED: Final = re.compile(rb'"file_(id|url)"|"type"\s*:\s*"(url|item_reference)"')
"""Parts of a message whose content the server has stored or fetches."""

_DOCUMENTS: Final = (b'"document"', b'"input_file"', b'"file"')
"""Types of parts that may have a PDF, of which one of 5 KB can have 600 pages."""
_ENCODED: Final = b"base64"

_ESCAPED_NAME: Final = re.compile(rb"(?<!\\)(?:\\\\)*+\\u00(3[0-9]|[46][1-9a-f]|[57][0-9a]|5f)", re.IGNORECASE)
"""A letter, digit or underscore that no program escapes, unless it hides a name."""

_IMAGES: Final = (b'"image"', b'"image_url"', b'"input_image"')
_IMAGE_TYPE: Final = re.compile(rb'"type"\s*:\s*"(?:image|image_url|input_image)"')
_NOT_IN_IMAGES: Final = (b'"text"', b'"role"', b'"content"', b'"input"', b'"output"', b"\\")
"""Fields with text, in which a server that ignores the type would look for it, and the sign of an escaped name."""

_NESTING: Final = 3
"""Depth at which images and documents are: the message, the result of a tool, and its content."""


class _Part(msgspec.Struct, frozen=True):
    """A message, or a part of one. content, output: its own parts, or a text."""

    type: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


def output_limit(request: ApprovedRequest) -> int | None:
    """Return the limit that a request sets on its answer, in tokens; None without one."""
    # Servers ignore the fields of other APIs.
    names = next((names for end, names in _LIMITS_BY_PATH.items() if request.path.endswith(end)), ())
    fields = request.fields()
    found = [bytes(fields[name]) for name in names if name in fields]
    return max(filter(None, map(_number_of, found)), default=None)


def _number_of(value: bytes) -> int:
    """Return a positive number, which may have an exponent; 0 for anything else."""
    with suppress(ValueError, OverflowError):
        if len(value) <= _MOST_DIGITS:
            return max(0, int(float(value)))
    return 0


def is_streamed(request: ApprovedRequest) -> bool:
    """Return whether a request asks for its answer in parts."""
    return bytes(request.fields().get("stream", _NULL)) == b"true"


def most_input_tokens(request: ApprovedRequest) -> int:
    """Return an upper bound of the tokens of a request."""
    body = request.body
    fields = request.fields()
    parts = list(_long_parts_in(fields)) if len(body) >= _LONG else []
    # Only what a server takes for an image costs as little as one: not the arguments of a tool's call, which may look
    # the same, nor a part with a text.
    images = [part for kind, part in parts if kind in _IMAGES and not any(name in part for name in _NOT_IN_IMAGES)]
    count = max(len(images), sum(1 for _ in _IMAGE_TYPE.finditer(body)))
    size = len(body) - sum(map(len, images))
    expensive = len(body.translate(None, _CHEAP)) - sum(len(image.translate(None, _CHEAP)) for image in images)
    has_document = any(kind in _DOCUMENTS and _ENCODED in part for kind, part in parts)
    unseen = _WINDOW_TOKENS if has_document or _has_unseen_input(body, fields) else 0
    return (size + expensive) // 2 + IMAGE_TOKENS * count + unseen


def _has_unseen_input(body: bytes, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether a model reads more for a request than what is in it."""
    remembered = any(bytes(fields.get(name, _NULL)) not in (b"null", b'""') for name in _REMEMBERED)
    is_stored_prompt = bytes(fields.get("prompt", _NULL)).startswith(b"{")
    is_summarised = any(_SUMMARY in bytes(fields.get(name, _NULL)) for name in _MANAGED)
    return (
        (remembered or is_stored_prompt or is_summarised)
        or _FETCHED.search(body) is not None
        or _ESCAPED_NAME.search(body) is not None
    )


def _long_parts_in(fields: Mapping[str, msgspec.Raw]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the long parts of the messages of a request, each with its type as JSON. fields: of the request."""
    for name in _CONVERSATIONS:
        yield from _long_parts_of(fields.get(name, msgspec.Raw()), _NESTING)


def _long_parts_of(parts: msgspec.Raw, nesting: int) -> Iterator[tuple[bytes, bytes]]:
    if nesting == 0 or not bytes(parts).startswith(b"["):
        return
    for part in map(bytes, msgspec.json.decode(parts, type=list[msgspec.Raw])):
        if len(part) < _LONG or not part.startswith(b"{"):
            continue
        found = msgspec.json.decode(part, type=_Part)
        yield bytes(found.type), part
        if bytes(found.type) not in _IMAGES:
            yield from _long_parts_of(found.content, nesting - 1)
            yield from _long_parts_of(found.output, nesting - 1)
