"""Requests to the API server use the proxy of the environment, and no other."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import encode_basic_auth, web
from yarl import URL

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.proxy import proxy_options
from labrats.model.errors import RetryLater
from tests.unit.backends.kubernetes.test_client import a_kubeconfig

API_SERVER = "https://api.cluster.test:6443"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("address", ["http://proxy.test:3128", "proxy.test:3128"])
def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert proxy_options(API_SERVER) == {}
    monkeypatch.setenv("HTTPS_PROXY", address)
    assert proxy_options(API_SERVER) == {"proxy": URL("http://proxy.test:3128")}
    assert proxy_options("http://127.0.0.1:8080") == {}


@pytest.mark.parametrize("exempt", ["api.cluster.test", ".cluster.test", "other.test,cluster.test", "*"])
def test_no_proxy_exempts_an_api_server(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert proxy_options(API_SERVER) == {}


def test_an_https_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "https://proxy.test:3128")
    assert proxy_options(API_SERVER) == {}


async def test_requests_and_watches_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arrived: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        arrived.append(str(request.url))
        return web.Response(body=b"{}\n")

    proxy = web.ServerRunner(web.Server(answer))
    await proxy.setup()
    await web.TCPSite(proxy, "127.0.0.1", 0).start()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.addresses[0][1]}")
    async with ApiClient.open(a_kubeconfig("http://api.cluster.test:8080", tmp_path)) as client:
        assert await client.request("GET", "/api") == b"{}\n"
        assert [line async for line in client.lines("/watch", {})] == [b"{}"]
    await proxy.cleanup()
    assert arrived == ["http://api.cluster.test:8080/api", "http://api.cluster.test:8080/watch"]


async def test_a_tls_connection_is_tunnelled_with_the_password_of_the_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    received: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        host, port = proxy.sockets[0].getsockname()
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:test-p%40ss@{host}:{port}")
        async with ApiClient.open(a_kubeconfig(API_SERVER, tmp_path)) as client:
            with pytest.raises(RetryLater, match="502"):
                await client.request("GET", "/api")
    head = received[0].decode()
    assert head.startswith("CONNECT api.cluster.test:6443 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: {encode_basic_auth('user', 'test-p@ss')}\r\n" in head
