"""What Claude Code prints, one JSON object a line, and how it is retold as an attempt's events.

Only the fields that are used are declared. The kinds of events grow from version to version; unknown ones are skipped.
"""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import add_advice
from labrats.executor.providers.agent_cli import MAX_PAUSE_SECONDS
from labrats.executor.providers.claude_sessions import ModelUsage, SessionFiles, TokenCounts, usage_of_models
from labrats.executor.providers.cli_events import (
    decode_line,
    report_failed_mcp_server,
    report_tool_call,
    report_tool_result,
    text_of,
)
from labrats.executor.providers.silence_limit import SilenceTimer
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode, Usage

_TELLING_INPUTS: Final = ("command", "file_path", "path", "pattern", "url", "query", "description")
"""The field of a tool's input that says best, in a line, what the call is about: the first of these that it has."""


_OWN_PAUSE_SECONDS: Final = 3.0
"""No pause before the third and last retry is longer, unless the server asks for one."""

_SUBAGENT_TOOLS: Final = ("Task", "Agent")
"""While one of these is at work, the model is still waited for."""

CODE_OF_STATUS: Final[Mapping[int, FailedCode]] = {
    401: FailedCode.AUTH,
    403: FailedCode.AUTH,
    429: FailedCode.RATE_LIMITED,
    503: FailedCode.OVERLOADED,
    529: FailedCode.OVERLOADED,
}


class Block(msgspec.Struct, frozen=True):
    """A piece of a message: a text, a tool call, or a tool's answer."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = None


class Message(msgspec.Struct, frozen=True):
    """A message, or one block of it: each block comes in an event of its own, under the message's id."""

    content: str | list[Block]
    id: str = ""
    model: str = ""
    usage: TokenCounts | None = None


class McpServerState(msgspec.Struct, frozen=True):
    """Whether a server of tools could be reached."""

    name: str
    status: str


class SystemEvent(msgspec.Struct, frozen=True, tag_field="type", tag="system"):
    """News of the program itself."""

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
    mcp_servers: list[McpServerState] = []


class AssistantEvent(msgspec.Struct, frozen=True, tag_field="type", tag="assistant"):
    """The model speaks; or the program in its place, of an error."""

    message: Message
    parent_tool_use_id: str | None = None
    is_api_error_message: bool = False
    error: str | None = None


class UserEvent(msgspec.Struct, frozen=True, tag_field="type", tag="user"):
    """Tools answer."""

    message: Message
    parent_tool_use_id: str | None = None


class ClaudeResult(msgspec.Struct, frozen=True, tag_field="type", tag="result"):
    """The end of a run. A failure of the API comes as `success` with `is_error`."""

    subtype: str
    is_error: bool = False
    api_error_status: int | None = None
    terminal_reason: str | None = None
    result: str | None = None
    errors: list[Any] = []
    num_turns: int = 0
    total_cost_usd: float = 0.0
    usage: TokenCounts = TokenCounts()
    model_usage: dict[str, ModelUsage] = msgspec.field(name="modelUsage", default_factory=dict)
    model_usage_since_last_result: dict[str, ModelUsage] | None = None

    def usage_after(self, earlier: Usage, *, goes_on: bool = False) -> Usage:
        """Return the run's consumption so far, by all models that took part. Turns are counted elsewhere.

        earlier: what it had by its last result. Most figures of a result are of the whole session, runs before this one
        included; older versions know no others. Where the run goes on with a session, they tell only the tokens of the
        model that was asked, and no cost.
        """
        if self.model_usage_since_last_result is not None:
            return earlier + usage_of_models(self.model_usage_since_last_result)
        if goes_on:
            return earlier + self.usage.as_usage()
        if not self.model_usage:
            return msgspec.structs.replace(self.usage.as_usage(), cost_usd=self.total_cost_usd)
        usage = usage_of_models(self.model_usage)
        return usage if usage.cost_usd is None else msgspec.structs.replace(usage, cost_usd=self.total_cost_usd)


class RateLimitInfo(msgspec.Struct, frozen=True, rename="camel"):
    """How far a subscription is used up. resets_at: in seconds since 1970."""

    status: str = ""
    resets_at: float | None = None


class RateLimitEvent(msgspec.Struct, frozen=True, tag_field="type", tag="rate_limit_event"):
    """News of a subscription's limits; a key has none of these."""

    rate_limit_info: RateLimitInfo = RateLimitInfo()


class RawEvent(msgspec.Struct, frozen=True):
    """An event of the Messages API. usage: so far, of the message that is coming in."""

    type: str
    message: Message | None = None
    usage: TokenCounts | None = None


class StreamEvent(msgspec.Struct, frozen=True, tag_field="type", tag="stream_event"):
    """A message is coming in. parent_tool_use_id: of the call that started the subagent whose message it is."""

    event: RawEvent
    parent_tool_use_id: str | None = None


ClaudeEvent = SystemEvent | AssistantEvent | UserEvent | RateLimitEvent | StreamEvent | ClaudeResult

_DECODER: Final[msgspec.json.Decoder[ClaudeEvent]] = msgspec.json.Decoder(ClaudeEvent)


def read_event(line: bytes) -> ClaudeEvent | None:
    """The event in `line`, or None where it is none, or one of a kind that is not retold."""
    return decode_line(_DECODER, line)


class ClaudeEventTranslator:
    """Retells events as they come, counts what they consume, and keeps the last result.

    has_begun: whether Claude Code has its session, be it a new one or that which it was to go on with.
    too_long:  why the run is not worth its slot: the provider asks for a long pause.
    silence:   how long nothing has been heard, where that is limited.
    failure:   the kind of the API's last failure, by Claude Code's word for it.
    """

    def __init__(self, context: RunContext, files: SessionFiles) -> None:
        self.has_begun = False
        self.too_long: GiveUp | None = None
        self.failure = ""
        self.result: ClaudeResult | None = None
        self.silence: SilenceTimer | None = None
        self._limited_until: float | None = None
        self._asked_seconds: float | None = None
        self._context = context
        self._files = files
        self._reported = Usage()
        self._messages: dict[str, Usage] = {}
        self._counted = Usage()
        self._incoming: dict[str | None, str] = {}
        self._open_calls: dict[str, str | None] = {}

    def hear(self, line: bytes) -> None:
        """Retell the event in `line`, if it is one. Raises GiveUp when what has been consumed passes a limit, or the
        provider asks for a long pause.
        """
        if event := read_event(line):
            self.tell(event)
            if self.silence and isinstance(event, StreamEvent | AssistantEvent | UserEvent):
                self.silence.heard(waits_for_model=not self._open_calls)
        if self.too_long:
            raise self.too_long

    def hear_ending(self, line: bytes) -> None:
        """Take in what the event in `line` says of usage, after Claude Code was asked to end. No limit is checked."""
        if event := read_event(line):
            self._note_usage(event)

    def report_final_usage(self) -> None:
        """Count what is left to count, after the end. No limit is checked."""
        self._note_subagents()
        if (usage := self.usage) != self._context.events.provider_usage:
            self._context.set_final_usage(usage)

    @property
    def usage(self) -> Usage:
        """The total consumption of the run. Claude Code reports tokens and cost at its end; turns are counted here."""
        reported = self._reported if self.result else self._files.usage()
        if reported is None:
            return self._counted
        return msgspec.structs.replace(
            _most(reported, self._counted), cost_usd=reported.cost_usd, turns=self._counted.turns
        )

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the provider refuses to work, where it has said so."""
        return self._asked_seconds if self._limited_until is None else max(0.0, self._limited_until - time.time())

    def tell(self, event: ClaudeEvent) -> None:
        """Raises GiveUp when what has been consumed passes a limit."""
        match event:
            case SystemEvent():
                self._tell_news(event)
            case AssistantEvent():
                self._tell_message(event)
            case UserEvent(message=Message(content=list() as blocks)):
                for block in blocks:
                    self._tell_answer(block)
            case RateLimitEvent():
                if event.rate_limit_info.status == "rejected":
                    self._limited_until = event.rate_limit_info.resets_at
        changed = self._note_usage(event)
        begins = isinstance(event, StreamEvent) and event.event.type == "message_start"  # soon there is more to tell
        if changed and not begins:
            self._context.set_usage(self._counted)

    def _note_usage(self, event: ClaudeEvent) -> bool:
        """Take in what `event` says of usage. Return whether the counted usage has changed."""
        before = self._counted
        match event:
            case StreamEvent():
                self._note_incoming(event.event, event.parent_tool_use_id)
            case AssistantEvent(message=Message(usage=TokenCounts() as counts) as message):
                if message.model != "<synthetic>":
                    self._asked_seconds = None
                    self._note_message(message.id, counts.as_usage(turns=1))
            case ClaudeResult():
                self._reported = event.usage_after(self._reported, goes_on=self._context.session_id is not None)
                self.result = event  # there may be another one
        if getattr(event, "parent_tool_use_id", None):
            self._note_subagents()
        return self._counted != before

    def _note_incoming(self, event: RawEvent, parent: str | None) -> None:
        """The beginning of a message says what was read, its end what was written."""
        if event.type == "message_start" and event.message and event.message.usage:
            self._incoming[parent] = event.message.id
            self._note_message(event.message.id, event.message.usage.as_usage())
        elif event.type == "message_delta" and event.usage and parent in self._incoming:
            self._note_message(self._incoming[parent], event.usage.as_usage(turns=1))

    def _note_subagents(self) -> None:
        for message_id, usage in self._files.new_subagent_messages():
            self._note_message(message_id, usage)

    def _note_message(self, message_id: str, usage: Usage) -> None:
        """A message is spoken of several times; what is said of it only grows."""
        known = self._messages.get(message_id, Usage())
        self._messages[message_id] = now = _most(known, usage)
        self._counted = _sum_of(self._counted, now, minus=known)

    def _tell_news(self, event: SystemEvent) -> None:
        match event.subtype:
            case "init":
                self.has_begun = True
                if event.session_id:
                    self._files.session_id = event.session_id
                    self._context.report_session(event.session_id)
                self._context.events.log(f"Claude Code {event.claude_code_version}, {event.model}")
                for server in event.mcp_servers:
                    if server.status == "failed":
                        report_failed_mcp_server(self._context.events, server.name, "Claude Code does not say why")
            case "api_retry":
                answer = f"answered {event.error_status}" if event.error_status else "could not be reached"
                seconds = (event.retry_delay_ms or 0) / 1000
                note = f"the model's server {answer}: retry {event.attempt} of {event.max_retries} in {seconds:.0f} s"
                self._context.events.log(f"[{note}]")
                if self.silence:
                    self.silence.note(note)
                self._note_pause(event.error_status, seconds)
            case "model_fallback":
                self._context.events.log(f"[falling back from {event.original_model} to {event.fallback_model}]")

    def _note_pause(self, status: int | None, seconds: float) -> None:
        """Claude Code waits before it tries again: for as long as the server asks, where it does."""
        code = CODE_OF_STATUS.get(status or 0)
        if code not in PAUSING or seconds <= _OWN_PAUSE_SECONDS:
            return
        self._asked_seconds = seconds
        falls_back = code is FailedCode.OVERLOADED and self._context.task.config.fallback_model
        if seconds > MAX_PAUSE_SECONDS and not falls_back:
            sentence = f"the model's server answered {status} and asks for a pause of {seconds:.0f} s"
            self.too_long = GiveUp(code, add_advice(code, sentence, self._context.task), seconds)

    def _tell_message(self, event: AssistantEvent) -> None:
        self.failure = event.error or ""
        for block in event.message.content if isinstance(event.message.content, list) else ():
            if block.type == "text" and not event.is_api_error_message:  # the failure itself is told at the end
                self._context.events.log(block.text)
            elif block.type == "tool_use":
                if block.name not in _SUBAGENT_TOOLS:
                    self._open_calls[block.id] = event.parent_tool_use_id
                report_tool_call(self._context.events, block.id, block.name, block.input, _telling_part(block.input))

    def _close_call(self, call_id: str) -> None:
        """A tool has answered. With a subagent, its own calls are over too, whether they were answered or not."""
        self._open_calls = {
            other: parent for other, parent in self._open_calls.items() if call_id not in (other, parent)
        }

    def _tell_answer(self, block: Block) -> None:
        if block.type == "tool_result":
            self._close_call(block.tool_use_id)
            report_tool_result(
                self._context.events, block.tool_use_id, text_of(block.content), is_error=bool(block.is_error)
            )


_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "turns")


def _most(one: Usage, other: Usage) -> Usage:
    """The larger of each count."""
    return Usage(**{name: max(getattr(one, name), getattr(other, name)) for name in _COUNTS})


def _sum_of(total: Usage, added: Usage, *, minus: Usage) -> Usage:
    counts = {name: getattr(total, name) + getattr(added, name) - getattr(minus, name) for name in _COUNTS}
    return Usage(**counts)


def _telling_part(tool_input: Any) -> str:
    """What of a tool's input is shown to people."""
    if not isinstance(tool_input, dict):
        return str(tool_input)
    if telling := next((tool_input[name] for name in _TELLING_INPUTS if name in tool_input), None):
        return str(telling)
    return json.dumps(tool_input, ensure_ascii=False) if tool_input else ""
