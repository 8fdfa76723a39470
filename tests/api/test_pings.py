"""Pings between the frames of a stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from labrats.api.http import pings
from labrats.api.http.pings import PING, with_pings


async def of(*frames: bytes) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame


async def until_set(event: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield a frame once the event is set."""
    await event.wait()
    yield b"late"


async def broken() -> AsyncIterator[bytes]:
    yield b"one"
    raise ConnectionError("broken")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ping after a short silence."""
    monkeypatch.setattr(pings, "PING_SECONDS", 0.01)


async def test_frames_are_passed_on_in_order() -> None:
    assert [frame async for frame in with_pings(of(b"one", b"two"), asyncio.Event())] == [b"one", b"two"]


@pytest.mark.usefixtures("often")
async def test_silence_is_filled_with_pings() -> None:
    event = asyncio.Event()
    stream = with_pings(until_set(event), asyncio.Event())
    assert [await anext(stream), await anext(stream)] == [PING, PING]
    event.set()
    assert [frame async for frame in stream if frame != PING] == [b"late"]


@pytest.mark.usefixtures("often")
async def test_frame_that_arrives_during_a_ping_is_not_lost() -> None:
    event = asyncio.Event()
    stream = with_pings(until_set(event), asyncio.Event())
    assert await anext(stream) == PING
    event.set()
    await asyncio.sleep(0.005)  # the reader of the stream is slow
    assert [frame async for frame in stream if frame != PING] == [b"late"]


async def test_stream_ends_when_the_engine_stops() -> None:
    stopping = asyncio.Event()
    stream = with_pings(until_set(asyncio.Event()), stopping)
    asyncio.get_running_loop().call_soon(stopping.set)
    assert [frame async for frame in stream] == []


async def test_error_of_the_frames_is_raised() -> None:
    stream = with_pings(broken(), asyncio.Event())
    assert await anext(stream) == b"one"
    with pytest.raises(ConnectionError):
        await anext(stream)


async def test_no_frame_is_read_before_the_last_one_is_taken() -> None:
    read = []

    async def frames() -> AsyncGenerator[bytes]:
        for number in range(3):
            read.append(number)
            yield b"%d" % number

    stream = with_pings(frames(), asyncio.Event())
    await anext(stream)
    await asyncio.sleep(0)
    assert read == [0]
    await stream.aclose()
