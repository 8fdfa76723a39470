"""Answers that take much memory until their callers have received them."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class LargeAnswer(Response):
    """An answer that is created once there is room for it, which it takes until its caller has received it.

    A slow caller would otherwise fill the memory with many of them.
    """

    def __init__(self, create: Callable[[], Awaitable[Response]], room: AbstractAsyncContextManager[None]) -> None:
        super().__init__()
        self._create, self._room = create, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._room:
            answer = await self._create()
            await answer(scope, receive, send)
