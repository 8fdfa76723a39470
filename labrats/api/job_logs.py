"""A job's log as server-sent events: live, over all attempts, resumable, and no reader slows another."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from labrats.api.engine import Engine
from labrats.model.errors import NotFound
from labrats.model.job import Job
from labrats.model.phases import API_STATUS
from labrats.model.protocol import LogEvent
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


def parse_event_id(text: str | None) -> Position:
    """Where a reader that last saw this event goes on: anything that is no id of ours starts at the beginning."""
    match = _EVENT_ID.fullmatch(text or "")
    return (int(match[1]), int(match[2])) if match else (1, 0)


async def stream_log(engine: Engine, job_id: str, position: Position) -> AsyncGenerator[bytes]:
    """The frames of the stream, with pings in between, until the job has ended or the engine stops."""
    with engine.metrics.log_streams.track_inprogress():
        async with (
            aclosing(_frames(engine, job_id, position)) as frames,
            aclosing(_with_pings(frames, engine.stopping)) as pinged,  # closed first: it may be waiting for a frame
        ):
            async for frame in pinged:
                yield frame


async def _frames(engine: Engine, job_id: str, position: Position) -> AsyncGenerator[bytes]:
    number, seq = position
    with engine.cache.changes_of(job_id) as changes:  # before the first look, so that no change falls in between
        while (job := await _find(engine, job_id)) is not None:
            if number <= job.status.attempts:
                async with aclosing(_attempt_frames(engine, job, number, seq)) as frames:
                    async for frame in frames:
                        yield frame
                number, seq = number + 1, 0
            elif job.ended:
                yield _done(job)
                return
            else:
                await anext(changes)


async def _find(engine: Engine, job_id: str) -> Job | None:
    """The job as it is now; None when its time is over, and it has been forgotten."""
    try:
        return await engine.store.get(Job, job_id)
    except NotFound:
        return None


async def _attempt_frames(engine: Engine, job: Job, number: int, seq: int) -> AsyncGenerator[bytes]:
    """The lines of one attempt after `seq`, followed until it is gone."""
    nothing_read = seq == 0
    follow = number == job.status.attempts and not job.ended
    async with aclosing(engine.runner.read(f"{job.id}-{number}", seq, follow=follow)) as batches:
        async for batch in batches:
            nothing_read = False
            if frames := [_line(number, event.seq, event.text) for event in batch if isinstance(event, LogEvent)]:
                yield b"".join(frames)
    if nothing_read and job.ended and number == job.status.attempts:
        # Its output is no longer kept: the last lines are still in the status.
        yield b"".join(_line(number, at, text) for at, text in enumerate(job.status.logs, start=1))


def _line(attempt: int, seq: int, text: str) -> bytes:
    return b"id: %d-%d\ndata: %s\n\n" % (attempt, seq, _on_one_line(encode({"log": text})))


def _on_one_line(data: bytes) -> bytes:
    """JSON in which nothing looks like the end of a line, so that a log cannot forge events.

    To the standard these characters end no line; to what many clients split their lines with, they do.
    """
    for character, escaped in _LINE_BREAKS:
        data = data.replace(character, escaped)
    return data


def _done(job: Job) -> bytes:
    return b"data: %s\n\n" % encode({"done": True, "status": API_STATUS[job.phase]})


async def _with_pings(frames: AsyncIterator[bytes], stopping: asyncio.Event) -> AsyncGenerator[bytes]:
    """`frames`, and a comment whenever nothing came for a while, so that proxies keep the connection."""
    stop = asyncio.ensure_future(stopping.wait())
    following = asyncio.ensure_future(_next(frames))
    try:
        while True:
            await asyncio.wait({following, stop}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                if (frame := following.result()) is None:
                    return
                if frame:
                    yield frame
                following = asyncio.ensure_future(_next(frames))
            elif stop.done():
                return
            else:
                yield PING
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)


async def _next(frames: AsyncIterator[bytes]) -> bytes | None:
    return await anext(frames, None)
