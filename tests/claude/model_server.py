"""A scripted model behind the Anthropic Messages API."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tests.scripted_model import Calls, Fails, ModelServer, Refuses, Says, Turn, scripted_model, server_sent_event


def model_server(*turns: Turn) -> AbstractContextManager[ModelServer]:
    """Serve `turns` until the end of the block."""
    return scripted_model(MessagesApi(), turns)


class MessagesApi:
    """How the Anthropic Messages API is spoken."""

    path = "/v1/messages"

    def answer(self, turn: Says | Calls | Fails, number: int, request: dict[str, Any]) -> tuple[str, bytes]:
        assert not isinstance(turn, Fails), "not a way of this API"
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
    """The message as the API streams it: an opening, each block in pieces, and what only the end knows."""
    usage = message["usage"]
    opening = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield server_sent_event("message_start", message=opening)
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
