"""The proxy itself: a streaming HTTP/1.1 server for the agent of one attempt."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import h11

from labrats.executor.egress.gateway import Gateway
from labrats.executor.key_proxy.budget import EndedBy
from labrats.executor.key_proxy.connections import READ_BYTES, HttpConnection, Upstream
from labrats.executor.key_proxy.model_server import Api, ApprovedRequest, RunningRequest
from labrats.executor.key_proxy.request_policy import MOST_BODY_BYTES, RequestPolicy
from labrats.executor.key_proxy.responses import ErrorBody, KeyRedactor, Refused, Unanswered
from labrats.executor.key_proxy.usage_reader import UsageReader
from labrats.executor.model_errors import ERROR_BODY_BYTES, reason_in_body
from labrats.model.job import Usage
from labrats.model.protocol import ModelRequest
from labrats.net.retry_after import retry_after_seconds

MOST_CONNECTIONS: Final = 256
MOST_UNAUTHENTICATED_REPORTED: Final = 100
"""Most requests without the agent's token that are reported. Other agents on the machine can send very many."""

MOST_BUFFERED_BYTES: Final = 64 * 1024 * 1024
"""Limit on all bodies of requests that are in memory at once. A body is complete before its model is known."""

_DISCARDED_BYTES: Final = 64 * 1024 * 1024
_DISCARD_SECONDS: Final = 5.0
"""Limits on reading the rest of a refused request, so that its sender gets the answer."""

_SEND_BUFFER_BYTES: Final = 64 * 1024
_PATH_CHARACTERS: Final = 200
_CLOSED_BY_CLIENT: Final = 499
_PAUSING: Final = (429, 503, 529)
_FAILED: Final = 500
"""The first of the statuses by which a server, or a gateway before it, says that it has failed. By those that pause a
model, it says that it has not begun.
"""
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade".split()
)


@dataclass
class _Exchange:
    """A request and its response, as far as they are known.

    usage: as the response has reported it, with its cost. others: the share of it that is not in `counted`.
    counted, hour_cache_tokens, web_searches: the rest of the usage that counts for the limits of the job, see
                 UsageReader.
    estimated: the part of it that no response has reported, with its cost.
    """

    method: str
    path: str
    started: float = field(default_factory=monotonic)
    status: int = _CLOSED_BY_CLIENT
    model: str | None = None
    usage: Usage = Usage()
    others: Usage = Usage()
    counted: Usage = Usage()
    estimated: Usage = Usage()
    hour_cache_tokens: int = 0
    web_searches: int = 0
    refusal: str | None = None
    is_overload: bool = False
    retry_after_seconds: float | None = None
    removed: Sequence[str] = ()
    error: str = ""

    def finished(self) -> ModelRequest:
        return ModelRequest(
            method=self.method,
            path=self.path,
            status=self.status,
            milliseconds=round((monotonic() - self.started) * 1000),
            model=self.model and self.model[:_PATH_CHARACTERS],
            usage=self.usage,
            refusal=self.refusal,
            is_overload=self.is_overload,
            retry_after_seconds=self.retry_after_seconds,
            estimated=self.estimated,
            removed_fields=tuple(self.removed),
            error=self.error,
        )


class _ResponseCut(Exception):
    """The response ended too early, after its beginning was forwarded."""


class KeyProxy:
    """Serves the agent of one attempt."""

    def __init__(
        self,
        policy: RequestPolicy,
        report: Callable[[ModelRequest], None],
        gateway: Gateway | None = None,
        *,
        on_data: Callable[[], None] = lambda: None,
        is_open: bool = True,
    ) -> None:
        """Create a proxy.

        report:  called with each request when it has ended. It must not raise.
        gateway: see Upstream.
        on_data: called with each part of an answer that arrives. It must not raise.
        is_open: False to refuse all requests until `open` is called.
        """
        self._is_open = is_open
        self._policy, self._budget = policy, policy.budget
        self._report, self._on_data = report, on_data
        self._upstream = Upstream(policy.server, gateway)
        self._clients: set[asyncio.Task[None]] = set()
        self._unauthenticated: dict[asyncio.Task[None], None] = {}  # without a request from the agent, oldest first
        self._reported_unauthenticated = 0
        self._buffered_bytes = 0
        self._end_of_a_request = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve the listening socket `listener` until the context exits, which closes it and all connections."""
        server = await asyncio.start_server(self._accept, sock=listener)
        try:
            yield
        finally:
            server.close()
            await self.close()
            self._upstream.close()
            await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next round

    def open(self) -> None:
        """Serve the agent's requests."""
        self._is_open = True

    async def close(self) -> None:
        """Refuse further requests, and end those that are running: they count as if their clients had ended them."""
        self._is_open = False
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MOST_CONNECTIONS:
            if not self._unauthenticated:
                writer.transport.abort()
                return
            # Otherwise another agent on the machine could occupy all connections.
            oldest = next(iter(self._unauthenticated))
            self._forget(oldest)
            oldest.cancel()
        writer.transport.set_write_buffer_limits(high=_SEND_BUFFER_BYTES)
        _send_at_once(writer)
        task = asyncio.create_task(self._serve(HttpConnection(h11.SERVER, reader, writer)))
        self._clients.add(task)
        self._unauthenticated[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, client: asyncio.Task[None]) -> None:
        self._clients.discard(client)
        self._unauthenticated.pop(client, None)

    async def _serve(self, client: HttpConnection) -> None:
        """Serve the requests of one connection, one after the other."""
        try:
            while isinstance(request := await client.receive(), h11.Request):
                await self._exchange(client, request)
                if not client.start_next_cycle():
                    await _discard_rest(client)
                    break
            await client.close_after_sending()
        except h11.RemoteProtocolError as error:  # a malformed head, or one of more than 64 KiB
            with contextlib.suppress(OSError, h11.LocalProtocolError):
                await self._answer(client, ErrorBody(400, f"the request is malformed: {error}"))
                await client.close_after_sending()
        except (OSError, _ResponseCut, h11.LocalProtocolError):
            client.abort()
        except BaseException:
            client.abort()
            raise

    async def _exchange(self, client: HttpConnection, request: h11.Request) -> None:
        """Answer one request, and report it."""
        method, target, headers = request.method, request.target, request.headers.raw_items()
        path = target.partition(b"?")[0].decode("latin-1")[:_PATH_CHARACTERS]
        exchange = _Exchange(method.decode("latin-1")[:_PATH_CHARACTERS], path)
        is_agent = self._policy.has_token(request.headers)
        if is_agent and (task := asyncio.current_task()):
            self._unauthenticated.pop(task, None)
        try:
            self._policy.check_head(method, target, headers)
            if not self._is_open:
                raise Refused(503, "the agent's run has ended")
            async with self._read_body(client) as body:
                approved = self._policy.approve(method, target, headers, _taken(body))
                exchange.model, exchange.removed = approved.model, approved.removed
                await _unless_closed(client, self._forward_in_turn(client, approved, exchange))
        except Refused as refused:
            exchange.status, exchange.model = refused.status, refused.model or exchange.model
            exchange.refusal = str(refused)
            await self._answer(client, ErrorBody(refused.status, str(refused)))
        finally:
            self._reported_unauthenticated += not is_agent
            if is_agent or self._reported_unauthenticated <= MOST_UNAUTHENTICATED_REPORTED:
                self._report(exchange.finished())

    async def _forward_in_turn(self, client: HttpConnection, request: ApprovedRequest, exchange: _Exchange) -> None:
        """Forward a request once it fits into the limits of the job beside those that are running.

        Otherwise many requests at once could exceed a limit together, since their usage is known when they end.
        """
        running = RunningRequest(request)
        while not self._budget.has_room_for(running):
            await self._end_of_a_request.wait()
        self._budget.begin(running)
        try:
            await self._forward(client, running, exchange)
        finally:
            counted = self._budget.with_cost(
                request, exchange.counted, exchange.hour_cache_tokens, exchange.web_searches
            )
            consumed = counted + exchange.others
            exchange.estimated = consumed.beyond(exchange.usage)
            self._budget.end(running, consumed)
            self._end_of_a_request.set()
            self._end_of_a_request = asyncio.Event()

    async def _forward(self, client: HttpConnection, sent: RunningRequest, exchange: _Exchange) -> None:
        """Forward a request to the model's server, and its response to the client as it arrives."""
        request = sent.request
        try:
            upstream, response = await self._upstream.request(sent)
        except asyncio.CancelledError:  # the client or `close` has ended the request, but the server has it
            exchange.counted = self._budget.usage_of_abandoned(sent)
            raise
        except Unanswered:
            exchange.counted = self._budget.usage_of_failed(sent)
            raise
        exchange.status = response.status_code
        exchange.retry_after_seconds = _retry_after(response)
        if reader := _usage_reader(self._policy.server.api, request, response):
            await self._forward_answer(client, upstream, response, exchange, sent, reader)
        else:
            try:
                exchange.error = await self._forward_response(client, upstream, response)
            finally:
                if _has_failed(response.status_code) and request.is_answered_by_a_model:
                    exchange.counted = self._budget.usage_of_failed(sent)
        self._upstream.release(upstream)

    async def _forward_answer(
        self,
        client: HttpConnection,
        upstream: HttpConnection,
        response: h11.Response,
        exchange: _Exchange,
        sent: RunningRequest,
        reader: UsageReader,
    ) -> None:
        """Forward the answer of a model, and read its usage."""
        ended_by = EndedBy.CLIENT
        try:
            await self._forward_response(client, upstream, response, reader)
            ended_by = EndedBy.COMPLETION
        except _ResponseCut:
            ended_by = EndedBy.SERVER
            raise
        finally:
            reader.finish()  # a client may close the connection as soon as it has all of an answer
            exchange.hour_cache_tokens, exchange.is_overload = reader.hour_cache_tokens, reader.is_overload
            exchange.others = self._budget.usage_of_shares(sent.request, reader.others)
            exchange.web_searches = reader.web_searches
            own = self._budget.with_cost(sent.request, reader.usage, reader.hour_cache_tokens, reader.web_searches)
            exchange.usage = own + exchange.others if reader.others else own
            exchange.counted = self._budget.usage_of_answer(sent, reader, ended_by)

    async def _forward_response(
        self,
        client: HttpConnection,
        upstream: HttpConnection,
        response: h11.Response,
        reader: UsageReader | None = None,
    ) -> str:
        """Forward a response. Return the reason that a failed one gives; empty for any other."""
        error = bytearray()
        try:
            redactor = KeyRedactor(self._policy.server.key)
            kept = [
                (redactor.redact(name), redactor.redact(value))
                for name, value in response.headers.raw_items()
                if name.lower() not in _HOP_BY_HOP
            ]
            is_answer = 200 <= response.status_code < 300
            if not is_answer and _is_encoded(response):
                raise Refused(response.status_code, "the model's server answered with an error that cannot be read")
            await client.send(
                h11.Response(status_code=response.status_code, reason=_phrase_of(response.status_code), headers=kept)
            )
            while isinstance(event := await _next_part(upstream), h11.Data):
                if is_answer:
                    self._on_data()
                if reader:
                    reader.feed(bytes(event.data))
                if part := redactor.feed(bytes(event.data)):
                    await client.send(h11.Data(data=part))
                    if not is_answer and len(error) < ERROR_BODY_BYTES:
                        error += part
            rest = redactor.flush()
            await client.send(h11.Data(data=rest), h11.EndOfMessage())
            return reason_in_body(bytes(error + rest)) if not is_answer else ""
        except BaseException:
            upstream.abort()
            raise

    @contextlib.asynccontextmanager
    async def _read_body(self, client: HttpConnection) -> AsyncIterator[bytearray]:
        """Read a body, whose bytes count until the context exits. Raises Refused."""
        body = bytearray()  # as objects, parts of a byte would take much more memory
        size = 0
        try:
            while isinstance(event := await client.receive(), h11.Data):
                if size + len(event.data) > MOST_BODY_BYTES:
                    raise Refused(413, f"the request is larger than {MOST_BODY_BYTES // 2**20} MiB")
                if self._buffered_bytes + len(event.data) > MOST_BUFFERED_BYTES:
                    raise Refused(503, "too many large requests at once")
                body += event.data
                size += len(event.data)
                self._buffered_bytes += len(event.data)
            if not isinstance(event, h11.EndOfMessage):
                raise ConnectionResetError("the client closed the connection in the middle of a request")
            yield body
        finally:
            self._buffered_bytes -= size

    async def _answer(self, client: HttpConnection, error: ErrorBody) -> None:
        """Send an error, after which the connection is closed."""
        body = error.encoded(self._policy.server.api)
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        await client.send(
            h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        )


def _taken(body: bytearray) -> bytes:
    """Return what was read, and keep none of it: a body may be large."""
    content = bytes(body)
    body.clear()
    return content


def _send_at_once(writer: asyncio.StreamWriter) -> None:
    """Send small parts of a response without waiting for an acknowledgement of the earlier ones, which costs 40 ms.

    asyncio does that itself only for listeners that were created with an explicit protocol number.
    """
    connection = writer.get_extra_info("socket")
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _unless_closed(client: HttpConnection, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, but cancel it when the client closes the connection. Raises ConnectionResetError then."""
    working, closed = asyncio.ensure_future(work), asyncio.ensure_future(client.closed_by_peer())
    try:
        await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ConnectionResetError("the client closed the connection before the end of the answer")
        working.result()
    finally:
        working.cancel()
        closed.cancel()
        await asyncio.gather(working, closed, return_exceptions=True)


async def _discard_rest(client: HttpConnection) -> None:
    """End the answer, and read what the client still sends for a limited time: a reset could destroy the answer."""
    discarded = 0
    with contextlib.suppress(TimeoutError, OSError):
        client.writer.write_eof()
        async with asyncio.timeout(_DISCARD_SECONDS):
            while discarded < _DISCARDED_BYTES and (data := await client.reader.read(READ_BYTES)):
                discarded += len(data)


def _is_encoded(response: h11.Response) -> bool:
    """Return whether a body is compressed, although no request asks for that."""
    encoding = dict(response.headers).get(b"content-encoding", b"identity")
    return encoding.strip().lower() not in (b"", b"identity")


def _phrase_of(status: int) -> bytes:
    """Return the usual phrase for a status. A server may repeat anything in its own."""
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase.encode()
    return b""


def _usage_reader(api: Api, request: ApprovedRequest, response: h11.Response) -> UsageReader | None:
    """Return a reader for the usage in a response. None if it is no answer of a model."""
    if not (request.is_answered_by_a_model and 200 <= response.status_code < 300):
        return None
    kind = dict(response.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
    return UsageReader(api, is_stream=kind == b"text/event-stream")


def _has_failed(status: int) -> bool:
    """Return whether the model may still work on a request that has this answer."""
    return status == HTTPStatus.REQUEST_TIMEOUT or (status >= _FAILED and status not in _PAUSING)


def _retry_after(response: h11.Response) -> float | None:
    value = dict(response.headers).get(b"retry-after")
    if value is None or response.status_code not in _PAUSING:
        return None
    return retry_after_seconds(value.decode("latin-1"), datetime.now(UTC))


async def _next_part(upstream: HttpConnection) -> h11.Data | h11.EndOfMessage:
    try:
        event = await upstream.receive()
    except (OSError, h11.RemoteProtocolError) as error:
        raise _ResponseCut(str(error)) from error
    if isinstance(event, h11.Data | h11.EndOfMessage):
        return event
    raise _ResponseCut("the model's server closed the connection in the middle of an answer")
