"""Read the usage of a response while it passes: from server-sent events or from a JSON body, in three APIs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from labrats.executor.key_proxy.model_server import Api
from labrats.executor.usage_totals import at_least
from labrats.model.job import Usage
from labrats.model.protocol import OVERLOADS

MOST_BYTES: Final = 16 * 1024 * 1024
"""Largest event or body in which usage is looked for. Larger ones pass unread."""


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    reasoning_tokens: int | None = 0


class _CacheCreation(msgspec.Struct, frozen=True):
    ephemeral_1h_input_tokens: int | None = 0


class _ServerTools(msgspec.Struct, frozen=True):
    web_search_requests: int | None = 0


class _Counts(msgspec.Struct, frozen=True):
    """Tokens, by the names of the Messages API, the Responses API, and chat completions.

    iterations: of the Messages API, the parts of the answer. Those of the type `message` are also in the other fields.
    """

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0
    cache_creation: _CacheCreation | None = None
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    iterations: "list[_Iteration] | None" = None
    server_tool_use: _ServerTools | None = None

    @property
    def web_searches(self) -> int:
        """The searches of the Messages API."""
        return (self.server_tool_use or _ServerTools()).web_search_requests or 0

    @property
    def hour_cache_tokens(self) -> int:
        return (self.cache_creation or _CacheCreation()).ephemeral_1h_input_tokens or 0

    def as_usage(self, api: Api) -> Usage:
        if api == "anthropic":
            written = self.cache_creation_input_tokens or 0
            return Usage(
                input_tokens=(self.input_tokens or 0) + written,
                output_tokens=self.output_tokens or 0,
                cache_read_tokens=self.cache_read_input_tokens or 0,
                cache_write_tokens=written,
            )
        details_in = self.input_tokens_details or self.prompt_tokens_details or _Details()
        details_out = self.output_tokens_details or self.completion_tokens_details or _Details()
        cached = details_in.cached_tokens or 0
        return Usage(
            input_tokens=(self.input_tokens or self.prompt_tokens or 0) - cached,
            output_tokens=self.output_tokens or self.completion_tokens or 0,
            cache_read_tokens=cached,
            cache_write_tokens=details_in.cache_write_tokens or 0,
            reasoning_tokens=details_out.reasoning_tokens or 0,
        )


_ANSWER: Final = "message"
"""Type of the iterations that are also in the other counts."""


class _Iteration(_Counts, frozen=True):
    """A part of the answer, such as that of a second model, or a summary of the conversation.

    model: None for that of the request.
    """

    type: str = _ANSWER
    model: str | None = None


class _Message(msgspec.Struct, frozen=True):
    usage: _Counts | None = None


class _Action(msgspec.Struct, frozen=True):
    type: str = ""


class _Item(msgspec.Struct, frozen=True):
    """A part of an answer of the Responses API. A call that opens a page is no search."""

    type: str = ""
    action: _Action | None = None

    @property
    def is_search(self) -> bool:
        return self.type == "web_search_call" and (self.action is None or self.action.type == "search")


class _ItemEvent(msgspec.Struct, frozen=True):
    """The data of an event, or a body, of the Responses API."""

    type: str = ""
    item: _Item | None = None
    output: list[_Item] = []


class _Body(msgspec.Struct, frozen=True):
    """A body, or the data of an event: its usage, or that of the message or response in it."""

    usage: _Counts | None = None
    message: _Message | None = None
    response: _Message | None = None


class _Error(msgspec.Struct, frozen=True):
    """An error in the data of an event, by the names of the three APIs."""

    type: Any = None
    code: Any = None


class _ErrorEvent(_Error, frozen=True):
    """The data of an event with which a stream ends because the model has failed. The data may be an error itself."""

    error: Any = None
    response: "_FailedResponse | None" = None


class _FailedResponse(msgspec.Struct, frozen=True):
    error: _Error | None = None


_DECODER: Final = msgspec.json.Decoder(_Body)
_ITEM_DECODER: Final = msgspec.json.Decoder(_ItemEvent)
_ERROR_DECODER: Final = msgspec.json.Decoder(_ErrorEvent)
_BYTES_OF_TOKEN: Final = 4
"""Bytes of JSON or text for each token in an estimate. It is rather too many, so that estimates are rather low."""

_DELTA: Final = re.compile(rb'[._]delta"|"delta":')
_DELTA_AT: Final = 400
"""Bytes of an event in which it says that it is a part of the answer. Others may contain the request, or repeat it."""

_OVERLOADS: Final = frozenset(
    {"overloaded_error", "engine_overloaded_error", "server_is_overloaded", "server_overloaded", "overloaded"}
    | {"rate_limit_error", "rate_limit_exceeded", "rate_limit_reached_error", "throttling_error", "too_many_requests"}
    | {"slow_down", *map(str, OVERLOADS)}
)
"""Types and codes of errors that say that the model is overloaded. Others refuse the request, such as by a policy."""

_ENVELOPE_BYTES: Final[Mapping[Api, int]] = {"anthropic": 90, "openai": 250}
"""Bytes of such an event besides the part."""


def _is_overload(line: bytes) -> bool:
    """Return whether a line of a stream says that the model is overloaded."""
    if b'"error"' not in line and b'"response.failed"' not in line:
        return False
    try:
        event = _ERROR_DECODER.decode(line.removeprefix(b"data:"))
        inner = msgspec.convert(event.error, _Error) if isinstance(event.error, dict) else _Error(type=event.error)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return False
    errors = [event, inner, (event.response and event.response.error) or _Error()]
    return any(str(name) in _OVERLOADS for error in errors for name in (error.type, error.code))


def _searches_in(line: bytes) -> int:
    """Return the number of searches in an event, or a body, of the Responses API. Its last event repeats them."""
    if b"web_search_call" not in line:
        return 0
    try:
        event = _ITEM_DECODER.decode(line.removeprefix(b"data:"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    done = [event.item] if event.type == "response.output_item.done" and event.item else []
    return sum(each.is_search for each in (*done, *event.output))


class Share(NamedTuple):
    """Consumption of a model in addition to `UsageReader.usage`. model: None for that of the request."""

    model: str | None
    usage: Usage
    hour_cache_tokens: int


class UsageReader:
    """Reads the usage of one response.

    usage:      as far as the response has reported it, without `others`.
    hour_cache_tokens: share of the tokens written to a cache that stay for an hour, in the Messages API.
    web_searches: the searches that the server has made.
    others:     what the server has done besides: second models, and summaries of the conversation.
    is_final:   whether that is the usage of the whole response.
    is_unreadable: whether a part that may report usage is too large or is malformed.
    is_overload: whether an event says that the model is overloaded.
    """

    def __init__(self, api: Api, *, is_stream: bool) -> None:
        self.usage = Usage()
        self.hour_cache_tokens = 0
        self.web_searches = 0
        self.others: Sequence[Share] = ()
        self.is_final = False
        self.is_unreadable = False
        self.is_overload = False
        self._api: Api = api
        self._is_stream = is_stream
        self._unread = bytearray()
        self._is_too_long = False
        self._seen_tokens = 0

    @property
    def has_shown_output(self) -> bool:
        """True if the response is a stream, and has sent a part of what the model writes."""
        return self._is_stream and self._seen_tokens > 0

    def with_estimate(self, input_tokens: int) -> Usage:
        """Return the usage, in which an estimate stands for what the response has not reported.

        A response that is cut, or whose server reports no usage, has cost something all the same.

        input_tokens: an estimate for the request.
        """
        is_known = self.usage.input_tokens or self.usage.cache_read_tokens
        return replace(
            self.usage,
            input_tokens=self.usage.input_tokens if is_known else input_tokens,
            output_tokens=max(self.usage.output_tokens, self._seen_tokens),
        )

    def feed(self, data: bytes) -> None:
        """Read the next part of the response."""
        if not self._is_stream:
            self._seen_tokens += len(data) // _BYTES_OF_TOKEN
            self._keep(data)
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._keep(line)
            self._end_line()
        self._keep(rest)

    def finish(self) -> None:
        """Read what is left at the end of the response."""
        self._end_line()

    def _keep(self, data: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._unread) + len(data) > MOST_BYTES
        if self._is_too_long:
            self.is_unreadable = True
            self._unread.clear()
        else:
            self._unread += data

    def _end_line(self) -> None:
        line = bytes(self._unread)
        self._unread.clear()
        self._is_too_long = False
        if self._is_stream and _DELTA.search(line, 0, _DELTA_AT):
            self._seen_tokens += max(1, (len(line) - _ENVELOPE_BYTES[self._api]) // _BYTES_OF_TOKEN)
        self.is_overload = self.is_overload or (self._is_stream and _is_overload(line))
        self.web_searches += _searches_in(line)
        if b'"usage"' not in line:
            return
        try:
            body = _DECODER.decode(line.removeprefix(b"data:") if self._is_stream else line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.is_unreadable = True
            return
        for part in (body, body.message, body.response):
            if part and part.usage:
                self.usage = at_least(self.usage, part.usage.as_usage(self._api))
                self.hour_cache_tokens = max(self.hour_cache_tokens, part.usage.hour_cache_tokens)
                self.web_searches = max(self.web_searches, part.usage.web_searches)
                self._read_iterations(part.usage.iterations or [])
        # The first event of the Messages API contains the usage of the request alone, in a message.
        self.is_final = self.is_final or bool(self.usage.tokens and (self._api == "openai" or body.usage))

    def _read_iterations(self, iterations: Sequence[_Iteration]) -> None:
        """Keep what the iterations add to the other counts. Each event repeats the iterations before it."""
        others = [each for each in iterations if each.type != _ANSWER]
        if len(others) >= len(self.others):
            self.others = [Share(each.model, each.as_usage(self._api), each.hour_cache_tokens) for each in others]
