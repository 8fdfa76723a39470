"""The real Claude Code, with a scripted model behind the Anthropic Messages API."""

import json
from collections.abc import Iterator
from typing import Any

from labrats.model.job import Usage
from tests.agents.agent_cli import NODE_ARCHITECTURE, NODE_MODULES, AgentCli
from tests.support.scripted_model import Calls, Fails, Refuses, Says, server_sent_event


class MessagesApi:
    """The responses of the Anthropic Messages API."""

    path = "/v1/messages"

    def answer(self, turn: Says | Calls | Fails, number: int, request: dict[str, Any]) -> tuple[str, bytes]:
        assert not isinstance(turn, Fails), "this API has no such failure"
        message = _message(turn, number, request["model"])
        if request.get("stream"):
            return "text/event-stream", b"".join(_streamed(message))
        return "application/json", json.dumps(message).encode()

    def error(self, turn: Refuses) -> dict[str, Any]:
        return {"type": "error", "error": {"type": turn.kind, "message": turn.message}}


def _message(turn: Says | Calls, number: int, model: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    if isinstance(turn, Calls):
        content.append({"type": "tool_use", "id": f"toolu_{number}", "name": turn.tool, "input": turn.input})
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if isinstance(turn, Calls) else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens},
    }


def _streamed(message: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a streamed message: its start, each block in pieces, and its end with the usage."""
    usage = message["usage"]
    start = message | {
        "content": [],
        "stop_reason": None,
        "usage": usage | {"output_tokens": min(1, usage["output_tokens"])},
    }
    yield server_sent_event("message_start", message=start)
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield server_sent_event("content_block_start", index=index, content_block=empty)
        yield server_sent_event("content_block_delta", index=index, delta=delta)
        yield server_sent_event("content_block_stop", index=index)
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield server_sent_event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]})
    yield server_sent_event("message_stop")


class ClaudeCode(AgentCli):
    provider = "claude"
    program = NODE_MODULES / "@anthropic-ai" / f"claude-code-linux-{NODE_ARCHITECTURE}" / "claude"
    model = "sonnet"
    api = MessagesApi()
    key_names = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")
    rate_limit = "rate_limit_error"
    conversation = "messages"
    instructions = "system"
    effort = "output_config"
    shell_tool = "Bash"
    mcp_tool = "mcp__docs__ask"

    def shell(self, command: str, **more: Any) -> Calls:
        return Calls("Bash", {"command": command, "description": "test"}, **more)

    def ask(self, question: str, server: str = "docs") -> Calls:
        return Calls(f"mcp__{server}__ask", {"question": question})

    def usage(self, *, turns: int, input_tokens: int, output_tokens: int) -> Usage:
        return Usage(input_tokens=input_tokens, output_tokens=output_tokens, turns=turns)

    def traps(self, command: str) -> dict[str, str]:
        hook = [{"matcher": "*", "hooks": [{"type": "command", "command": command}]}]
        settings = {
            "hooks": {"SessionStart": hook, "PreToolUse": hook},
            "apiKeyHelper": command,
            "env": {"TRAP": "set"},
            "enableAllProjectMcpServers": True,
        }
        server = {"command": "sh", "args": ["-c", command]}
        return {
            ".claude/settings.json": json.dumps(settings),
            ".claude/settings.local.json": json.dumps(settings),
            ".mcp.json": json.dumps({"mcpServers": {"trap": server}}),
        }


CLAUDE = ClaudeCode()
