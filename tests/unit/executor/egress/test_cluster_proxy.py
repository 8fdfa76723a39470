"""The egress proxy of a cluster and its clients, with real connections and processes."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path

import h11
import pytest

from labrats.executor.egress import cluster_proxy
from labrats.executor.egress import gateway as gateway_module
from labrats.executor.egress import proxy as proxy_module
from labrats.executor.egress.agent_network import proxy_on_loopback
from labrats.executor.egress.cluster_proxy import ClusterProxy, listener_on, rule_of_grant
from labrats.executor.egress.gateway import ConnectionRefused, Gateway, canary_port, require_policy
from labrats.executor.egress.proxy import CONNECTIONS, HEAD_BYTES, HostRule, RequestRefused
from labrats.executor.key_proxy.connections import Upstream, tls_context
from labrats.executor.key_proxy.model_server import ApprovedRequest, ModelServer, RunningRequest
from labrats.executor.key_proxy.responses import Refused
from labrats.model.egress_grant import EgressGrant, LivingAttemptsHead, sign_grant, sign_living
from labrats.model.errors import GiveUp
from labrats.model.network import AllowedHosts
from labrats.net.address_policy import Forbidden, Unresolvable
from tests.cluster.certificates import Authority
from tests.support.http_server import ANSWER, an_http_server
from tests.support.loopback import two_free_ports

pytestmark = pytest.mark.anyio

KEY = "key"
MODEL = "claude-sonnet-5-5"
LOOPBACK = ("127.0.0.0/8", "::1/128")
READ_BYTES = 64 * 1024 * 1024


def a_grant(**fields: object) -> EgressGrant:
    usual: dict[str, object] = {"attempt": "ir-1-1", "network": "none", "expires_at": int(time.time()) + 600}
    return EgressGrant(**usual | fields)  # type: ignore[arg-type]


@asynccontextmanager
async def a_gateway(grant: EgressGrant, key: str = KEY) -> AsyncIterator[Gateway]:
    """Serve a proxy, and yield a gateway with the token of `grant`."""
    proxy = ClusterProxy(KEY)
    server = await asyncio.start_server(proxy.serve, sock=listener_on(0, "127.0.0.1"), limit=HEAD_BYTES)
    try:
        yield Gateway(server.sockets[0].getsockname(), sign_grant(grant, key))
    finally:
        server.close()
        await proxy.drain(0)


async def answer_through(gateway: Gateway, host: str, port: int) -> bytes:
    reader, writer = await gateway.connect(host, port)
    with closing(writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await asyncio.wait_for(reader.read(), 5)


@pytest.mark.parametrize("way", ["network", "hosts", "model_server"])
async def test_granted_host_is_reached(way: str) -> None:
    with an_http_server() as (port, requests):
        grants = {
            "network": a_grant(network=AllowedHosts(allow=(f"localhost:{port}",)), private_networks=LOOPBACK),
            "hosts": a_grant(hosts=(("localhost", port),), private_networks=LOOPBACK),
            "model_server": a_grant(model_server=("localhost", port)),
        }
        async with a_gateway(grants[way]) as gateway:
            assert (await answer_through(gateway, "localhost", port)).endswith(ANSWER)
            with pytest.raises(ConnectionRefused, match=f"does not allow localhost:{port + 1}"):
                await gateway.connect("localhost", port + 1)
    assert len(requests) == 1


async def test_forbidden_network_is_reached_by_no_grant_of_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int, allowed: object, forbidden: object, _: object) -> list[str]:
        raise Forbidden(f"{allowed} {forbidden}")

    monkeypatch.setattr(proxy_module, "resolve_allowed", resolve)
    rule = rule_of_grant(a_grant(network="open"), ("2600::/16",))
    with pytest.raises(RequestRefused) as refusal:
        await rule.connect("example.com", 443)
    assert str(refusal.value.__context__) == "() ('2600::/16',)"


async def test_granted_name_with_a_private_address_is_refused() -> None:
    with an_http_server() as (port, requests):
        async with a_gateway(a_grant(hosts=(("localhost", port),))) as gateway:
            with pytest.raises(ConnectionRefused, match="an address that jobs must not reach") as refusal:
                await gateway.connect("localhost", port)
    assert (refusal.value.status, requests) == ("403 Forbidden", [])


async def test_missing_name_of_a_server_of_the_grant_is_no_refusal_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object) -> list[str]:
        raise Unresolvable("the host name 'git.example' could not be resolved")

    monkeypatch.setattr(proxy_module, "resolve_allowed", resolve)
    async with a_gateway(a_grant(hosts=(("git.example", 443),))) as gateway:
        with pytest.raises(ConnectionRefused, match="could not be resolved") as refusal:
            await gateway.connect("git.example", 443)
    assert refusal.value.status == "502 Bad Gateway"


async def test_agent_learns_only_of_hosts_that_its_rule_names_whether_they_are_private() -> None:
    def message(*allow: str) -> str:
        return "an address that jobs must not reach" if allow[0] == "localhost:1" else "no address that jobs may reach"

    for rule, host in ((("localhost:1",), "localhost"), (("*.localhost.test:1", "localhost:2"), "a.localhost.test")):
        async with a_gateway(a_grant(network=AllowedHosts(allow=rule))) as gateway:
            with pytest.raises(ConnectionRefused, match=message(*rule)):
                await gateway.connect(host, 1)


async def test_too_many_tunnels_end_the_oldest_one_of_the_attempt_with_the_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_proxy, "TUNNELS", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        model = ("localhost", server.getsockname()[1])
        async with a_gateway(a_grant(model_server=model)) as greedy, AsyncExitStack() as ends:
            modest = replace(greedy, token=sign_grant(a_grant(attempt="ir-2-1", model_server=model), KEY))
            readers = []
            for gateway in (modest, greedy, greedy, modest):
                reader, writer = await gateway.connect(*model)
                ends.enter_context(closing(writer))
                readers.append(reader)
            assert await asyncio.wait_for(readers[1].read(), 5) == b""
            for reader in (readers[0], readers[2], readers[3]):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.1)


async def test_a_client_that_stops_reading_takes_little_memory() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        model = ("localhost", listener.getsockname()[1])
        async with a_gateway(a_grant(model_server=model)) as gateway:
            reader, writer = await gateway.connect(*model)
            client = writer.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            with closing(writer), listener.accept()[0] as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
                server.settimeout(1)
                read = asyncio.create_task(reader.readexactly(READ_BYTES))
                sent = await asyncio.to_thread(send_until_blocked, server)
                await read
    assert sent - READ_BYTES < 2**21


def send_until_blocked(server: socket.socket) -> int:
    """Send until the peer has taken nothing for a second. Return the number of bytes."""
    sent = 0
    with suppress(TimeoutError):
        while sent < 2 * READ_BYTES:
            sent += server.send(bytes(64 * 1024))
    return sent


async def test_names_without_an_answer_delay_no_other_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    answers_all, begun = threading.Event(), 0

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        nonlocal begun
        if host != "model.example":
            begun += 1
            answers_all.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with an_http_server() as (port, _):
        model = sign_grant(a_grant(attempt="ir-2-1", model_server=("model.example", port)), KEY)
        async with a_gateway(a_grant(network=AllowedHosts(allow=("*.example",)))) as gateway:
            stuck = [asyncio.create_task(gateway.connect(f"h{each}.example", 443)) for each in range(CONNECTIONS)]
            async with asyncio.timeout(10):
                while begun < cluster_proxy.LOOKUPS:
                    await asyncio.sleep(0.01)
            try:
                answer = await answer_through(replace(gateway, token=model), "model.example", port)
                assert answer.endswith(ANSWER)
                assert begun == cluster_proxy.LOOKUPS
            finally:
                answers_all.set()
                await asyncio.gather(*stuck, return_exceptions=True)


@pytest.mark.parametrize(
    ("grant", "key", "message"),
    [
        (a_grant(network="open"), "another key", "has not signed this grant"),
        (a_grant(network="open", expires_at=1), KEY, "the grant has expired"),
    ],
)
async def test_invalid_grant_is_refused(grant: EgressGrant, key: str, message: str) -> None:
    async with a_gateway(grant, key) as gateway:
        with pytest.raises(ConnectionRefused, match=message) as refusal:
            await gateway.connect("localhost", 80)
    assert refusal.value.status == "407 Proxy Authentication Required"


async def test_bound_grant_is_of_no_use_at_another_address() -> None:
    with an_http_server() as (port, requests):
        async with a_gateway(a_grant(model_server=("localhost", port))) as gateway:
            bound = await gateway.bound()
            assert (await answer_through(bound, "localhost", port)).endswith(ANSWER)
            assert (await bound.bound()).token == bound.token
            for request in (f"CONNECT localhost:{port}", "POST /grant"):
                reader, writer = await asyncio.open_connection(*gateway.address, local_addr=("127.0.0.2", 0))
                with closing(writer):
                    token = f"Proxy-Authorization: Bearer {bound.token}"
                    writer.write(f"{request} HTTP/1.1\r\n{token}\r\n\r\n".encode())
                    answer = await asyncio.wait_for(reader.read(), 5)
                assert answer.startswith(b"HTTP/1.1 407 ")
                assert b"the grant belongs to another pod" in answer
    assert len(requests) == 1


async def test_every_replica_knows_a_bound_grant() -> None:
    with an_http_server() as (port, _):
        async with a_gateway(a_grant(model_server=("localhost", port))) as first, a_gateway(a_grant()) as second:
            bound = replace(await first.bound(), address=second.address)
            assert (await answer_through(bound, "localhost", port)).endswith(ANSWER)


async def posted(gateway: Gateway, head: LivingAttemptsHead, names: bytes, key: str = KEY) -> bytes:
    """Send a list of the attempts that have not ended. Return the answer."""
    reader, writer = await asyncio.open_connection(*gateway.address)
    with closing(writer):
        token = sign_living(head, key)
        writer.write(f"POST /living-attempts HTTP/1.1\r\nProxy-Authorization: Bearer {token}\r\n\r\n".encode() + names)
        return await asyncio.wait_for(reader.read(), 5)


async def test_grant_ends_with_its_attempt() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = ("localhost", listener.getsockname()[1])
        grant = a_grant(model_server=server, listed_after=(1, 4))
        async with a_gateway(grant) as gateway:
            reader, writer = await gateway.connect(*server)
            with closing(writer):
                # The first list is too early to have the attempt, and the last one is of an earlier leader.
                for number, names, status in (
                    ((1, 4), b"", "200 OK"),
                    ((2, 1), b"ir-1-1 ir-2-1", "200 OK"),
                    ((1, 5), b"", "409 Conflict"),
                ):
                    answer = await posted(gateway, LivingAttemptsHead.of(names, number), names)
                    assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
                    (await gateway.connect(*server))[1].close()
                assert not reader.at_eof()
                await posted(gateway, LivingAttemptsHead.of(b"ir-2-1", (2, 2)), b"ir-2-1")
                with pytest.raises(ConnectionRefused, match="the attempt has ended"):
                    await gateway.connect(*server)
                assert await asyncio.wait_for(reader.read(), 5) == b""  # the open connection is cut


async def test_list_with_a_lower_number_is_accepted_once_the_known_list_is_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_gateway(a_grant()) as gateway:
        await posted(gateway, LivingAttemptsHead.of(b"", (7, 1)), b"")
        first = LivingAttemptsHead.of(b"ir-1-1", (1, 1))  # of the first leader after the Lease was deleted
        assert (await posted(gateway, first, b"ir-1-1")).startswith(b"HTTP/1.1 409 ")
        monkeypatch.setattr(cluster_proxy, "STALE_SECONDS", 0.0)
        assert (await posted(gateway, first, b"ir-1-1")).startswith(b"HTTP/1.1 200 ")
        assert (await gateway.bound()).token


async def test_list_of_attempts_that_the_engine_has_not_signed_changes_nothing() -> None:
    with an_http_server() as (port, _):
        async with a_gateway(a_grant(model_server=("localhost", port))) as gateway:
            no_names = LivingAttemptsHead.of(b"", (1, 1))
            assert (await posted(gateway, no_names, b"", "another key")).startswith(b"HTTP/1.1 407 ")
            other_names = LivingAttemptsHead.of(b"ir-2-1", (1, 1))
            assert (await posted(gateway, other_names, b"ir-3-1")).startswith(b"HTTP/1.1 400 ")
            assert (await answer_through(gateway, "localhost", port)).endswith(ANSWER)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("CONNECT localhost:80", "407"), ("GET http://localhost/", "407"), ("", "400")],
)
async def test_request_without_a_token_is_refused(request_line: str, status: str) -> None:
    async with a_gateway(a_grant(network="open")) as gateway:
        reader, writer = await asyncio.open_connection(*gateway.address)
        with closing(writer):
            writer.write(f"{request_line} HTTP/1.1\r\n\r\n".encode())
            assert (await reader.read()).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.fixture
def secure_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str]]]:
    """A server with TLS for `localhost`, whose certificate this process trusts. Yield its port and its requests."""
    authority = Authority(tmp_path / "authority", "https://unused.test")
    authority.create()
    authority.issue("server", "/CN=localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "server.crt", authority.folder / "server.key")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    tls_context.cache_clear()
    with (
        context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener,
        an_http_server(listener) as (port, requests),
    ):
        yield port, requests
    tls_context.cache_clear()


async def test_key_proxy_reaches_its_model_by_tls_through_the_cluster(
    secure_server: tuple[int, list[str]],
) -> None:
    port, requests = secure_server
    server = ModelServer.of("claude", f"https://localhost:{port}", "ANTHROPIC_API_KEY", "sk-test")
    async with a_gateway(a_grant(model_server=("localhost", port))) as gateway:
        upstream = Upstream(server, gateway)
        for number in range(2):  # the second on the same connection
            request = ApprovedRequest(
                b"POST", b"/v1/messages", ((b"host", b"x"), (b"content-length", b"1")), b"%d" % number, MODEL
            )
            connection, response = await upstream.request(RunningRequest(request))
            assert response.status_code == 200
            while isinstance(await connection.receive(), h11.Data):
                pass
            upstream.release(connection)
        upstream.close()
    assert requests == ["POST /v1/messages x 0", "POST /v1/messages x 1"]


async def test_key_proxy_answers_with_the_refusal_of_the_cluster() -> None:
    server = ModelServer.of("claude", "https://other.test", "ANTHROPIC_API_KEY", "sk-test")
    async with a_gateway(a_grant(model_server=("localhost", 1))) as gateway:
        request = RunningRequest(ApprovedRequest(b"GET", b"/", (), b"", MODEL))
        with pytest.raises(
            Refused, match=r"other\.test cannot be reached: the network rule of this job does not allow"
        ):
            await Upstream(server, gateway).request(request)


async def test_connections_of_one_attempt_are_limited() -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)) as listener:
        server = ("localhost", listener.getsockname()[1])
        async with AsyncExitStack() as stack, a_gateway(a_grant(model_server=server)) as gateway:
            for _ in range(CONNECTIONS):
                stack.callback((await gateway.connect(*server))[1].close)
            with pytest.raises(ConnectionRefused, match="too many connections"):
                await gateway.connect(*server)


@pytest.mark.parametrize(("in_all", "of_peer"), [(3, 9), (9, 3)])
async def test_oldest_connections_without_a_grant_end(
    in_all: int, of_peer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_proxy, "UNAUTHENTICATED", in_all)
    monkeypatch.setattr(cluster_proxy, "UNAUTHENTICATED_OF_PEER", of_peer)
    with an_http_server() as (port, _):
        async with a_gateway(a_grant(model_server=("localhost", port))) as gateway, AsyncExitStack() as stack:
            served, upstream = await gateway.connect("localhost", port)
            stack.callback(upstream.close)
            unauthenticated = []
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*gateway.address)
                stack.callback(writer.close)
                writer.write(b"CONNECT localhost:80 HTTP/1.1\r\n")  # the head never ends
                unauthenticated.append(reader)
            for each in unauthenticated[:2]:
                with suppress(ConnectionResetError):
                    assert await asyncio.wait_for(each.read(), 5) == b""
            assert not any(each.at_eof() for each in unauthenticated[2:])
            upstream.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await asyncio.wait_for(served.read(), 5)).endswith(ANSWER)


async def test_probe_of_the_cluster_is_answered() -> None:
    async with a_gateway(a_grant()) as gateway:
        reader, writer = await asyncio.open_connection(*gateway.address)
        with closing(writer):
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.33\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_refusal_of_the_cluster_is_reported_by_the_proxy_in_the_pod() -> None:
    refused: list[str] = []
    with an_http_server() as (port, _):
        async with a_gateway(a_grant(hosts=(("localhost", port),))) as gateway:
            rule = HostRule(
                lambda host, _: host == "localhost", (), lambda server, _: refused.append(server), gateway=gateway
            )
            async with proxy_on_loopback(rule) as url:
                reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
                with closing(writer):
                    writer.write(f"GET http://localhost:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert b"an address that jobs must not reach" in await reader.read()
    assert refused == [f"localhost:{port}"]


async def test_unreachable_proxy_is_an_error() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = free.getsockname()
    with pytest.raises(ConnectionRefused, match="cannot be reached"):
        await Gateway(address, "token").connect("localhost", 80)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "POLICY_SECONDS", 0.3)


@asynccontextmanager
async def listening(ports: list[int]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for port in ports:
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
            stack.callback(server.close)
        yield


@pytest.mark.parametrize("is_confined", [True, False])
async def test_pod_whose_policy_is_in_force_goes_on(is_confined: bool) -> None:
    address = ("127.0.0.1", port := two_free_ports())
    async with listening([port] if is_confined else []):
        await require_policy(*((address, ()) if is_confined else (None, [address])))


async def test_pod_waits_until_its_policy_is_in_force() -> None:
    port = two_free_ports()
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        connected = asyncio.Event()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            writer.close()

        canary = await asyncio.start_server(accept, "127.0.0.1", canary_port(port))
        stack.callback(canary.close)
        waiting = asyncio.create_task(require_policy(None, [("127.0.0.1", port)]))
        await connected.wait()
        assert not waiting.done()
        canary.close()
        await waiting


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("open_ports", ["both", "none", "canary"])
async def test_pod_whose_policy_is_not_enforced_gives_up(open_ports: str) -> None:
    port = two_free_ports()
    ports = {"both": [port, canary_port(port)], "none": [], "canary": [canary_port(port)]}[open_ports]
    expected = "cannot be reached" if open_ports == "none" else "does not enforce NetworkPolicies"
    async with listening(ports):
        with pytest.raises(GiveUp, match=rf"config\.network cannot be enforced: .*{expected}"):
            await require_policy(("127.0.0.1", port), [])


@pytest.mark.usefixtures("short_wait")
async def test_open_pod_whose_policy_is_not_enforced_gives_up() -> None:
    port = two_free_ports()
    async with listening([canary_port(port)]):
        with pytest.raises(GiveUp, match=r"the network policy of jobs cannot be enforced: .*does not enforce"):
            await require_policy(None, [("127.0.0.1", port)])


@pytest.mark.usefixtures("short_wait")
async def test_pod_whose_policy_is_not_enforced_for_another_address_gives_up() -> None:
    proxy, other = ("127.0.0.1", two_free_ports()), ("127.0.0.1", two_free_ports())
    async with listening([proxy[1], canary_port(other[1])]):
        with pytest.raises(GiveUp, match="does not enforce NetworkPolicies"):
            await require_policy(proxy, [other])


async def test_program_serves_until_a_signal_and_ssh_reaches_hosts_by_its_tunnel(tmp_path: Path) -> None:
    port = two_free_ports()
    (tmp_path / "key").write_text(KEY)
    program = (
        "import sys; from pathlib import Path; from labrats.executor.egress.cluster_proxy import run_cluster_proxy;"
        "sys.exit(run_cluster_proxy(Path(sys.argv[1]), int(sys.argv[2]), 5.0))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, tmp_path / "key", str(port))
    try:
        with an_http_server() as (server_port, _):
            gateway = Gateway(("127.0.0.1", port), sign_grant(a_grant(model_server=("localhost", server_port)), KEY))
            async with asyncio.timeout(20):
                while True:
                    try:
                        reader, writer = await gateway.connect("localhost", server_port)
                        break
                    except ConnectionRefused:
                        await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)  # the open connection is still served
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(ANSWER)
            writer.close()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_ssh_reaches_its_host_through_the_tunnel() -> None:
    with an_http_server() as (port, _):
        rule = HostRule(lambda *server: server == ("localhost", port), LOOPBACK, lambda *_: None)
        async with proxy_on_loopback(rule) as url:

            async def tunnel(target: str) -> tuple[int, bytes]:
                command = [sys.executable, "-m", "labrats.executor.egress.tunnel", url.removeprefix("http://"), target]
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ
                )
                output, _ = await process.communicate(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return process.returncode or 0, output

            assert (await tunnel(f"localhost:{port}"))[1].endswith(ANSWER)
            refused = f"localhost:{port + 1} cannot be reached: 403 Forbidden\n".encode()
            assert await tunnel(f"localhost:{port + 1}") == (1, refused)
