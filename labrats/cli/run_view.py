"""A run as it is watched on a terminal: what the agent says and does, and below it how it stands at this moment."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from labrats.cli.durations import describe_seconds, describe_span
from labrats.cli.job_view import usage_sentence
from labrats.cli.output import one_line, terminal_safe

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_ANSWER: Final = "← "
"""How the log line begins that tells of a tool's answer. The answer itself, which says how long it took, comes next."""

_STANDING_STILL: Final = ("waiting", "ended")
_REFRESHES_PER_SECOND: Final = 4
_ABOUT_CHARACTERS: Final = 60


@dataclass(frozen=True)
class Call:
    """A tool at work. about: its name, and a short form of its input. began_at: as the engine says it, RFC 3339."""

    about: str
    began_at: str
    seen_at: float


@dataclass
class RunView:
    """Retells a job's events, as the API gives them. All that it returns is safe on a terminal."""

    _state: str = "waiting"
    _attempt: int = 1
    _began_at: str | None = None
    _latest_at: str | None = None
    _heard_at: float = field(default_factory=time.monotonic)
    _usage: dict[str, Any] = field(default_factory=dict)
    _calls: dict[str, Call] = field(default_factory=dict)
    _held: str | None = None

    def lines_of(self, event: dict[str, Any]) -> list[str]:
        """What is to be printed now that this event has come."""
        if event.get("done"):
            self._state = "ended"
            return self._released()
        lines = self._lines_at_the_start(event)
        self._latest_at, self._heard_at = event["at"], time.monotonic()
        match event["kind"]:
            case "log":
                lines += self._released()
                text = terminal_safe(event["text"])
                if text.startswith(_ANSWER):
                    self._held = text
                else:
                    lines.append(text)
            case "tool" if event["name"] is None:
                lines += self._released(self._calls.pop(event["call"], None), event["at"])
            case "tool":
                self._calls[event["call"]] = Call(_about(event), event["at"], time.monotonic())
            case "status":
                self._state = one_line(event["state"])
            case "usage":
                self._usage = event["usage"]
            case "result" | "error":
                self._usage, self._state = event["usage"], "waiting"  # until it is done, or is tried again
                self._calls.clear()
        return lines

    def standing(self, now: float) -> str:
        """How the run stands, in a line: for how long it has run, what it does, what it has consumed.

        now: by the monotonic clock.
        """
        parts = [self._elapsed(now), self._doing(now), usage_sentence(self._usage)]
        return " · ".join(part for part in parts if part)

    def _lines_at_the_start(self, event: dict[str, Any]) -> list[str]:
        """What is to be printed before the first event of an attempt."""
        if self._began_at is not None and event["attempt"] == self._attempt:
            return []
        lines = self._released()
        self._began_at, self._attempt, self._state = event["at"], event["attempt"], "running"
        self._usage, self._calls = {}, {}
        return [*lines, f"[attempt {self._attempt}]"] if self._attempt > 1 else lines

    def _released(self, answered: Call | None = None, at: str = "") -> list[str]:
        """The line that was held back, with how long the call has taken where it is known to be about one."""
        held, self._held = self._held, None
        if held is None:
            return []
        return [f"{held}  ({describe_span(answered.began_at, at)})" if answered else held]

    def _elapsed(self, now: float) -> str:
        if self._began_at is None or self._latest_at is None:
            return ""
        if self._state in _STANDING_STILL:
            return describe_span(self._began_at, self._latest_at)
        return describe_seconds(_seconds(self._began_at, self._latest_at) + now - self._heard_at)

    def _doing(self, now: float) -> str:
        if not self._calls:
            return "" if self._state == "ended" else self._state
        call = next(reversed(self._calls.values()))
        more = f" and {len(self._calls) - 1} more" if len(self._calls) > 1 else ""
        return f"{call.about} ({describe_seconds(now - call.seen_at)}){more}"


def show_run(events: Iterable[dict[str, Any]]) -> str:
    """Show a run on this terminal until it ends, and return the job's status then."""
    view = RunView()
    status = ""
    with _live(view) as live:
        for event in events:
            for line in view.lines_of(event):
                live.console.print(line, markup=False, soft_wrap=True)
            status = str(event.get("status", ""))
    return status


@contextmanager
def _live(view: RunView) -> Iterator["Live"]:
    """The last line of the terminal shows how the run stands; what is printed comes above it."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def standing() -> "RenderableType":
        return Text(view.standing(time.monotonic()), style="dim", no_wrap=True, overflow="ellipsis")

    console: Console = Console(highlight=False, emoji=False)
    with Live(console=console, get_renderable=standing, refresh_per_second=_REFRESHES_PER_SECOND) as live:
        yield live


def _about(event: dict[str, Any]) -> str:
    """A tool's name, and what of its input tells most: the first text in it."""
    given = event["input"]
    values = given.values() if isinstance(given, dict) else [given]
    text = next((one_line(value) for value in values if isinstance(value, str)), "")
    short = text if len(text) <= _ABOUT_CHARACTERS else f"{text[:_ABOUT_CHARACTERS]}…"
    return f"{one_line(event['name'])}: {short}" if short else one_line(event["name"])


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
