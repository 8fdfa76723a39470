"""Events of a job in responses, in one format for all providers."""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from labrats.api.routes.job_streams import event_id
from labrats.api.schemas.base import ResponseBody, optional
from labrats.api.schemas.job import OutputsView, UsageView, outputs_view, usage_view
from labrats.model.job import FailedCode
from labrats.model.protocol import (
    AnyEvent,
    ErrorEvent,
    LogEvent,
    LogOrigin,
    ModelRequest,
    OutputEvent,
    PartEvent,
    RefusedHost,
    RefusedHostEvent,
    RequestEvent,
    ResultEvent,
    SessionEvent,
    StatusEvent,
    StoredLine,
    ToolEvent,
    UsageEvent,
    decode_event,
)
from labrats.model.record import encode

Kind = Literal["log", "status", "tool", "usage", "output", "request", "refused_host", "result", "error"]

_ORIGINS: Final = frozenset({b'"agent"', b'"tool"', b'"engine"'})


class ModelRequestView(ResponseBody):
    """A request of the agent to its model's server, without contents."""

    method: str = Field(examples=["POST"])
    path: str = Field(examples=["/v1/messages"])
    status: int = Field(description="499 if the agent closed the connection before an answer.", examples=[200])
    milliseconds: int = Field(description="Time until the end of the answer.", examples=[2300])
    model: str | None = Field(description="The model that the request names.", examples=["claude-sonnet-5-5"])
    input_tokens: int = Field(examples=[1200])
    output_tokens: int = Field(examples=[340])
    cache_read_tokens: int = Field(examples=[0])
    refusal: str | None = Field(description="Why the request was not forwarded; null for a forwarded one.")


class RefusedHostView(ResponseBody):
    """A host that the job's network rule has refused to the agent."""

    host: str = Field(examples=["registry.example.com"])
    port: int | None = Field(description="Null if the host is not shown, as it contains a secret.", examples=[443])
    reason: str = Field(description="One sentence for people.", examples=["the network rule does not allow it"])


class EventView(ResponseBody):
    """An event of an attempt, with the fields of its kind."""

    id: str = Field(description="Attempt and number. Continue after this event with `after`.", examples=["1-4"])
    attempt: int = Field(examples=[1])
    at: datetime = Field(examples=["2030-01-01T12:00:02Z"])
    kind: Kind = Field(examples=["log"])
    text: str = optional(description="log: a line of text.", examples=["reading the issue"])
    origin: LogOrigin | None = optional(
        description="log: `agent` for its own text, `tool` for the summary of a call or its result, `engine` for a "
        "note of the engine; null in logs of earlier versions.",
        examples=["agent"],
    )
    state: str = optional(description="status: the state of the executor: `started`, `workspace`, `running`, …")
    message: str | None = optional(description="status, error: one sentence for people.")
    call: str = optional(description="tool: the id that a call and its result share.")
    name: str | None = optional(description="tool: the called tool; null in a result.")
    input: Any = optional(description="tool: the arguments; null in a result.")
    output: str | None = optional(description="tool: the output; null in a call.")
    is_error: bool = optional(description="tool: true if the call failed.")
    usage: UsageView = optional(description="usage, result, error: the usage of the attempt so far.")
    outputs: OutputsView = optional(description="output, result, error: the outputs of the attempt so far.")
    request: ModelRequestView = optional(description="request: a request of the agent to its model's server.")
    refused_host: RefusedHostView = optional(
        description="refused_host: a host that the network rule has refused, once in an attempt."
    )
    result: Any = optional(description="result: the agent's answer; null if it is too large for an event.")
    code: FailedCode | None = optional(
        description="error: why the attempt failed, for programs. Null if the engine stopped it: the status and "
        "`failedCode` of the job say why."
    )
    retry_after_seconds: float | None = optional(
        description="error: the pause that the model's provider asks for, if any."
    )


def event_json(attempt: int, stored: StoredLine, line: bytes) -> bytes | None:
    """Return event_view as JSON. The text of a log event, the most frequent kind, is copied without decoding."""
    if stored.is_log:
        head = b'{"id":"%d-%d","attempt":%d,"at":%s' % (attempt, stored.seq, attempt, stored.at)
        origin = bytes(stored.origin) if bytes(stored.origin) in _ORIGINS else b"null"
        return b'%s,"kind":"log","text":%s,"origin":%s}' % (head, stored.text, origin)
    event = decode_event(line)
    view = event and event_view(attempt, event)
    return encode(view) if view else None


def event_view(attempt: int, event: AnyEvent) -> dict[str, Any] | None:
    """Return the JSON that EventView describes; None for an event that callers do not see."""
    head = {"id": event_id(attempt, event.seq), "attempt": attempt, "at": event.at}
    match event:
        case LogEvent():
            return head | {"kind": "log", "text": event.text, "origin": event.origin}
        case StatusEvent():
            return head | {"kind": "status", "state": event.state, "message": event.message}
        case ToolEvent():
            call = {"call": event.id, "name": event.name, "input": event.input}
            return head | {"kind": "tool"} | call | {"output": event.output, "isError": event.is_error}
        case UsageEvent():
            return head | {"kind": "usage", "usage": usage_view(event.usage)}
        case OutputEvent():
            return head | {"kind": "output", "outputs": outputs_view(event.outputs)}
        case ResultEvent():
            return head | {"kind": "result", "result": event.result} | _totals(event)
        case ErrorEvent():
            code = None if event.was_stopped else event.code
            error = {"code": code, "message": event.message, "retryAfterSeconds": event.retry_after_seconds}
            return head | {"kind": "error"} | error | _totals(event)
        case RequestEvent():
            return head | {"kind": "request", "request": _request_view(event.request)}
        case RefusedHostEvent(refused_host=RefusedHost(host=host, port=port, reason=reason)):
            return head | {"kind": "refused_host", "refusedHost": {"host": host, "port": port, "reason": reason}}
        case PartEvent() | SessionEvent():
            return None  # the whole result, and the session, are in the job's detail


def _request_view(request: ModelRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "milliseconds": request.milliseconds,
        "model": request.model,
        "inputTokens": request.usage.input_tokens,
        "outputTokens": request.usage.output_tokens,
        "cacheReadTokens": request.usage.cache_read_tokens,
        "refusal": request.refusal,
    }


def _totals(event: ResultEvent | ErrorEvent) -> dict[str, Any]:
    return {"usage": usage_view(event.usage), "outputs": outputs_view(event.outputs)}
