"""uvicorn, made to fit: our signals, our log, and an event for the moment when it listens."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

DRAIN_SECONDS: Final = 5
"""How long requests under way may take when the engine stops."""


class Server(uvicorn.Server):
    """Serves `app` until `should_exit` is set. Who runs it takes care of signals."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()
