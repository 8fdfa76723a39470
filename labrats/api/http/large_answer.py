"""Answers that take much memory until their callers have received them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from labrats.model.errors import Overloaded

MOST_WAITING: Final = 50
"""Large answers for which one caller waits at a time, with the one that is being sent."""

_RETRY_SECONDS: Final = 5.0


class LargeAnswers:
    """Turns for large answers: each caller receives one at a time, and keeps no other caller waiting.

    creation: held while an answer is created. A result of 60 MiB takes up to 400 MiB until it is an answer.
    """

    def __init__(self, created_at_once: int = 1) -> None:
        self.creation = asyncio.Semaphore(created_at_once)
        self._waiting = Counter[str]()
        self._turns: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def turn_of(self, caller_id: str) -> AsyncIterator[None]:
        """Wait for the caller's turn, and keep it during the block. Raises Overloaded if too many answers wait."""
        if self._waiting[caller_id] >= MOST_WAITING:
            raise Overloaded("too many large answers to this caller are being sent; read them first", _RETRY_SECONDS)
        self._waiting[caller_id] += 1
        try:
            async with self._turns.setdefault(caller_id, asyncio.Lock()):
                yield
        finally:
            self._waiting[caller_id] -= 1
            if not self._waiting[caller_id]:
                del self._waiting[caller_id], self._turns[caller_id]


class LargeAnswer(Response):
    """An answer that is created at its caller's turn, which ends when the caller has received it."""

    def __init__(self, create: Callable[[], Awaitable[Response]], answers: LargeAnswers, caller_id: str) -> None:
        super().__init__()
        self._create, self._answers, self._caller_id = create, answers, caller_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            turn = asyncio.create_task(stack.enter_async_context(self._answers.turn_of(self._caller_id)))
            leaving = asyncio.create_task(_until_disconnected(receive))
            try:
                await asyncio.wait({turn, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                turn.cancel()  # without effect at the caller's turn
                await asyncio.gather(leaving, turn, return_exceptions=True)
            if not turn.cancelled():  # otherwise the caller has left
                turn.result()
                async with self._answers.creation:
                    answer = await self._create()
                await answer(scope, receive, send)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
