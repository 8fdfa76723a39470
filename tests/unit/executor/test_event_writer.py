"""Tests of the event writer: events are numbered, complete, limited in size and redacted."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.executor import event_lines as event_lines_module
from labrats.executor import event_writer as event_writer_module
from labrats.executor.event_lines import EventLines, RateLimiter
from labrats.executor.event_text import split_text
from labrats.executor.event_writer import EventWriter
from labrats.executor.providers.cli_events import report_tool_call, report_tool_result
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession, FailedCode, Outputs, Usage
from labrats.model.protocol import (
    LINE_BYTES,
    TEXT_BYTES,
    AnyEvent,
    ErrorEvent,
    PartEvent,
    ResultEvent,
    ToolEvent,
    UsageEvent,
)
from labrats.model.redaction import Redactor
from tests.unit.executor.attempts import events_in, logs_of

SECRET = "test-secret-0123456789"


@dataclass(frozen=True)
class Output:
    """An event writer and the file to which it writes."""

    writer: EventWriter
    path: Path

    @property
    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    @property
    def events(self) -> list[AnyEvent]:
        return events_in(self.path)

    @property
    def logs(self) -> list[str]:
        return logs_of(self.events)

    @property
    def last(self) -> Any:
        return self.events[-1]


@contextmanager
def an_output(folder: Path, **options: Any) -> Iterator[Output]:
    path = folder / "output.jsonl"
    with path.open("wb") as file:
        yield Output(EventWriter(EventLines(file.fileno(), folder, **options), Redactor([SECRET])), path)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    with an_output(tmp_path) as output:
        yield output


def test_note_of_the_engine_is_one_line_whatever_it_quotes(output: Output) -> None:
    output.writer.log(f"[quoted: one\ntwo\r\u2028three\x1b[0m {'x' * LINE_BYTES}]")

    assert len(output.events) == 1
    assert output.last.origin == "engine"
    assert output.last.text.startswith("[quoted: one two three [0m xxx")
    assert len(output.last.text) < 5000


def test_text_of_a_program_in_a_note_is_short_and_redacted_before_it_is_cut(output: Output) -> None:
    field = output.writer.field("a" * 90 + " " + SECRET + "\n" + "b" * 90)

    assert len(field) == 100
    assert SECRET[:5] not in field
    assert "\n" not in field


def test_events_are_numbered_from_one(output: Output) -> None:
    output.writer.status("started")
    output.writer.log("one\ntwo", "agent")
    output.writer.result(None)

    assert [event.seq for event in output.events] == [1, 2, 3, 4]


def test_each_line_of_a_logged_text_is_an_event(output: Output) -> None:
    output.writer.log("first\r\n\nlast\n\n", "agent")

    assert output.logs == ["first", "", "last"]


@pytest.mark.parametrize("character", ["x", "€", "🐀", "\x00", '"'])
def test_long_line_is_split_between_characters(output: Output, character: str) -> None:
    text = character * 50_000

    output.writer.log(text, "agent")

    assert len(output.logs) > 1
    assert "".join(output.logs) == text
    assert all(len(piece.encode()) <= TEXT_BYTES for piece in output.logs)
    assert all(len(line) <= LINE_BYTES for line in output.lines)


@given(st.text(), st.integers(min_value=8, max_value=20))
def test_pieces_of_a_split_text_join_to_the_text(text: str, limit: int) -> None:
    parts = list(split_text(text, limit))

    assert "".join(parts) == text
    assert all(len(part.encode()) <= limit for part in parts)


def test_no_event_exceeds_a_line(output: Output) -> None:
    nasty = '\x01"\\€' * 100_000
    output.writer.tool_call(nasty, nasty, {"command": nasty, "more": [nasty]})
    output.writer.tool_call("1", "Write", {"path": "a.txt", "content": nasty})
    output.writer.tool_call("2", "Many", {str(number): "x" * 50 for number in range(10_000)})
    output.writer.tool_result(nasty, nasty)
    output.writer.status("running", nasty)
    output.writer.error(FailedCode.AGENT_ERROR, nasty)

    assert all(len(line) <= LINE_BYTES for line in output.lines)
    assert len(output.events) == 6


def test_large_tool_input_retains_its_short_fields(output: Output) -> None:
    output.writer.tool_call("1", "Write", {"path": "a.txt", "content": "x" * 300_000})

    assert isinstance(output.last, ToolEvent)
    assert output.last.input["path"] == "a.txt"
    assert output.last.input["content"].endswith("[… cut, 300000 bytes in total]")


def test_result_too_large_for_a_line_is_written_to_a_file(output: Output, tmp_path: Path) -> None:
    output.writer.result({"text": "x" * LINE_BYTES})

    assert isinstance(output.last, ResultEvent)
    assert (output.last.result, output.last.file) == (None, "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == {"text": "x" * LINE_BYTES}


def test_large_result_without_a_folder_is_written_as_part_events(tmp_path: Path) -> None:
    result = {"text": 'grüße "' * 20_000}
    path = tmp_path / "output.jsonl"
    with path.open("wb") as file:
        EventWriter(EventLines(file.fileno(), None), Redactor([SECRET])).result(result)

    *parts, end = events_in(path)
    content = b""
    for part in parts:
        assert isinstance(part, PartEvent)
        assert (part.file, part.offset) == ("result.json", len(content))
        content += part.data
        assert part.is_last == (part is parts[-1])
    assert json.loads(content) == result
    assert isinstance(end, ResultEvent)
    assert (end.result, end.file) == (None, "result.json")
    assert all(len(line) <= LINE_BYTES for line in path.read_bytes().splitlines(keepends=True))


def test_terminal_event_repeats_usage_and_outputs(output: Output) -> None:
    output.writer.report_usage(Usage(input_tokens=5))
    output.writer.report_outputs(Outputs(branch="fix"))
    output.writer.error(FailedCode.AGENT_ERROR, "no")

    assert isinstance(output.last, ErrorEvent)
    assert (output.last.usage, output.last.outputs) == (Usage(input_tokens=5), Outputs(branch="fix"))


def test_secrets_are_redacted_in_every_kind_of_event(output: Output, tmp_path: Path) -> None:
    writer = output.writer
    writer.log(f"a {SECRET}")
    writer.status("running", SECRET)
    writer.tool_call("1", "Bash", {"command": ["echo", SECRET]})
    writer.tool_result("1", SECRET)
    hosts = tuple(map(writer.redact_host, ("a.test:443", f"{SECRET.upper()}.evil.test:443")))
    url = f"https://git.example/{SECRET}/pull/7"
    writer.report_outputs(
        Outputs(base_commit=SECRET, branch=SECRET, commit=SECRET, pull_request_url=url, refused_hosts=hosts)
    )
    writer.report_session(AgentSession(provider="claude", id=SECRET, attempt=1))
    writer.result({"text": SECRET, "padding": "x" * LINE_BYTES})
    writer.error(FailedCode.AGENT_ERROR, SECRET)

    assert SECRET.lower() not in output.path.read_text().lower()
    assert writer.outputs == Outputs(refused_hosts=("a.test:443", "[redacted]"))
    assert writer.session is None
    assert SECRET not in (tmp_path / "result.json").read_text()


def test_secret_is_redacted_at_every_split_of_a_long_line(tmp_path: Path) -> None:
    for position in range(TEXT_BYTES - len(SECRET), TEXT_BYTES):
        with an_output(tmp_path) as output:
            output.writer.log("x" * position + SECRET, "agent")
        assert "".join(output.logs) == "x" * position + "[redacted]"


@pytest.mark.parametrize("before", [130, 150])
def test_secret_is_redacted_at_the_cut_of_a_summary(output: Output, before: int) -> None:
    text = "x" * before + SECRET
    report_tool_call(output.writer, "1", "Bash", {"command": text}, description=text)
    report_tool_result(output.writer, "1", text, is_error=False)
    written = output.path.read_text()
    assert SECRET[:6] not in written
    assert len(output.logs) == 2


def test_lone_surrogate_is_replaced(output: Output) -> None:
    output.writer.log("half a pair: \ud83d!")

    assert output.logs == ["half a pair: ?!"]


def write_many_events(writer: EventWriter, text: str) -> None:
    for turns in range(100):
        writer.log(text)
        writer.tool_call("1", "Bash", {})
        writer.tool_result("1", text)
        writer.report_usage(Usage(turns=turns))


@pytest.mark.parametrize("text", ["", "x", "x" * 99])
def test_output_limit_counts_all_events_and_allows_the_terminal_event(tmp_path: Path, text: str) -> None:
    with an_output(tmp_path, output_bytes=5000) as output:
        with pytest.raises(GiveUp, match="LABRATS_MAX_OUTPUT_MIB") as limit:
            write_many_events(output.writer, text)
        size = output.path.stat().st_size
        output.writer.log("too late")
        output.writer.status("too late")
        output.writer.error(FailedCode(limit.value.code), str(limit.value))

    assert 4500 < size <= 5000
    assert "too late" not in output.path.read_text()
    assert output.last.code == FailedCode.OUTPUT_LIMIT
    assert [event.seq for event in output.events] == list(range(1, len(output.events) + 1))


def test_too_large_result_is_rejected(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_writer_module, "MOST_RESULT_BYTES", 1000)
    with pytest.raises(GiveUp, match="the result is larger") as refused:
        output.writer.result("x" * 1000)
    output.writer.error(FailedCode(refused.value.code), str(refused.value))
    assert [type(event) for event in output.events] == [ErrorEvent]
    assert output.last.code == FailedCode.OUTPUT_LIMIT


def test_result_that_is_no_text_has_a_lower_limit(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_writer_module, "MAX_VALUES_BYTES", 1000)
    with pytest.raises(GiveUp, match="the result is no text, and larger") as refused:
        output.writer.result([[]] * 500)
    assert refused.value.code == FailedCode.OUTPUT_LIMIT
    output.writer.result("x" * 2000)
    assert [type(event) for event in output.events] == [ResultEvent]


def test_output_limit_set_later_counts_earlier_lines(tmp_path: Path) -> None:
    with an_output(tmp_path) as output:
        output.writer.log("x" * 1000)
        output.writer.lines.limit(1500)
        with pytest.raises(GiveUp):
            output.writer.log("x" * 1000)


def test_rate_limiter_blocks_until_the_rate_is_met() -> None:
    time, waits = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time[0] += seconds

    rate_limiter = RateLimiter(100, lambda: time[0], sleep)
    for _ in range(100):
        rate_limiter.spend(10)
    assert time[0] == pytest.approx(9.0)  # a burst of one second's worth, then 100 per second
    assert max(waits) == pytest.approx(0.1)

    waits.clear()
    time[0] += 3600
    for _ in range(10):
        rate_limiter.spend(10)
    assert waits == []


def test_event_is_written_completely_once_a_full_disk_has_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write
    results = iter([OSError(errno.ENOSPC, "No space left on device"), 5, OSError(errno.EDQUOT, "Quota exceeded")])

    def write(fd: int, data: bytes) -> int:
        match next(results, None):
            case OSError() as error:
                raise error
            case int() as size:
                return real_write(fd, data[:size])
            case _:
                return real_write(fd, data)

    monkeypatch.setattr(event_lines_module, "_DISK_FULL_PAUSE_SECONDS", 0)
    monkeypatch.setattr(os, "write", write)
    with an_output(tmp_path) as output:
        output.writer.log("patience")

    assert output.logs == ["patience"]


def test_same_usage_is_written_once(output: Output) -> None:
    once, twice = Usage(output_tokens=5, turns=1), Usage(output_tokens=10, turns=2)
    for usage in (once, once, twice, twice):
        output.writer.report_usage(usage)
    output.writer.report_measured_usage(Usage(output_tokens=10))
    assert [event.usage for event in output.events if isinstance(event, UsageEvent)] == [once, twice]
