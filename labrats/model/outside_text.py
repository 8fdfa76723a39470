"""Text that somebody outside has written, without what a person who looks at it does not see."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"  # zero width, and directions
    "\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # tags: a second, invisible ASCII
)
"""Characters that nobody sees, or that turn the direction of text, as a class of a regular expression has them."""

_HIDDEN: Final = re.compile(f"[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f{INVISIBLE}]+")
_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)|^[ ]{0,3}\[(?://|comment)\]:[ ]*#[^\n]*$", re.DOTALL | re.MULTILINE)
_HIDDEN_COMMENT: Final = "[a hidden comment was here]"


def without_hidden(text: str) -> str:
    """`text` without characters that have no width or turn its direction, and without HTML and Markdown comments.

    A comment is said to have been there. What is folded away is left: it is there to be unfolded.
    """
    # First the characters: they could stand within the marks of a comment.
    return _COMMENT.sub(_HIDDEN_COMMENT, _HIDDEN.sub("", text))


def as_text(value: Any) -> str:
    """A JSON value for an agent to read: a string as it is, anything else as JSON; nothing in it is hidden."""
    if isinstance(value, str):
        return without_hidden(value)
    return json.dumps(_without_hidden(value), indent=1, ensure_ascii=False)


def _without_hidden(value: Any) -> Any:
    if isinstance(value, str):
        return without_hidden(value)
    if isinstance(value, Mapping):
        return {without_hidden(str(key)): _without_hidden(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_hidden(item) for item in value]
    return value


def shortened(text: str, limit: int) -> str:
    """`text`, or as much of it as fits into `limit` bytes together with a note that says that it was cut."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    note = f"\n[cut here: of {len(encoded)} bytes the rest does not fit]\n"
    return encoded[: limit - len(note)].decode(errors="ignore") + note
