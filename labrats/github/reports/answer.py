"""The answer to a command in a comment, as a comment."""

from typing import Final

from labrats.github.reports.markdown import neutralised
from labrats.model.outside_text import AGENT_MARK

_ANSWER_BYTES: Final = 16 * 1024
_MARK: Final = "<!-- labrats:answer {} -->"


def answer_mark(key: str) -> str:
    """Return the first line of the answer with a key, by which it is found again."""
    return _MARK.format(key)


def answer_body(key: str, text: str) -> str:
    """Return the comment. text: written by the engine, with words of the command and of errors in it."""
    return f"{answer_mark(key)}\n\n{AGENT_MARK}\n{neutralised(text, (), _ANSWER_BYTES)}"
