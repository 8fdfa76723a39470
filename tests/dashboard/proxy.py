"""A proxy between browser and engine that injects the faults of networks and engines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


def is_feed(request: web.BaseRequest) -> bool:
    return request.path == "/api/changes"


def is_stream(request: web.BaseRequest) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


class FaultyProxy:
    """A proxy that forwards all requests to an engine, except for the faults that the attributes describe.

    status_of: the status of the answer instead of the engine's, or None.
    bytes_of: the size of the body after which the connection is cut, or None.
    delay_seconds: the delay of each request to the API. delayed: the start of the paths with this delay.
    is_down: the engine does not run; the proxy answers all requests itself, with a page of its own.
    loses: whether the engine gets the request, but the connection breaks before its answer.
    forgets: whether the engine no longer knows the ids of its feed.
    """

    def __init__(self, upstream: str) -> None:
        self.url = ""
        self.status_of: Callable[[web.BaseRequest], int | None] = lambda request: None
        self.bytes_of: Callable[[web.BaseRequest], int | None] = lambda request: None
        self.loses: Callable[[web.BaseRequest], bool] = lambda request: False
        self.is_down = False
        self.delay_seconds = 0.0
        self.delayed = "/api/"
        self.forgets = False
        self.requests: list[web.BaseRequest] = []
        self._upstream = upstream
        self._client: aiohttp.ClientSession
        self._streams: list[web.BaseRequest] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, upstream: str) -> "AsyncIterator[FaultyProxy]":
        """Run a proxy on loopback in front of the engine at `upstream`."""
        proxy = cls(upstream)
        server = web.ServerRunner(web.Server(proxy._answer, handler_cancellation=True), shutdown_timeout=1)
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        address = server.addresses[0]
        proxy.url = f"http://{address[0]}:{address[1]}"
        timeout = aiohttp.ClientTimeout()
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as proxy._client:
            try:
                yield proxy
            finally:
                proxy.cut_streams()
                await server.cleanup()

    def cut_streams(self) -> None:
        """Cut all open streams."""
        for request in list(self._streams):
            if request.transport:
                request.transport.abort()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        body = await request.read()
        if self.is_down:
            return web.Response(status=502, text="<h1>502 Bad Gateway</h1>", content_type="text/html")
        if request.path.startswith("/api/"):
            if request.path.startswith(self.delayed):
                await asyncio.sleep(self.delay_seconds)
            if status := self.status_of(request):
                return web.json_response({"error": "injected by the proxy", "code": "injected"}, status=status)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers |= {"Host": self._upstream.partition("//")[2], "Origin": self._upstream}
        if self.forgets and is_feed(request):
            headers["Last-Event-ID"] = "0badcafe-1"
        with suppress(ConnectionResetError, aiohttp.ClientConnectionResetError):  # the browser or the test cut it
            async with self._client.request(
                request.method, self._upstream + request.path_qs, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if self.loses(request):
                    _cut(request)
                return await self._forward(answer, request)
        return _cut(request)

    async def _forward(self, answer: aiohttp.ClientResponse, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status)
        response.headers.extend(
            (name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP
        )
        left = self.bytes_of(request)
        await response.prepare(request)
        self._streams.append(request)
        try:
            async for data in answer.content.iter_any():
                await response.write(data if left is None else data[:left])
                left = None if left is None else left - len(data)
                if left is not None and left <= 0:
                    _cut(request)
        finally:
            self._streams.remove(request)
        await response.write_eof()
        return response


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport:
        request.transport.close()  # with what was written before
    raise asyncio.CancelledError
