"""An MCP server, as a program with one tool, `ask`, that returns its arguments. It imports nothing of the project."""

import json
import os
import sys
from typing import Any, Final

TOOL: Final = {
    "name": "ask",
    "description": "Answers a question.",
    "inputSchema": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
}


def answer(request: dict[str, Any], knowledge: str) -> dict[str, Any] | None:
    """Return the JSON-RPC response to `request`; None for a notification. knowledge: the tool's answer."""
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
            text = f"{request['params']['arguments']['question']} {knowledge}"
            result = {"content": [{"type": "text", "text": text}]}
        case _:
            error = {"code": -32601, "message": "no such method"}
            return {"jsonrpc": "2.0", "id": request["id"], "error": error}
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def main() -> None:
    """Serve on standard input and output. The answer is the arguments and a variable that a test sets."""
    for line in sys.stdin:
        if response := answer(json.loads(line), f"{sys.argv[1:]} {os.environ.get('MCP_TEST_KNOWS')} in {os.getcwd()}"):
            sys.stdout.write(f"{json.dumps(response)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
