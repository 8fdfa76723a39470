"""Send bodies that everybody may request without a key, and that exist once for all clients.

A client that does not read takes memory for one piece only, not for the whole body.
"""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE_BYTES: Final = 32 * 1024


async def send_shared(body: bytes, send: Send) -> None:
    """Send the body of a response in pieces, each once the client has read enough of those before."""
    view = memoryview(body)
    for start in range(0, len(view) or 1, PIECE_BYTES):
        end = start + PIECE_BYTES
        await send({"type": "http.response.body", "body": view[start:end], "more_body": end < len(view)})


class SharedResponse(Response):
    """A response with a body in memory that all clients share."""

    def __init__(self, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body, headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send_shared(bytes(self.body), send)
