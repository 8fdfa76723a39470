"""Speaks with an OpenAI-compatible server: which model it serves, and chat completions as they stream."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import httpx2
import msgspec

from labrats.executor.failure_advice import add_advice
from labrats.executor.providers.endless_output import EndlessOutputDetector
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import Task

DEFAULT_WINDOW_TOKENS: Final = 8192
"""Assumed context window of a model whose server reports none."""

_CONNECT_SECONDS: Final = 15.0
_LIST_SECONDS: Final = 30.0
"""Limit on the listing of a server's models. Answers have the run's own limit: a long prompt takes minutes."""

_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0
"""For a longer one the attempt gives up, so that its slot is not held by a job that waits."""

_LOOP_ADVICE: Final = "set config.sampling.frequencyPenalty or a higher temperature, or choose another model"
_LOOP_CHARACTERS: Final = 100
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
_TOO_LONG_KINDS: Final = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_TELLING_KINDS: Final = _TOO_LONG_KINDS | {"insufficient_quota", "model_not_found"}
"""Types and codes of errors that a message may not repeat."""

_NO_QUOTA: Final = re.compile("insufficient_quota|exceeded your current quota|credit balance", re.IGNORECASE)
_NO_MODEL: Final = re.compile(
    r"model\b.{0,300}(does not exist|not found)|model_not_found|(no such|invalid|unknown) model", re.IGNORECASE
)
_THOUGHTS: Final = re.compile(r"\A(?:\s*<think>)?(?:(?!<think>).)*?</think>", re.DOTALL)

_UNFINISHED_THOUGHTS: Final = re.compile(r"\A\s*<think>.*\Z", re.DOTALL)

Message = Mapping[str, Any]
"""One of `messages` in a request."""


class ErrorResponse(Exception):
    """The server answered with an error: `status`, and what it said; or reported one in the middle of an answer."""

    def __init__(
        self, status: int, said: str, retry_after_seconds: float | None = None, *, in_answer: bool = False
    ) -> None:
        what = "reported an error" if in_answer else f"answered {status}"
        super().__init__(f"the model's server {what}: {said or 'without a reason'}")
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
        return GiveUp(self.code, add_advice(self.code, str(self), task), self.retry_after_seconds)


class ServerUnreachable(Exception):
    """The server could not be reached, or broke off in the middle of an answer."""

    def as_give_up(self, task: Task) -> GiveUp:
        return GiveUp(FailedCode.AGENT_ERROR, str(self))


class RawToolCall(msgspec.Struct, frozen=True):
    """A tool call as the model wrote it. arguments: meant to be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Completion:
    """The answer of a model. text: without its thoughts. is_cut: it was cut at a limit of length.

    usage: without any tokens where the server reports none. has_thought: it has written thoughts as well.
    """

    text: str = ""
    calls: Sequence[RawToolCall] = ()
    usage: Usage = Usage()
    is_cut: bool = False
    has_thought: bool = False


class CompletionListener(Protocol):
    """Hears an answer while it comes in."""

    def sign_of_life(self) -> None:
        """The server has sent something."""

    def text(self, piece: str) -> None: ...

    def thought(self, piece: str) -> None: ...

    def asked_again(self, trouble: str, seconds: float) -> None:
        """The answer so far is void, if there was any: the same is asked again."""


@dataclass(frozen=True)
class ChatClient:
    """A model on a server. model: by the server's own name.

    announced_tokens: the size of its context window, where its server reports it.
    """

    client: httpx2.AsyncClient
    model: str
    announced_tokens: int | None = None

    @property
    def window_tokens(self) -> int:
        """The size of the context window, in tokens, as far as is known."""
        return self.announced_tokens or DEFAULT_WINDOW_TOKENS

    async def complete(self, messages: Sequence[Message], audience: CompletionListener, **fields: Any) -> Completion:
        """Ask, and ask again where the trouble may pass at once. Raises Refusal, Unreachable or GiveUp.

        fields: further ones of the request.
        """
        body = {"model": self.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        tries = 0
        while True:
            tries += 1
            pause = _PAUSE_SECONDS * tries
            try:
                return await self._ask(body | fields, audience)
            except ErrorResponse as refusal:
                pause = pause if refusal.retry_after_seconds is None else refusal.retry_after_seconds
                may_pass = refusal.status in _PASSING and refusal.code is not FailedCode.QUOTA
                if not may_pass or tries == _TRIES or pause > _LONGEST_PAUSE_SECONDS:
                    raise
                trouble = str(refusal)
            except ServerUnreachable as error:
                if tries == _TRIES:
                    raise
                trouble = str(error)
            audience.asked_again(trouble, pause)
            await asyncio.sleep(pause)

    async def _ask(self, body: Mapping[str, Any], audience: CompletionListener) -> Completion:
        answer = _Answer(audience)
        with _foreign_errors_translated(self.client.base_url):
            async with self.client.stream("POST", "chat/completions", content=msgspec.json.encode(body)) as response:
                await _check(response)
                async for data in _events(response.aiter_bytes(), audience.sign_of_life):
                    if data == b"[DONE]":
                        answer.is_done = True
                        break
                    answer.add(data)
        return answer.reply()


@contextlib.asynccontextmanager
async def open_chat_client(endpoint: str, key: str | None, model: str | None) -> AsyncIterator[ChatClient]:
    """The `model` at `endpoint`, or the first one that is served there. Raises GiveUp."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
    try:
        # The engine's environment is none of the model's business: no proxy and no .netrc from there.
        client = httpx2.AsyncClient(base_url=_base(endpoint), headers=headers, timeout=timeout, trust_env=False)
    except (httpx2.InvalidURL, UnicodeEncodeError) as error:
        raise GiveUp(FailedCode.AGENT_ERROR, f"the AiModel's endpoint or key is malformed: {error}") from error
    async with client:
        served = await _served(client)
        name = model or (served[0].id if served else "default")
        window = next((each.window for each in served if name in (each.id, *each.aliases)), None)
        if window is None and len(served) == 1:
            window = served[0].window  # llama.cpp serves its one model by any name
        yield ChatClient(client, name, window)


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
    translated = _foreign_errors_translated(client.base_url)
    with contextlib.suppress(ErrorResponse, ServerUnreachable, GiveUp, msgspec.DecodeError), translated:
        async with client.stream("GET", "models", timeout=_LIST_SECONDS) as response:
            await _check(response)
            return msgspec.json.decode(await _at_most(response, _ANSWER_BYTES), type=_ServedList).data
    return []


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
    """reasoning, reasoning_content: thoughts. vLLM and Ollama call them by the first name, llama.cpp by the second."""

    content: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: list[_CallDelta] | None = None

    @property
    def thought(self) -> str:
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
class _CallParts:
    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: _CallDelta) -> None:
        function = delta.function or _FunctionDelta()
        self.id = self.id or delta.id or ""
        self.name = self.name or function.name or ""
        if isinstance(written := function.arguments, dict):
            written = msgspec.json.encode(written).decode()
        self.arguments.append(written or "")

    def is_continued_by(self, delta: _CallDelta) -> bool:
        """Return whether `delta` continues this call. Some servers give all calls the same index, or none."""
        if delta.index is not None and self.index is not None and delta.index != self.index:
            return False
        begins_one = bool(delta.function and delta.function.name)
        has_other_id = bool(delta.id and self.id and delta.id != self.id)
        return not (begins_one and self.name and (has_other_id or self._is_whole))

    @property
    def _is_whole(self) -> bool:
        try:
            msgspec.json.decode("".join(self.arguments))
        except (msgspec.DecodeError, UnicodeEncodeError):
            return False
        return True


@dataclass
class _Answer:
    """An answer that is coming in. is_done: the server says that it is whole."""

    audience: CompletionListener
    text: list[str] = field(default_factory=list)
    calls: list[_CallParts] = field(default_factory=list)
    counts: _TokenCounts = _TokenCounts()
    finish_reason: str | None = None
    is_done: bool = False
    has_thought: bool = False
    endless: Sequence[EndlessOutputDetector] = field(
        default_factory=lambda: (EndlessOutputDetector(), EndlessOutputDetector())
    )

    def add(self, data: bytes) -> None:
        """Add an event's data. Raises GiveUp where the model repeats itself without end."""
        try:
            chunk = _CHUNK_DECODER.decode(data)
        except msgspec.DecodeError as error:
            message = f"the model's server sent something else than a chat completion: {error}"
            raise GiveUp(FailedCode.AGENT_ERROR, message) from error
        if chunk.error is not None:
            refusal = _refusal_in(chunk.error)
            raise ErrorResponse(refusal.status, refusal.said, in_answer=True)
        self.counts = chunk.usage or self.counts
        for choice in (chunk.choices or ())[:1]:
            self.finish_reason = choice.finish_reason or self.finish_reason
            if choice.delta:
                self._add_delta(choice.delta)

    def _add_delta(self, delta: _Delta) -> None:
        for call in delta.tool_calls or ():
            self._call_of(call).add(call)
        text, thought = self.endless
        if piece := delta.content:
            self.text.append(piece)
            self.audience.text(piece)
            text.add(piece)
        if piece := delta.thought:
            self.has_thought = True
            self.audience.thought(piece)
            thought.add(piece)
        if loop := text.loop or thought.loop:
            said = _sentence(loop)[:_LOOP_CHARACTERS]
            raise GiveUp(FailedCode.AGENT_ERROR, f"the model repeats itself without end: {said!r} ({_LOOP_ADVICE})")

    def _call_of(self, delta: _CallDelta) -> _CallParts:
        """The latest call that `delta` continues; or else a new one."""
        for call in reversed(self.calls):
            if delta.index is None or call.index in (None, delta.index):
                if call.is_continued_by(delta):
                    return call
                break
        self.calls.append(_CallParts(delta.index))
        return self.calls[-1]

    def reply(self) -> Completion:
        """The whole answer. Raises Unreachable where its end is missing."""
        if self.finish_reason is None and not (self.is_done and (self.text or self.calls)):
            raise ServerUnreachable("the model's server broke off in the middle of an answer")
        written = "".join(self.text)
        text = without_thoughts(written)
        return Completion(
            text=text,
            calls=[
                RawToolCall(parts.id or f"call_{number}", parts.name, "".join(parts.arguments))
                for number, parts in enumerate(self.calls)
            ],
            usage=msgspec.structs.replace(self.counts.as_usage(), turns=1),
            is_cut=self.finish_reason == "length",
            has_thought=self.has_thought or len(text) < len(written.strip()),
        )


def without_thoughts(text: str) -> str:
    """`text` without the thoughts before it, which some servers leave in: `<think>…</think>`, or only its end."""
    return _UNFINISHED_THOUGHTS.sub("", _THOUGHTS.sub("", text)).strip()


async def _events(chunks: AsyncIterator[bytes], sign_of_life: Callable[[], None]) -> AsyncIterator[bytes]:
    """The data of each server-sent event. Raises GiveUp where they are too much to hold."""
    size = 0
    started: list[bytes] = []
    async for chunk in chunks:
        sign_of_life()
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
    raise ErrorResponse(response.status_code, said, _retry_after_seconds(response.headers.get("Retry-After")))


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


def _refusal_in(error: Any) -> ErrorResponse:
    """From the `error` of a body or an event, which is an object or a text."""
    if not isinstance(error, dict):
        return ErrorResponse(500, _sentence(str(error)))
    status = error.get("code")
    said = error.get("message") or error
    kinds = {str(status), str(error.get("type"))} & _TELLING_KINDS
    if kinds & _TOO_LONG_KINDS:
        return ErrorResponse(400, _sentence(f"{said} (context_length_exceeded)"))
    said = f"{said} ({', '.join(sorted(kinds))})" if kinds else said
    return ErrorResponse(status if isinstance(status, int) else 500, _sentence(str(said)))


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
def _foreign_errors_translated(address: httpx2.URL) -> Iterator[None]:
    server = f"the model's server at {address}"
    try:
        yield
    except httpx2.ConnectTimeout as error:
        raise ServerUnreachable(f"{server} does not accept a connection within {_CONNECT_SECONDS:g} seconds") from error
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
        raise ServerUnreachable(f"{server} cannot be reached: {_reason_of(error)}") from error
    except httpx2.TimeoutException as error:
        raise ServerUnreachable(f"{server} says nothing") from error
    except httpx2.RequestError as error:
        raise ServerUnreachable(f"{server} broke off in the middle of an answer: {_reason_of(error)}") from error


def _reason_of(error: BaseException) -> str:
    """The system's words for what `error` came from; or else the first words in its chain, or its name in words."""
    chain = list(_causes(error))
    said = [_system_words(each) for each in chain if isinstance(each, OSError)]
    said += [" ".join(str(each).split()) for each in chain]
    return next(filter(None, said), "") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()


def _system_words(error: OSError) -> str:
    """Empty where it has no number. An unknown name has one below 0, and words of its own."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else (error.strerror or "") if number < 0 else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__


def _base(endpoint: str) -> str:
    """The address that `chat/completions` is below: servers have it at /v1, unless the endpoint has a path."""
    url = httpx2.URL(endpoint)
    return str(url.copy_with(path="/v1")) if url.path in ("", "/") else endpoint
