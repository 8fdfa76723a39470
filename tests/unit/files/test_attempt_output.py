"""Reading an attempt's output file, with any content."""

import errno
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.files import attempt_output
from labrats.files.attempt_output import (
    CHUNK_BYTES,
    MAX_TAIL_BYTES,
    OUTPUT_REMOVED,
    OutputReader,
    attempt_names,
    in_batches,
    read_activity,
    read_end,
    remove_output,
)
from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode, Outputs, Usage
from labrats.model.protocol import (
    BUNDLE_FILE,
    LINE_BYTES,
    OUTPUT_FILE,
    AnyEvent,
    LogEvent,
    OutputEvent,
    ResultEvent,
    SessionEvent,
    ToolEvent,
    UsageEvent,
    events_in,
)
from labrats.model.record import encode
from labrats.ports import OutputTail
from tests.fakes.clock import NOON
from tests.support.builders import a_log, a_result, a_session, an_error


def lines_of(*events: AnyEvent) -> bytes:
    return b"".join(encode(event) + b"\n" for event in events)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.jsonl"


def seqs_in(lines: bytes) -> list[int]:
    return [event.seq for event in events_in(lines)]


def read_all(reader: OutputReader) -> list[int]:
    seqs: list[int] = []
    while lines := reader.read():
        seqs += seqs_in(lines)
    return seqs


def test_a_missing_file_reads_as_empty(output: Path) -> None:
    reader = OutputReader(output)
    assert reader.read() == b""
    assert read_end(output) == (None, OutputTail())
    output.write_bytes(lines_of(a_log(1)))
    assert read_all(reader) == [1]


def test_a_reader_continues_as_the_file_grows(output: Path) -> None:
    reader = OutputReader(output)
    complete = lines_of(*(a_log(seq) for seq in range(1, 4)))
    found = []
    for end in range(len(complete) + 1):
        output.write_bytes(complete[:end])
        found += read_all(reader)
    assert found == [1, 2, 3]


def test_reader_reports_the_end_of_the_file(output: Path) -> None:
    output.write_bytes(lines_of(*(a_log(seq) for seq in range(1, 1000))))
    reader, ends = OutputReader(output), []
    while not reader.at_end:
        assert reader.read()
        ends.append(reader.at_end)
    assert len(ends) > 1
    assert reader.read() == b""


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"not json",
        b"{}",
        b'{"kind":"log"}',
        b"\xff\xfe",
        b"[1]",
        b'{"seq":1,"kind":"new","at":0}',
        b"\0" * 99,
        b'{"seq":2,"kind":"error","at":"2030-01-01T12:00:00","code":"timeout","message":"a time without a zone"}',
    ],
)
def test_foreign_lines_are_skipped(output: Path, foreign: bytes) -> None:
    output.write_bytes(lines_of(a_log(1)) + foreign + b"\n" + lines_of(a_log(2), a_result(seq=3)))
    assert read_all(OutputReader(output)) == [1, 2, 3]
    assert read_all(OutputReader(output, 1)) == [2, 3]
    assert isinstance(read_end(output)[0], ResultEvent)


def test_more_than_a_chunk_of_foreign_data_is_skipped(output: Path) -> None:
    output.write_bytes(lines_of(a_log(1)) + b"x" * (3 * CHUNK_BYTES) + b"\n" + lines_of(a_log(2)))
    assert read_all(OutputReader(output)) == [1, 2]
    assert read_all(OutputReader(output, 1)) == [2]


def test_a_huge_sparse_file_is_not_read_in_one_call(output: Path) -> None:
    output.write_bytes(lines_of(a_log(1)))
    os.truncate(output, 2**40)
    reader = OutputReader(output)
    assert seqs_in(reader.read()) == [1]
    assert reader.read() == b""
    assert read_end(output) == (None, OutputTail())


def test_an_incomplete_last_line_is_ignored(output: Path) -> None:
    output.write_bytes(lines_of(a_log(1)) + lines_of(a_result(seq=2))[:-1])
    assert read_all(OutputReader(output)) == [1]
    assert read_end(output) == (None, OutputTail(("tick",), last_seq=1))


def test_a_long_output_can_be_read_after_each_number(output: Path) -> None:
    output.write_bytes(lines_of(*(a_log(seq, "x" * 15_000) for seq in range(1, 81))))
    for after in range(82):
        reader = OutputReader(output, after)
        assert seqs_in(reader.read())[:1] == list(range(after + 1, 81))[:1]


@given(sizes=st.lists(st.integers(1, LINE_BYTES - 200), min_size=1, max_size=60), data=st.data())
def test_an_output_can_be_read_after_any_number(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    output = tmp_path_factory.mktemp("output") / "output.jsonl"
    output.write_bytes(lines_of(*(a_log(seq, "x" * size) for seq, size in enumerate(sizes, 1))))
    after = data.draw(st.integers(0, len(sizes) + 1))
    assert read_all(OutputReader(output, after)) == list(range(after + 1, len(sizes) + 1))


# The end


def test_only_the_last_event_can_be_the_outcome(output: Path) -> None:
    output.write_bytes(lines_of(a_result(seq=1), a_log(2)))
    assert read_end(output)[0] is None
    output.write_bytes(lines_of(a_log(1), an_error(seq=2)))
    outcome = read_end(output)[0]
    assert outcome == an_error(seq=2)


def test_the_latest_usage_and_outputs_count(output: Path) -> None:
    early, late = Usage(turns=1), Usage(turns=2)
    outputs = Outputs(branch="fix")
    events: list[AnyEvent] = [
        UsageEvent(seq=1, at=NOON, usage=early),
        OutputEvent(seq=2, at=NOON, outputs=outputs),
        a_log(3),
    ]
    output.write_bytes(lines_of(*events, UsageEvent(seq=4, at=NOON, usage=late)))
    assert read_end(output)[1] == OutputTail(("tick",), late, outputs, last_seq=4)
    final = a_result(seq=5, usage=Usage(turns=3), outputs=Outputs(branch="final"))
    output.write_bytes(lines_of(*events, final))
    assert read_end(output)[1] == OutputTail(("tick",), Usage(turns=3), Outputs(branch="final"), last_seq=5)


@pytest.mark.parametrize("tools", [0, 100, 600])
def test_the_session_is_found_before_any_amount_of_tool_output(output: Path, tools: int) -> None:
    sessions = [SessionEvent(seq=seq, at=NOON, session=a_session(seq)) for seq in (2, 3)]
    later = [ToolEvent(seq=seq, at=NOON, id="t", output="x" * 10_000) for seq in range(4, 4 + tools)]
    output.write_bytes(lines_of(a_log(1), *sessions, *later, an_error(seq=999)))
    assert read_end(output)[1].session == a_session(3)


@pytest.mark.parametrize("session_id", ["", "-x", "--help", "a b", "a/b", "a" * 65])
def test_a_session_with_an_invalid_id_is_ignored(output: Path, session_id: str) -> None:
    session = a_session(session_id=session_id)
    output.write_bytes(lines_of(SessionEvent(seq=1, at=NOON, session=session), an_error(seq=2)))
    assert read_end(output)[1].session is None


def test_the_last_log_lines_are_found_before_much_tool_output(output: Path) -> None:
    logs = [a_log(seq, f"line {seq}") for seq in range(1, 201)]
    tools = [ToolEvent(seq=seq, at=NOON, id="t", output="x" * 10_000) for seq in range(201, 301)]
    output.write_bytes(lines_of(*logs, *tools, an_error(FailedCode.BUDGET, seq=301)))
    assert read_end(output)[1].logs == tuple(f"line {seq}" for seq in range(101, 201))


def test_log_lines_beyond_the_limit_are_not_searched(output: Path) -> None:
    tools = [ToolEvent(seq=seq, at=NOON, id="t", output="x" * 50_000) for seq in range(2, 200)]
    output.write_bytes(lines_of(a_log(1), *tools))
    assert output.stat().st_size > 2 * MAX_TAIL_BYTES
    assert read_end(output) == (None, OutputTail(last_seq=199))


def test_activity_is_the_latest_at_the_end_of_the_output(output: Path) -> None:
    assert read_activity(output) is None
    call = ToolEvent(seq=1, at=NOON, id="c", name="Bash", input={"command": "make"})
    answer = ToolEvent(seq=2, at=NOON, id="c", output="x" * 1000)
    output.write_bytes(b"no event\n" + lines_of(call, answer) + b'{"seq": 3, "kind": "log", "text": "incompl')
    assert read_activity(output) == "Bash: make"
    output.write_bytes(lines_of(call, *[answer] * 2 * (LINE_BYTES // 1000)))
    assert read_activity(output) is None


# Deleted outputs


def an_ended_attempt(folder: Path, text: str) -> Path:
    """Write an output with one log line and a result. Return its file."""
    output = folder / OUTPUT_FILE
    events = [LogEvent(seq=1, at=NOON, text=text), ResultEvent(seq=2, at=NOON, result="x" * 10_000)]
    output.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return output


def test_an_output_that_looks_like_a_deleted_one_is_deleted(tmp_path: Path) -> None:
    an_ended_attempt(tmp_path, OUTPUT_REMOVED)
    (tmp_path / BUNDLE_FILE).write_bytes(bytes(500_000))
    assert remove_output(tmp_path) >= 500_000
    assert [file.name for file in tmp_path.iterdir()] == [OUTPUT_FILE]
    assert remove_output(tmp_path) == 0


def test_an_output_is_deleted_although_the_disk_has_no_room_for_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = an_ended_attempt(tmp_path, "a line")

    def write(path: Path, data: bytes) -> None:
        if output.exists() and path != output:
            raise OSError(errno.ENOSPC, "no space left")
        path.write_bytes(data)

    monkeypatch.setattr(attempt_output, "write_new", write)
    remove_output(tmp_path)
    outcome, tail = read_end(output)
    assert isinstance(outcome, ResultEvent)
    assert (outcome.result, tail.logs) == (None, (OUTPUT_REMOVED,))


def test_names_of_attempts_are_those_of_folders_below_any_root(tmp_path: Path) -> None:
    outputs, claims = tmp_path / "attempts", tmp_path / "claims"
    for folder in (outputs / "0a/ir-0000000a-2", claims / "0a/ir-0000000a-2", claims / "0b/ir-0000000b-1"):
        folder.mkdir(parents=True)
    (outputs / "0c").mkdir()
    (outputs / "0a" / "of-nobody").mkdir()
    (outputs / "0a" / "ir-0000000a-3").touch()
    (outputs / "origin").touch()
    names = attempt_names(outputs, claims, tmp_path / "missing")
    assert [str(name) for name in names] == ["ir-0000000a-2", "ir-0000000b-1"]


async def test_names_of_many_attempts_are_not_in_memory_at_once() -> None:
    read = 0

    def names() -> Iterator[AttemptName]:
        nonlocal read
        for read in range(1, 1001):
            yield AttemptName("ir-0000000a", read)

    async for batch in in_batches(names()):
        assert batch[-1].number == read
        assert len(batch) <= 200
    assert read == 1000


def test_inputs_of_tools_take_no_memory_at_the_end_of_an_output(output: Path) -> None:
    """Decoded, a list of empty lists takes twenty times as much memory as its JSON."""
    nested: list[list[str]] = [[] for _ in range(20_000)]
    output.write_bytes(lines_of(*(ToolEvent(seq=seq, at=NOON, id="a", input=nested) for seq in range(1, 50))))
    tracemalloc.start()
    try:
        _, tail = read_end(output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tail.last_seq == 49
    assert peak < 4 * output.stat().st_size


FORGED = {
    "outputs": b'{"kind":"output","seq":%d,"at":"2030-01-01T12:00:00Z","outputs":{"commits":['
    + b",".join([b'"a"'] * 15_000)
    + b"]}}\n",
    "results": b'{"kind":"result","seq":%d,"at":"2030-01-01T12:00:00Z","result":['
    + b",".join([b"[]"] * 20_000)
    + b"]}\n",
}
"""Lines that an executor of a caller's own may print."""


@pytest.mark.parametrize("kind", FORGED)
def test_many_large_events_take_the_memory_of_one_at_the_end_of_an_output(output: Path, kind: str) -> None:
    lines = b"".join(FORGED[kind] % seq for seq in range(1, 60))
    output.write_bytes(lines + lines_of(a_log(60, "the last line")))
    tracemalloc.start()
    try:
        outcome, tail = read_end(output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (outcome, tail.logs, tail.outputs, tail.last_seq) == (None, ("the last line",), Outputs(), 60)
    assert peak < 4 * len(lines)


def test_outputs_with_as_many_commits_and_refused_hosts_as_allowed_count(output: Path) -> None:
    outputs = Outputs(commits=("a" * 40,) * 50, refused_hosts=("a.example:443",) * 50)
    output.write_bytes(lines_of(OutputEvent(seq=1, at=NOON, outputs=outputs)))
    assert read_end(output)[1].outputs == outputs
