"""Receives a body whose sender is known only by the signature over it, in bounded memory, disk and time."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Final, TypeVar

from starlette.requests import Request

from labrats.api.http.errors import ApiError
from labrats.intake.signatures import Verifier

T = TypeVar("T")

BODY_SECONDS: Final = 30.0
"""The longest that a body may take. GitHub gives up on a delivery after ten seconds."""

FREE_BYTES: Final = 64 * 1024
"""Of each body: nearly all deliveries are smaller, and are received however many large ones come."""

BUDGET_BYTES: Final = 48 * 2**20
"""Bound on all bodies together beyond FREE_BYTES each, until their signatures are verified."""

_PIECE_BYTES: Final = 256 * 1024
"""Hashed and written at once, in a thread; a body that is no longer stays in memory."""


class UnverifiedBodies:
    """The budget of all bodies whose senders are not known yet."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._left = budget_bytes

    @contextmanager
    def account(self) -> Iterator["_Account"]:
        """Count what one body holds, and give it back at the end."""
        account = _Account(self)
        try:
            yield account
        finally:
            self._left += account.taken

    def take(self, size: int) -> None:
        if size > self._left:
            message = "too many bodies are being received from senders that are not known yet"
            raise ApiError(429, "overloaded", message, {"Retry-After": "5"})
        self._left -= size


class _Account:
    def __init__(self, bodies: UnverifiedBodies) -> None:
        self._bodies, self._size, self.taken = bodies, 0, 0

    def add(self, size: int) -> None:
        """Raises 429 where the budget of all does not allow so much more."""
        self._size += size
        beyond = max(0, self._size - FREE_BYTES) - self.taken
        if beyond > 0:
            self._bodies.take(beyond)
            self.taken += beyond


async def receive_signed(
    request: Request, candidates: Sequence[tuple[T, Verifier]], bodies: UnverifiedBodies
) -> tuple[T, bytes] | None:
    """Return the first candidate by whose secret the body was signed, and the body; None where it is none of them.

    Raises ApiError: 408 where the body takes too long, 429 where too much is being received.
    """
    with bodies.account() as account, SpooledTemporaryFile(max_size=_PIECE_BYTES) as spool:

        def take(piece: bytes) -> None:
            spool.write(piece)
            for _, verifier in candidates:
                verifier.update(piece)

        def read() -> bytes:
            spool.seek(0)
            return spool.read()

        try:
            async with asyncio.timeout(BODY_SECONDS):
                piece = b""
                async for chunk in request.stream():
                    account.add(len(chunk))
                    piece += chunk
                    if len(piece) >= _PIECE_BYTES:
                        await asyncio.to_thread(take, piece)
                        piece = b""
        except TimeoutError:
            message = f"the body took longer than {BODY_SECONDS:g} seconds"
            raise ApiError(408, "request_timeout", message, {"Connection": "close"}) from None
        take(piece)
        for candidate, verifier in candidates:
            if verifier.matches():
                return candidate, await asyncio.to_thread(read) if account.taken else read()
        return None
