"""Server-sent events as an answer, for as long as its reader may read it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send


async def _never() -> None:
    await asyncio.Event().wait()


class EventStream(StreamingResponse):
    """Server-sent events. It ends, as if all were said, when `reader_lapses` returns; the route sets that."""

    media_type = "text/event-stream"
    reader_lapses: Callable[[], Coroutine[Any, Any, None]] = staticmethod(_never)

    def __init__(self, frames: AsyncIterator[bytes], status_code: int = 200) -> None:
        super().__init__(frames, status_code, {"X-Accel-Buffering": "no"})  # else a proxy may wait for more to pass on

    async def stream_response(self, send: Send) -> None:
        streaming = asyncio.ensure_future(super().stream_response(send))
        lapsing = asyncio.ensure_future(self.reader_lapses())
        try:
            done, _ = await asyncio.wait({streaming, lapsing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            streaming.cancel()
            lapsing.cancel()
            await asyncio.gather(streaming, lapsing, return_exceptions=True)
        for task in done:
            task.result()
        if streaming not in done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
