"""The tokens in the file of a login, such as `auth.json` of Codex and `.credentials.json` of Claude Code."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from labrats.model.nesting import is_too_deep

MOST_TOKENS: Final = 50
"""Most tokens of a file that are read: an agent can write to the file of a shared login."""

_SECRET_NAME: Final = re.compile(r"token|secret|api_?key|password", re.IGNORECASE)
_SHORTEST: Final = 6


def tokens_in(content: bytes) -> list[str]:
    """Return the values of fields with names such as `accessToken`, in JSON; none if it is no JSON."""
    if is_too_deep(content):
        return []
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    found = (text for text in _secrets_in(document, is_secret=False) if len(text) >= _SHORTEST)
    return list(dict.fromkeys(found))[:MOST_TOKENS]


def _secrets_in(value: Any, *, is_secret: bool) -> Iterator[str]:
    match value:
        case str() if is_secret:
            yield value
        case dict():
            for name, item in value.items():
                # `tokens` of auth.json also has an account id, which is none.
                yield from _secrets_in(item, is_secret=isinstance(item, str | list) and bool(_SECRET_NAME.search(name)))
        case list():
            for item in value:
                yield from _secrets_in(item, is_secret=is_secret)
