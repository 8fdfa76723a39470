"""Answers that take much memory: a caller who reads slowly has one at a time, and keeps no other caller waiting."""

import asyncio
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from labrats.api.http.caller_bodies import BUDGET_BYTES, CallerBodies
from labrats.api.http.download import OpenFile
from labrats.api.http.large_answer import LargeAnswer

SCOPE = {"type": "http", "method": "GET", "headers": []}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def disconnect() -> Message:
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


async def test_a_slow_caller_has_one_large_answer_in_memory_at_a_time() -> None:
    bodies, created, is_read = CallerBodies(), list[str](), asyncio.Event()

    def an_answer(caller: str, text: str) -> LargeAnswer:
        async def create() -> Response:
            created.append(text)
            return PlainTextResponse(text)

        return LargeAnswer(create, bodies.room_for(BUDGET_BYTES, caller))

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
