"""The current activity of an agent, as one short line: the latest of its tool calls, its own words, and states."""

from typing import Any, Final

from labrats.model.protocol import AnyEvent, LogEvent, StatusEvent, ToolEvent

ACTIVITY_LENGTH: Final = 120
"""Characters of an activity."""

_STATES: Final = {"started": "preparing the workspace", "running": "starting the agent"}
"""Words for states that executors report without a message."""

_SEARCHED_CHARACTERS: Final = 2_000


def activity_of(event: AnyEvent) -> str | None:
    """Return the activity that an event begins, such as `Bash: npm test`; None if it begins none."""
    match event:
        case ToolEvent(name=str(name)):
            first_text = _first_text(event.input)
            return _one_line(f"{name}: {first_text}" if first_text else name)
        case LogEvent(origin="agent" | None):  # without an origin in the output of version 0.1
            return _one_line(event.text)
        case StatusEvent():
            return _one_line(event.message or _STATES.get(event.state, event.state))
    return None


def _first_text(tool_input: Any) -> str:
    values = tool_input.values() if isinstance(tool_input, dict) else [tool_input]
    return next((value for value in values if isinstance(value, str)), "")


def _one_line(text: str) -> str | None:
    line = " ".join(text[:_SEARCHED_CHARACTERS].split())
    return f"{line[: ACTIVITY_LENGTH - 1]}…" if len(line) > ACTIVITY_LENGTH else line or None
