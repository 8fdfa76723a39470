"""The output of an attempt, read from an event's number or from its end."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from labrats.files.safe_paths import open_regular_file, write_new
from labrats.files.trees import size_on_disk
from labrats.model.activity import activity_of
from labrats.model.attempt_name import AttemptName
from labrats.model.job import STATUS_LOG_BYTES, STATUS_LOG_LINES, AgentSession, Outputs, Usage
from labrats.model.protocol import (
    CHANGES_FILE,
    FILES_IN_PARTS,
    LINE_BYTES,
    OUTPUT_FILE,
    PATCH_FILE,
    PUBLICATION_FILE,
    RESULT_FILE,
    AnyEvent,
    BriefEvent,
    ErrorEvent,
    LogEvent,
    OutputEvent,
    ResultEvent,
    SessionEvent,
    UsageEvent,
    decode_event,
    events_in,
    stored_lines,
)
from labrats.model.record import encode
from labrats.model.redaction import Redactor
from labrats.ports import OutputTail

OUTPUT_REMOVED: Final = "[the output of this attempt was deleted, since the disk was nearly full (LABRATS_FREE_GIB)]"
"""The log line that takes the place of a deleted output."""

UNFINISHED: Final = ".part"
"""End of the name of a file whose last part is missing."""

_TEXTS: Final = (OUTPUT_FILE, RESULT_FILE, PATCH_FILE, CHANGES_FILE, PUBLICATION_FILE)
_NAMES_AT_ONCE: Final = 200

_SHORTENED_BYTES: Final = 64 * 1024
"""More than the files of an attempt take whose output was deleted."""

READ_BYTES: Final = 32 * 1024
"""The size of one read: small, so that no reader occupies the event loop for long."""

CHUNK_BYTES: Final = 256 * 1024
"""The size of a chunk: larger than any line, so that every chunk contains a complete one."""

MAX_SKIPPED_BYTES: Final = 64 * CHUNK_BYTES
"""The limit on skipping foreign data in one call: a sparse file may be larger than any disk."""

HEAD_BYTES: Final = 2 * LINE_BYTES
"""The part at the beginning of an output in which an executor reports its agent's session."""

TAIL_BYTES: Final = 4 * LINE_BYTES
MAX_TAIL_BYTES: Final = 64 * LINE_BYTES
"""The initial and the maximum size of what is read from the end of an output. The maximum takes some 30 ms."""


class OutputReader:
    """A reader of the lines of an output after the event `after_seq`. Call `read` again when the file has grown.

    at_end: True if the last call of `read` reached the end of the file, so that a further one is needless for now.
    """

    def __init__(self, path: Path, after_seq: int = 0) -> None:
        self._path, self._after = path, after_seq
        self._offset: int | None = None
        self.at_end = False

    def read(self) -> bytes:
        """Return the next lines, some 32 KiB or one longer line; nothing if there is no new line or no file yet.

        After skipping much foreign data it also returns nothing; the next call continues there.
        """
        try:
            descriptor = open_regular_file(self._path)
        except FileNotFoundError:
            return b""
        try:
            if self._offset is None:
                self._offset = _offset_after(descriptor, self._after) if self._after else 0
            limit = self._offset + MAX_SKIPPED_BYTES
            while self._offset < limit:
                lines, length, self.at_end = _lines_at(descriptor, self._offset)
                self._offset += length
                if not length:
                    break
                if lines := self._lines_after(lines):
                    return lines
            return b""
        finally:
            os.close(descriptor)

    def _lines_after(self, lines: bytes) -> bytes:
        """Leave out lines up to `after_seq`, as the bisection may end before it."""
        if not self._after:
            return lines
        for line in stored_lines(lines):
            if line[0].seq > self._after:
                self._after = 0  # the numbers increase along the file
                return lines[lines.index(line[1]) :]
        return b""


def _lines_at(descriptor: int, offset: int) -> tuple[bytes, int, bool]:
    """Return the complete lines at `offset`, the number of bytes to advance, and whether the read reached the end."""
    for size in (READ_BYTES, CHUNK_BYTES):
        chunk = os.pread(descriptor, size, offset)
        at_end = len(chunk) < size
        if end := chunk.rfind(b"\n") + 1:
            return chunk[:end], end, at_end
        if at_end:
            return b"", 0, True
    return b"", len(chunk), False  # no executor writes such a long line: skip it


def read_end(path: Path) -> tuple[ResultEvent | ErrorEvent | None, OutputTail]:
    """Return the terminal event, if the output has one, and the tail of the output."""
    try:
        descriptor = open_regular_file(path)
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
            case UsageEvent(usage=reported):
                usage = reported
            case OutputEvent(outputs=produced):
                outputs = produced
            case ResultEvent() | ErrorEvent():
                usage, outputs = event.usage, event.outputs
    last = events[-1] if events else None
    tail = OutputTail(_last_lines(events), usage, outputs, session, last.seq if last else 0)
    return (last if isinstance(last, ResultEvent | ErrorEvent) else None), tail


def read_activity(path: Path) -> str | None:
    """Return the latest activity in the last LINE_BYTES of the output, within 1 ms; None if these have none."""
    try:
        descriptor = open_regular_file(path)
    except FileNotFoundError:
        return None
    try:
        end = os.pread(descriptor, LINE_BYTES, max(0, os.fstat(descriptor).st_size - LINE_BYTES))
    finally:
        os.close(descriptor)
    events = map(decode_event, reversed(end[: end.rfind(b"\n") + 1].split(b"\n")))
    return next((activity for event in events if event and (activity := activity_of(event))), None)


def _last_events(descriptor: int) -> Sequence[BriefEvent]:
    """Return enough of the last events for the log lines of a job's status and the latest usage, if there is any."""
    size = os.fstat(descriptor).st_size
    window = TAIL_BYTES
    while True:
        end = os.pread(descriptor, window, max(0, size - window))
        events = _without_earlier_ends(events_in(end[: end.rfind(b"\n") + 1]))
        usage_known = any(isinstance(event, UsageEvent | ResultEvent | ErrorEvent) for event in events)
        if (usage_known and _fill_a_status(events)) or window >= min(size, MAX_TAIL_BYTES):
            return events
        window *= 4


def _without_earlier_ends(events: Iterable[BriefEvent]) -> Sequence[BriefEvent]:
    """Return the events without those that would end the attempt before the last one. A result may be large."""
    left: list[BriefEvent] = []
    for event in events:
        if left and isinstance(left[-1], ResultEvent | ErrorEvent):
            left.pop()
        left.append(event)
    return left


def _session(descriptor: int, last_events: Sequence[BriefEvent]) -> AgentSession | None:
    """Return the latest reported session, from the last events or from the beginning of a longer output."""
    if (session := _last_session(last_events)) or os.fstat(descriptor).st_size <= TAIL_BYTES:
        return session
    beginning = os.pread(descriptor, HEAD_BYTES, 0)
    return _last_session(events_in(beginning[: beginning.rfind(b"\n") + 1]))


def _last_session(events: Iterable[BriefEvent]) -> AgentSession | None:
    sessions = [event.session for event in events if isinstance(event, SessionEvent)]
    return sessions[-1] if sessions else None


def _fill_a_status(events: Sequence[BriefEvent]) -> bool:
    """Return whether the log lines in `events` fill a job's status, so that earlier ones need not be read."""
    lines = [event.text for event in events if isinstance(event, LogEvent)]
    return len(lines) >= STATUS_LOG_LINES or sum(len(line.encode()) for line in lines) >= STATUS_LOG_BYTES


def _last_lines(events: Sequence[BriefEvent]) -> tuple[str, ...]:
    """Return the last log lines, within the limits of a job's status."""
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
    """Return an offset at or before the first line after `seq`. It bisects, as the numbers increase along the file."""
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


def _file_bytes(folder: Path) -> int:
    """Return the bytes on the disk of the files in a folder, without those in its subfolders."""
    size = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                if not entry.is_dir(follow_symlinks=False):
                    size += size_on_disk(entry.stat(follow_symlinks=False))
    return size


def redact_output(folder: Path, redactor: Redactor) -> None:
    """Redact the files with texts of an attempt that has ended, line by line. Blocks."""
    for name in _TEXTS:
        try:
            descriptor = open_regular_file(folder / name)
        except FileNotFoundError:
            continue
        redacted = folder / f"{name}.new"
        redacted.unlink(missing_ok=True)
        try:
            with os.fdopen(descriptor, "rb") as before, redacted.open("xb") as after:
                for line in before:
                    text = redactor.redact(line.decode(errors="surrogateescape"))
                    after.write(text.encode(errors="surrogateescape"))
                os.fchmod(after.fileno(), stat.S_IMODE(os.fstat(before.fileno()).st_mode))
            redacted.replace(folder / name)
        finally:
            redacted.unlink(missing_ok=True)


def remove_output(folder: Path) -> int:
    """Delete the output of an attempt that has ended, its result, and its changes. Return the bytes that became free.

    Its end stays, so that the attempt is still known as ended, and a log line that says that the rest was deleted.
    """
    if not folder.is_dir():
        return 0
    before = _file_bytes(folder)
    for name in FILES_IN_PARTS:  # first, since the disk may be full
        for path in (folder / name, folder / f"{name}{UNFINISHED}"):
            path.unlink(missing_ok=True)
    outcome, tail = read_end(folder / OUTPUT_FILE)
    if tail.logs != (OUTPUT_REMOVED,) or _file_bytes(folder) > _SHORTENED_BYTES:
        _shorten(folder / OUTPUT_FILE, outcome, tail)
    return before - _file_bytes(folder)


def _shorten(output: Path, outcome: ResultEvent | ErrorEvent | None, tail: OutputTail) -> None:
    seq = tail.last_seq - 1 if outcome else tail.last_seq
    at = outcome.at if outcome else datetime.now(UTC)
    left: list[AnyEvent] = [LogEvent(seq=max(1, seq), at=at, text=OUTPUT_REMOVED, origin="engine")]
    if isinstance(outcome, ResultEvent):
        left.append(replace(outcome, result=None, data=None, file=RESULT_FILE))
    elif outcome:
        left.append(outcome)
    lines = b"".join(encode(event) + b"\n" for event in left)
    shortened = output.with_name(f"{output.name}.new")
    try:
        write_new(shortened, lines)
        shortened.replace(output)
    except OSError:  # there is no room for another file; a kill would lose the end, which the job has recorded
        shortened.unlink(missing_ok=True)
        write_new(output, lines)


def attempt_names(*roots: Path) -> Iterator[AttemptName]:
    """Yield the names of the attempts with a folder below one of the roots, which have a level of folders in between.

    There may be a million, so only those in folders of one name are in memory at the same time.
    """
    for spread in sorted({folder for root in roots for folder in _folders_in(root)}):
        folders = {folder for root in roots for folder in _folders_in(root / spread)}
        yield from (name for folder in sorted(folders) if (name := AttemptName.parse(folder)))


def _folders_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


async def in_batches(names: Iterator[AttemptName]) -> AsyncIterator[list[AttemptName]]:
    """Yield the names in batches. They are read in threads, since a disk may be slow."""
    while batch := await asyncio.to_thread(lambda: list(islice(names, _NAMES_AT_ONCE))):
        yield batch
