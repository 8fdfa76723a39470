"""A limit on the nesting of JSON from outside: parsers recurse, and fail when it is too deep."""

import re
from typing import Final

DEEPEST: Final = 100
"""The maximum nesting of JSON from users and agents."""

# An unterminated string is one token, too; otherwise the search would start again at every quote in it.
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def is_too_deep(text: bytes, deepest: int = DEEPEST) -> bool:
    """Return whether something in the JSON `text` lies within more than `deepest` arrays and objects."""
    if text.count(b"[") + text.count(b"{") <= deepest:  # nearly always true, and fast
        return False
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += _step(token[0])
        if depth > deepest:
            return True
    return False


def cut_off_below(text: bytes, deepest: int) -> bytes:
    """Return `text` with null instead of each array or object that lies within `deepest` others."""
    pieces: list[bytes] = []
    start = depth = 0
    for token in _TOKENS.finditer(text):
        step = _step(token[0])
        if step > 0 and depth == deepest:
            pieces += [text[start : token.start()], b"null"]
        depth += step
        if step < 0 and depth == deepest:
            start = token.end()
    return b"".join([*pieces, text[start:]])


def _step(token: bytes) -> int:
    return 1 if token in b"[{" else -1 if token in b"]}" else 0
