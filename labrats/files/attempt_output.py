"""What an attempt leaves: its output, read on from a number or from its end; its result; its patch."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from labrats.files.plain_files import open_plain, read_plain
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound
from labrats.model.job import STATUS_LOG_BYTES, STATUS_LOG_LINES, AgentSession, Outputs, Usage
from labrats.model.protocol import (
    LINE_BYTES,
    AnyEvent,
    ErrorEvent,
    LogEvent,
    OutputEvent,
    ResultEvent,
    SessionEvent,
    UsageEvent,
    events_in,
    stored_lines,
)
from labrats.ports import OutputTail

READ_BYTES: Final = 32 * 1024
"""Read at once, so that one reader takes no long turn of the event loop."""

CHUNK_BYTES: Final = 256 * 1024
"""Larger than any line, so that every chunk brings a whole one."""

RUBBISH_BYTES: Final = 64 * CHUNK_BYTES
"""How much that no executor has written is passed over at once: a sparse file may be larger than any disk."""

HEAD_BYTES: Final = 2 * LINE_BYTES
"""Within this an executor has said what its agent's session is."""

TAIL_BYTES: Final = 4 * LINE_BYTES
MOST_TAIL_BYTES: Final = 64 * LINE_BYTES
"""How much of an output's end is read: more, where it is not enough, but no more than takes some 30 ms."""

MOST_RESULT_BYTES: Final = 64 * 1024 * 1024
MOST_PATCH_BYTES: Final = 64 * 1024 * 1024
"""What is read of these at most. No executor leaves larger ones, but an agent might."""


class OutputReader:
    """Reads the lines of one file in order, from after `after_seq`; call `read` again when the file has grown."""

    def __init__(self, path: Path, after_seq: int = 0) -> None:
        self._path, self._after = path, after_seq
        self._offset: int | None = None

    def read(self) -> bytes:
        """Return the next lines: some 32 KiB, or one longer line. Nothing when there is nothing new, or no file yet.

        Nothing either behind a lot that is no line: the next call resumes there.
        """
        try:
            descriptor = open_plain(self._path)
        except FileNotFoundError:
            return b""
        try:
            if self._offset is None:
                self._offset = _offset_after(descriptor, self._after) if self._after else 0
            enough = self._offset + RUBBISH_BYTES
            while self._offset < enough:
                lines, length = _lines_at(descriptor, self._offset)
                self._offset += length
                if not length:
                    break
                if lines := self._new(lines):
                    return lines
            return b""
        finally:
            os.close(descriptor)

    def _new(self, lines: bytes) -> bytes:
        """Leave out what is not after `after_seq`: bisecting leads to a place before it."""
        if not self._after:
            return lines
        for line in stored_lines(lines):
            if line[0].seq > self._after:
                self._after = 0  # numbers grow along the file
                return lines[lines.index(line[1]) :]
        return b""


def _lines_at(descriptor: int, offset: int) -> tuple[bytes, int]:
    """Return the whole lines from `offset` on, and how many bytes to go on behind. Both are empty at the end."""
    for size in (READ_BYTES, CHUNK_BYTES):
        chunk = os.pread(descriptor, size, offset)
        if end := chunk.rfind(b"\n") + 1:
            return chunk[:end], end
    # No executor of ours writes such a line: pass over it.
    return b"", len(chunk) if len(chunk) == CHUNK_BYTES else 0


def read_end(path: Path) -> tuple[ResultEvent | ErrorEvent | None, OutputTail]:
    """The terminal event, if the output has one, and the output's tail."""
    try:
        descriptor = open_plain(path)
    except FileNotFoundError:
        return None, OutputTail()
    try:
        events = _last_events(descriptor)
        session = _session(descriptor, events)
    finally:
        os.close(descriptor)
    usage, outputs = Usage(), Outputs()
    for event in events:
        match event:
            case UsageEvent(usage=said):
                usage = said
            case OutputEvent(outputs=made):
                outputs = made
            case ResultEvent() | ErrorEvent():
                usage, outputs = event.usage, event.outputs
    last = events[-1] if events else None
    tail = OutputTail(_last_lines(events), usage, outputs, session)
    return (last if isinstance(last, ResultEvent | ErrorEvent) else None), tail


def read_result(name: AttemptName, output: Path, file: Path) -> Any:
    """The result of the attempt `name`, of its output or of the `file` that this refers to. Raises NotFound."""
    outcome, _ = read_end(output)
    if not isinstance(outcome, ResultEvent):
        raise NotFound(f"the result of attempt {name} is no longer kept")
    if outcome.file is None:
        return outcome.result
    try:
        return msgspec.json.decode(read_plain(file, MOST_RESULT_BYTES))
    except (FileNotFoundError, msgspec.DecodeError) as error:  # from a pod, a part of it may never have come
        raise NotFound(f"the result of attempt {name} is no longer kept") from error


def read_patch(name: AttemptName, file: Path) -> bytes:
    """The patch of the attempt `name`. Raises NotFound."""
    try:
        return read_plain(file, MOST_PATCH_BYTES)
    except FileNotFoundError as error:
        raise NotFound(f"attempt {name} left no patch, or it is no longer kept") from error


def _last_events(descriptor: int) -> Sequence[AnyEvent]:
    """So many of the last events that they hold the last log lines and the last word on usage, where there is one."""
    size = os.fstat(descriptor).st_size
    window = TAIL_BYTES
    while True:
        end = os.pread(descriptor, window, max(0, size - window))
        events = list(events_in(end[: end.rfind(b"\n") + 1]))
        usage_known = any(isinstance(event, UsageEvent | ResultEvent | ErrorEvent) for event in events)
        if (usage_known and _fill_a_status(events)) or window >= min(size, MOST_TAIL_BYTES):
            return events
        window *= 4


def _session(descriptor: int, last_events: Sequence[AnyEvent]) -> AgentSession | None:
    """The latest that was told of: it is among the last events, or at the beginning of an output that has more."""
    if (session := _last_session(last_events)) or os.fstat(descriptor).st_size <= TAIL_BYTES:
        return session
    beginning = os.pread(descriptor, HEAD_BYTES, 0)
    return _last_session(events_in(beginning[: beginning.rfind(b"\n") + 1]))


def _last_session(events: Iterable[AnyEvent]) -> AgentSession | None:
    told = [event.session for event in events if isinstance(event, SessionEvent)]
    return told[-1] if told else None


def _fill_a_status(events: Sequence[AnyEvent]) -> bool:
    """Whether no log line before `events` would find room in a job's status beside those in them."""
    lines = [event.text for event in events if isinstance(event, LogEvent)]
    return len(lines) >= STATUS_LOG_LINES or sum(len(line.encode()) for line in lines) >= STATUS_LOG_BYTES


def _last_lines(events: Sequence[AnyEvent]) -> tuple[str, ...]:
    """The last log lines, within the bounds of a job's status."""
    lines: list[str] = []
    room = STATUS_LOG_BYTES
    for event in reversed(events):
        if isinstance(event, LogEvent):
            room -= len(event.text.encode())
            if room < 0 or len(lines) == STATUS_LOG_LINES:
                break
            lines.append(event.text)
    return tuple(reversed(lines))


def _offset_after(descriptor: int, seq: int) -> int:
    """Where the first line with a larger number than `seq` may begin: numbers grow along the file, so this bisects."""
    low, high = 0, os.fstat(descriptor).st_size
    while high - low > CHUNK_BYTES:
        middle = (low + high) // 2
        chunk = os.pread(descriptor, CHUNK_BYTES, middle)
        begin = chunk.find(b"\n") + 1
        first = next(events_in(chunk[begin : chunk.rfind(b"\n") + 1]), None)
        if first is not None and first.seq <= seq:
            low = middle + begin
        else:
            high = middle
    return low


def attempt_names(root: Path) -> list[AttemptName]:
    """The attempts that have a folder below `root`, where each backend spreads them over folders of its own."""
    folders = (folder for spread in _folders_in(root) for folder in _folders_in(Path(spread)))
    return [name for folder in folders if (name := AttemptName.parse(folder.name))]


def _folders_in(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        return [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
