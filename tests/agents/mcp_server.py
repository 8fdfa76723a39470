"""An MCP server, as a program with one tool, `ask`, that returns its arguments. It imports nothing of the project.

With the argument `fetch` the question is a URL, and the tool returns what its server answers.
"""

import json
import os
import sys
import urllib.request
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


def knowledge_of(request: dict[str, Any]) -> str:
    """Return the answer: the arguments and a variable that a test sets, or what the URL in the question answers."""
    if sys.argv[1:] != ["fetch"] or request["method"] != "tools/call":
        return f"{sys.argv[1:]} {os.environ.get('MCP_TEST_KNOWS')} in {os.getcwd()}"
    try:
        with urllib.request.urlopen(request["params"]["arguments"]["question"], timeout=10) as response:
            return str(response.read().decode())
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Serve on standard input and output."""
    for line in sys.stdin:
        request = json.loads(line)
        if response := answer(request, knowledge_of(request)):
            sys.stdout.write(f"{json.dumps(response)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
