"""Client of an OpenAI-compatible server: its models, and streamed chat completions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import msgspec

from labrats.executor.failure_advice import invalid_endpoint_message
from labrats.executor.model_errors import one_line
from labrats.executor.providers.chat_errors import (
    CONNECT_SECONDS,
    ErrorResponse,
    ServerUnreachable,
    parse_error,
    raise_for_status,
    read_at_most,
    translate_errors,
)
from labrats.executor.providers.chat_stream import (
    COMPLETION_BYTES,
    Completion,
    CompletionBuilder,
    CompletionListener,
    Message,
    read_events,
)
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.sandbox.network_namespace import LOOPBACK

DEFAULT_WINDOW_TOKENS: Final = 8192
"""Assumed context window of a model whose server reports none."""

TOKENS_PER_CHARACTER: Final = 0.33
"""Initial estimate, until the model reports the usage of its first completion."""

_LIST_SECONDS: Final = 30.0
"""Timeout of the list of models. Completions are limited by the run's timeout only, since a long prompt takes minutes.
"""

_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 10.0
"""Longest pause before another try. If the server asks for more, the attempt ends and releases its slot."""

_NO_STREAM: Final[Mapping[str, str]] = {"application/json": "JSON", "text/html": "an HTML page"}
_BODY_BYTES: Final = 64 * 1024
_SHOWN_CHARACTERS: Final = 200

_RETRYABLE: Final = frozenset({429, 502, 503, 504, 529})


@dataclass(frozen=True)
class ChatClient:
    """A client for one model of a server.

    model:           the server's name of the model.
    reported_window: the size of its context window in tokens, if the server reports it.
    """

    http: httpx2.AsyncClient
    model: str
    reported_window: int | None = None

    @property
    def window_tokens(self) -> int:
        """The size of the context window in tokens, as reported or assumed."""
        return self.reported_window or DEFAULT_WINDOW_TOKENS

    async def complete(self, messages: Sequence[Message], listener: CompletionListener, **fields: Any) -> Completion:
        """Request a completion, and retry after errors that may pass.

        fields: further fields of the request. Raises ErrorResponse, ServerUnreachable or GiveUp.
        """
        body = {"model": self.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        tries = 0
        while True:
            tries += 1
            pause = _PAUSE_SECONDS * tries
            try:
                return await self._request(body | fields, listener)
            except ErrorResponse as error:
                pause = pause if error.retry_after_seconds is None else error.retry_after_seconds
                may_pass = error.status in _RETRYABLE and error.code is not FailedCode.QUOTA
                if not may_pass or tries == _TRIES or pause > _MAX_PAUSE_SECONDS:
                    raise
                problem = str(error)
            except ServerUnreachable as error:
                if tries == _TRIES:
                    raise
                problem = str(error)
            listener.on_retry(problem, pause)
            await asyncio.sleep(pause)

    async def _request(self, body: Mapping[str, Any], listener: CompletionListener) -> Completion:
        completion = CompletionBuilder(listener)
        with translate_errors(self.http.base_url):
            async with self.http.stream("POST", "chat/completions", content=msgspec.json.encode(body)) as response:
                await raise_for_status(response)
                await _require_stream(response)
                async for data in read_events(response.aiter_bytes(), listener.on_data):
                    if data == b"[DONE]":
                        completion.is_done = True
                        break
                    completion.add(data)
        return completion.build()


async def _require_stream(response: httpx2.Response) -> None:
    """Raise GiveUp if the server answers with JSON or a page instead of a stream, and ErrorResponse for an error."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if (name := _NO_STREAM.get(media_type)) is None:
        return
    content = await read_at_most(response, _BODY_BYTES)
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = msgspec.json.decode(content)
        if isinstance(body, dict) and body.get("error"):
            error = parse_error(body["error"])
            raise ErrorResponse(error.status, error.reason, in_completion=True)
    start = one_line(content.decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]
    advice = "check the endpoint, which must be the base URL of an OpenAI-compatible API with streaming"
    message = f"the model's server answered with {name} instead of a stream ({advice}): {start}"
    raise GiveUp(FailedCode.AGENT_ERROR, message)


@contextlib.asynccontextmanager
async def open_chat_client(endpoint: str, key: str | None, model: str | None) -> AsyncIterator[ChatClient]:
    """Open a client for `model` at `endpoint`, or for the first model that the server lists. Raises GiveUp."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
    try:
        # The engine's proxy and .netrc are not for requests to models.
        url = await _on_loopback(_base_url(endpoint))
        http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False)
    except httpx2.InvalidURL as error:
        raise GiveUp(FailedCode.INVALID, invalid_endpoint_message(endpoint)) from error
    async with http:
        listed = await _list_models(http)
        name = model or (listed[0].id if listed else "default")
        window = next((each.window for each in listed if name in (each.id, *each.aliases)), None)
        if window is None and len(listed) == 1:
            window = listed[0].window  # llama.cpp serves its only model under any name
        yield ChatClient(http, name, window)


class _Meta(msgspec.Struct, frozen=True):
    n_ctx: int | None = None
    n_ctx_train: int | None = None


class _ListedModel(msgspec.Struct, frozen=True):
    """An entry of `/v1/models`. vLLM, llama.cpp and routers each report the context window in a different field."""

    id: str
    aliases: list[str] = []
    max_model_len: int | None = None
    context_length: int | None = None
    meta: _Meta | None = None

    @property
    def window(self) -> int | None:
        meta = self.meta or _Meta()
        return self.max_model_len or meta.n_ctx or self.context_length or meta.n_ctx_train


class _ModelList(msgspec.Struct, frozen=True):
    data: list[_ListedModel] = []


async def _list_models(http: httpx2.AsyncClient) -> list[_ListedModel]:
    """List the server's models; none on an error, which the first request for a completion will report."""
    translated, unreadable = translate_errors(http.base_url), (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
    with contextlib.suppress(ErrorResponse, ServerUnreachable, GiveUp, *unreadable), translated:
        async with http.stream("GET", "models", timeout=_LIST_SECONDS) as response:
            await raise_for_status(response)
            return msgspec.json.decode(await read_at_most(response, COMPLETION_BYTES), type=_ModelList).data
    return []


def _base_url(endpoint: str) -> httpx2.URL:
    """Return the URL that contains `chat/completions`: the endpoint, or its /v1 if it has no path."""
    url = httpx2.URL(endpoint)
    return url.copy_with(path="/v1") if url.path in ("", "/") else url


async def _on_loopback(url: httpx2.URL) -> httpx2.URL:
    """Return the URL, with 127.0.0.1 for `localhost` where that answers: an agent could listen on the port of ::1."""
    if url.scheme == "http" and url.host == "localhost":
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(LOOPBACK, url.port or 80)
            writer.close()
            return url.copy_with(host=LOOPBACK)
    return url
