"""Server-sent events as a response."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send


async def _never() -> None:
    await asyncio.Event().wait()


class EventStream(StreamingResponse):
    """Server-sent events. The stream ends normally when `access_ends` returns."""

    media_type = "text/event-stream"
    access_ends: Callable[[], Coroutine[Any, Any, None]] = staticmethod(_never)
    """Function, set by the route, that returns when the reader's credential is no longer valid."""

    def __init__(self, frames: AsyncIterator[bytes], status_code: int = 200) -> None:
        super().__init__(frames, status_code, {"X-Accel-Buffering": "no"})  # else nginx buffers the events

    async def stream_response(self, send: Send) -> None:
        streaming = asyncio.ensure_future(super().stream_response(send))
        access_ending = asyncio.ensure_future(self.access_ends())
        try:
            done, _ = await asyncio.wait({streaming, access_ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            streaming.cancel()
            access_ending.cancel()
            await asyncio.gather(streaming, access_ending, return_exceptions=True)
        for task in done:
            task.result()
        if streaming not in done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
