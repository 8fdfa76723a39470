"""HEAD requests: answered as GET without a body, except where GET has an effect."""

from typing import Final

from starlette.types import Message, Send

GET_HAS_EFFECT: Final = frozenset({"/api/auth/link", "/api/auth/oidc/callback"})
"""Paths where GET redeems a one-time token. HEAD is refused there, since programs that preview links send it."""


def without_body(send: Send) -> Send:
    """Return a `send` that ends the response after its headers, so that a stream never starts."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})

    return send_head
