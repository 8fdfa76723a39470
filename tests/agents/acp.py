"""Real programs that speak the Agent Client Protocol, with a scripted model behind the chat completions API."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labrats.model.acp_programs import ACP_PROGRAMS
from labrats.model.job import Usage
from tests.agents.agent_cli import NODE_ARCHITECTURE, NODE_MODULES, AgentCli
from tests.support.scripted_model import Calls, Fails, ModelServer, Refuses, Says, Turn, scripted_model

ACP_MODULES = NODE_MODULES.parent / "acp" / "node_modules"
_NODE = Path(__file__).parents[2] / ".venv" / "bin" / "node"

CACHED_TOKENS = 20
"""Cached tokens of each answer."""


class ChatApi:
    """The streamed completions of the chat completions API."""

    path = "/v1/chat/completions"

    def answer(self, turn: Says | Calls | Fails, number: int, request: dict[str, Any]) -> tuple[str, bytes]:
        chunks = [*_chunks(turn, number, request["model"])]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode()

    def error(self, turn: Refuses) -> dict[str, Any]:
        return {"error": {"type": turn.kind, "code": turn.kind, "message": turn.message, **turn.details}}


def _chunks(turn: Says | Calls | Fails, number: int, model: str) -> Iterator[dict[str, Any]]:
    usual = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": model}
    if isinstance(turn, Fails):
        yield {"error": {"code": turn.code, "message": turn.message}}
        return
    if turn.text:
        yield usual | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": turn.text}}]}
    if isinstance(turn, Calls):
        function = {"name": turn.tool, "arguments": json.dumps(turn.input)}
        call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
        yield usual | {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]}
    reason = "tool_calls" if isinstance(turn, Calls) else "stop"
    yield usual | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    usage = {
        "prompt_tokens": turn.input_tokens,
        "completion_tokens": turn.output_tokens,
        "total_tokens": turn.input_tokens + turn.output_tokens,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }
    yield usual | {"choices": [], "usage": usage}


class AcpAgent(AgentCli):
    """One of the programs, with the preset of the same name."""

    provider = "acp"
    model = "coder"
    api = ChatApi()
    base_path = "/v1"
    key_names = ("OPENAI_API_KEY",)
    rate_limit = "rate_limit_exceeded"
    conversation = "messages"
    instructions = "messages"
    preset: str

    @property
    def command(self) -> tuple[str, ...]:
        """The command of the preset, with the program that is installed for the tests."""
        return (self.installed(), *ACP_PROGRAMS[self.preset].command[1:])

    @property
    def task_fields(self) -> dict[str, Any]:
        return {"command": self.command, "environment": dict(ACP_PROGRAMS[self.preset].environment)}

    @contextmanager
    def serve(self, *turns: Turn) -> Iterator[ModelServer]:
        with scripted_model(self.api, turns) as server:
            server.is_aside = lambda request: not request.get("tools")
            yield server

    def usage(self, *, turns: int, input_tokens: int, output_tokens: int) -> Usage:
        cached = turns * CACHED_TOKENS
        return Usage(
            input_tokens=input_tokens - cached, output_tokens=output_tokens, cache_read_tokens=cached, turns=turns
        )

    def __str__(self) -> str:
        return self.preset


class OpenCode(AcpAgent):
    preset = "opencode"
    program = ACP_MODULES / f"opencode-linux-{NODE_ARCHITECTURE}" / "bin" / "opencode"
    shell_tool = "Shell"
    mcp_tool = "docs_ask"

    def shell(self, command: str, **more: Any) -> Calls:
        return Calls("bash", {"command": command, "description": "Run a command"}, **more)

    def ask(self, question: str, server: str = "docs") -> Calls:
        return Calls(f"{server}_ask", {"question": question})

    def traps(self, command: str) -> dict[str, str]:
        server = {"trap": {"type": "local", "command": ["sh", "-c", command], "enabled": True}}
        return {"opencode.json": json.dumps({"mcp": server})}


class QwenCode(AcpAgent):
    preset = "qwen-code"
    program = ACP_MODULES / "@qwen-code" / "qwen-code" / "cli.js"
    shell_tool = "Shell"
    mcp_tool = "ask (docs MCP Server)"

    @property
    def command(self) -> tuple[str, ...]:
        return (str(_NODE), *super().command)

    def shell(self, command: str, **more: Any) -> Calls:
        return Calls("run_shell_command", {"command": command, "is_background": False}, **more)

    def ask(self, question: str, server: str = "docs") -> Calls:
        return Calls(f"mcp__{server}__ask", {"question": question})

    def traps(self, command: str) -> dict[str, str]:
        return {}  # it follows a repository's settings: the sandbox is the limit


OPENCODE, QWEN_CODE = OpenCode(), QwenCode()
