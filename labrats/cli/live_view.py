"""The live view of a running job on a terminal: its log, and below it a status line."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from labrats.cli.durations import describe_span
from labrats.cli.job_view import usage_sentence
from labrats.cli.output import one_line, terminal_safe
from labrats.model.durations import describe_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_TOOL_RESULT_PREFIX: Final = "← "
"""The prefix of a log line with a tool's result. The `tool` event with the time of the result comes next."""

_IDLE_STATES: Final = ("waiting", "ended")
_REFRESHES_PER_SECOND: Final = 4
_SUMMARY_CHARACTERS: Final = 60


@dataclass(frozen=True)
class RunningTool:
    """A call of a tool that has not returned yet.

    summary: the tool's name and a short form of its input.
    started_at: the time in the event, RFC 3339. received_at: the monotonic time at which the event arrived here.
    """

    summary: str
    started_at: str
    received_at: float


@dataclass
class LiveView:
    """A renderer of a job's events. All text that it returns is safe on a terminal."""

    _state: str = "waiting"
    _attempt: int = 1
    _started_at: str | None = None
    _latest_at: str | None = None
    _received_at: float = field(default_factory=time.monotonic)
    _usage: dict[str, Any] = field(default_factory=dict)
    _running_tools: dict[str, RunningTool] = field(default_factory=dict)
    _held_line: str | None = None

    def render(self, event: dict[str, Any]) -> list[str]:
        """Return the lines to print for an event, and update the status line."""
        if event.get("done"):
            self._state = "ended"
            return self._release_line()
        lines = self._start_attempt(event)
        self._latest_at, self._received_at = event["at"], time.monotonic()
        match event["kind"]:
            case "log":
                lines += self._release_line()
                text = terminal_safe(event["text"])
                if text.startswith(_TOOL_RESULT_PREFIX):
                    self._held_line = text
                else:
                    lines.append(text)
            case "tool" if event["name"] is None:
                lines += self._release_line(self._running_tools.pop(event["call"], None), event["at"])
            case "tool":
                self._running_tools[event["call"]] = RunningTool(_summary_of(event), event["at"], time.monotonic())
            case "status":
                self._state = one_line(event["state"])
            case "usage":
                self._usage = event["usage"]
            case "result" | "error":
                self._usage, self._state = event["usage"], "waiting"  # until the job ends or starts another attempt
                self._running_tools.clear()
        return lines

    def status_line(self, now: float) -> str:
        """Return the elapsed time, the current activity and the usage in one line.

        now: the current time of the monotonic clock.
        """
        parts = [self._elapsed(now), self._activity(now), usage_sentence(self._usage)]
        return " · ".join(part for part in parts if part)

    def _start_attempt(self, event: dict[str, Any]) -> list[str]:
        """Reset the state if the event starts an attempt. Return the lines to print before the event."""
        if self._started_at is not None and event["attempt"] == self._attempt:
            return []
        lines = self._release_line()
        self._started_at, self._attempt, self._state = event["at"], event["attempt"], "running"
        self._usage, self._running_tools = {}, {}
        return [*lines, f"[attempt {self._attempt}]"] if self._attempt > 1 else lines

    def _release_line(self, returned: RunningTool | None = None, at: str = "") -> list[str]:
        """Return the held line, with the duration of the call if the line shows the result of `returned`."""
        held, self._held_line = self._held_line, None
        if held is None:
            return []
        return [f"{held}  ({describe_span(returned.started_at, at)})" if returned else held]

    def _elapsed(self, now: float) -> str:
        if self._started_at is None or self._latest_at is None:
            return ""
        if self._state in _IDLE_STATES:
            return describe_span(self._started_at, self._latest_at)
        return describe_seconds(_seconds(self._started_at, self._latest_at) + now - self._received_at)

    def _activity(self, now: float) -> str:
        if not self._running_tools:
            return "" if self._state == "ended" else self._state
        call = next(reversed(self._running_tools.values()))
        more = f" and {len(self._running_tools) - 1} more" if len(self._running_tools) > 1 else ""
        return f"{call.summary} ({describe_seconds(now - call.received_at)}){more}"


def show_live(events: Iterable[dict[str, Any]]) -> str:
    """Show a job on this terminal until it ends. Return its final status."""
    view = LiveView()
    status = ""
    with _live(view) as live:
        for event in events:
            for line in view.render(event):
                live.console.print(line, markup=False, soft_wrap=True)
            status = str(event.get("status", ""))
    return status


@contextmanager
def _live(view: LiveView) -> Iterator["Live"]:
    """Keep the status line at the bottom of the terminal, below all printed lines."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def status_line() -> "RenderableType":
        return Text(view.status_line(time.monotonic()), style="dim", no_wrap=True, overflow="ellipsis")

    console: Console = Console(highlight=False, emoji=False)
    with Live(console=console, get_renderable=status_line, refresh_per_second=_REFRESHES_PER_SECOND) as live:
        yield live


def _summary_of(event: dict[str, Any]) -> str:
    """Return the tool's name and the first text in its input."""
    tool_input = event["input"]
    values = tool_input.values() if isinstance(tool_input, dict) else [tool_input]
    text = next((one_line(value) for value in values if isinstance(value, str)), "")
    short = text if len(text) <= _SUMMARY_CHARACTERS else f"{text[:_SUMMARY_CHARACTERS]}…"
    return f"{one_line(event['name'])}: {short}" if short else one_line(event["name"])


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
