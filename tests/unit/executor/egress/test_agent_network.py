"""Hostile programs of agents with a restricted network, in a real sandbox."""

import asyncio
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.egress import agent_network
from labrats.executor.egress import proxy as proxy_module
from labrats.executor.egress.agent_network import _rule_of
from labrats.executor.egress.proxy import RequestRefused
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode
from labrats.model.network import MOST_REFUSED_HOSTS, AllowedHosts, Network
from labrats.model.protocol import RefusedHost, RefusedHostEvent, Sandbox
from labrats.net.address_policy import Unresolvable
from tests.support.arrivals import everything_that_arrives
from tests.support.http_server import ANSWER, an_http_server
from tests.support.internet import HOST_V6, METADATA, RAW_HOST, TCP_HOST, UDP_HOST, an_internet
from tests.unit.executor.attempts import AttemptFolder, a_task, an_attempt, some_work

RAW = f"python3 -c 'import socket as s; s.socket(2, 3, 1).sendto(bytes(8), (\"{RAW_HOST}\", 0))'"
INIT = """echo '{"type": "system", "subtype": "init", "session_id": "0190-test"}'"""
RESULT = """echo '{"type": "result", "subtype": "success", "is_error": false, "result": "done"}'"""
SECRET = "test-secret-0123456789"
LOOPBACK = ("127.0.0.0/8", "::1/128")


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    return Sandbox(program=program, etc_snapshots=str(tmp_path / "etc-snapshots"))


def an_attempt_of(
    script: str,
    folder: Path,
    network: Network,
    sandbox: Sandbox | None,
    endpoint: str | None = None,
    private: tuple[str, ...] = LOOPBACK,
    **config: Any,
) -> AttemptFolder:
    """Build an attempt whose agent program is a shell script."""
    program = folder / "programs" / "agent"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\n{INIT}\n{script}\n{RESULT}\n")
    program.chmod(0o755)
    return an_attempt(
        folder,
        config=JobConfig(provider="claude", network=network, **config),
        programs={"claude": str(program)},
        sandbox=sandbox,
        git_addresses=private,
        endpoint=endpoint,
    )


OUTSIDE = f"""
for host in {METADATA} {TCP_HOST} {HOST_V6}; do timeout 2 bash -c "echo > /dev/tcp/$host/443"; done 2>> out
echo > /dev/udp/{UDP_HOST}/53; {RAW} 2> /dev/null
timeout 2 getent hosts registry.npmjs.org && echo "a name was resolved" >> out
"""
ATTEMPTS = """
for host in 127.0.0.1 {address} ::1 localhost; do
    timeout 2 bash -c "echo tcp > /dev/tcp/$host/{port}"; timeout 2 bash -c "echo udp > /dev/udp/$host/{port}"
done 2>> out
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY no_proxy
timeout 5 curl -sS "http://{address}:{port}/" 2>> out
timeout 5 curl -sS -x http://127.0.0.1:3128 "http://{address}:{port}/" >> out
timeout 5 curl -sS -x http://127.0.0.1:3128 -p "http://{address}:{port}/" 2>> out
timeout 5 curl -sS -x socks5h://127.0.0.1:3128 "http://{address}:{port}/" 2>> out
ip route add default dev lo 2>> out; unshare --net true 2>> out; nsenter --net=/proc/1/ns/net true 2>> out
"""


@pytest.mark.parametrize("network", ["none", AllowedHosts(allow=("npm", "*.example.com"))], ids=["none", "allow"])
def test_nothing_reaches_another_host(tmp_path: Path, sandbox: Sandbox, network: Network) -> None:
    with an_internet() as internet, everything_that_arrives() as (address, port, arrived):
        script = OUTSIDE + ATTEMPTS.format(address=address, port=port)
        attempt = an_attempt_of(script, tmp_path, network, sandbox)
        attempt.run()
        assert arrived == []
        assert internet is None or internet.destinations() == set()

    assert attempt.result == "done"
    output = (attempt.workspace / "out").read_text()
    assert output.count("Network is unreachable") >= 3
    assert "a name was resolved" not in output
    assert f"the network rule of this job does not allow {address}:{port}" in output
    assert attempt.outcome.outputs.refused_hosts == (f"{address}:{port}",)
    assert f"[network: {address}:{port} refused: the network rule does not allow it]" in attempt.logs


def test_public_network_has_no_service_of_the_machine_and_no_private_one(tmp_path: Path, sandbox: Sandbox) -> None:
    with an_internet() as internet, everything_that_arrives() as (address, port, arrived):
        script = OUTSIDE + ATTEMPTS.format(address=address, port=port)
        attempt = an_attempt_of(script, tmp_path, "public", sandbox, private=())
        attempt.run()
        assert arrived == []
        assert internet is None or internet.destinations() == set()

    assert attempt.result == "done"
    assert f"{address} has no address that jobs may reach" in (attempt.workspace / "out").read_text()
    assert attempt.outcome.outputs.refused_hosts == (f"{address}:{port}",)
    assert any("--network open" in line for line in attempt.logs)


def test_public_network_reaches_each_port_of_other_hosts_by_the_proxy(tmp_path: Path, sandbox: Sandbox) -> None:
    """A network that OUTBOUND_ALLOWED_CIDRS allows stands for the public ones."""
    with an_http_server() as (port, requests):
        curl = f"curl -sS -m 20 --noproxy '' http://localhost:{port}"
        attempt = an_attempt_of(f"{curl}/plain > out; {curl}/tunnel -p >> out", tmp_path, "public", sandbox)
        attempt.run()

    assert (attempt.workspace / "out").read_text() == ANSWER.decode() * 2
    assert [each.split()[1] for each in requests] == ["/plain", "/tunnel"]


@pytest.mark.parametrize("network", ["public", "allow"])
def test_git_over_ssh_connects_through_the_proxy(tmp_path: Path, sandbox: Sandbox, network: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        rule: Network = "public" if network == "public" else AllowedHosts(allow=(f"localhost:{port}",))
        command = f"timeout 20 git ls-remote ssh://git@localhost:{port}/a.git 2> out"
        attempt = an_attempt_of(command, tmp_path, rule, sandbox)
        with attempt.started() as process:
            client, _ = listener.accept()
            with client:
                client.settimeout(20)
                client.sendall(b"SSH-2.0-Test\r\n")
                greeting = client.recv(100)
            process.wait(30)

    assert greeting.startswith(b"SSH-2.0-OpenSSH")


def test_refused_host_is_named_to_ssh(tmp_path: Path, sandbox: Sandbox) -> None:
    command = "timeout 20 git ls-remote ssh://git@localhost:2222/a.git 2> out"
    attempt = an_attempt_of(command, tmp_path, "none", sandbox)
    attempt.run()

    assert "localhost:2222 cannot be reached: the network rule of this job" in (attempt.workspace / "out").read_text()


def test_variables_of_a_job_keep_their_part(tmp_path: Path, sandbox: Sandbox) -> None:
    own = {"GIT_SSH_COMMAND": "my-ssh", "JAVA_TOOL_OPTIONS": "-Xmx1g"}
    attempt = an_attempt_of("env > out", tmp_path, "public", sandbox, env=own)
    attempt.run()

    found = dict(line.split("=", 1) for line in (attempt.workspace / "out").read_text().splitlines())
    assert found["GIT_SSH_COMMAND"] == "my-ssh"
    assert found["JAVA_TOOL_OPTIONS"].startswith("-Xmx1g -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 ")
    assert found["NODE_USE_ENV_PROXY"] == "1"
    for name in ("HTTPS_PROXY", "https_proxy", "npm_config_https_proxy", "PIP_PROXY", "CARGO_HTTP_PROXY"):
        assert found[name] == "http://127.0.0.1:3128"


def test_the_same_attempts_arrive_when_the_network_is_open(tmp_path: Path, sandbox: Sandbox) -> None:
    """Checks that the test above can fail."""
    with an_internet() as internet, everything_that_arrives() as (address, port, arrived):
        an_attempt_of(OUTSIDE + ATTEMPTS.format(address=address, port=port), tmp_path, "open", sandbox).run()
        assert {each[:3] for each in arrived} == {b"tcp", b"udp", b"GET"}
        if internet:  # raw packets need a capability, which the sandbox has taken
            expected = {METADATA, TCP_HOST, HOST_V6, UDP_HOST, internet.name_server} - {None}
            assert internet.destinations() == expected


def test_program_reaches_a_model_server_on_this_machine(tmp_path: Path, sandbox: Sandbox) -> None:
    with an_http_server() as (port, requests):
        script = f"curl -sS http://127.0.0.1:{port}/v1/messages > out"
        attempt = an_attempt_of(script, tmp_path, "none", sandbox, endpoint=f"http://127.0.0.1:{port}")
        attempt.run()
    assert (attempt.workspace / "out").read_text() == ANSWER.decode()
    assert requests == [f"GET /v1/messages 127.0.0.1:{port}"]
    assert attempt.outcome.outputs.refused_hosts == ()


def test_many_connections_at_once_are_served(tmp_path: Path, sandbox: Sandbox) -> None:
    with an_http_server() as (port, requests):
        network = AllowedHosts(allow=(f"localhost:{port}",))
        script = f"seq 60 | xargs -P 30 -I N curl -sS -m 20 --noproxy '' http://localhost:{port}/N > out"
        attempt = an_attempt_of(script, tmp_path, network, sandbox)
        attempt.run()
    assert (attempt.workspace / "out").read_text() == ANSWER.decode() * 60
    assert len(set(requests)) == 60


async def test_connections_beyond_the_limit_take_no_descriptor_of_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors, it could neither measure the agent's processes nor find them to end them."""
    monkeypatch.setattr(agent_network, "CONNECTIONS", 2)
    accepted, may_end = asyncio.Semaphore(0), asyncio.Event()

    async def hold(client: socket.socket) -> None:
        accepted.release()
        await may_end.wait()
        client.close()

    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(agent_network._serve_listener(listener, hold))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
    for _ in range(2):
        await accepted.acquire()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(accepted.acquire(), 0.1)
    may_end.set()
    for _ in range(3):
        await asyncio.wait_for(accepted.acquire(), 5)
    for client in clients:
        client.close()
    serving.cancel()
    await asyncio.wait([serving])


def test_attempt_fails_without_a_sandbox(tmp_path: Path) -> None:
    attempt = an_attempt_of("touch started", tmp_path, "none", None)
    attempt.run()
    code, reason = attempt.failure
    assert code is FailedCode.INVALID
    assert reason.startswith("config.network cannot be enforced without a sandbox; run `labrats doctor`")
    assert not (attempt.workspace / "started").exists()


async def test_missing_name_of_a_login_server_is_no_refusal_of_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, *_: object) -> list[str]:
        raise Unresolvable(f"the host name {host!r} could not be resolved")

    monkeypatch.setattr(proxy_module, "resolve_allowed", resolve)
    config = JobConfig(provider="claude", network=AllowedHosts(allow=("*.example.com",)))
    with some_work(tmp_path, a_task(tmp_path, config=config)) as work:
        for host, status in (("api.anthropic.com", "502 Bad Gateway"), ("a.example.com", "403 Forbidden")):
            with pytest.raises(RequestRefused) as refusal:
                await _rule_of(work.context).connect(host, 443)
            assert refusal.value.status == status
        assert work.context.events.outputs.refused_hosts == ("a.example.com:443",)


@pytest.mark.parametrize(
    ("address", "host", "port", "reason"),
    [
        ("a.example.com:443", "a.example.com", 443, "it is not allowed"),
        ("[2001:db8::1]:80", "2001:db8::1", 80, "it is not allowed"),
        (f"{SECRET}.example.com:443", "[redacted]", None, f"{SECRET}.example.com is not allowed"),
    ],
)
async def test_refused_host_is_an_event_once(
    tmp_path: Path, address: str, host: str, port: int | None, reason: str
) -> None:
    with some_work(tmp_path, a_task(tmp_path)) as work:
        work.context.events.redact_also(SECRET.upper())
        for _ in range(2):
            work.context.report_refused_host(address, reason)
        shown = "[redacted]" if port is None else reason
        refused = [event.refused_host for event in work.events if isinstance(event, RefusedHostEvent)]
        assert refused == [RefusedHost(host=host, port=port, reason=shown)]
        [name] = work.context.events.outputs.refused_hosts
        assert work.logs == [f"[network: {name} refused: {shown}]"]


async def test_log_says_when_further_refused_hosts_are_not_listed(tmp_path: Path) -> None:
    with some_work(tmp_path, a_task(tmp_path)) as work:
        hosts = [f"{number}.test:443" for number in range(MOST_REFUSED_HOSTS + 2)]
        for host in hosts:
            work.context.report_refused_host(host, "not allowed")
        assert list(work.context.events.outputs.refused_hosts) == hosts[:MOST_REFUSED_HOSTS]
        assert sum(isinstance(event, RefusedHostEvent) for event in work.events) == MOST_REFUSED_HOSTS
        assert work.logs.count("[network: further refused hosts are not listed]") == 1
        assert work.logs[-1] == "[network: further refused hosts are not listed]"
