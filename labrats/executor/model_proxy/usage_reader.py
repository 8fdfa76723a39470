"""Read the usage of a response while it passes: from server-sent events or from a JSON body, in three APIs."""

from typing import Final

import msgspec

from labrats.executor.event_writer import at_least
from labrats.executor.model_proxy.model_server import Api
from labrats.model.job import Usage

MOST_BYTES: Final = 16 * 1024 * 1024
"""Largest event or body in which usage is looked for. Larger ones pass unread."""


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    reasoning_tokens: int | None = 0


class _Counts(msgspec.Struct, frozen=True):
    """Tokens, by the names of the Messages API, the Responses API, and chat completions."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

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


class _Message(msgspec.Struct, frozen=True):
    usage: _Counts | None = None


class _Body(msgspec.Struct, frozen=True):
    """A body, or the data of an event: its usage, or that of the message or response in it."""

    usage: _Counts | None = None
    message: _Message | None = None
    response: _Message | None = None


_DECODER: Final = msgspec.json.Decoder(_Body)


class UsageReader:
    """Reads the usage of one response. usage: as far as the response has reported it."""

    def __init__(self, api: Api, *, is_stream: bool) -> None:
        self.usage = Usage()
        self._api: Api = api
        self._is_stream = is_stream
        self._unread = bytearray()
        self._is_too_long = False

    def feed(self, data: bytes) -> None:
        """Read the next part of the response."""
        if not self._is_stream:
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
            self._unread.clear()
        else:
            self._unread += data

    def _end_line(self) -> None:
        line = bytes(self._unread)
        self._unread.clear()
        self._is_too_long = False
        if b'"usage"' not in line:
            return
        try:
            body = _DECODER.decode(line.removeprefix(b"data:") if self._is_stream else line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        for part in (body, body.message, body.response):
            if part and part.usage:
                self.usage = at_least(self.usage, part.usage.as_usage(self._api))
