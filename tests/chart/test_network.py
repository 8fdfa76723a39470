"""Network rules on a cluster that enforces NetworkPolicies: a hostile agent in an installation on a real node."""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.egress import OPEN_CHECK
from labrats.model.core_resources import JOB_CREDENTIALS
from labrats.model.egress_grant import EgressGrant, sign_grant
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User
from tests.acceptance.git_server import make_repository, serve_git
from tests.agents.claude import MessagesApi
from tests.chart.fixture import new_installation
from tests.chart.installation import VALUES, Helm, Installation
from tests.chart.test_installation import a_user_of
from tests.cluster.cluster import GATEWAY, Cluster
from tests.local.chat_server import Says as ChatSays
from tests.local.chat_server import chat_server
from tests.support import program_agent
from tests.support.http_server import ANSWER, an_http_server
from tests.support.internet import HOST_V6, METADATA, TCP_HOST, Uplink, open_uplink, remove_uplink
from tests.support.loopback import QuietHandler, served_by
from tests.support.scripted_model import Says, scripted_model

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(400)]

KEY: Final = "sk-test-key-of-the-model"
MODEL: Final = "claude-sonnet-5-5"
_DNS: Final = 53
ASKS_NODE: Final = {"dnsPolicy": "None", "dnsConfig": {"nameservers": [GATEWAY]}}
"""Fields of the pods of jobs by which these ask `a_name_server`."""

OUTSIDE: Final = {"metadata": (METADATA, 80), "internet": (TCP_HOST, 443)}
"""Hosts outside of the cluster, which do not answer. Packets to them are seen at the node's uplink."""

REACH: Final = """
import glob, os, socket, urllib.request
found = {}

def attempt(name, action):
    try:
        found[name] = action() or "reached"
    except Exception as error:
        found[name] = type(error).__name__

def tcp(host, port):
    with socket.create_connection((host, port), timeout=3) as connection:
        connection.sendall(b"tcp from the agent")

def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"udp from the agent", (host, port))

def get(url, proxies=None):
    handler = urllib.request.ProxyHandler(proxies)
    with urllib.request.build_opener(handler).open(url, timeout=10) as answer:
        return answer.read().decode()

def link_local():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"udp6 from the agent", ("ff02::1", TARGETS["listener"][1], 0, socket.if_nametoindex("eth0")))

def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"ping", (TARGETS["listener"][0], 0))

for name, target in TARGETS.items():
    attempt(f"tcp {name}", lambda: tcp(*target))
attempt("mapped", lambda: tcp(f"::ffff:{TARGETS['listener'][0]}", TARGETS["listener"][1]))
attempt("udp", lambda: udp(*TARGETS["listener"]))
attempt("link-local", link_local)
attempt("raw socket", raw)
attempt("name", lambda: socket.gethostbyname("registry.npmjs.org"))
"""

BY_PROXY: Final = """
proxy = os.environ.get("HTTP_PROXY", "")
for name, url in URLS.items():
    attempt(f"proxy {name}", lambda: get(url, {"http": proxy}))
egress = open("/attempt/inputs/job.json").read()
host, port = json.loads(egress).get("egressProxy") or ("", 0)
attempt("egress proxy without a token", lambda: get(URLS["allowed"], {"http": f"http://{host}:{port}"}))
def canary():
    tcp(host, port + 1)
attempt("canary", canary)
def tokens():
    paths = [os.path.join(folder, name) for root in ("/attempt", "/tmp") for folder, _, names in os.walk(root)
             for name in names] + glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")
    hits = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                if b"eyJhdHRlbXB0Ijo" + b"i" in file.read(2**20):
                    hits.append(path)
        except OSError:
            continue
    return ",".join(hits) or "no token"
attempt("tokens", tokens)
"""


@dataclass
class Listener:
    """A machine beside the cluster's pods that records each connection and datagram."""

    port: int
    arrived: list[bytes] = field(default_factory=list)


@contextmanager
def a_listener(cluster: Cluster) -> Iterator[Listener]:
    """Listen with TCP and UDP at the node's address."""
    tcp = cluster.listen()
    listener = Listener(tcp.getsockname()[1])
    udp = cluster.call_inside(lambda: bound_udp(listener.port))

    def accept() -> None:
        while True:
            with tcp.accept()[0] as client:
                if (first := client.recv(100)) == b"stop":
                    return
            listener.arrived.append(first)

    def receive() -> None:
        while (data := udp.recv(100)) != b"stop":
            listener.arrived.append(data)

    threads = [threading.Thread(target=each) for each in (accept, receive)]
    for thread in threads:
        thread.start()
    try:
        yield listener
    finally:
        cluster.call_inside(lambda: send_stop(listener.port))
        for thread in threads:
            thread.join()
        tcp.close()
        udp.close()


@contextmanager
def a_name_server(cluster: Cluster) -> Iterator[list[bytes]]:
    """Serve DNS at the node's address, which the pods of jobs have as their name server. Yield the questions.

    Every name has the address 192.0.2.1.
    """
    asked: list[bytes] = []
    udp = cluster.call_inside(lambda: bound_udp(_DNS))

    def answer() -> None:
        while True:
            question, sender = udp.recvfrom(512)
            if question == b"stop":
                return
            asked.append(question)
            end = question.index(b"\0", 12) + 5
            is_ipv4 = question[end - 4 : end - 2] == b"\0\1"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("192.0.2.1") if is_ipv4 else b""
            head = question[:2] + b"\x81\x80\0\1\0" + bytes([is_ipv4]) + bytes(4)
            udp.sendto(head + question[12:end] + record, sender)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield asked
    finally:
        cluster.call_inside(lambda: send_stop(_DNS, socket.SOCK_DGRAM))
        thread.join()
        udp.close()


@contextmanager
def an_uplink(cluster: Cluster) -> Iterator[Uplink]:
    """Give the node a network card, to which it forwards packets to hosts outside. Nothing answers."""
    uplink = cluster.call_inside(open_uplink)
    try:
        yield uplink
    finally:
        uplink.close()
        cluster.call_inside(remove_uplink)


def bound_udp(port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", port))
    return udp


def send_stop(port: int, *kinds: socket.SocketKind) -> None:
    for kind in kinds or (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as client:
            client.connect((GATEWAY, port))
            client.sendall(b"stop")


@pytest.fixture(scope="module")
def confined(
    cluster: Cluster | None,
    helm: Helm,
    engine_image: str,
    executor_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """An installation whose Claude Code is an agent that executes its prompt. Jobs with an open network reach all.

    The egress proxy knows the names `allowed.test`, at the node's address, and `private.test`, at the API server's.
    """
    if cluster is None:
        pytest.skip("the tests need a cluster of their own, whose node has its volumes on this machine")
    folder = tmp_path_factory.mktemp("volumes")
    with new_installation(cluster, helm, engine_image, executor_image, folder) as installation:
        agent = {"claude": f"#!/usr/bin/env python3\n{Path(program_agent.__file__).read_text()}"}
        hosts = f"127.0.0.1 localhost\n{GATEWAY} allowed.test\n10.96.0.1 private.test\n"
        model = {"metadata": {"name": "anthropic", "labels": JOB_CREDENTIALS}, "stringData": {"ANTHROPIC_API_KEY": KEY}}
        for each in (
            {"kind": "ConfigMap", "metadata": {"name": "agent"}, "data": agent},
            {"kind": "ConfigMap", "metadata": {"name": "hosts"}, "data": {"hosts": hosts}},
            {"kind": "Secret"} | model,
        ):
            installation.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1"} | each))
        installation.install(
            api={"replicas": 1},
            controller={"replicas": 1, "resources": {"requests": {"cpu": "10m"}}},
            executor=installation.values()["executor"]
            | {
                "pod": ASKS_NODE,
                "extraVolumes": [{"name": "agent", "configMap": {"name": "agent", "defaultMode": 0o755}}],
                "extraVolumeMounts": [{"name": "agent", "mountPath": "/opt/agent-clis/node_modules/.bin"}],
            },
            egressProxy={
                "drainSeconds": 0,
                "extraVolumes": [{"name": "hosts", "configMap": {"name": "hosts"}}],
                "extraVolumeMounts": [{"name": "hosts", "mountPath": "/etc/hosts", "subPath": "hosts"}],
            },
            networkPolicy={"executorEgress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]},
            settings=VALUES["settings"] | {"OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32"},
        )
        yield installation


@pytest.fixture
async def user(confined: Installation) -> AsyncIterator[User]:
    async with a_user_of(confined) as user:
        yield user


async def submit(user: User, program: str, network: Any, **fields: Any) -> str:
    """Submit a job whose agent executes the program."""
    config = {"provider": "claude", "network": network, "timeoutMs": 120_000} | fields.pop("config", {})
    body = {"source": "manual", "type": "code-review", "prompt": program, "config": config, **fields}
    answer = await user.post("/api/jobs/submit", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["jobId"])


async def found_by(user: User, job_id: str) -> tuple[Any, dict[str, Any]]:
    """Return what the agent of a job has found, and the job."""
    job = await user.wait(job_id)
    assert job["status"] == "completed", job
    return json.loads(job["returnvalue"]), job


def targets_of(installation: Installation, listener: Listener) -> dict[str, tuple[str, int]]:
    """Return the places that no agent with a rule may reach."""
    (engine,) = installation.addresses("api")
    api_server = installation.cluster.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    service = installation.get("service", "labrats")[0]["spec"]["clusterIP"]
    return {
        "listener": (GATEWAY, listener.port),
        "API server": (api_server, 443),
        "API server's own address": (GATEWAY, installation.cluster.port),
        "engine": (service, 80),
        "engine's pod": (engine, 3001),
        "kubelet": (GATEWAY, 10251),
    }


@pytest.mark.parametrize("network", ["none", {"allow": ["allowed.test:{port}", "private.test:443"]}], ids=str)
async def test_hostile_agent_reaches_only_what_its_rule_allows(
    confined: Installation, user: User, network: Any
) -> None:
    server = confined.cluster.listen()
    with (
        a_listener(confined.cluster) as listener,
        a_name_server(confined.cluster) as asked,
        an_uplink(confined.cluster) as uplink,
        an_http_server(server) as (port, requests),
    ):
        targets = targets_of(confined, listener)
        outside = targets | OUTSIDE | {"IPv6": (HOST_V6, 443)}
        urls = {
            "allowed": f"http://allowed.test:{port}/",
            "private": "http://private.test:443/",
            "other": f"http://{GATEWAY}:{listener.port}/",
        }
        rule = json.loads(json.dumps(network).replace("{port}", str(port)))
        program = f"TARGETS, URLS = {outside!r}, {urls!r}\n{REACH}{BY_PROXY}\nresult = json.dumps(found)"
        found, job = await found_by(user, await submit(user, program, rule))

        assert (listener.arrived, asked, uplink.destinations()) == ([], [], set())
    reached = {name for name, what in found.items() if what == "reached"}
    # A datagram is sent into nothing, and an unconnected socket does not learn of that.
    assert reached <= {"udp", "link-local"}, found
    assert found["raw socket"] == "PermissionError"
    assert found["name"] == "gaierror"
    assert (found["egress proxy without a token"], found["tokens"]) == ("HTTPError", "no token")
    assert found["proxy private"] == found["proxy other"] == "HTTPError"
    refused = {"private.test:443", f"{GATEWAY}:{listener.port}"}
    if network == "none":
        assert (found["proxy allowed"], requests) == ("HTTPError", [])
        refused.add(f"allowed.test:{port}")
    else:
        assert (found["proxy allowed"], len(requests)) == (ANSWER.decode(), 1)
    assert set(job["refusedHosts"]) == refused
    lines = await user.log_lines(job["id"])
    assert {line.split()[1] for line in lines if line.startswith("[network: ")} == refused
    events = (await user.get(f"/api/jobs/{job['id']}/events", kind="refused_host", limit=100)).json()["events"]
    assert {"{host}:{port}".format(**each["refusedHost"]) for each in events} == refused


async def test_the_same_agent_reaches_all_of_it_with_an_open_network(confined: Installation, user: User) -> None:
    """Checks that the test above can fail."""
    with (
        a_listener(confined.cluster) as listener,
        a_name_server(confined.cluster) as asked,
        an_uplink(confined.cluster) as uplink,
    ):
        targets = targets_of(confined, listener)
        program = f"TARGETS = {targets | OUTSIDE!r}\n{REACH}\nresult = json.dumps(found)"
        found, _ = await found_by(user, await submit(user, program, "open"))
        assert {each[:3] for each in listener.arrived} == {b"tcp", b"udp"}
        assert uplink.destinations() == {host for host, _ in OUTSIDE.values()}
    assert any(b"registry" in question for question in asked)
    assert found["name"] == "192.0.2.1"
    reached = {name for name, what in found.items() if what == "reached"}
    assert reached - {"link-local"} == {
        *(f"tcp {name}" for name in targets),
        "mapped",
        "udp",
    }  # the cluster has no IPv6


ASK: Final = """
import json, urllib.request
request = urllib.request.Request(
    os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
    json.dumps({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode(),
    {"X-Api-Key": token, "Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=20) as answer:
    answer.read()
    result = json.dumps({"status": answer.status})
"""


async def test_agent_without_a_network_reaches_its_model_at_a_private_address(
    confined: Installation, user: User
) -> None:
    script = [Says("hi", input_tokens=30, output_tokens=12)]
    with scripted_model(MessagesApi(), script, confined.cluster.listen()) as server:
        spec = {"provider": "claude", "model": MODEL, "credentialsRef": "anthropic", "slots": 2}
        spec["endpoint"] = f"http://{GATEWAY}:{server.port}"
        created = await user.post("/api/ai-models", {"name": "private", **spec})
        assert created.status_code == 201, created.text
        job_id = await submit(user, f"MODEL = {MODEL!r}\n{ASK}", "none", config={"model": MODEL})
        found, job = await found_by(user, job_id)
    assert (found, server.key, job["refusedHosts"]) == ({"status": 200}, KEY, [])


async def test_executor_without_a_network_asks_a_model_that_needs_no_key(confined: Installation, user: User) -> None:
    with chat_server(ChatSays("the answer"), listener=confined.cluster.listen()) as server:
        spec = {"name": "local", "provider": "vllm", "model": "test-model", "slots": 2}
        created = await user.post("/api/ai-models", spec | {"endpoint": f"http://{GATEWAY}:{server.port}"})
        assert created.status_code == 201, created.text
        config = {"provider": "vllm", "model": "test-model"}
        job = await user.wait(await submit(user, "What is it?", "none", config=config))
    assert (job["status"], job["returnvalue"]) == ("completed", "the answer"), job


async def checked(installation: Installation, check: str) -> str:
    """Return the result of a check of the leader's, once it is there."""
    file = installation.folder / "data" / check
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not file.exists():
            await asyncio.sleep(POLL_SECONDS)
    return file.read_text()


async def test_external_contributors_job_runs_only_with_a_rule_where_jobs_reach_the_network(
    confined: Installation, user: User
) -> None:
    """The values of this installation open everything to jobs without a rule, as a network without policies does."""
    assert await checked(confined, OPEN_CHECK) == "not enforced"
    spec = {
        "source": "manual",
        "type": "code-review",
        "prompt": "Hi",
        "config": {"provider": "mock"},
        "untrusted": True,
    }
    names = {"of-a-stranger": spec, "of-another-stranger": spec | {"config": {"provider": "mock", "network": "none"}}}
    for name, each in names.items():
        job = {
            "apiVersion": "labrats.work/v1alpha1",
            "kind": "InferenceRequest",
            "metadata": {"name": name},
            "spec": each,
        }
        confined.kubectl("create", "-f", "-", stdin=json.dumps(job))
    refused, ran = [await user.wait(name) for name in names]
    assert (refused["status"], refused["failedCode"], ran["status"]) == ("failed", "invalid", "completed"), refused
    assert "nothing keeps the pods of jobs from the cluster's network" in refused["failedReason"]
    again = await user.post("/api/jobs/of-a-stranger/rerun", {})
    assert again.status_code == 422
    assert "an external contributor caused this job" in again.json()["error"]


async def test_repository_is_cloned_although_the_agent_has_no_network(
    confined: Installation, user: User, tmp_path: Path
) -> None:
    make_repository(tmp_path / "hello.git")
    with serve_git(tmp_path, "octocat", "secret", confined.cluster.listen()) as server:
        program = "result = json.dumps(sorted(os.listdir('.')))"
        setup = {"gitRepo": f"http://octocat:secret@{GATEWAY}:{server.port}/hello.git"}
        found, job = await found_by(user, await submit(user, program, "none", workspaceSetup=setup))
    assert "README.md" in found
    assert job["refusedHosts"] == []


FETCH: Final = """
import pathlib, urllib.request
try:
    text = urllib.request.urlopen(URL, timeout=10).read().decode()
except urllib.error.HTTPError as refusal:
    text = f"refused with {refusal.code}"
"""


async def test_setup_commands_have_their_own_rule_in_the_pod_of_the_agent(
    confined: Installation, user: User, tmp_path: Path
) -> None:
    make_repository(tmp_path / "hello.git")
    cluster = confined.cluster
    with (
        serve_git(tmp_path, "octocat", "secret", cluster.listen()) as git_server,
        an_http_server(cluster.listen()) as (port, _),
    ):
        fetch = f"URL = 'http://allowed.test:{port}/'\n{FETCH}"
        setup = {
            "gitRepo": f"http://octocat:secret@{GATEWAY}:{git_server.port}/hello.git",
            "setup": [["python3", "-c", f"{fetch}pathlib.Path('fetched').write_text(text)"]],
            "setupNetwork": {"allow": [f"allowed.test:{port}"]},
        }
        program = f"{fetch}result = json.dumps([open('fetched').read(), text])"
        found, job = await found_by(user, await submit(user, program, "none", workspaceSetup=setup))
    assert found == [ANSWER.decode(), "refused with 403"]
    assert job["refusedHosts"] == [f"allowed.test:{port}"]


PRESENT: Final = """
import json, socket, time
host, port = json.loads(open("/attempt/inputs/job.json").read())["egressProxy"]
def answer_to(token):
    with socket.create_connection((host, port), timeout=10) as connection:
        head = f"CONNECT {TARGET} HTTP/1.1\\r\\nProxy-Authorization: Bearer {token}\\r\\n\\r\\n"
        connection.sendall(head.encode())
        return connection.recv(1000).decode()
found = {name: answer_to(token) for name, token in TOKENS.items()}
until = time.monotonic() + 60
while "407" not in found["ended"] and time.monotonic() < until:
    time.sleep(0.5)
    found["ended"] = answer_to(TOKENS["ended"])
result = json.dumps(found)
"""


async def test_grant_of_another_pod_or_of_an_ended_attempt_opens_nothing(confined: Installation, user: User) -> None:
    encoded = confined.kubectl("get", "secret", "labrats-egress-proxy-key", "-o", "jsonpath={.data.key}")
    key = base64.b64decode(encoded).decode()
    with an_http_server(confined.cluster.listen()) as (port, requests):
        grant = EgressGrant(
            attempt="ir-other-1",
            network="none",
            model_server=("allowed.test", port),
            listed_after=(2**31, 0),
            expires_at=int(time.time()) + 3600,
        )
        grants = {
            "usable": grant,  # checks that the others can fail
            "stolen": replace(grant, address="10.9.9.9"),
            "ended": replace(grant, listed_after=(0, 0)),
        }
        tokens = {name: sign_grant(each, key) for name, each in grants.items()}
        program = f"TARGET, TOKENS = 'allowed.test:{port}', {tokens!r}\n{PRESENT}"
        found, _ = await found_by(user, await submit(user, program, "none"))
    assert found["usable"].startswith("HTTP/1.1 200 ")
    assert "the grant belongs to another pod" in found["stolen"]
    assert "the attempt has ended" in found["ended"]
    assert requests == []


WAIT: Final = """
import time
def allowed():
    return get(URL, {"http": os.environ["HTTP_PROXY"]})
attempt("before", allowed)
while found.get("after") != "restarted":
    time.sleep(0.2)
    attempt("after", allowed)
attempt("tcp after", lambda: tcp(*TARGETS["listener"]))
"""


async def test_rule_survives_a_restart_of_the_controller_and_of_the_proxy(confined: Installation, user: User) -> None:
    asked, restarted = threading.Event(), threading.Event()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.set()
            self.answer(200, b"restarted" if restarted.is_set() else b"not yet")

    server = confined.cluster.listen()
    with a_listener(confined.cluster) as listener, served_by(Handler, server) as port:
        targets = {"listener": (GATEWAY, listener.port)}
        url = f"http://allowed.test:{port}/a"
        program = f"TARGETS, URL = {targets!r}, {url!r}\n{REACH}{WAIT}\nresult = json.dumps(found)"
        job_id = await submit(user, program, {"allow": [f"allowed.test:{port}"]})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not asked.is_set():
                await asyncio.sleep(POLL_SECONDS)
        for part in ("controller", "egress-proxy"):
            confined.kubectl("rollout", "restart", f"deployment/labrats-{part}")
            confined.kubectl("rollout", "status", f"deployment/labrats-{part}", "--timeout=120s")
        restarted.set()
        found, _ = await found_by(user, job_id)
        assert listener.arrived == []
    assert (found["before"], found["after"]) == ("not yet", "restarted")
    assert "reached" not in (found["tcp listener"], found["tcp after"])
