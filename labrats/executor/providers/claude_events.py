"""Parse the output of Claude Code, one JSON object per line, and translate it to events of the attempt.

Only the fields that are used are declared. Newer versions add kinds of events; unknown ones are skipped.
"""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import add_advice
from labrats.executor.providers.agent_cli import MAX_PAUSE_SECONDS, warn_of_old_program
from labrats.executor.providers.claude_sessions import ModelUsage, SessionFiles, TokenCounts, usage_of_models
from labrats.executor.providers.cli_events import (
    decode_line,
    is_session_id,
    report_failed_mcp_server,
    report_tool_call,
    report_tool_result,
    text_of,
)
from labrats.executor.providers.silence_limit import SilenceTimer
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode, Usage

_DESCRIPTIVE_INPUTS: Final = ("command", "file_path", "path", "pattern", "url", "query", "description")
"""Fields of a tool's input that describe the call in the log. The first one that is present is used."""

_OWN_PAUSE_SECONDS: Final = 3.0
"""Longest pause before a retry that Claude Code chooses itself. A longer one was requested by the server."""

_SUBAGENT_TOOLS: Final = ("Task", "Agent")
"""Tools that wait for the model themselves, so that the limit on its silence applies while they run."""

CODE_OF_STATUS: Final[Mapping[int, FailedCode]] = {
    401: FailedCode.AUTH,
    403: FailedCode.AUTH,
    429: FailedCode.RATE_LIMITED,
    503: FailedCode.OVERLOADED,
    529: FailedCode.OVERLOADED,
}


class Block(msgspec.Struct, frozen=True):
    """A part of a message: a text, a tool call, or the result of one."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = None


class Message(msgspec.Struct, frozen=True):
    """A message, or one of its blocks. Each block is printed in its own event, with the id of the message."""

    content: str | list[Block]
    id: str = ""
    model: str = ""
    usage: TokenCounts | None = None


class McpServerStatus(msgspec.Struct, frozen=True):
    """The connection status of an MCP server."""

    name: str
    status: str


class SystemEvent(msgspec.Struct, frozen=True, tag_field="type", tag="system"):
    """An event about the program itself."""

    subtype: str = ""
    session_id: str | None = None
    model: str | None = None
    claude_code_version: str | None = None
    attempt: int | None = None
    max_retries: int | None = None
    retry_delay_ms: float | None = None
    error_status: int | None = None
    error: str | None = None
    original_model: str | None = None
    fallback_model: str | None = None
    mcp_servers: list[McpServerStatus] = []


class AssistantEvent(msgspec.Struct, frozen=True, tag_field="type", tag="assistant"):
    """A message of the model, or of the program about an error."""

    message: Message
    parent_tool_use_id: str | None = None
    is_api_error_message: bool = False
    error: str | None = None


class UserEvent(msgspec.Struct, frozen=True, tag_field="type", tag="user"):
    """A message with the results of tool calls."""

    message: Message
    parent_tool_use_id: str | None = None


class ClaudeResult(msgspec.Struct, frozen=True, tag_field="type", tag="result"):
    """The result of a run. A failure of the API has the subtype `success`, with `is_error`."""

    subtype: str
    is_error: bool = False
    api_error_status: int | None = None
    terminal_reason: str | None = None
    result: str | None = None
    structured_output: Any = None
    errors: list[Any] = []
    num_turns: int = 0
    total_cost_usd: float = 0.0
    usage: TokenCounts = TokenCounts()
    model_usage: dict[str, ModelUsage] = msgspec.field(name="modelUsage", default_factory=dict)
    model_usage_since_last_result: dict[str, ModelUsage] | None = None

    def usage_after(self, earlier: Usage, *, resumed: bool = False) -> Usage:
        """Return the usage of the run so far, of all models together. Turns are counted elsewhere.

        earlier: the usage of the run at its previous result.
        resumed: True if the run has resumed a session. Older versions report totals of the whole session. The usage of
                 a resumed run is then that of the main model, without the cost.
        """
        if self.model_usage_since_last_result is not None:
            return earlier + usage_of_models(self.model_usage_since_last_result)
        if resumed:
            return earlier + self.usage.as_usage()
        if not self.model_usage:
            return msgspec.structs.replace(self.usage.as_usage(), cost_usd=self.total_cost_usd)
        usage = usage_of_models(self.model_usage)
        return usage if usage.cost_usd is None else msgspec.structs.replace(usage, cost_usd=self.total_cost_usd)


class RateLimitInfo(msgspec.Struct, frozen=True, rename="camel"):
    """The state of a subscription's limit. resets_at: in seconds since 1970."""

    status: str = ""
    resets_at: float | None = None


class RateLimitEvent(msgspec.Struct, frozen=True, tag_field="type", tag="rate_limit_event"):
    """An event about the limits of a subscription. API keys have none."""

    rate_limit_info: RateLimitInfo = RateLimitInfo()


class RawEvent(msgspec.Struct, frozen=True):
    """An event of the Messages API. usage: the usage of the current message so far."""

    type: str
    message: Message | None = None
    usage: TokenCounts | None = None


class StreamEvent(msgspec.Struct, frozen=True, tag_field="type", tag="stream_event"):
    """A part of a streamed message. parent_tool_use_id: the call that started the subagent that writes it, if any."""

    event: RawEvent
    parent_tool_use_id: str | None = None


ClaudeEvent = SystemEvent | AssistantEvent | UserEvent | RateLimitEvent | StreamEvent | ClaudeResult

_DECODER: Final[msgspec.json.Decoder[ClaudeEvent]] = msgspec.json.Decoder(ClaudeEvent)


def read_event(line: bytes) -> ClaudeEvent | None:
    """Return the event in `line`, or None if it is not an event of a known kind."""
    return decode_line(_DECODER, line)


class ClaudeEventTranslator:
    """Translates events as they arrive, counts their usage, and stores the last result.

    has_started:   True once Claude Code has started or resumed its session.
    long_pause:    a failure for a requested pause that is too long to wait for.
    silence_timer: reset by each event that shows progress; None if silence is not limited.
    failure:       the kind of the API's last failure, as Claude Code names it.
    """

    def __init__(self, context: RunContext, files: SessionFiles) -> None:
        self.has_started = False
        self.long_pause: GiveUp | None = None
        self.failure = ""
        self.result: ClaudeResult | None = None
        self.silence_timer: SilenceTimer | None = None
        self._limited_until: float | None = None
        self._pause_seconds: float | None = None
        self._context = context
        self._files = files
        self._reported = Usage()
        self._messages: dict[str, Usage] = {}
        self._counted = Usage()
        self._streamed: dict[str | None, str] = {}
        self._open_calls: set[str] = set()
        self._calls_of_subagents: dict[str, list[str]] = {}

    def handle_line(self, line: bytes) -> None:
        """Translate the event in `line`, if there is one.

        Raises GiveUp if the usage exceeds a limit, or the provider asks for a long pause.
        """
        if event := read_event(line):
            self.handle(event)
            if self.silence_timer and isinstance(event, StreamEvent | AssistantEvent | UserEvent):
                self.silence_timer.reset(waits_for_model=not self._open_calls)
        if self.long_pause:
            raise self.long_pause

    def handle_final_line(self, line: bytes) -> None:
        """Count the usage in `line`, after Claude Code was asked to end. Limits are not checked."""
        if event := read_event(line):
            self._count_usage(event)

    def report_final_usage(self) -> None:
        """Report the total usage after the program has exited. Limits are not checked."""
        self._count_subagents()
        if (usage := self.usage) != self._context.events.totals.provider:
            self._context.set_final_usage(usage)

    @property
    def usage(self) -> Usage:
        """The total usage of the run. Claude Code reports tokens and cost at its end; turns are counted here."""
        reported = self._reported if self.result else self._files.usage()
        if reported is None:
            return self._counted
        return msgspec.structs.replace(
            _max_of(reported, self._counted), cost_usd=reported.cost_usd, turns=self._counted.turns
        )

    @property
    def retry_after_seconds(self) -> float | None:
        """The pause that the provider asks for, if any."""
        return self._pause_seconds if self._limited_until is None else max(0.0, self._limited_until - time.time())

    def handle(self, event: ClaudeEvent) -> None:
        """Translate an event. Raises GiveUp if the usage exceeds a limit."""
        match event:
            case SystemEvent():
                self._handle_system_event(event)
            case AssistantEvent():
                self._handle_message(event)
            case UserEvent(message=Message(content=list() as blocks)):
                for block in blocks:
                    self._handle_tool_result(block)
            case RateLimitEvent():
                if event.rate_limit_info.status == "rejected":
                    self._limited_until = event.rate_limit_info.resets_at
        changed = self._count_usage(event)
        is_start = isinstance(event, StreamEvent) and event.event.type == "message_start"  # a later event completes it
        if changed and not is_start:
            self._context.set_usage(self._counted)

    def _count_usage(self, event: ClaudeEvent) -> bool:
        """Count the usage in an event. Return whether the counted usage has changed."""
        before = self._counted
        match event:
            case StreamEvent():
                self._count_streamed(event.event, event.parent_tool_use_id)
            case AssistantEvent(message=Message(usage=TokenCounts() as counts) as message):
                if message.model != "<synthetic>":
                    self._pause_seconds = None
                    self._count_message(message.id, counts.as_usage(turns=1))
                    if event.parent_tool_use_id is None:
                        self._context.note_model(message.model)
            case ClaudeResult():
                self._reported = event.usage_after(self._reported, resumed=self._context.session_id is not None)
                self.result = event  # another result may follow
        if getattr(event, "parent_tool_use_id", None):
            self._count_subagents()
        return self._counted != before

    def _count_streamed(self, event: RawEvent, parent: str | None) -> None:
        """Count the usage of a streamed message: input tokens at its start, output tokens at its end."""
        if event.type == "message_start" and event.message and event.message.usage:
            self._streamed[parent] = event.message.id
            self._count_message(event.message.id, event.message.usage.as_usage())
        elif event.type == "message_delta" and event.usage and parent in self._streamed:
            self._count_message(self._streamed[parent], event.usage.as_usage(turns=1))

    def _count_subagents(self) -> None:
        for message_id, usage in self._files.new_subagent_messages():
            self._count_message(message_id, usage)

    def _count_message(self, message_id: str, usage: Usage) -> None:
        """Count the usage of a message. Several events report the same message, with growing numbers."""
        known = self._messages.get(message_id, Usage())
        self._messages[message_id] = now = _max_of(known, usage)
        self._counted = _sum_of(self._counted, now, minus=known)

    def _handle_system_event(self, event: SystemEvent) -> None:
        match event.subtype:
            case "init":
                self.has_started = True
                if event.session_id and is_session_id(event.session_id):
                    self._files.session_id = event.session_id
                    self._context.report_session(event.session_id)
                version, model = map(self._field, (event.claude_code_version, event.model))
                self._context.events.log(", ".join(filter(None, (f"Claude Code {version}".strip(), model))))
                warn_of_old_program(self._context, "claude", version)
                for server in event.mcp_servers:
                    if server.status == "failed":
                        report_failed_mcp_server(self._context.events, server.name, "Claude Code does not say why")
            case "api_retry":
                problem = f"answered {event.error_status}" if event.error_status else "could not be reached"
                seconds = (event.retry_delay_ms or 0) / 1000
                note = f"the model's server {problem}: retry {event.attempt} of {event.max_retries} in {seconds:.0f} s"
                self._context.events.log(f"[{note}]")
                if self.silence_timer:
                    self.silence_timer.note_problem(note)
                self._note_pause(event.error_status, seconds)
            case "model_fallback":
                original, fallback = map(self._field, (event.original_model, event.fallback_model))
                self._context.events.log(f"[falling back from {original} to {fallback}]")

    def _field(self, text: str | None) -> str:
        return self._context.events.field(text or "")

    def _note_pause(self, status: int | None, seconds: float) -> None:
        """Store the pause before a retry if the server has requested it, and `long_pause` if it is too long."""
        code = CODE_OF_STATUS.get(status or 0)
        if code not in PAUSING or seconds <= _OWN_PAUSE_SECONDS:
            return
        self._pause_seconds = seconds
        falls_back = code is FailedCode.OVERLOADED and self._context.task.config.fallback_model
        if seconds > MAX_PAUSE_SECONDS and not falls_back:
            sentence = f"the model's server answered {status} and asks for a pause of {seconds:.0f} s"
            self.long_pause = GiveUp(code, add_advice(code, sentence, self._context.task), seconds)

    def _handle_message(self, event: AssistantEvent) -> None:
        self.failure = event.error or ""
        for block in event.message.content if isinstance(event.message.content, list) else ():
            if block.type == "text" and not event.is_api_error_message:  # the failure is reported at the end
                self._context.events.log(block.text, "agent")
            elif block.type == "tool_use":
                if block.name not in _SUBAGENT_TOOLS:
                    self._open_calls.add(block.id)
                    if event.parent_tool_use_id:
                        self._calls_of_subagents.setdefault(event.parent_tool_use_id, []).append(block.id)
                report_tool_call(self._context.events, block.id, block.name, block.input, _describe(block.input))

    def _close_call(self, call_id: str) -> None:
        """Remove an open call that has returned. If it was a subagent, remove its calls too."""
        for closed in (call_id, *self._calls_of_subagents.pop(call_id, ())):
            self._open_calls.discard(closed)

    def _handle_tool_result(self, block: Block) -> None:
        if block.type == "tool_result":
            self._close_call(block.tool_use_id)
            report_tool_result(
                self._context.events, block.tool_use_id, text_of(block.content), is_error=bool(block.is_error)
            )


_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "turns")


def _max_of(one: Usage, other: Usage) -> Usage:
    """Return the larger of each count."""
    return Usage(**{name: max(getattr(one, name), getattr(other, name)) for name in _COUNTS})


def _sum_of(total: Usage, added: Usage, *, minus: Usage) -> Usage:
    counts = {name: getattr(total, name) + getattr(added, name) - getattr(minus, name) for name in _COUNTS}
    return Usage(**counts)


def _describe(tool_input: Any) -> str:
    """Return the part of a tool's input that is shown in the log."""
    if not isinstance(tool_input, dict):
        return str(tool_input)
    if description := next((tool_input[name] for name in _DESCRIPTIVE_INPUTS if name in tool_input), None):
        return str(description)
    return json.dumps(tool_input, ensure_ascii=False) if tool_input else ""
