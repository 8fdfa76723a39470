"""The MCP server of mcp_server.py over HTTP."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message

from tests.agents.mcp_server import answer
from tests.support.loopback import QuietHandler, served_by


@dataclass
class HttpMcpServer:
    """A running server. headers: the headers of the latest request."""

    port: int
    headers: Message = field(default_factory=Message)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


@contextmanager
def http_mcp_server(listener: socket.socket | None = None) -> Iterator[HttpMcpServer]:
    """Serve on loopback, or with `listener`, until the context exits."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            served.headers = self.headers
            if (response := answer(json.loads(self.body()), "over HTTP")) is None:
                self.answer(202)
            else:
                self.answer(200, json.dumps(response).encode(), {"Content-Type": "application/json"})

        def do_GET(self) -> None:
            self.answer(405)

        do_DELETE = do_GET

    with served_by(Handler, listener) as port:
        served = HttpMcpServer(port)
        yield served
