"""Bodies of senders that are not known yet: hashed as they arrive, in bounded memory, disk and time."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from labrats.api.http import signed_body
from labrats.api.http.errors import ApiError
from labrats.api.http.signed_body import FREE_BYTES, UnverifiedBodies, receive_signed
from labrats.intake.signatures import Signature, Verifier

SECRET = "test-secret-0123456789"
MEBIBYTE = 2**20


def a_request(chunks: AsyncIterator[bytes]) -> Request:
    async def receive() -> Message:
        body = await anext(chunks, None)
        return {"type": "http.request", "body": body or b"", "more_body": body is not None}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def whole(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def then_nothing(*chunks: bytes) -> AsyncIterator[bytes]:
    async for chunk in whole(*chunks):
        yield chunk
    await asyncio.Event().wait()


def candidates(body: bytes, *secrets: str) -> Sequence[tuple[str, Verifier]]:
    """Sources with these secrets, which are tried for a body that SECRET has signed."""
    signature = Signature([hmac.new(SECRET.encode(), body, hashlib.sha256).digest()])
    return [(secret, signature.verifier(secret)) for secret in secrets]


@pytest.mark.parametrize("size", [0, 1, FREE_BYTES, 3 * MEBIBYTE + 7])
async def test_the_body_comes_whole_with_the_source_that_signed_it(size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    chunks = [body[start : start + 50_000] for start in range(0, size, 50_000)]
    tried = candidates(body, "test-other", SECRET)
    assert await receive_signed(a_request(whole(*chunks)), tried, UnverifiedBodies()) == (SECRET, body)


async def test_a_body_that_nobody_has_signed_is_not_given_out() -> None:
    assert await receive_signed(a_request(whole(b"{}")), candidates(b"[]", SECRET), UnverifiedBodies()) is None


async def test_all_bodies_share_one_budget_and_give_it_back() -> None:
    bodies = UnverifiedBodies(budget_bytes=2 * MEBIBYTE)
    large = b"x" * (MEBIBYTE + FREE_BYTES)
    holding = [
        asyncio.create_task(receive_signed(a_request(then_nothing(large)), candidates(b"", SECRET), bodies))
        for _ in range(2)
    ]
    for _ in range(3):
        await asyncio.sleep(0)

    with pytest.raises(ApiError, match="unverified bodies") as refused:
        await receive_signed(a_request(whole(large)), candidates(large, SECRET), bodies)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "5"})
    small = b"x" * FREE_BYTES
    assert await receive_signed(a_request(whole(small)), candidates(small, SECRET), bodies) == (SECRET, small)

    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    assert await receive_signed(a_request(whole(large)), candidates(large, SECRET), bodies) == (SECRET, large)


async def test_a_body_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_body, "BODY_SECONDS", 0.01)
    with pytest.raises(ApiError, match="took longer") as refused:
        await receive_signed(a_request(then_nothing(b"x")), candidates(b"x", SECRET), UnverifiedBodies())
    assert refused.value.status == 408
