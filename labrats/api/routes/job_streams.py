"""Server-sent events of a job: live, over all attempts, and resumable. A slow reader does not slow others."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import Header

from labrats.api.http.pings import with_pings
from labrats.api.services import Services
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.phases import API_STATUS
from labrats.model.protocol import LogEvent, StoredLine, stored_lines
from labrats.model.record import encode

_EVENT_ID: Final = re.compile(r"([1-9][0-9]{0,8})-([0-9]{1,12})")

_LINE_BREAKS: Final = (
    ("\x85".encode(), rb"\u0085"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)

Position = tuple[int, int]
"""The number of an attempt, and of the last event of that attempt that the reader has."""

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Continues after the event with this id.", examples=["1-17"])
]

BEGINNING: Final[Position] = (1, 0)

EventEncoder = Callable[[int, StoredLine, bytes], bytes | None]
"""Function from an attempt's number, an event and its line to the JSON to send; None skips the event."""


def parse_event_id(text: str | None) -> Position:
    """Return the position of an event id; the beginning for any other text."""
    match = _EVENT_ID.fullmatch(text or "")
    return (int(match[1]), int(match[2])) if match else BEGINNING


def event_id(attempt: int, seq: int) -> str:
    return f"{attempt}-{seq}"


async def stream(
    services: Services, job_id: str, position: Position, encode_event: EventEncoder
) -> AsyncGenerator[bytes]:
    """Yield the frames of the stream, with pings between them, until the job has ended or the engine stops."""
    with services.metrics.log_streams.track_inprogress():
        async with (
            aclosing(_frames(services, job_id, position, encode_event)) as frames,
            aclosing(with_pings(frames, services.stopping)) as pinged,  # closed first, since it may wait for a frame
        ):
            async for frame in pinged:
                yield frame


async def _frames(
    services: Services, job_id: str, position: Position, encode_event: EventEncoder
) -> AsyncGenerator[bytes]:
    number, seq = position
    with services.job_index.changes_of(job_id) as changes:  # before the first read, so that no change is missed
        while (job := await _find(services, job_id)) is not None:
            if number <= job.status.attempts:
                async with aclosing(_lines(services, job, number, seq)) as batches:
                    async for lines in batches:
                        async with services.stream_lock.hold():
                            frames = _frames_of(number, lines, encode_event)
                        if frames:
                            yield frames
                number, seq = number + 1, 0
            elif job.ended:
                yield b"data: %s\n\n" % encode({"done": True, "status": API_STATUS[job.phase]})
                return
            else:
                await anext(changes)


async def _find(services: Services, job_id: str) -> Job | None:
    """Read the job; None if it was deleted. Retries while the store is unavailable."""
    while True:
        try:
            return await services.store.get(Job, job_id)
        except NotFound:
            return None
        except RetryLater as error:
            await asyncio.sleep(error.delay_seconds)


async def _lines(services: Services, job: Job, number: int, seq: int) -> AsyncGenerator[bytes]:
    """Yield batches of an attempt's output after `seq`. Follow the output of a running attempt to its end."""
    nothing_read = seq == 0
    follow = number == job.status.attempts and not job.ended
    async with aclosing(services.runner.read(AttemptName(job.id, number), seq, follow=follow)) as batches:
        async for lines in batches:
            nothing_read = False
            yield lines
    if nothing_read and job.status.finished_at and number == job.status.attempts:
        # The output was deleted, but the job's status still has the last lines.
        at = job.status.finished_at
        events = (LogEvent(seq=seq, at=at, text=text) for seq, text in enumerate(job.status.logs, start=1))
        yield b"".join(encode(event) + b"\n" for event in events)


def _frames_of(attempt: int, lines: bytes, encode_event: EventEncoder) -> bytes:
    frames: list[bytes] = []
    for stored, line in stored_lines(lines):
        if (data := encode_event(attempt, stored, line)) is not None:
            frames.append(b"id: %d-%d\ndata: %s\n\n" % (attempt, stored.seq, data))
    return _escape_line_breaks(b"".join(frames))


def _escape_line_breaks(data: bytes) -> bytes:
    """Escape Unicode line breaks in JSON, so that a log line cannot forge events.

    They do not end a line by the standard, but many clients split lines with functions that treat them as line ends.
    """
    if data.isascii():
        return data
    for character, escaped in _LINE_BREAKS:
        data = data.replace(character, escaped)
    return data
