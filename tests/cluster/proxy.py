"""A proxy in front of a real API server that injects the faults of networks and API servers."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from labrats.backends.kubernetes.client import ApiClient
from tests.support.waiting import eventually

_KEPT_HEADERS = ("Content-Type", "Retry-After")


class Cut(Enum):
    """A way in which a watch breaks."""

    RESET = auto()
    """The connection is reset."""
    HALF_LINE = auto()
    """The answer ends in the middle of an event."""
    INVALID_JSON = auto()
    """A line is not valid JSON."""
    EXPIRED = auto()
    """The API server reports 410 Gone: it no longer has the changes since the given version."""
    SILENCE = auto()
    """The connection stays open, but no more data arrives."""
    END = auto()
    """The answer ends normally, as after `timeoutSeconds`."""


@dataclass(frozen=True)
class Refuse:
    """The proxy answers the request with an error. The API server does not receive it."""

    code: int
    retry_after: int | None = None


@dataclass(frozen=True)
class Drop:
    """The connection is reset. The API server does not receive the request."""


@dataclass(frozen=True)
class Lose:
    """The API server carries out the request, but the connection is reset before its answer arrives."""


@dataclass(frozen=True)
class Hold:
    """The request is delayed until the event is set."""

    until: asyncio.Event


@dataclass(frozen=True)
class Break:
    """A watch or a followed log breaks after that many lines."""

    how: Cut
    after_lines: int = 0


Fault = Refuse | Drop | Lose | Hold | Break
Plan = Callable[[web.BaseRequest], Fault | None]


def is_watch(request: web.BaseRequest) -> bool:
    return "watch" in request.query


def is_log(request: web.BaseRequest) -> bool:
    return request.query.get("follow") == "true"


def is_list(request: web.BaseRequest) -> bool:
    return request.method == "GET" and "limit" in request.query


def is_write(request: web.BaseRequest) -> bool:
    return request.method != "GET"


class FaultyProxy:
    """A proxy that forwards all requests, except those for which `plan` returns a fault.

    client: a client that goes through the proxy. kubeconfig: for other programs to do so.
    """

    def __init__(self, upstream: ApiClient, kubeconfig: Path) -> None:
        self.client: ApiClient
        self.kubeconfig = kubeconfig
        self.plan: Plan = lambda request: None
        self.withheld: Callable[[web.BaseRequest], asyncio.Event | None] = lambda request: None
        """Returns an event for each watch whose changes are to be withheld until the event is set."""
        self.requests: list[web.BaseRequest] = []
        self._upstream = upstream
        self._closing = asyncio.Event()
        self._streams: list[web.BaseRequest] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls, upstream: ApiClient, folder: Path, listener: socket.socket | None = None
    ) -> "AsyncIterator[FaultyProxy]":
        """Run a proxy in front of `upstream`, on loopback or on `listener`. folder: for the kubeconfig."""
        proxy = cls(upstream, folder / "proxy.kubeconfig")
        server = web.ServerRunner(web.Server(proxy._answer, handler_cancellation=True), shutdown_timeout=1)
        await server.setup()
        listener = listener or socket.create_server(("127.0.0.1", 0))
        await web.SockSite(server, listener).start()
        address, port = listener.getsockname()
        proxy.kubeconfig.write_text(json.dumps(_kubeconfig(f"http://{address}:{port}")))
        try:
            async with ApiClient.open(proxy.kubeconfig) as proxy.client:
                yield proxy
        finally:
            proxy._closing.set()
            await server.cleanup()

    @asynccontextmanager
    async def faults(self, matches: Callable[[web.BaseRequest], bool], *faults: Fault) -> AsyncIterator[None]:
        """Inject `faults` into the next matching requests, one each. The block ends once all have been injected."""
        remaining = list(faults)

        def plan(request: web.BaseRequest) -> Fault | None:
            return remaining.pop(0) if remaining and matches(request) else None

        self.plan = plan
        yield
        await eventually(lambda: not remaining)

    @asynccontextmanager
    async def outage(self, fault: Fault) -> AsyncIterator[None]:
        """Inject `fault` into every request during the block. Open watches and logs are cut at its start."""
        self.plan = lambda request: fault
        for request in self._streams:
            if request.transport:
                request.transport.abort()
        yield
        self.plan = lambda request: None

    def count(self, matches: Callable[[web.BaseRequest], bool]) -> int:
        """Return the number of matching requests so far."""
        return sum(map(matches, self.requests))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        fault = self.plan(request)
        if isinstance(fault, Refuse):
            return _refusal(fault)
        if isinstance(fault, Drop):
            _reset(request)
        if isinstance(fault, Hold):
            await fault.until.wait()
        options = {
            "params": request.query,
            "data": await request.read(),
            "headers": {"Content-Type": request.headers.get("Content-Type", "application/json")},
            "timeout": aiohttp.ClientTimeout(),
        }
        async with self._upstream._send(request.method, request.path, options) as answer:
            if isinstance(fault, Lose):
                await answer.read()
                _reset(request)
            kept = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            if is_watch(request) or is_log(request):
                await self._forward_lines(answer, response, request, fault if isinstance(fault, Break) else None)
            else:
                await response.write(await answer.read())
            await response.write_eof()
            return response

    async def _forward_lines(
        self,
        answer: aiohttp.ClientResponse,
        response: web.StreamResponse,
        request: web.BaseRequest,
        fault: Break | None,
    ) -> None:
        """Forward a stream line by line until it ends or breaks."""
        number = 0
        if fault and fault.after_lines == 0:
            await self._cut(fault.how, b"{}\n", response, request)
            return
        self._streams.append(request)
        try:
            with suppress(aiohttp.ClientConnectionResetError):  # the client has closed the stream
                async for line in _lines(answer.content):
                    number += 1
                    if fault and number > fault.after_lines:
                        await self._cut(fault.how, line, response, request)
                        return
                    if release := self.withheld(request):
                        await release.wait()
                    await response.write(line)
        finally:
            self._streams.remove(request)

    async def _cut(self, how: Cut, line: bytes, response: web.StreamResponse, request: web.BaseRequest) -> None:
        match how:
            case Cut.RESET:
                _reset(request)
            case Cut.HALF_LINE:
                await response.write(line[: len(line) // 2])
            case Cut.INVALID_JSON:
                await response.write(b'{"type": "MODIFIED", "object": {]}\n')
            case Cut.EXPIRED:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            case Cut.SILENCE:
                await self._closing.wait()
            case Cut.END:
                pass


def _reset(request: web.BaseRequest) -> None:
    assert request.transport
    request.transport.abort()
    raise asyncio.CancelledError


def _refusal(fault: Refuse) -> web.Response:
    status = {"kind": "Status", "code": fault.code, "message": "refused by the proxy"}
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(status, status=fault.code, headers=headers)


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy"}}],
        "current-context": "proxy",
    }


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, of any length: aiohttp's own iteration refuses those of large objects."""
    unfinished = b""
    async for data in content.iter_any():
        *lines, unfinished = (unfinished + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if unfinished:
        yield unfinished
