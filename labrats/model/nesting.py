"""A limit on the nesting of JSON from outside: parsers recurse, and fail when it is too deep."""

import re
from array import array
from itertools import accumulate
from typing import Final

DEEPEST: Final = 100
"""The maximum nesting of JSON from users and agents."""

# An unterminated string is one, too; otherwise the search would start again at every quote in it.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_TOKENS: Final = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", array("b", [1, 1, -1, -1]).tobytes())
_NO_STEPS: Final = bytes(set(range(256)) - set(b"[{]}"))
"""The steps of the nesting at each bracket, and all other bytes."""


def is_too_deep(text: bytes, deepest: int = DEEPEST) -> bool:
    """Return whether something in the JSON `text` lies within more than `deepest` arrays and objects."""
    if text.count(b"[") + text.count(b"{") <= deepest:  # nearly always true, and fast
        return False
    # No loop in Python: for a line of an executor that has thousands of brackets, it would take 40 ms instead of 4.
    steps = array("b", _STRINGS.sub(b"", text).translate(_STEPS, _NO_STEPS))
    return max(accumulate(steps), default=0) > deepest


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
