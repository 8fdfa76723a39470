"""Parse a chat completion while it is streamed: server-sent events, text, reasoning and tool calls."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from labrats.executor.model_errors import one_line
from labrats.executor.providers.chat_errors import ErrorResponse, ServerUnreachable, parse_error
from labrats.executor.providers.endless_output import EndlessOutputDetector
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage

COMPLETION_BYTES: Final = 64 * 1024 * 1024
"""Largest completion that is read, with the overhead of its events."""

_LOOP_ADVICE: Final = "set config.sampling.frequencyPenalty or a higher temperature, or choose another model"
_LOOP_CHARACTERS: Final = 100
_REASONING: Final = re.compile(
    r"\A\s*<think>(?:(?!<think>).)*?</think>"
    r"|\A(?:(?!<think>).)*?(?:^[ \t]*</think>|</think>(?=[ \t]*\n[ \t]*\n))",  # not where an answer mentions it
    re.DOTALL | re.MULTILINE,
)
_UNFINISHED_REASONING: Final = re.compile(r"\A\s*<think>.*\Z", re.DOTALL)

Message = Mapping[str, Any]
"""One of `messages` in a request."""


class RawToolCall(msgspec.Struct, frozen=True):
    """A tool call as the model wrote it. arguments: a text that should be a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Completion:
    """The answer of a model.

    text:          the answer without reasoning.
    usage:         zero tokens if the server reports none.
    is_truncated:  True if the answer reached a length limit.
    is_filtered:   True if the server's content filter has ended the answer.
    has_reasoning: True if the model has also written reasoning.
    """

    text: str = ""
    calls: Sequence[RawToolCall] = ()
    usage: Usage = Usage()
    is_truncated: bool = False
    is_filtered: bool = False
    has_reasoning: bool = False


class CompletionListener(Protocol):
    """Receives a completion while it arrives."""

    def on_data(self) -> None:
        """Handle the arrival of data of any kind."""

    def on_text(self, piece: str) -> None: ...

    def on_reasoning(self, piece: str) -> None: ...

    def on_retry(self, problem: str, seconds: float) -> None:
        """Discard the completion so far: the request will be repeated after `seconds`."""


class _CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int | None = 0


class _ReasoningTokens(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = 0


class _TokenCounts(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _CachedTokens | None = None
    completion_tokens_details: _ReasoningTokens | None = None

    def as_usage(self) -> Usage:
        cached = (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0
        return Usage(
            input_tokens=max((self.prompt_tokens or 0) - cached, 0),
            output_tokens=self.completion_tokens or 0,
            cache_read_tokens=cached,
            reasoning_tokens=(self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0,
        )


class _FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallDelta(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(msgspec.Struct, frozen=True):
    """A piece of a completion. vLLM and Ollama send reasoning as `reasoning`, llama.cpp as `reasoning_content`."""

    content: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: list[_CallDelta] | None = None

    @property
    def reasoning_text(self) -> str:
        return next((each for each in (self.reasoning_content, self.reasoning) if isinstance(each, str)), "")


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: _TokenCounts | None = None
    error: Any = None


_CHUNK_DECODER: Final = msgspec.json.Decoder(_Chunk)


@dataclass
class _CallBuilder:
    """A tool call that is built from deltas."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: _CallDelta) -> None:
        function = delta.function or _FunctionDelta()
        self.id = self.id or delta.id or ""
        self.name = self.name or function.name or ""
        if isinstance(arguments := function.arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        self.arguments.append(arguments or "")

    def is_continued_by(self, delta: _CallDelta) -> bool:
        """Return whether `delta` continues this call. Some servers send the same index for all calls, or none."""
        if delta.index is not None and self.index is not None and delta.index != self.index:
            return False
        starts_call = bool(delta.function and delta.function.name)
        has_other_id = bool(delta.id and self.id and delta.id != self.id)
        return not (starts_call and self.name and (has_other_id or self._is_complete))

    @property
    def _is_complete(self) -> bool:
        try:
            msgspec.json.decode("".join(self.arguments))
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return False
        return True


@dataclass
class CompletionBuilder:
    """A completion that is built from the events of a stream. is_done: True once the server has ended the stream."""

    listener: CompletionListener
    text: list[str] = field(default_factory=list)
    calls: list[_CallBuilder] = field(default_factory=list)
    counts: _TokenCounts = _TokenCounts()
    finish_reason: str | None = None
    is_done: bool = False
    has_reasoning: bool = False
    text_loops: EndlessOutputDetector = field(default_factory=EndlessOutputDetector)
    reasoning_loops: EndlessOutputDetector = field(default_factory=EndlessOutputDetector)

    def add(self, data: bytes) -> None:
        """Add the data of an event. Raises ErrorResponse, and GiveUp if the model repeats itself without end."""
        try:
            chunk = _CHUNK_DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"the model's server sent an event that is not a chat completion: {error}"
            raise GiveUp(FailedCode.AGENT_ERROR, message) from error
        if chunk.error is not None:
            parsed = parse_error(chunk.error)
            raise ErrorResponse(parsed.status, parsed.reason, in_completion=True)
        self.counts = chunk.usage or self.counts
        for choice in (chunk.choices or ())[:1]:
            self.finish_reason = choice.finish_reason or self.finish_reason
            if choice.delta:
                self._add_delta(choice.delta)

    def _add_delta(self, delta: _Delta) -> None:
        for call in delta.tool_calls or ():
            self._call_for(call).add(call)
        if piece := delta.content:
            self.text.append(piece)
            self.listener.on_text(piece)
            self.text_loops.add(piece)
        if piece := delta.reasoning_text:
            self.has_reasoning = True
            self.listener.on_reasoning(piece)
            self.reasoning_loops.add(piece)
        if loop := self.text_loops.loop or self.reasoning_loops.loop:
            start = one_line(loop)[:_LOOP_CHARACTERS]
            raise GiveUp(FailedCode.AGENT_ERROR, f"the model repeats itself without end: {start!r} ({_LOOP_ADVICE})")

    def _call_for(self, delta: _CallDelta) -> _CallBuilder:
        """Return the latest call if `delta` continues it, or else a new one."""
        for call in reversed(self.calls):
            if delta.index is None or call.index in (None, delta.index):
                if call.is_continued_by(delta):
                    return call
                break
        self.calls.append(_CallBuilder(delta.index))
        return self.calls[-1]

    def build(self) -> Completion:
        """Return the completion. Raises ServerUnreachable if its end is missing."""
        if self.finish_reason is None and not (self.is_done and (self.text or self.calls)):
            raise ServerUnreachable("the model's server closed the connection in the middle of an answer")
        raw_text = "".join(self.text)
        text = remove_reasoning(raw_text)
        return Completion(
            text=text,
            calls=[
                RawToolCall(call.id or f"call_{number}", call.name, "".join(call.arguments))
                for number, call in enumerate(self.calls)
            ],
            usage=msgspec.structs.replace(self.counts.as_usage(), turns=1),
            is_truncated=self.finish_reason == "length",
            is_filtered=self.finish_reason == "content_filter",
            has_reasoning=self.has_reasoning or len(text) < len(raw_text.strip()),
        )


def remove_reasoning(text: str) -> str:
    """Remove the reasoning that some servers leave at the start: `<think>…</think>`, also without the first tag."""
    return _UNFINISHED_REASONING.sub("", _REASONING.sub("", text)).strip()


async def read_events(chunks: AsyncIterator[bytes], on_data: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield the data of each server-sent event. Raises GiveUp if all chunks together are too large."""
    size = 0
    line: list[bytes] = []
    async for chunk in chunks:
        on_data()
        size += len(chunk)
        if size > COMPLETION_BYTES:
            limit = f"{COMPLETION_BYTES // 1024**2} MiB"
            raise GiveUp(FailedCode.AGENT_ERROR, f"the model's server sent an answer of more than {limit}")
        first, *rest = chunk.split(b"\n")
        line.append(first)
        for start in rest:
            if data := _data_in(b"".join(line)):
                yield data
            line = [start]
    if data := _data_in(b"".join(line)):
        yield data


def _data_in(line: bytes) -> bytes:
    """Return the data of a line, or nothing for other lines, such as comments that keep the connection alive."""
    name, _, value = line.partition(b":")
    return value.strip() if name == b"data" else b""
