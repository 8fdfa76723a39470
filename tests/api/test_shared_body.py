"""Answers that everybody gets without a key: they are rendered once, and wait in small pieces for a slow client."""

import asyncio
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from labrats.api.http.shared_body import PIECE_BYTES, SharedResponse
from labrats.api.routes import docs


async def no_request() -> Message:
    raise AssertionError


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_body_arrives_complete_in_pieces(size: int) -> None:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await SharedResponse(b"x" * size, "text/plain")({}, no_request, send)
    bodies = messages[1:]

    assert b"".join(each["body"] for each in bodies) == b"x" * size
    assert all(len(each["body"]) <= PIECE_BYTES for each in bodies)
    assert [each["more_body"] for each in bodies] == [True] * (len(bodies) - 1) + [False]


async def test_client_that_does_not_read_takes_one_piece() -> None:
    taken = 0

    async def send(message: Message) -> None:
        nonlocal taken
        taken += len(message.get("body", b""))
        if taken:
            await asyncio.Event().wait()

    response = SharedResponse(b"x" * 100 * PIECE_BYTES, "text/plain")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await response({}, no_request, send)
    assert taken == PIECE_BYTES


@pytest.mark.parametrize(("path", "name"), [("/api/docs", "render"), ("/api/openapi.json", "_as_json")])
async def test_documentation_is_rendered_once(
    user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    first = await user.get(path)

    def render_again(_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(docs, name, render_again)
    again = await user.get(path)
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
