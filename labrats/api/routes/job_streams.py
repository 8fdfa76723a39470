"""What a job says as server-sent events: live, over all attempts, resumable, and no reader slows another."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import Header

from labrats.api.services import Services
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.phases import API_STATUS
from labrats.model.protocol import LogEvent, StoredLine, stored_lines
from labrats.model.record import encode

PING_SECONDS: Final = 15.0
PING: Final = b": ping\n\n"

_EVENT_ID: Final = re.compile(r"([1-9][0-9]{0,8})-([0-9]{1,12})")

_LINE_BREAKS: Final = (
    ("\x85".encode(), rb"\u0085"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)

Position = tuple[int, int]
"""The number of an attempt, and of the last event of it that the reader has."""

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Go on after the event with this id.", examples=["1-17"])
]

BEGINNING: Final[Position] = (1, 0)

Telling = Callable[[int, StoredLine, bytes], bytes | None]
"""Returns the JSON that a stream sends for an event, given the attempt's number and the line; None to send nothing."""


def parse_event_id(text: str | None) -> Position:
    """Where a reader that last saw this event goes on: anything that is no id of ours starts at the beginning."""
    match = _EVENT_ID.fullmatch(text or "")
    return (int(match[1]), int(match[2])) if match else BEGINNING


def event_id(attempt: int, seq: int) -> str:
    return f"{attempt}-{seq}"


async def stream(services: Services, job_id: str, position: Position, telling: Telling) -> AsyncGenerator[bytes]:
    """The frames of the stream, with pings in between, until the job has ended or the engine stops."""
    with services.metrics.log_streams.track_inprogress():
        async with (
            aclosing(_frames(services, job_id, position, telling)) as frames,
            aclosing(_with_pings(frames, services.stopping)) as pinged,  # closed first: it may be waiting for a frame
        ):
            async for frame in pinged:
                yield frame


async def _frames(services: Services, job_id: str, position: Position, telling: Telling) -> AsyncGenerator[bytes]:
    number, seq = position
    with services.job_index.changes_of(job_id) as changes:  # before the first look, so that no change falls in between
        while (job := await _find(services, job_id)) is not None:
            if number <= job.status.attempts:
                async with aclosing(_lines(services, job, number, seq)) as batches:
                    async for lines in batches:
                        async with services.stream_turns.turn():
                            frames = _frames_of(number, lines, telling)
                        if frames:
                            yield frames
                number, seq = number + 1, 0
            elif job.ended:
                yield b"data: %s\n\n" % encode({"done": True, "status": API_STATUS[job.phase]})
                return
            else:
                await anext(changes)


async def _find(services: Services, job_id: str) -> Job | None:
    """The job as it is now; None when its time is over, and it has been forgotten. Waits for a store out of reach."""
    while True:
        try:
            return await services.store.get(Job, job_id)
        except NotFound:
            return None
        except RetryLater as error:
            await asyncio.sleep(error.delay_seconds)


async def _lines(services: Services, job: Job, number: int, seq: int) -> AsyncGenerator[bytes]:
    """What one attempt says after `seq`, followed until it is gone."""
    nothing_read = seq == 0
    follow = number == job.status.attempts and not job.ended
    async with aclosing(services.runner.read(AttemptName(job.id, number), seq, follow=follow)) as batches:
        async for lines in batches:
            nothing_read = False
            yield lines
    if nothing_read and job.status.finished_at and number == job.status.attempts:
        # Its output is no longer kept: the last lines are still in the status.
        at = job.status.finished_at
        last = (LogEvent(seq=seq, at=at, text=text) for seq, text in enumerate(job.status.logs, start=1))
        yield b"".join(encode(event) + b"\n" for event in last)


def _frames_of(attempt: int, lines: bytes, telling: Telling) -> bytes:
    frames: list[bytes] = []
    for stored, line in stored_lines(lines):
        if (told := telling(attempt, stored, line)) is not None:
            frames.append(b"id: %d-%d\ndata: %s\n\n" % (attempt, stored.seq, told))
    return _on_one_line(b"".join(frames))


def _on_one_line(data: bytes) -> bytes:
    """JSON in which nothing looks like the end of a line, so that a log cannot forge events.

    To the standard these characters end no line; to what many clients split their lines with, they do.
    """
    if data.isascii():
        return data
    for character, escaped in _LINE_BREAKS:
        data = data.replace(character, escaped)
    return data


async def _with_pings(frames: AsyncIterator[bytes], stopping: asyncio.Event) -> AsyncGenerator[bytes]:
    """`frames`, and a comment whenever nothing came for a while, so that proxies keep the connection."""
    stop = asyncio.ensure_future(stopping.wait())
    following = asyncio.ensure_future(_next(frames))
    try:
        while not stop.done():
            await asyncio.wait({following, stop}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                if not stop.done():
                    yield PING
                continue
            if (frame := following.result()) is None:
                return
            yield frame
            following = asyncio.ensure_future(_next(frames))
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)


async def _next(frames: AsyncIterator[bytes]) -> bytes | None:
    return await anext(frames, None)
