"""An MCP server with one tool, `ask`, which says what the server was started with: as a program, or on loopback."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

TOOL: Final = {
    "name": "ask",
    "description": "Answers a question.",
    "inputSchema": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
}


def answer(request: dict[str, Any], knows: str) -> dict[str, Any] | None:
    """The JSON-RPC answer to `request`; None to a notification. knows: what the tool says to every question."""
    if "id" not in request:
        return None
    match request["method"]:
        case "initialize":
            version = request["params"]["protocolVersion"]
            info = {"name": "test", "version": "1"}
            result: Any = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": [TOOL]}
        case "tools/call":
            text = f"{request['params']['arguments']['question']} {knows}"
            result = {"content": [{"type": "text", "text": text}]}
        case _:
            error = {"code": -32601, "message": "no such method"}
            return {"jsonrpc": "2.0", "id": request["id"], "error": error}
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


@dataclass
class HttpMcpServer:
    """One that runs. headers: those of the latest request."""

    port: int
    headers: Message = field(default_factory=Message)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


@contextmanager
def http_mcp_server() -> Iterator[HttpMcpServer]:
    """Serve on loopback until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            served.headers = self.headers
            answered = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), "over HTTP")
            self._send(202 if answered is None else 200, b"" if answered is None else json.dumps(answered).encode())

        def do_GET(self) -> None:
            self._send(405, b"")

        def do_DELETE(self) -> None:
            self._send(405, b"")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.daemon_threads = True
        served = HttpMcpServer(http_server.server_port)
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            http_server.shutdown()
            thread.join()


def main() -> None:
    """Serve on standard input and output: it knows its arguments, and the variable that a test gives it."""
    for line in sys.stdin:
        if answered := answer(json.loads(line), f"{sys.argv[1:]} {os.environ.get('MCP_TEST_KNOWS')} in {os.getcwd()}"):
            sys.stdout.write(f"{json.dumps(answered)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
