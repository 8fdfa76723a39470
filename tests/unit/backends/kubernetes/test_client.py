"""Errors for the answers of the API server, and the credentials of requests."""

import asyncio
import ctypes
import gc
import json
import socket
import ssl
import struct
import sys
import threading
import tracemalloc
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from labrats.backends.kubernetes.client import ApiClient, ApiServerRefusal, Expired, LineSplitter, error_of
from labrats.model.errors import Conflict, Invalid, LabratsError, NotFound, RetryLater
from tests.cluster.certificates import Authority
from tests.support.waiting import eventually

_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of asm-generic/socket.h, which Python does not define."""

CANCELLED_REQUESTS = 10
"""Only some of them leave a connection that nobody waits for."""

LONG_LINE = b"two" * 500_000
"""A line that arrives in several chunks."""


def a_status(code: int, message: str = "it is so", **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (404, a_status(404, name="opus", kind="aimodels"), NotFound),
        (404, a_status(404, name="labrats", kind="namespaces"), ApiServerRefusal),
        (404, b"404 page not found", ApiServerRefusal),
        (409, a_status(409, name="opus"), Conflict),
        (410, a_status(410), Expired),
        (413, b"request is too large", Invalid),
        (422, a_status(422), Invalid),
        (429, a_status(429), RetryLater),
        (401, a_status(401), ApiServerRefusal),
        (403, a_status(403), ApiServerRefusal),
        (500, a_status(500), RetryLater),
        (500, a_status(500, "etcdserver: request is too large"), Invalid),
        (502, b"<html>bad gateway</html>", RetryLater),
        (504, b"\xff", RetryLater),
        (400, a_status(400), Invalid),
        (400, b"<h1>Bad Request</h1>", LabratsError),  # of a load balancer
        (405, a_status(405), LabratsError),
        (400, a_status(400, 'strict decoding error: unknown field "spec.untrusted"'), ApiServerRefusal),
        *(
            (code, a_status(code, 'admission webhook "images.example" denied the request: no'), ApiServerRefusal)
            for code in (400, 409, 418)
        ),
    ],
)
def test_each_status_code_has_its_error(code: int, body: bytes, error: type[LabratsError]) -> None:
    assert type(error_of(code, body)) is error


def test_an_error_contains_the_message_of_the_api_server() -> None:
    assert "it is so" in str(error_of(403, a_status(403)))
    assert "bad gateway" in str(error_of(502, b"<html>bad gateway</html>"))


def test_an_invalid_object_error_names_every_field() -> None:
    causes = [{"field": "spec.slots", "message": "too few"}, {"field": "spec.model", "message": "too long"}]
    error = error_of(422, a_status(422, causes=causes))
    assert isinstance(error, Invalid)
    assert [(problem.field, problem.message) for problem in error.problems] == [
        ("spec.slots", "too few"),
        ("spec.model", "too long"),
    ]


def test_a_refusal_by_a_policy_is_no_fault_of_the_object() -> None:
    message = "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'no-jobs' denied request: no Jobs here"
    error = error_of(422, a_status(422, message, causes=[{"message": "no Jobs here"}]))
    assert type(error) is ApiServerRefusal
    assert "no Jobs here" in str(error)


def test_a_value_that_looks_like_the_refusal_of_a_policy_is_invalid() -> None:
    message = 'spec.type: Invalid value: "ValidatingAdmissionPolicy x"'
    assert type(error_of(422, a_status(422, message, causes=[{"field": "spec.type", "message": message}]))) is Invalid


def test_an_invalid_object_error_without_a_field_names_the_object() -> None:
    assert str(error_of(422, a_status(422, causes=[{"message": "too large"}]))) == "object: too large"


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("7", a_status(429), 7),
        (None, a_status(429, retryAfterSeconds=3), 3),
        (None, a_status(429), 1),
        ("0", a_status(429), 1),
        ("86400", a_status(429), 60),
        ("Wed, 21 Oct 2026 07:28:00 GMT", a_status(429), 1),
    ],
)
def test_the_retry_delay_is_that_of_the_api_server_within_bounds(
    header: str | None, body: bytes, seconds: float
) -> None:
    error = error_of(429, body, header)
    assert isinstance(error, RetryLater)
    assert error.delay_seconds == seconds


async def test_a_replaced_token_file_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("test-token-1")
    valid = ["test-token-1"]
    async with a_server(lambda: valid[0], tmp_path, {"tokenFile": str(token)}) as client:
        assert await client.request("GET", "/api") == b"{}"
        valid[0] = "test-token-2"
        token.write_text("test-token-2")
        assert await client.request("GET", "/api") == b"{}"
        valid[0] = "test-token-3"
        with pytest.raises(RetryLater, match="401"):
            await client.request("GET", "/api")


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_credential_plugin_runs_again_after_its_token_was_refused(tmp_path: Path, version: str) -> None:
    token = tmp_path / "token"
    credential = f"{{'status': {{'token': pathlib.Path({str(token)!r}).read_text()}}}}"
    plugin = a_plugin(f"import json, pathlib; print(json.dumps({credential}))", version)
    async with a_server(token.read_text, tmp_path, {"exec": plugin}) as client:
        for value in ("test-token-1", "test-token-2"):
            token.write_text(value)
            assert await client.request("GET", "/api") == b"{}"


async def test_a_credential_plugin_receives_the_version_of_its_protocol(tmp_path: Path) -> None:
    api_version = "json.loads(os.environ['KUBERNETES_EXEC_INFO'])['apiVersion']"
    plugin = a_plugin(
        f"import json, os; print(json.dumps({{'status': {{'token': {api_version} + os.environ['MORE']}}}}))", "v1"
    )
    async with a_server(lambda: "client.authentication.k8s.io/v1!", tmp_path, {"exec": plugin}) as client:
        assert await client.request("GET", "/api") == b"{}"


@pytest.mark.parametrize("program", ["print('{}')", "print('no JSON')", "raise SystemExit(1)"])
async def test_a_credential_plugin_without_a_token_is_retried_later(tmp_path: Path, program: str) -> None:
    async with a_server(lambda: "any", tmp_path, {"exec": a_plugin(program, "v1")}) as client:
        with pytest.raises(RetryLater):
            await client.request("GET", "/api")


def a_plugin(program: str, version: str) -> dict[str, Any]:
    """Return the `exec` section of a kubeconfig."""
    return {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": sys.executable,
        "args": ["-c", program],
        "env": [{"name": "MORE", "value": "!"}],
        "interactiveMode": "Never",
    }


async def test_a_stream_is_split_into_lines_and_an_incomplete_last_line_is_dropped(tmp_path: Path) -> None:
    async with a_server(lambda: "test-token", tmp_path, {"token": "test-token"}) as client:
        assert [line async for line in client.lines("/lines", {})] == [b"one", LONG_LINE]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_lines_are_the_same_for_all_sizes_of_chunks(size: int) -> None:
    stream = b"one\n\n" + b"x" * 100 + b"\n" + b"y" * 101 + b"\nlast\n" + b"z" * 300
    splitter = LineSplitter(most_bytes=100)
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    assert [line for chunk in chunks for line in splitter.lines_of(chunk)] == [b"one", b"", b"x" * 100, b"last"]


def test_an_endless_line_is_neither_stored_nor_copied() -> None:
    splitter, chunk = LineSplitter(most_bytes=64 * 1024), b"x" * 64 * 1024
    tracemalloc.start()
    try:
        assert not any(splitter.lines_of(chunk) for _ in range(1000))
        assert tracemalloc.get_traced_memory()[1] < 4 * len(chunk)
    finally:
        tracemalloc.stop()
    assert splitter.lines_of(b"end\nnext\n") == [b"next"]


async def test_an_unreachable_api_server_raises_retry_later(tmp_path: Path) -> None:
    async with a_server(lambda: "", tmp_path, {}) as client:
        pass
    async with ApiClient.open(tmp_path / "kubeconfig") as client:
        with pytest.raises(RetryLater, match="out of reach"):
            await client.request("GET", "/api")
        with pytest.raises(RetryLater, match="connection to the API server broke"):
            await anext(client.lines("/lines", {}))


async def test_a_watch_fails_within_seconds_once_the_api_server_is_silent(tmp_path: Path) -> None:
    """The machine of an API server that lost its network closes no connection, and acknowledges nothing."""
    ended = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        watch = web.StreamResponse()
        await watch.prepare(request)
        await watch.write(b"first\n")
        assert request.transport
        drop_all_packets(request.transport.get_extra_info("socket"))
        await ended.wait()
        return watch

    async with serving(answer, tmp_path, {}) as client, aclosing(client.lines("/watch", {})) as lines:
        assert await anext(lines) == b"first"
        with pytest.raises(RetryLater, match="connection to the API server broke"):
            await asyncio.wait_for(anext(lines), 20)
        ended.set()


def drop_all_packets(receiver: TransportSocket) -> None:
    """Let the kernel drop each packet to this socket before TCP sees it."""
    return_0 = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    receiver.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(return_0)))


@pytest.mark.parametrize(("method", "arrivals"), [("POST", 1), ("PATCH", 1), ("PUT", 2), ("DELETE", 2)])
async def test_only_idempotent_requests_are_repeated_after_a_dropped_connection(
    tmp_path: Path, method: str, arrivals: int
) -> None:
    arrived: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        arrived.append(request.method)
        if arrived.count(method) == 1:
            assert request.transport
            request.transport.abort()
        return web.Response(body=b"{}")

    async with serving(answer, tmp_path, {}) as client:
        await client.request("GET", "/api")
        with suppress(RetryLater):
            await client.request(method, "/api")
    assert arrived == ["GET"] + [method] * arrivals


async def test_the_next_page_of_a_list_is_fetched_while_the_current_one_is_read(tmp_path: Path) -> None:
    pages = {"": "second", "second": "third", "third": ""}
    requested: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requested.append(request.query.get("continue", ""))
        metadata = {"resourceVersion": "7", "continue": pages[requested[-1]]}
        return web.json_response({"metadata": metadata, "items": [{"page": len(requested)}]})

    async with serving(answer, tmp_path, {}) as client:
        read: list[bytes] = []
        async with aclosing(client.pages("/things", {"labelSelector": "own"})) as found:
            async for page in found:
                await eventually(lambda: len(requested) == min(len(read) + 2, 3))  # noqa: B023
                read += [bytes(item) for item in page.items]
        assert read == [b'{"page": 1}', b'{"page": 2}', b'{"page": 3}']

        requested.clear()
        async with aclosing(client.pages("/things", {})) as found:
            await anext(found)  # closing the generator early must cancel the prefetch


async def test_an_error_on_a_page_is_raised_by_the_list(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        if "continue" in request.query:
            return web.Response(status=410, body=a_status(410))
        return web.json_response({"metadata": {"resourceVersion": "7", "continue": "more"}, "items": []})

    async with serving(answer, tmp_path, {}) as client, aclosing(client.pages("/things", {})) as found:
        await anext(found)
        with pytest.raises(Expired):
            await anext(found)


def test_a_cancelled_request_leaves_no_tls_connection(tmp_path: Path) -> None:
    arrived = threading.Event()

    def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
        for _ in range(CANCELLED_REQUESTS):
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                while connection.recv(1000):
                    arrived.set()

    async def cancel_a_request(kubeconfig: Path) -> None:
        async with ApiClient.open(kubeconfig) as client:
            request = asyncio.create_task(client.request("GET", "/"))
            while not arrived.is_set():
                await asyncio.sleep(0.01)
            request.cancel()
            await asyncio.wait([request])

    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings(record=True) as found:
        authority = Authority(tmp_path / "keys", f"https://127.0.0.1:{listener.getsockname()[1]}")
        authority.create()
        kubeconfig = authority.issue("server", "/CN=server", "IP:127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.folder / "server.crt", authority.folder / "server.key")
        server = threading.Thread(target=serve, args=(listener, context))
        server.start()
        for _ in range(CANCELLED_REQUESTS):
            arrived.clear()
            with closing(asyncio.new_event_loop()) as loop:
                loop.run_until_complete(cancel_a_request(kubeconfig))
        server.join()
        gc.collect()
    assert [str(each.message) for each in found] == []


@asynccontextmanager
async def a_server(valid_token: Callable[[], str], folder: Path, user: dict[str, Any]) -> AsyncIterator[ApiClient]:
    """Yield a client with `user` in its kubeconfig, for an API server that requires the valid token."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {valid_token()}":
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        return web.Response(body=b"one\n" + LONG_LINE + b"\nthr" if request.path == "/lines" else b"{}")

    async with serving(answer, folder, user) as client:
        yield client


@asynccontextmanager
async def serving(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], folder: Path, user: dict[str, Any]
) -> AsyncIterator[ApiClient]:
    """Yield a client of a server that answers requests with `answer`."""
    server = web.ServerRunner(web.Server(answer))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    kubeconfig = a_kubeconfig(f"http://127.0.0.1:{server.addresses[0][1]}", folder, user)
    try:
        async with ApiClient.open(kubeconfig) as client:
            yield client
    finally:
        await server.cleanup()


def a_kubeconfig(server: str, folder: Path, user: dict[str, Any] | None = None) -> Path:
    """Write the file `kubeconfig` in `folder` and return its path."""
    kubeconfig = {
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": user or {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return path
