"""An MCP server, a program with one tool, `ask`, which says what it was started with. It imports nothing of ours."""

import json
import os
import sys
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


def main() -> None:
    """Serve on standard input and output: it knows its arguments, and the variable that a test gives it."""
    for line in sys.stdin:
        if answered := answer(json.loads(line), f"{sys.argv[1:]} {os.environ.get('MCP_TEST_KNOWS')} in {os.getcwd()}"):
            sys.stdout.write(f"{json.dumps(answered)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
