"""How deep JSON from outside may be nested: whatever reads it recurses, and fails where that goes too deep."""

import re
from typing import Final

DEEPEST: Final = 100
"""How deep what users send, and what agents answer, may be."""

# A string that does not end is one token too: else each quote in it would be tried as the beginning of one.
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def is_too_deep(text: bytes, deepest: int = DEEPEST) -> bool:
    """Whether something in the JSON `text` lies in more than `deepest` arrays and objects."""
    if text.count(b"[") + text.count(b"{") <= deepest:  # nearly always, and quick
        return False
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += _step(token[0])
        if depth > deepest:
            return True
    return False


def cut_off_below(text: bytes, deepest: int) -> bytes:
    """`text` with null in the place of each array or object that lies in `deepest` others."""
    kept: list[bytes] = []
    start = depth = 0
    for token in _TOKENS.finditer(text):
        step = _step(token[0])
        if step > 0 and depth == deepest:
            kept += [text[start : token.start()], b"null"]
        depth += step
        if step < 0 and depth == deepest:
            start = token.end()
    return b"".join([*kept, text[start:]])


def _step(token: bytes) -> int:
    return 1 if token in b"[{" else -1 if token in b"]}" else 0
