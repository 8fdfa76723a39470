"""A file as the body of a response."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from labrats.api.http.errors import error_response

_CHUNK_BYTES: Final = 64 * 1024


class OpenFile(StreamingResponse):
    """A file that is open already. It is read in pieces: many callers may be slow to receive theirs."""

    def __init__(self, file: BinaryIO, status_code: int = 200) -> None:
        size = os.fstat(file.fileno()).st_size
        super().__init__(_pieces(file, size), status_code, {"Content-Length": str(size)})


async def _pieces(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    """Yield the first `size` bytes of a file."""
    with file:
        while size > 0 and (piece := await asyncio.to_thread(file.read, min(size, _CHUNK_BYTES))):
            size -= len(piece)
            yield piece


class Download(FileResponse):
    """A file, or the parts of it that the `Range` header requests.

    Starlette answers an invalid range with an error in plain text. Here a malformed range is ignored, as RFC 9110, 14.2
    asks, and a range beyond the end of the file gets an error of the usual shape.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_or_raise(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                raise _Refused(message)
            await send(message)

        try:
            await super().__call__(scope, receive, send_or_raise)
        except _Refused as refused:
            if refused.status != 416:
                other_headers = [header for header in scope["headers"] if header[0] != b"range"]
                await super().__call__({**scope, "headers": other_headers}, receive, send)
                return
            message = f"the file ends before this range; it has {self.headers['content-length']} bytes"
            headers = {"Content-Range": refused.headers["content-range"]}
            await error_response(416, "range_not_satisfiable", message, headers=headers)(scope, receive, send)


class _Refused(Exception):
    """A range that Starlette cannot serve."""

    def __init__(self, start: Message) -> None:
        self.status, self.headers = start["status"], Headers(raw=start["headers"])
