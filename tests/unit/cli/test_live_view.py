"""The live view of a job on a terminal."""

import time
from collections.abc import Callable
from typing import Any

from labrats.cli.live_view import LiveView
from labrats.cli.output import terminal_safe
from tests.unit.cli.engines import Labrats, ScriptedEngine, a_job, frame, stream

JOB = "ir-3ab1c2d4"
DONE = {"done": True, "status": "completed"}


def an_event(kind: str, second: float = 0, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {"id": f"{attempt}-1", "attempt": attempt, "at": f"2030-01-01T12:00:{second:06.3f}Z", "kind": kind} | fields


def a_log(text: str, second: float = 0, attempt: int = 1) -> dict[str, Any]:
    return an_event("log", second, attempt, text=text)


def a_call(second: float = 0, call: str = "c1", **tool_input: Any) -> dict[str, Any]:
    return an_event("tool", second, call=call, name="Bash", input=tool_input or {"command": "make test"}, output=None)


def an_answer(second: float, call: str = "c1") -> dict[str, Any]:
    return an_event("tool", second, call=call, name=None, input=None, output="ok", isError=False)


def usage(**fields: Any) -> dict[str, Any]:
    return {"inputTokens": 1200, "outputTokens": 300, "costUsd": 0.0123, "turns": 4} | fields


def lines_of(view: LiveView, *events: dict[str, Any]) -> list[str]:
    return [line for event in events for line in view.render(event)]


def test_log_lines_are_printed_and_tool_results_show_their_duration() -> None:
    lines = lines_of(
        LiveView(), a_log("Let me see."), a_log("→ Bash: make test"), a_call(1), a_log("← ok", 4.5), an_answer(4.5)
    )
    assert lines == ["Let me see.", "→ Bash: make test", "← ok  (3.5s)"]


def test_line_that_resembles_a_tool_result_is_unchanged() -> None:
    assert lines_of(LiveView(), a_log("← not one"), a_log("next"), a_log("← nor this"), DONE) == [
        "← not one",
        "next",
        "← nor this",
    ]


def test_refused_host_is_printed_once_and_a_later_kind_of_event_not_at_all() -> None:
    line = "[network: a.test:443 refused: the network rule does not allow it]"
    refused = {"host": "a.test", "port": 443, "reason": "the network rule does not allow it"}
    lines = lines_of(LiveView(), a_log(line), an_event("refused_host", refusedHost=refused), an_event("later"))
    assert lines == [line]


def test_status_line_shows_the_running_tool_and_the_usage() -> None:
    view = LiveView()
    assert view.status_line(time.monotonic()) == "waiting"
    lines_of(view, an_event("status", state="running", message=None), an_event("usage", usage=usage()), a_call(2))
    status = view.status_line(time.monotonic() + 60)
    assert " · Bash: make test (1m00s) · 1,200 tokens in, 300 out; $0.0123; turns: 4" in status
    assert status.startswith("1m02s")
    lines_of(view, a_call(3, "c2", command="a\nb" * 100))
    assert "…" in (status := view.status_line(time.monotonic()))
    assert status.count("\n") == 0
    assert " and 1 more" in status


def test_status_line_of_an_ended_job_stops_counting() -> None:
    view = LiveView()
    lines_of(view, a_call(), an_event("result", 42, result="x", usage=usage(), outputs={}), DONE)
    assert view.status_line(time.monotonic() + 1000) == "42s · 1,200 tokens in, 300 out; $0.0123; turns: 4"


def test_status_line_of_a_requeued_job_shows_waiting() -> None:
    view = LiveView()
    lines_of(view, a_log("x"), an_event("error", 3, code="rate_limited", message="slow down", usage={}, outputs={}))
    assert view.status_line(time.monotonic() + 1000) == "3.0s · waiting"


def test_new_attempt_resets_the_view() -> None:
    view = LiveView()
    lines = lines_of(view, a_log("one"), an_event("usage", usage=usage()), a_log("two", 30, attempt=2))
    assert lines == ["one", "[attempt 2]", "two"]
    assert "tokens" not in view.status_line(time.monotonic())


def test_escape_sequences_in_events_are_removed() -> None:
    view = LiveView()
    evil = "\x1b[2J\x1b]0;title\x07\r\u202eevil"
    lines = lines_of(
        view, a_log(evil), a_log(f"← {evil}"), an_event("status", state=evil, message=None),
        an_event("tool", call="c", name=evil, input={evil: evil}, output=None), DONE,
    )  # fmt: skip
    for text in (*lines, view.status_line(time.monotonic())):
        assert text == terminal_safe(text)
        assert "\n" not in text


def test_logs_on_a_terminal_show_the_live_view(
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


def test_logs_raw_prints_only_the_log(
    labrats: Labrats, engine: ScriptedEngine, on_terminal: Callable[[], None]
) -> None:
    on_terminal()
    engine.streams(JOB, "looking", "← ok")
    engine.answers(f"GET /api/jobs/{JOB}", a_job())
    assert labrats("logs", "-f", JOB, "--raw").out == "looking\n← ok\n"
    assert labrats("logs", JOB, "--raw").out == "looking\n← ok\n"
