"""Answers that take much memory: a caller who reads slowly has one at a time, and keeps no other caller waiting."""

import asyncio
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from labrats.api.http.download import OpenFile
from labrats.api.http.large_answer import MOST_WAITING, LargeAnswer, LargeAnswers
from labrats.model.errors import Overloaded

SCOPE = {"type": "http", "method": "GET", "headers": []}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def disconnect() -> Message:
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


async def test_a_slow_caller_has_one_large_answer_in_memory_at_a_time() -> None:
    large, created, is_read = LargeAnswers(), list[str](), asyncio.Event()

    def an_answer(caller: str, text: str) -> LargeAnswer:
        async def create() -> Response:
            created.append(text)
            return PlainTextResponse(text)

        return LargeAnswer(create, large, caller)

    async def send(_: Message) -> None:
        await is_read.wait()

    answers = [an_answer("one", "first"), an_answer("one", "second"), an_answer("other", "third")]
    async with asyncio.TaskGroup() as callers:
        for each in answers:
            callers.create_task(each(SCOPE, disconnect, send))
        await asyncio.sleep(0.01)
        assert created == ["first", "third"]
        is_read.set()
    assert created == ["first", "third", "second"]


async def test_large_answers_are_created_one_at_a_time() -> None:
    """Until a result is an answer, it takes several times as much memory."""
    large, creating, at_once = LargeAnswers(), set[str](), []

    def an_answer(caller: str) -> LargeAnswer:
        async def create() -> Response:
            creating.add(caller)
            at_once.append(len(creating))
            await asyncio.sleep(0.001)
            creating.remove(caller)
            return PlainTextResponse("text")

        return LargeAnswer(create, large, caller)

    async def send(_: Message) -> None:
        pass

    await asyncio.gather(*(an_answer(caller)(SCOPE, disconnect, send) for caller in ("one", "two", "three")))
    assert at_once == [1, 1, 1]


async def test_a_caller_who_leaves_waits_no_longer() -> None:
    large, is_read, has_left = LargeAnswers(), asyncio.Event(), asyncio.Event()

    async def create() -> Response:
        return PlainTextResponse("text")

    async def send(_: Message) -> None:
        await is_read.wait()

    async def leave() -> Message:
        await has_left.wait()
        return {"type": "http.disconnect"}

    slow = asyncio.create_task(LargeAnswer(create, large, "one")(SCOPE, disconnect, send))
    await asyncio.sleep(0.01)
    others = [
        asyncio.create_task(LargeAnswer(create, large, "one")(SCOPE, leave, send)) for _ in range(MOST_WAITING - 1)
    ]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await LargeAnswer(create, large, "one")(SCOPE, disconnect, send)
    has_left.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*others)
    is_read.set()
    await slow
    assert not large._turns


async def test_an_open_file_is_read_no_faster_than_its_caller_receives_it(tmp_path: Path) -> None:
    path = tmp_path / "patch"
    path.write_bytes(b"x" * 1_000_000)
    received = bytearray()
    with path.open("rb") as file:

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert dict(message["headers"])[b"content-length"] == b"1000000"
                return
            assert len(message["body"]) <= 100_000
            received.extend(message["body"])
            assert file.closed or file.tell() == len(received)  # no more is in memory

        await OpenFile(file)(SCOPE, disconnect, send)
        assert file.closed
    assert len(received) == 1_000_000
