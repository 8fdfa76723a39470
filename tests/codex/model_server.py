"""A scripted model behind the OpenAI Responses API."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tests.scripted_model import Calls, Fails, ModelServer, Refuses, Says, Turn, scripted_model, server_sent_event

CACHED_TOKENS = 20
REASONING_TOKENS = 4


def model_server(*turns: Turn) -> AbstractContextManager[ModelServer]:
    """Serve `turns` until the end of the block."""
    return scripted_model(ResponsesApi(), turns)


class ResponsesApi:
    """How the OpenAI Responses API is spoken."""

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
