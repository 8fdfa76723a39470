"""Speaks with an OpenAI-compatible server: which model it serves, and chat completions as they stream."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2
import msgspec

from labrats.executor.advice import with_advice
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import Task

DEFAULT_WINDOW_TOKENS: Final = 8192
"""What a model is taken to read where its server does not say."""

_CONNECT_SECONDS: Final = 15.0
_SILENCE_SECONDS: Final = 600.0
"""A long prompt takes a small machine minutes to read, and meanwhile the server says nothing."""

_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0
"""For a longer one the attempt gives up, so that its slot is not held by a job that waits."""

_ANSWER_BYTES: Final = 64 * 1024 * 1024
_COMPLAINT_BYTES: Final = 64 * 1024
_SENTENCE_CHARACTERS: Final = 1000
_PASSING: Final = frozenset({429, 502, 503, 504, 529})
_CODE_OF_STATUS: Final[Mapping[int, FailedCode]] = {
    401: FailedCode.AUTH,
    402: FailedCode.QUOTA,
    403: FailedCode.AUTH,
    413: FailedCode.CONTEXT_TOO_LONG,
    429: FailedCode.RATE_LIMITED,
    503: FailedCode.OVERLOADED,
    529: FailedCode.OVERLOADED,
}
_TOO_LONG: Final = re.compile(
    "maximum context length|context_length_exceeded|exceed_context_size|context size|context window|prompt is too long"
    "|longer than the (maximum )?model length",
    re.IGNORECASE,
)
_NO_QUOTA: Final = re.compile("insufficient_quota|exceeded your current quota|credit balance", re.IGNORECASE)
_NO_MODEL: Final = re.compile(
    r"model\b.{0,300}(does not exist|not found)|model_not_found|(no such|invalid|unknown) model", re.IGNORECASE
)
_THOUGHTS: Final = re.compile(r"\A(?:\s*<think>)?(?:(?!<think>).)*?</think>", re.DOTALL)

Message = Mapping[str, Any]
"""One of `messages` in a request."""


class Refusal(Exception):
    """The server answered with an error: `status`, and what it said."""

    def __init__(self, status: int, said: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"the model's server answered {status}: {said or 'without a reason'}")
        self.status = status
        self.said = said
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> FailedCode:
        if self.status in (400, 500) and _TOO_LONG.search(self.said):
            return FailedCode.CONTEXT_TOO_LONG
        if self.status in (403, 429) and _NO_QUOTA.search(self.said):
            return FailedCode.QUOTA
        if self.status in (400, 404) and _NO_MODEL.search(self.said):
            return FailedCode.MODEL_NOT_FOUND
        return _CODE_OF_STATUS.get(self.status, FailedCode.AGENT_ERROR)

    def as_give_up(self, task: Task) -> GiveUp:
        return GiveUp(self.code, with_advice(self.code, str(self), task), self.retry_after_seconds)


class Unreachable(Exception):
    """The server could not be reached, or broke off in the middle of an answer."""

    def as_give_up(self, task: Task) -> GiveUp:
        return GiveUp(FailedCode.AGENT_ERROR, str(self))


class CallMade(msgspec.Struct, frozen=True):
    """A tool call as the model wrote it. arguments: meant to be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """What the model answered. text: without its thoughts. is_cut: it was cut at a limit of length."""

    text: str = ""
    calls: Sequence[CallMade] = ()
    usage: Usage = Usage()
    is_cut: bool = False


@dataclass(frozen=True)
class ChatServer:
    """A model on a server. window_tokens: what it can read and write in all; model: by the server's own name."""

    client: httpx2.AsyncClient
    model: str
    window_tokens: int = DEFAULT_WINDOW_TOKENS

    async def complete(self, messages: Sequence[Message], tell: Callable[[str], None], **fields: Any) -> Reply:
        """Ask, and ask again where the trouble may pass at once. Raises Refusal, Unreachable or GiveUp.

        tell: is given each piece of the answer's text as it comes. fields: further ones of the request.
        """
        body = {"model": self.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        tries = 0
        while True:
            tries += 1
            pause = _PAUSE_SECONDS * tries
            try:
                return await self._ask(body | fields, tell)
            except Refusal as refusal:
                pause = pause if refusal.retry_after_seconds is None else refusal.retry_after_seconds
                if refusal.status not in _PASSING or tries == _TRIES or pause > _LONGEST_PAUSE_SECONDS:
                    raise
            except Unreachable:
                if tries == _TRIES:
                    raise
            await asyncio.sleep(pause)

    async def _ask(self, body: Mapping[str, Any], tell: Callable[[str], None]) -> Reply:
        answer = _Answer()
        with _foreign_errors_translated():
            async with self.client.stream("POST", "chat/completions", content=msgspec.json.encode(body)) as response:
                await _check(response)
                async for data in _events(response.aiter_bytes()):
                    if data == b"[DONE]":
                        break
                    tell(answer.add(data))
        return answer.reply()


@contextlib.asynccontextmanager
async def chat_server(endpoint: str, key: str | None, model: str | None) -> AsyncIterator[ChatServer]:
    """The `model` at `endpoint`, or the first one that is served there. Raises GiveUp."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    timeout = httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
    try:
        # The engine's environment is none of the model's business: no proxy and no .netrc from there.
        client = httpx2.AsyncClient(base_url=_base(endpoint), headers=headers, timeout=timeout, trust_env=False)
    except (httpx2.InvalidURL, UnicodeEncodeError) as error:
        raise GiveUp(FailedCode.AGENT_ERROR, "the AiModel's endpoint or key is malformed") from error
    async with client:
        served = await _served(client)
        name = model or (served[0].id if served else "default")
        window = next((each.window for each in served if name in (each.id, *each.aliases)), None)
        if window is None and len(served) == 1:
            window = served[0].window  # llama.cpp serves its one model by any name
        yield ChatServer(client, name, window or DEFAULT_WINDOW_TOKENS)


class _Meta(msgspec.Struct, frozen=True):
    n_ctx: int | None = None
    n_ctx_train: int | None = None


class _Served(msgspec.Struct, frozen=True):
    """A model, as `/v1/models` has it: vLLM, llama.cpp and routers each name its window in their own way."""

    id: str
    aliases: list[str] = []
    max_model_len: int | None = None
    context_length: int | None = None
    meta: _Meta | None = None

    @property
    def window(self) -> int | None:
        meta = self.meta or _Meta()
        return self.max_model_len or meta.n_ctx or self.context_length or meta.n_ctx_train


class _ServedList(msgspec.Struct, frozen=True):
    data: list[_Served] = []


async def _served(client: httpx2.AsyncClient) -> list[_Served]:
    """The models of the server; none where it does not say. What is wrong with the server, the first question tells."""
    with contextlib.suppress(Refusal, Unreachable, GiveUp, msgspec.DecodeError), _foreign_errors_translated():
        async with client.stream("GET", "models") as response:
            await _check(response)
            return msgspec.json.decode(await _at_most(response, _ANSWER_BYTES), type=_ServedList).data
    return []


class _CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int | None = 0


class _ReasoningTokens(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = 0


class _TokenCounts(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _CachedTokens | None = None
    completion_tokens_details: _ReasoningTokens | None = None

    def as_usage(self) -> Usage:
        cached = (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0
        return Usage(
            input_tokens=max(self.prompt_tokens - cached, 0),
            output_tokens=self.completion_tokens or 0,
            cache_read_tokens=cached,
            reasoning_tokens=(self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0,
        )


class _FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallDelta(msgspec.Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta = _FunctionDelta()


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _TokenCounts | None = None
    error: Any = None


_CHUNK_DECODER: Final = msgspec.json.Decoder(_Chunk)


@dataclass
class _CallParts:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: _CallDelta) -> None:
        self.id = delta.id or self.id
        self.name = delta.function.name or self.name
        if isinstance(written := delta.function.arguments, dict):
            written = msgspec.json.encode(written).decode()
        self.arguments.append(written or "")


@dataclass
class _Answer:
    """An answer that is coming in."""

    text: list[str] = field(default_factory=list)
    calls: dict[int, _CallParts] = field(default_factory=dict)
    counts: _TokenCounts = _TokenCounts()
    finish_reason: str | None = None

    def add(self, data: bytes) -> str:
        """Add an event's data. The text in it."""
        try:
            chunk = _CHUNK_DECODER.decode(data)
        except msgspec.DecodeError as error:
            message = f"the model's server sent something else than a chat completion: {error}"
            raise GiveUp(FailedCode.AGENT_ERROR, message) from error
        if chunk.error is not None:
            raise _refusal_in(chunk.error)
        self.counts = chunk.usage or self.counts
        pieces = [self._add_choice(choice) for choice in chunk.choices[:1]]
        return "".join(pieces)

    def _add_choice(self, choice: _Choice) -> str:
        self.finish_reason = choice.finish_reason or self.finish_reason
        for delta in choice.delta.tool_calls or ():
            self.calls.setdefault(delta.index, _CallParts()).add(delta)
        piece = choice.delta.content or ""
        self.text.append(piece)
        return piece

    def reply(self) -> Reply:
        """The whole answer. Raises Unreachable where its end is missing."""
        if self.finish_reason is None:
            raise Unreachable("the model's server broke off in the middle of an answer")
        return Reply(
            text=without_thoughts("".join(self.text)),
            calls=[
                CallMade(parts.id or f"call_{index}", parts.name, "".join(parts.arguments))
                for index, parts in sorted(self.calls.items())
            ],
            usage=msgspec.structs.replace(self.counts.as_usage(), turns=1),
            is_cut=self.finish_reason == "length",
        )


def without_thoughts(text: str) -> str:
    """`text` without the thoughts before it, which some servers leave in: `<think>…</think>`, or only its end."""
    return _THOUGHTS.sub("", text).strip()


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event. Raises GiveUp where they are too much to hold."""
    size = 0
    started: list[bytes] = []
    async for chunk in chunks:
        size += len(chunk)
        if size > _ANSWER_BYTES:
            limit = f"{_ANSWER_BYTES // 1024**2} MiB"
            raise GiveUp(FailedCode.AGENT_ERROR, f"the model's server sent an answer of more than {limit}")
        first, *rest = chunk.split(b"\n")
        started.append(first)
        for beginning in rest:
            if data := _data_in(b"".join(started)):
                yield data
            started = [beginning]
    if data := _data_in(b"".join(started)):
        yield data


def _data_in(line: bytes) -> bytes:
    """Empty for a line of another kind, such as the comments that keep a connection alive."""
    name, _, value = line.partition(b":")
    return value.strip() if name == b"data" else b""


async def _check(response: httpx2.Response) -> None:
    """Raises Refusal unless the server agrees."""
    if response.is_success:
        return
    content = await _at_most(response, _COMPLAINT_BYTES)
    said = f"moved to {response.headers['Location']}" if response.has_redirect_location else _complaint_in(content)
    raise Refusal(response.status_code, said, _retry_after_seconds(response.headers.get("Retry-After")))


async def _at_most(response: httpx2.Response, limit: int) -> bytes:
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            break
    return content[:limit]


def _complaint_in(content: bytes) -> str:
    """What an error's body says; servers differ in where."""
    try:
        said = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _sentence(content.decode("utf-8", "replace"))
    if isinstance(said, dict):
        said = said.get("error") or said.get("message") or said.get("detail") or said
    return _refusal_in(said).said


def _refusal_in(error: Any) -> Refusal:
    """From the `error` of a body or an event, which is an object or a text."""
    if not isinstance(error, dict):
        return Refusal(500, _sentence(str(error)))
    status = error.get("code")
    said = error.get("message") or error
    if error.get("type") == "exceed_context_size_error" or status == "context_length_exceeded":
        return Refusal(400, _sentence(f"{said} (context_length_exceeded)"))
    return Refusal(status if isinstance(status, int) else 500, _sentence(str(said)))


def _sentence(text: str) -> str:
    return " ".join(text.split())[:_SENTENCE_CHARACTERS]


def _retry_after_seconds(value: str | None) -> float | None:
    """Of the header Retry-After: seconds, or a date."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    with contextlib.suppress(ValueError):
        date = parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max((date - datetime.now(UTC)).total_seconds(), 0.0)
    return None


@contextlib.contextmanager
def _foreign_errors_translated() -> Iterator[None]:
    try:
        yield
    except httpx2.ReadTimeout as error:
        minutes = _SILENCE_SECONDS / 60
        raise Unreachable(f"the model's server has said nothing for {minutes:g} minutes") from error
    except httpx2.RemoteProtocolError as error:
        raise Unreachable(f"the model's server broke off in the middle of an answer: {error}") from error
    except httpx2.RequestError as error:
        raise Unreachable(f"the model's server cannot be reached: {error or type(error).__name__}") from error


def _base(endpoint: str) -> str:
    """The address that `chat/completions` is below: servers have it at /v1, unless the endpoint has a path."""
    url = httpx2.URL(endpoint)
    return str(url.copy_with(path="/v1")) if url.path in ("", "/") else endpoint
