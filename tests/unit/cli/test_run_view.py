"""A run as it is watched on a terminal."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from labrats.cli.output import terminal_safe
from labrats.cli.run_view import RunView
from tests.unit.cli.engines import Labrats, ScriptedEngine, a_job, frame, stream

JOB = "ir-3ab1c2d4"
DONE = {"done": True, "status": "completed"}


def an_event(kind: str, second: float = 0, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {"id": f"{attempt}-1", "attempt": attempt, "at": f"2030-01-01T12:00:{second:06.3f}Z", "kind": kind} | fields


def a_log(text: str, second: float = 0, attempt: int = 1) -> dict[str, Any]:
    return an_event("log", second, attempt, text=text)


def a_call(second: float = 0, call: str = "c1", **given: Any) -> dict[str, Any]:
    return an_event("tool", second, call=call, name="Bash", input=given or {"command": "make test"}, output=None)


def an_answer(second: float, call: str = "c1") -> dict[str, Any]:
    return an_event("tool", second, call=call, name=None, input=None, output="ok", isError=False)


def usage(**fields: Any) -> dict[str, Any]:
    return {"inputTokens": 1200, "outputTokens": 300, "costUsd": 0.0123, "turns": 4} | fields


def lines_of(view: RunView, *events: dict[str, Any]) -> list[str]:
    return [line for event in events for line in view.lines_of(event)]


def test_what_the_agent_says_is_printed_and_a_tools_answer_says_how_long_it_took() -> None:
    lines = lines_of(
        RunView(), a_log("Let me see."), a_log("→ Bash: make test"), a_call(1), a_log("← ok", 4.5), an_answer(4.5)
    )
    assert lines == ["Let me see.", "→ Bash: make test", "← ok  (3.5s)"]


def test_a_line_that_only_looks_like_a_tools_answer_is_printed_as_it_is() -> None:
    assert lines_of(RunView(), a_log("← not one"), a_log("next"), a_log("← nor this"), DONE) == [
        "← not one",
        "next",
        "← nor this",
    ]


def test_how_it_stands_says_what_is_at_work_and_what_was_consumed() -> None:
    view = RunView()
    assert view.standing(time.monotonic()) == "waiting"
    lines_of(view, an_event("status", state="running", message=None), an_event("usage", usage=usage()), a_call(2))
    standing = view.standing(time.monotonic() + 60)
    assert " · Bash: make test (1m00s) · 1,200 tokens in, 300 out; $0.0123; turns: 4" in standing
    assert standing.startswith("1m02s")
    lines_of(view, a_call(3, "c2", command="a\nb" * 100))
    assert "…" in (standing := view.standing(time.monotonic()))
    assert standing.count("\n") == 0
    assert " and 1 more" in standing


def test_an_ended_run_stands_still() -> None:
    view = RunView()
    lines_of(view, a_call(), an_event("result", 42, result="x", usage=usage(), outputs={}), DONE)
    assert view.standing(time.monotonic() + 1000) == "42s · 1,200 tokens in, 300 out; $0.0123; turns: 4"


def test_a_run_that_is_put_back_waits() -> None:
    view = RunView()
    lines_of(view, a_log("x"), an_event("error", 3, code="rate_limited", message="slow down", usage={}, outputs={}))
    assert view.standing(time.monotonic() + 1000) == "3.0s · waiting"


def test_a_further_attempt_begins_anew() -> None:
    view = RunView()
    lines = lines_of(view, a_log("one"), an_event("usage", usage=usage()), a_log("two", 30, attempt=2))
    assert lines == ["one", "[attempt 2]", "two"]
    assert "tokens" not in view.standing(time.monotonic())


def test_nothing_of_a_run_has_power_over_the_terminal() -> None:
    view = RunView()
    evil = "\x1b[2J\x1b]0;title\x07\r\u202eevil"
    lines = lines_of(
        view, a_log(evil), a_log(f"← {evil}"), an_event("status", state=evil, message=None),
        an_event("tool", call="c", name=evil, input={evil: evil}, output=None), DONE,
    )  # fmt: skip
    for text in (*lines, view.standing(time.monotonic())):
        assert text == terminal_safe(text)
        assert "\n" not in text


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called in a test, it makes stdout a terminal."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    return lambda: monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def test_on_a_terminal_a_log_is_watched_by_its_events(
    labrats: Labrats, engine: ScriptedEngine, on_terminal: Callable[[], None]
) -> None:
    on_terminal()
    end = an_event("result", 42, result="x", usage=usage(), outputs={})
    events = [a_log("[bold]looking[/bold] :cat:"), a_call(1), a_log("← ok", 2), an_answer(2), end]
    frames = [frame(f"1-{n}", event) for n, event in enumerate(events, 1)]
    engine.script(f"GET /api/jobs/{JOB}/events", stream(*frames, frame(None, DONE)))
    ended = labrats("logs", "-f", JOB)
    shown = terminal_safe(ended.out)
    assert ended.code == 0
    assert shown.index("[bold]looking[/bold] :cat:\n") < shown.index("← ok  (1.0s)\n")
    assert shown.rstrip().endswith("42s · 1,200 tokens in, 300 out; $0.0123; turns: 4")
    assert engine.requests[0].headers["Accept"] == "text/event-stream"


def test_raw_is_the_log_alone(labrats: Labrats, engine: ScriptedEngine, on_terminal: Callable[[], None]) -> None:
    on_terminal()
    engine.streams(JOB, "looking", "← ok")
    engine.answers(f"GET /api/jobs/{JOB}", a_job())
    assert labrats("logs", "-f", JOB, "--raw").out == "looking\n← ok\n"
    assert labrats("logs", JOB, "--raw").out == "looking\n← ok\n"
