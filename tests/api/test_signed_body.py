"""Bodies with a signature: hashed as they arrive, within bounds on memory, disk and time."""

import asyncio
import hashlib
import hmac
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from labrats.api.http import signed_body
from labrats.api.http.errors import ApiError
from labrats.api.http.signed_body import FREE_BYTES, UnverifiedBodies, receive_signed
from labrats.intake.signatures import Signature, Verifier
from tests.support.waiting import eventually

SECRET = "test-secret-0123456789"
MEBIBYTE = 2**20


def a_request(chunks: AsyncIterator[bytes]) -> Request:
    async def receive() -> Message:
        body = await anext(chunks, None)
        return {"type": "http.request", "body": body or b"", "more_body": body is not None}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def unfinished(*chunks: bytes) -> AsyncIterator[bytes]:
    async for chunk in chunks_of(*chunks):
        yield chunk
    await asyncio.Event().wait()


def candidates(body: bytes, *secrets: str) -> Sequence[tuple[str, Verifier]]:
    """Return candidates with these secrets, for a body that is signed with SECRET."""
    signature = Signature([hmac.new(SECRET.encode(), body, hashlib.sha256).digest()])
    return [(secret, signature.verifier(secret)) for secret in secrets]


@pytest.mark.parametrize("size", [0, 1, FREE_BYTES, 3 * MEBIBYTE + 7])
async def test_the_whole_body_is_returned_with_its_signer(size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    chunks = [body[start : start + 50_000] for start in range(0, size, 50_000)]
    sources = candidates(body, "test-other", SECRET)
    assert await receive_signed(a_request(chunks_of(*chunks)), sources, UnverifiedBodies()) == (SECRET, body)


async def test_a_body_with_an_unknown_signature_is_not_returned() -> None:
    assert await receive_signed(a_request(chunks_of(b"{}")), candidates(b"[]", SECRET), UnverifiedBodies()) is None


@pytest.mark.parametrize(("others", "in_thread"), [(0, False), (9, True)])
async def test_a_body_of_many_candidates_is_hashed_outside_the_event_loop(others: int, in_thread: bool) -> None:
    body, threads = FREE_BYTES * b"x", set[int]()

    class NotedVerifier(Verifier):
        def update(self, piece: bytes) -> None:
            threads.update({threading.get_ident()} if piece else ())
            super().update(piece)

    (signed,) = candidates(body, SECRET)
    notes = NotedVerifier(hmac.new(b"test-other", digestmod=hashlib.sha256), [b""])
    sources = [*[("other", notes)] * max(others, 1), signed]

    assert await receive_signed(a_request(chunks_of(body)), sources, UnverifiedBodies()) == (SECRET, body)
    assert (threading.get_ident() not in threads) is in_thread


async def test_all_bodies_share_one_budget_and_release_it() -> None:
    bodies = UnverifiedBodies(budget_bytes=2 * MEBIBYTE)
    large = b"x" * (MEBIBYTE + FREE_BYTES)
    holding = [
        asyncio.create_task(receive_signed(a_request(unfinished(large)), candidates(b"", SECRET), bodies))
        for _ in range(2)
    ]
    for _ in range(3):
        await asyncio.sleep(0)

    with pytest.raises(ApiError, match="unverified bodies") as refused:
        await receive_signed(a_request(chunks_of(large)), candidates(large, SECRET), bodies)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "5"})
    small = b"x" * FREE_BYTES
    assert await receive_signed(a_request(chunks_of(small)), candidates(small, SECRET), bodies) == (SECRET, small)

    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    assert await receive_signed(a_request(chunks_of(large)), candidates(large, SECRET), bodies) == (SECRET, large)


async def test_a_body_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_body, "BODY_SECONDS", 0.01)
    with pytest.raises(ApiError, match="took longer") as refused:
        await receive_signed(a_request(unfinished(b"x")), candidates(b"x", SECRET), UnverifiedBodies())
    assert refused.value.status == 408


async def test_a_cancelled_request_waits_for_the_thread_that_uses_its_file() -> None:
    hashing, released = threading.Event(), threading.Event()

    class BlockingVerifier(Verifier):
        def update(self, piece: bytes) -> None:
            hashing.set()
            released.wait()

    verifier = BlockingVerifier(hmac.new(b"", digestmod=hashlib.sha256), [])
    request = a_request(unfinished(b"x" * MEBIBYTE))
    receiving = asyncio.create_task(receive_signed(request, [(SECRET, verifier)], UnverifiedBodies()))
    await eventually(hashing.is_set)

    receiving.cancel()
    done, _ = await asyncio.wait({receiving}, timeout=0.01)

    released.set()
    assert not done
    with pytest.raises(asyncio.CancelledError):
        await receiving
