"""The real Codex, with a scripted model behind the OpenAI Responses API."""

import json
from collections.abc import Iterator
from typing import Any

from labrats.model.job import Usage
from tests.agents.agent_cli import MACHINE, NODE_ARCHITECTURE, NODE_MODULES, AgentCli
from tests.support.scripted_model import Calls, Fails, Refuses, Says, server_sent_event

CACHED_TOKENS = 20
REASONING_TOKENS = 4
"""Cached tokens and reasoning tokens of each answer."""


class ResponsesApi:
    """The responses of the OpenAI Responses API."""

    path = "/v1/responses"

    def answer(self, turn: Says | Calls | Fails, number: int, request: dict[str, Any]) -> tuple[str, bytes]:
        return "text/event-stream", b"".join(_streamed(turn, number))

    def error(self, turn: Refuses) -> dict[str, Any]:
        return {"error": {"type": turn.kind, "code": turn.kind, "message": turn.message, **turn.details}}


def _streamed(turn: Says | Calls | Fails, number: int) -> Iterator[bytes]:
    response: dict[str, Any] = {"id": f"resp_{number}", "object": "response", "status": "in_progress", "output": []}
    yield server_sent_event("response.created", response=response)
    if isinstance(turn, Fails):
        error = {"code": turn.code, "message": turn.message}
        yield server_sent_event("response.failed", response=response | {"status": "failed", "error": error})
        return
    items = _items(turn, number)
    for index, item in enumerate(items):
        yield server_sent_event("response.output_item.added", output_index=index, item=item)
        yield server_sent_event("response.output_item.done", output_index=index, item=item)
    end = {"status": "completed", "output": items, "usage": _usage(turn)}
    yield server_sent_event("response.completed", response=response | end)


def _items(turn: Says | Calls, number: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if turn.text:
        content = [{"type": "output_text", "text": turn.text}]
        items.append({"type": "message", "id": f"msg_{number}", "role": "assistant", "content": content})
    if isinstance(turn, Calls):
        call = {"id": f"call_{number}", "call_id": f"call_{number}", "name": turn.tool}
        if turn.namespace:
            call["namespace"] = turn.namespace
        if isinstance(turn.input, str):  # a tool whose input is free text
            items.append({"type": "custom_tool_call", "input": turn.input, **call})
        else:
            items.append({"type": "function_call", "arguments": json.dumps(turn.input), **call})
    return items


def _usage(turn: Says | Calls) -> dict[str, Any]:
    return {
        "input_tokens": turn.input_tokens,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": turn.output_tokens,
        "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
        "total_tokens": turn.input_tokens + turn.output_tokens,
    }


class CodexCli(AgentCli):
    provider = "codex"
    program = (
        NODE_MODULES / "@openai" / f"codex-linux-{NODE_ARCHITECTURE}" / f"vendor/{MACHINE}-unknown-linux-musl/bin/codex"
    )
    model = "gpt-5.5"
    api = ResponsesApi()
    base_path = "/v1"
    key_names = ("OPENAI_API_KEY", "CODEX_API_KEY")
    rate_limit = "rate_limit_exceeded"
    conversation = "input"
    instructions = "input"
    effort = "reasoning"
    shell_tool = "Shell"
    mcp_tool = "docs.ask"

    def shell(self, command: str, **more: Any) -> Calls:
        return Calls("exec_command", {"cmd": command, "yield_time_ms": 30_000}, **more)

    def ask(self, question: str, server: str = "docs") -> Calls:
        return Calls("ask", {"question": question}, namespace=f"mcp__{server}")

    def usage(self, *, turns: int, input_tokens: int, output_tokens: int) -> Usage:
        cached = turns * CACHED_TOKENS
        return Usage(
            input_tokens=input_tokens - cached,
            output_tokens=output_tokens,
            cache_read_tokens=cached,
            reasoning_tokens=turns * REASONING_TOKENS,
            turns=turns,
        )

    def traps(self, command: str) -> dict[str, str]:
        hook = {"hooks": [{"type": "command", "command": command}]}
        run = ["sh", "-c", command]
        settings = f"""notify = {run}\n[mcp_servers.trap]\ncommand = "sh"\nargs = {run[1:]}\n"""
        settings += '[shell_environment_policy]\nset = {TRAP = "set"}\n'
        return {
            ".codex/hooks.json": json.dumps({"hooks": {"UserPromptSubmit": [hook]}}),
            ".codex/config.toml": settings,
        }


CODEX = CodexCli()
