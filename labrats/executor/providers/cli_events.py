"""Parse the output of agent programs, one JSON object per line, and report it as events of the attempt."""

import json
import re
from typing import Any, Final, TypeVar

import msgspec

from labrats.executor.event_writer import EventWriter
from labrats.model.nesting import is_too_deep

_SUMMARY_CHARACTERS: Final = 200
_MOST_PARTS: Final = 500_000
"""Most brackets in an event, and most commas. Each object and array takes up to some 100 bytes of memory when it is
read, and each other value some 30.
"""

_MOST_QUOTES: Final = 2_000_000
"""Most quotes in an event. No other thread runs while it is read, such as the one that measures the agent's memory."""

_REPAIRED_BYTES: Final = 4 * 1024 * 1024
"""Longest event that is repaired, which takes several times as long as reading it."""

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,199}")

T = TypeVar("T")


def is_session_id(text: str) -> bool:
    """Return whether an id that a program printed can be a session's. Others could be read as paths or options."""
    return _SESSION_ID.fullmatch(text) is not None


def decode_line(decoder: msgspec.json.Decoder[T], line: bytes) -> T | None:
    """Return the event in `line`, or None if it is not an event that `decoder` accepts, or has too many parts."""
    if max(line.count(b"{") + line.count(b"["), line.count(b",")) > _MOST_PARTS or line.count(b'"') > _MOST_QUOTES:
        return None
    if is_too_deep(line):
        return None
    try:
        return decoder.decode(line)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_with_cut_characters(decoder, line) if len(line) <= _REPAIRED_BYTES else None


def _read_with_cut_characters(decoder: msgspec.json.Decoder[T], line: bytes) -> T | None:
    """Decode a line with a part of a character, which a program prints if it cuts a text within the character.

    The part is replaced. Half a surrogate pair is valid JSON, but msgspec rejects it.
    """
    try:
        text = line.decode("utf-8", "replace")
        repaired = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
        return decoder.decode(repaired)
    except (ValueError, msgspec.DecodeError):
        return None


def report_tool_call(events: EventWriter, call_id: str, name: str, tool_input: Any, description: str) -> None:
    """Report a tool call, and log the first line of its description."""
    events.log(f"→ {events.field(name)}: {summary(events.clean(description))}", "tool")
    events.tool_call(call_id, name, tool_input)


def report_tool_result(events: EventWriter, call_id: str, text: str, *, is_error: bool) -> None:
    """Report the result of a tool call, and log its first line."""
    events.log(f"← {'error: ' if is_error else ''}{summary(events.clean(text))}", "tool")
    events.tool_result(call_id, text, is_error=is_error)


def report_failed_mcp_server(events: EventWriter, name: str, reason: str) -> None:
    """Log that an MCP server could not be reached. The agent continues without its tools."""
    name, reason = events.field(name), events.field(reason)
    events.log(f"[the MCP server {name} failed to start, its tools are missing: {reason}]")


def text_of(content: Any) -> str:
    """Return the content of a tool result as text. Parts of other types are represented by their type."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text") or f"[{part.get('type')}]") for part in parts if isinstance(part, dict))


def summary(text: str) -> str:
    """Return the first non-blank line, shortened, with the number of further lines.

    The text must already be redacted, since the redactor does not recognise a part of a secret.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "(nothing)"
    first = lines[0] if len(lines[0]) <= _SUMMARY_CHARACTERS else lines[0][:_SUMMARY_CHARACTERS] + "…"
    return first if len(lines) == 1 else f"{first} (and {len(lines) - 1} more)"
