"""Reception of bodies whose signature identifies the sender, within bounds on memory, disk and time."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Final, ParamSpec, TypeVar

from starlette.requests import Request

from labrats.api.http.errors import ApiError
from labrats.intake.signatures import Verifier

T = TypeVar("T")
P = ParamSpec("P")

BODY_SECONDS: Final = 30.0
"""Maximum time to receive a body. GitHub gives up on a delivery after ten seconds."""

FREE_BYTES: Final = 64 * 1024
"""Bytes of each body outside the budget. Nearly all deliveries are smaller, so large ones do not block them."""

BUDGET_BYTES: Final = 48 * 2**20
"""Limit on all unverified bodies together, beyond FREE_BYTES of each."""

_CHUNK_BYTES: Final = 256 * 1024
"""Bytes, each counted for every candidate, from which a chunk is hashed and written in a thread. A smaller body stays
in memory."""


class UnverifiedBodies:
    """Budget for bodies whose signatures are not verified yet."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._left = budget_bytes

    @contextmanager
    def reservation(self) -> Iterator["_Reservation"]:
        """Yield the reservation of one body, and release it at the end."""
        reservation = _Reservation(self)
        try:
            yield reservation
        finally:
            self._left += reservation.reserved

    def take(self, size: int) -> None:
        if size > self._left:
            message = "the engine receives too many unverified bodies; try again later"
            raise ApiError(429, "overloaded", message, {"Retry-After": "5"})
        self._left -= size


class _Reservation:
    def __init__(self, bodies: UnverifiedBodies) -> None:
        self._bodies, self._size, self.reserved = bodies, 0, 0

    def add(self, size: int) -> None:
        """Reserve `size` more bytes. Raises ApiError 429 if the budget is exhausted."""
        self._size += size
        missing = max(0, self._size - FREE_BYTES) - self.reserved
        if missing > 0:
            self._bodies.take(missing)
            self.reserved += missing


async def receive_signed(
    request: Request, candidates: Sequence[tuple[T, Verifier]], bodies: UnverifiedBodies
) -> tuple[T, bytes] | None:
    """Return the first candidate whose secret signed the body, and the body; None if no candidate's did.

    Raises ApiError: 408 if the body takes too long, 429 if the budget of `bodies` is exhausted.
    """
    with bodies.reservation() as reservation, SpooledTemporaryFile(max_size=_CHUNK_BYTES) as spool:

        def store(chunk: bytes) -> None:
            spool.write(chunk)
            for _, verifier in candidates:
                verifier.update(chunk)

        def read() -> bytes:
            spool.seek(0)
            return spool.read()

        try:
            async with asyncio.timeout(BODY_SECONDS):
                chunk = b""
                async for data in request.stream():
                    reservation.add(len(data))
                    chunk += data
                    if len(chunk) * len(candidates) >= _CHUNK_BYTES:
                        await _in_thread(store, chunk)
                        chunk = b""
        except TimeoutError:
            message = f"the body took longer than {BODY_SECONDS:g} seconds"
            raise ApiError(408, "request_timeout", message, {"Connection": "close"}) from None
        store(chunk)
        for candidate, verifier in candidates:
            if verifier.matches():
                return candidate, await _in_thread(read) if reservation.reserved else read()
        return None


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a thread. If cancelled, wait for its end, since it uses a file that the caller then closes."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise
