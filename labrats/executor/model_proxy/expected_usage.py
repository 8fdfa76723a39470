"""Estimate what a request may consume at most, before its response reports the real usage.

An agent chooses each byte of its requests, so that an estimate must not be lower than what it can reach.
"""

import string
from collections.abc import Iterator
from typing import Any, Final

import msgspec

TOKENS_PER_SECOND: Final = 300
"""Tokens that a fast model writes in a second, also those that it does not send, such as its reasoning."""

IMAGE_TOKENS: Final = 5_000
"""An upper bound for one image, which models scale down."""

_CHEAP: Final = (string.ascii_letters + " ").encode()
"""Bytes of which a token has two at least, also in words that do not exist. Of others, each may be a token."""

_LONG: Final = 1000
"""Bytes of a part from which on it matters that it is an image."""

_IMAGES: Final = ("image", "image_url", "input_image")
_NESTING: Final = 3
"""Depth at which images are: the message, the result of a tool, and its content."""


class _OutputLimits(msgspec.Struct, frozen=True):
    """The limits that a request sets on its answer, by the names of the three APIs."""

    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


class _Conversation(msgspec.Struct, frozen=True):
    """The messages of a request, by the names of the APIs."""

    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct, frozen=True):
    """A message, or a part of one. content, output: its own parts, or a text."""

    type: Any = None
    content: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


def output_limit(body: bytes) -> int | None:
    """Return the limit that a request sets on its answer, in tokens; None without one. body: a JSON object."""
    limits = msgspec.json.decode(body, type=_OutputLimits)
    set_limits = (limits.max_tokens, limits.max_completion_tokens, limits.max_output_tokens)
    return max((limit for limit in set_limits if isinstance(limit, int) and limit > 0), default=None)


def most_input_tokens(body: bytes) -> int:
    """Return an upper bound of the tokens of a request. body: a JSON object."""
    images = list(_images_in(body)) if len(body) >= _LONG else []
    size = len(body) - sum(map(len, images))
    expensive = len(body.translate(None, _CHEAP)) - sum(len(image.translate(None, _CHEAP)) for image in images)
    return (size + expensive) // 2 + IMAGE_TOKENS * len(images)


def _images_in(body: bytes) -> Iterator[bytes]:
    """Yield the long images in the messages of a request, each as JSON.

    Only what a server takes for an image costs as little as one: not the arguments of a tool's call, which may look the
    same, nor a part with a text.
    """
    conversation = msgspec.json.decode(body, type=_Conversation)
    for parts in (conversation.messages, conversation.input):
        yield from _images_of(parts, _NESTING)


def _images_of(parts: msgspec.Raw, nesting: int) -> Iterator[bytes]:
    if nesting == 0 or not bytes(parts).startswith(b"["):
        return
    for part in map(bytes, msgspec.json.decode(parts, type=list[msgspec.Raw])):
        if len(part) < _LONG or not part.startswith(b"{"):
            continue
        found = msgspec.json.decode(part, type=_Part)
        if found.type in _IMAGES:
            if b'"text"' not in part and b"\\" not in part:
                yield part
        else:
            yield from _images_of(found.content, nesting - 1)
            yield from _images_of(found.output, nesting - 1)
