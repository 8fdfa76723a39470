"""Tests of what an attempt believes about the server of its model."""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from httpx2 import AsyncClient

from labrats.executor import model_access as model_access_module
from labrats.executor.context import RunContext
from labrats.executor.key_proxy import request_feed
from labrats.executor.key_proxy.request_feed import RequestFeed
from labrats.executor.model_access import model_access
from labrats.model.ai_model import Prices
from labrats.model.config import JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.network import Network
from labrats.model.protocol import KEY_PROXY_FILE, MODEL_REQUESTS_FILE, ModelRequest, RequestEvent
from tests.support.loopback import QuietHandler, served_by
from tests.unit.executor.attempts import AttemptFolder, Work, a_task, an_attempt, some_work
from tests.unit.executor.key_proxy.proxies import a_request, status_of, until

MODEL = "claude-sonnet-5-5"
ASK = f"""
import json, os, urllib.error, urllib.request
with open(int(os.environ['CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR'])) as pipe:
    headers = {{'x-api-key': pipe.read(), 'content-type': 'application/json'}}
body = json.dumps({{'model': '{MODEL}'}}).encode()
request = urllib.request.Request(os.environ['ANTHROPIC_BASE_URL'] + '{{path}}', body, headers)
try:
    urllib.request.urlopen(request).read()
except urllib.error.HTTPError:
    pass
"""
"""Ask the model's server once, as Claude Code does."""

REPORTS = [
    {"type": "system", "subtype": "init", "model": MODEL},
    {"type": "system", "subtype": "api_retry", "error_status": 429, "retry_delay_ms": 86_400_000},
]


@pytest.fixture(params=[200, 400, 429, 500, 503])
def status(request: pytest.FixtureRequest) -> int:
    """The status of the answers of the model's server."""
    found: int = request.param
    return found


@pytest.fixture
def server(status: int) -> Iterator[str]:
    with a_server(status) as url:
        yield url


@contextmanager
def a_server(status: int, headers: Mapping[str, str] = MappingProxyType({}), body: bytes = b"{}") -> Iterator[str]:
    """Serve a model's server with this answer to all requests. Yield its URL."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.body()
            self.answer(status, body, headers)

    with served_by(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def an_attempt_that_reports_a_rate_limit(
    tmp_path: Path, endpoint: str, path: str = "/v1/messages", *, before: str = "", max_tokens: int | None = None
) -> AttemptFolder:
    """Build an attempt whose program asks the model once, and then asks for a pause of a day.

    before: what the program does before the request, which it has prepared.
    """
    ask = ASK.replace("{path}", path).replace("try:", f"{before}\ntry:")
    config = JobConfig(provider="claude", model=MODEL, max_tokens=max_tokens)
    return an_attempt_that_prints(tmp_path, endpoint, REPORTS, ask, config=config)


def an_attempt_that_prints(
    tmp_path: Path, endpoint: str, reports: list[Any], before: str, **task: Any
) -> AttemptFolder:
    """Build an attempt whose program prints events of Claude Code. before: what it does first, in Python."""
    program = tmp_path / "agent"
    lines = "\n".join(map(json.dumps, reports))
    program.write_text(f"#!/usr/bin/env python3\n{before}\nprint('''{lines}''', flush=True)\n")
    program.chmod(0o755)
    usual: dict[str, Any] = {
        "config": JobConfig(provider="claude", model=MODEL),
        "secrets": {"ANTHROPIC_API_KEY": "sk-test-0123456789"},
    }
    return an_attempt(tmp_path, programs={"claude": str(program)}, endpoint=endpoint, **usual | task)


COUNTS = {"input_tokens": 3, "output_tokens": 2}
FORGED = [
    {"type": "system", "subtype": "init", "model": MODEL},
    {"type": "assistant", "message": {"id": "1", "content": [], "usage": {"output_tokens": 10**6}}},
    {"type": "result", "subtype": "success", "result": "done", "total_cost_usd": 900, "usage": {"input_tokens": 10**7}},
]


@pytest.mark.parametrize(
    ("requests", "key", "usage"),
    [
        (0, "ANTHROPIC_API_KEY", (0, 0, 0.0, 0)),
        (1, "ANTHROPIC_API_KEY", (3, 2, 0.000025, 1)),
        (0, None, (10**7, 10**6, 21.0, 1)),
    ],
)
def test_usage_that_a_program_reports_counts_only_without_a_key_proxy(
    tmp_path: Path, requests: int, key: str | None, usage: tuple[int, int, float, int]
) -> None:
    """An agent can write anything to the output of its program."""
    answer = json.dumps({"type": "message", "content": [], "usage": COUNTS}).encode()
    with a_server(200, {"Content-Type": "application/json"}, answer) as url:
        attempt = an_attempt_that_prints(
            tmp_path,
            url,
            FORGED,
            ASK.replace("{path}", "/v1/messages") * requests,
            secrets={key: "sk-test-0123456789"} if key else {},
            prices=Prices(input=1, output=11),
        )
        attempt.run()

    found = attempt.outcome.usage
    assert attempt.result == "done"
    assert (found.input_tokens, found.output_tokens, found.turns) == (usage[0], usage[1], usage[3])
    assert found.known_cost_usd == pytest.approx(usage[2])


def test_report_of_a_program_does_not_count_for_an_answer_without_usage(tmp_path: Path) -> None:
    with a_server(200, {"Content-Type": "application/json"}, b'{"type":"message","content":[]}') as url:
        attempt = an_attempt_that_prints(tmp_path, url, FORGED, ASK.replace("{path}", "/v1/messages"))
        attempt.run()
    found = attempt.outcome.usage
    assert (found.input_tokens, found.output_tokens, found.turns, found.cost_usd) == (0, 0, 1, None)


def test_overload_is_believed_if_an_answer_of_the_server_reports_it(tmp_path: Path, server: str, status: int) -> None:
    """The agent can write to the output of its program, and a pause keeps all jobs of the model waiting."""
    attempt = an_attempt_that_reports_a_rate_limit(tmp_path, server)
    attempt.run()

    code, message = attempt.failure
    assert "asks for a pause of 86400 s" in message
    if status in (429, 503):
        assert (code, attempt.error.retry_after_seconds) == (FailedCode.RATE_LIMITED, 300)
    else:
        assert (code, attempt.error.retry_after_seconds) == (FailedCode.AGENT_ERROR, None)
        assert message.endswith("(but no answer of the model's server reports that)")


def test_pause_is_not_much_longer_than_the_server_asks_for(tmp_path: Path) -> None:
    with a_server(429, {"Retry-After": "2"}) as url:
        attempt = an_attempt_that_reports_a_rate_limit(tmp_path, url)
        attempt.run()
    assert attempt.failure[0] is FailedCode.RATE_LIMITED
    assert 0 < (attempt.error.retry_after_seconds or 0) <= 62


def test_rate_limit_of_counting_tokens_is_no_overload_of_the_model(tmp_path: Path) -> None:
    """An agent can reach it at no cost."""
    with a_server(429) as url:
        attempt = an_attempt_that_reports_a_rate_limit(tmp_path, url, "/v1/messages/count_tokens")
        attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR


CUT = """
import http.client
connection = http.client.HTTPConnection(os.environ['ANTHROPIC_BASE_URL'].removeprefix('http://'))
asked = json.dumps({'model': 'MODEL', 'stream': True, 'max_tokens': 4000})
connection.request('POST', '/v1/messages', asked, headers)
response = connection.getresponse()
while b'last' not in response.readline():
    pass
connection.sock.shutdown(2)
""".replace("MODEL", MODEL)
DELTA = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'


@pytest.mark.parametrize("limit", [100_000, None])
def test_answers_that_were_cut_before_a_pause_count_for_the_attempt_after_it(tmp_path: Path, limit: int | None) -> None:
    """The server reports their usage at their end, which the agent does not await."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            if b"stream" not in self.body():
                self.answer(429, b"{}")
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(DELTA % b"eight letters" * 50 + DELTA % b"last")
            self.rfile.read()

    with served_by(Handler) as port:
        attempt = an_attempt_that_reports_a_rate_limit(
            tmp_path, f"http://127.0.0.1:{port}", before=CUT, max_tokens=limit
        )
        attempt.run()

    assert attempt.failure[0] is FailedCode.RATE_LIMITED
    used = attempt.error.usage
    assert (used.output_tokens > 100, used.input_tokens > 10) == (limit is not None, limit is not None)
    assert used.known_cost_usd == 0.0


@pytest.mark.anyio
async def test_estimates_of_an_earlier_run_in_the_attempt_count(tmp_path: Path) -> None:
    """An agent can let its session be lost, after which its program starts anew."""
    arrived = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    config = JobConfig(provider="claude", model=MODEL, max_tokens=100_000)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    body = json.dumps({"model": MODEL, "max_tokens": 200_000}).encode()
    secrets = {"ANTHROPIC_API_KEY": "sk-test-0123456789"}
    with some_work(tmp_path, a_task(tmp_path, config=config, endpoint=endpoint), secrets) as work:
        async with model_access(work.context) as first:
            _, writer = await connection_to(first, body)
            await arrived.wait()
            writer.close()
            await until(lambda: bool(work.events))
        with pytest.raises(GiveUp, match="over maxTokens 100000"):
            await second_run(work, body)
    server.close()
    await asyncio.sleep(0)


async def second_run(work: Work, body: bytes) -> None:
    async with model_access(work.context) as context:
        reader, writer = await connection_to(context, body)
        async with asyncio.timeout(10):
            assert status_of(await reader.read()) == 403
        writer.close()


async def connection_to(context: RunContext, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request to the key proxy of a provider."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int((context.proxy_url or "").rpartition(":")[2]))
    writer.write(a_request(body, token=context.secrets["ANTHROPIC_API_KEY"]))
    return reader, writer


class BusyProxy:
    """A proxy that ends its requests late."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    def open(self) -> None:
        pass

    async def close(self) -> None:
        await self.may_end.wait()


async def paused(work: Work, feed: RequestFeed) -> None:
    """Let an agent end because its model is overloaded, as the feed has reported."""
    async with model_access(work.context):
        feed.report(ModelRequest(method="POST", path="/v1/messages", model=MODEL, status=429, milliseconds=1))
        await until(lambda: bool(work.events))
        raise GiveUp(FailedCode.RATE_LIMITED, "the model is busy", 1.0)


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "code"), [(100_000, FailedCode.INTERNAL), (None, FailedCode.RATE_LIMITED)])
async def test_attempt_whose_usage_is_unknown_does_not_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, code: FailedCode
) -> None:
    """An agent can keep the proxy of its pod busy, and the attempt after the pause would have the whole limits."""
    listener, feed, proxy = socket.create_server(("127.0.0.1", 0)), RequestFeed("test-feed"), BusyProxy()
    monkeypatch.setattr(model_access_module, "MODEL_REQUESTS_PORT", listener.getsockname()[1])
    monkeypatch.setattr(request_feed, "_END_SECONDS", 0.2)
    server = await feed.serve(listener, proxy)
    secrets = {KEY_PROXY_FILE: "test-token", MODEL_REQUESTS_FILE: "test-feed"}
    task = a_task(tmp_path, config=JobConfig(provider="claude", model=MODEL, max_tokens=limit))
    with some_work(tmp_path, task, secrets) as work, pytest.raises(GiveUp) as failure:
        await paused(work, feed)
    proxy.may_end.set()
    await until(lambda: not feed._readers)
    server.close()
    await asyncio.sleep(0)
    assert failure.value.code is code


async def succeeded(work: Work, feed: RequestFeed) -> None:
    """Let an agent succeed at once after the proxy has ended."""
    async with model_access(work.context):
        for writer in feed._readers:
            writer.transport.abort()
        await asyncio.sleep(3600)  # the loss of the proxy ends it


@pytest.mark.anyio
async def test_attempt_whose_proxy_ended_does_not_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that could end the proxy of its pod would hide all that it has not reported, and end at once."""
    listener, feed = socket.create_server(("127.0.0.1", 0)), RequestFeed("test-feed")
    monkeypatch.setattr(model_access_module, "MODEL_REQUESTS_PORT", listener.getsockname()[1])
    server = await feed.serve(listener, BusyProxy())
    secrets = {KEY_PROXY_FILE: "test-token", MODEL_REQUESTS_FILE: "test-feed"}
    task = a_task(tmp_path, config=JobConfig(provider="claude", model=MODEL))
    with some_work(tmp_path, task, secrets) as work, pytest.raises(GiveUp) as failure:
        await succeeded(work, feed)
    server.close()
    await asyncio.sleep(0)
    assert failure.value.code is FailedCode.INTERNAL


@pytest.mark.anyio
@pytest.mark.parametrize(("network", "endpoint_of_the_server"), [("none", False), ("public", False), ("open", True)])
async def test_server_of_a_local_model_without_a_key_is_behind_the_proxy_with_a_rule(
    tmp_path: Path, network: Network, endpoint_of_the_server: bool
) -> None:
    """Such a server may load pictures and models from any host, or delete its models."""
    asked: list[str] = []

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.body()
            self.answer(200, b"{}")

    with served_by(Handler) as port:
        config = JobConfig(provider="vllm", model="small", network=network)
        task = a_task(tmp_path, config=config, endpoint=f"http://127.0.0.1:{port}/v1")
        with some_work(tmp_path, task) as work:
            async with model_access(work.context) as access, AsyncClient(base_url=access.endpoint or "") as client:
                assert (access.endpoint == task.endpoint) == endpoint_of_the_server
                headers = {"Authorization": f"Bearer {access.secrets.get('OPENAI_API_KEY')}"}
                for path in ("/chat/completions", "/api/pull"):
                    await client.post(path, json={"model": "small"}, headers=headers)

    assert asked == ["/v1/chat/completions", *(["/v1/api/pull"] if network == "open" else [])]


async def test_log_says_once_why_the_key_proxy_refuses_requests(tmp_path: Path) -> None:
    """Without it, nobody would know why a program fails that asks for another model."""
    with some_work(tmp_path, a_task(tmp_path)) as work:
        requests = model_access_module.ModelRequests(work.context)
        for reason in ("first", "first", *map(str, range(model_access_module.MOST_REFUSALS + 5))):
            requests.add(ModelRequest(method="POST", path="/v1/messages", status=404, milliseconds=1, refusal=reason))
        assert work.logs[0] == "[key proxy: POST /v1/messages refused: first]"
        assert work.logs[1] == "[key proxy: POST /v1/messages refused: 0]"
        assert len(work.logs) == model_access_module.MOST_REFUSALS + 1
        assert work.logs[-1] == "[key proxy: further reasons are only in the events of the requests]"


async def test_log_names_each_field_once_that_the_key_proxy_removes(tmp_path: Path) -> None:
    with some_work(tmp_path, a_task(tmp_path)) as work:
        requests = model_access_module.ModelRequests(work.context)
        for names in (("models",), ("models", "n\nn"), tuple(map(str, range(model_access_module.MOST_REFUSALS)))):
            sent = ModelRequest(method="POST", path="/v1/messages", status=200, milliseconds=1, removed_fields=names)
            requests.add(sent)
        assert work.logs[0] == "[key proxy: the field `models` of /v1/messages is not forwarded]"
        assert work.logs[1] == "[key proxy: the field `n n` of /v1/messages is not forwarded]"
        assert len(work.logs) == model_access_module.MOST_REFUSALS
        assert [event.request.removed_fields for event in work.events if isinstance(event, RequestEvent)] == [()] * 3


@pytest.mark.anyio
async def test_failure_names_the_server_of_the_model_and_not_the_port_of_the_key_proxy(tmp_path: Path) -> None:
    endpoint = "https://models.example.com/v1"
    task = a_task(tmp_path, config=JobConfig(provider="claude", model=MODEL), endpoint=endpoint)
    secrets, named = {"ANTHROPIC_API_KEY": "sk-test-0123456789"}, f"^cannot reach {endpoint}/messages$"
    with some_work(tmp_path, task, secrets) as work, pytest.raises(GiveUp, match=named):
        async with model_access(work.context) as context:
            raise GiveUp(FailedCode.AGENT_ERROR, f"cannot reach {context.endpoint}/messages")
