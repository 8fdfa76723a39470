"""The answer to a command in a comment, as a comment."""

from typing import Final

from labrats.model.outside_text import AGENT_MARK

_MARK: Final = "<!-- labrats:answer {} -->"


def answer_mark(request_id: str) -> str:
    """Return the first line of the answer to a request, by which it is found again."""
    return _MARK.format(request_id)


def answer_body(request_id: str, text: str) -> str:
    """Return the comment. text: written by the engine."""
    return f"{answer_mark(request_id)}\n\n{AGENT_MARK}\n{text}"
