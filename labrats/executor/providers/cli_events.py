"""What agent programs print, one JSON object a line: how any of them is read, and retold for people and programs."""

import json
from typing import Any, Final, TypeVar

import msgspec

from labrats.executor.event_writer import EventWriter
from labrats.model.nesting import is_too_deep

_SUMMARY_CHARACTERS: Final = 200

T = TypeVar("T")


def decode_line(decoder: msgspec.json.Decoder[T], line: bytes) -> T | None:
    """The event in `line`, or None where it is none, or one of a kind that `decoder` does not know.

    So is one that is nested more deeply than can be read.
    """
    if is_too_deep(line):
        return None
    try:
        return decoder.decode(line)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError:
        return _read_with_lone_surrogates(decoder, line)


def _read_with_lone_surrogates(decoder: msgspec.json.Decoder[T], line: bytes) -> T | None:
    """A text cut within a character arrives as half an escape, which is JSON, but is no text."""
    try:
        whole = json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace")
        return decoder.decode(whole)
    except (ValueError, msgspec.DecodeError):
        return None


def report_tool_call(events: EventWriter, call_id: str, name: str, tool_input: Any, about: str) -> None:
    """The agent calls a tool; `about` says what for, and a line of it is shown to people."""
    events.log(f"→ {name}: {summary(events.clean(about))}")
    events.tool_call(call_id, name, tool_input)


def report_tool_result(events: EventWriter, call_id: str, text: str, *, is_error: bool) -> None:
    """The tool has answered."""
    events.log(f"← {'error: ' if is_error else ''}{summary(events.clean(text))}")
    events.tool_result(call_id, text, is_error=is_error)


def report_failed_mcp_server(events: EventWriter, name: str, reason: str) -> None:
    """An MCP server could not be reached. The agent goes on without its tools."""
    events.log(f"[the MCP server {name} failed to start, so that its tools are missing: {reason}]")


def text_of(content: Any) -> str:
    """A tool's answer as text: it is one, or a list of texts and of things that are none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text") or f"[{part.get('type')}]") for part in parts if isinstance(part, dict))


def summary(text: str) -> str:
    """The first line that says something, cut to a length that is read at a glance. The text is redacted: a part of a
    secret is not recognised.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "(nothing)"
    first = lines[0] if len(lines[0]) <= _SUMMARY_CHARACTERS else lines[0][:_SUMMARY_CHARACTERS] + "…"
    return first if len(lines) == 1 else f"{first} (and {len(lines) - 1} more)"
