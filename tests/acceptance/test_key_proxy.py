"""The key proxy of an engine on one machine. tests/kubernetes/test_key_proxy.py has the same agent on a cluster."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.agents.claude import MessagesApi
from tests.support import key_seeker, program_agent
from tests.support.http_server import ANSWER, an_http_server
from tests.support.scripted_model import ModelServer, Says, scripted_model

KEY = key_seeker.KEY.decode()
PATH = "/usr/local/bin:/usr/bin:/bin"  # the system's Python: a sandbox hides one in a home folder
CONFIG = {"provider": "claude", "model": "claude-sonnet-5-5"}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with scripted_model(MessagesApi(), [Says("hi", input_tokens=30, output_tokens=12)]) as server:
        yield server


@pytest.fixture
def environment(server: ModelServer, tmp_path: Path) -> dict[str, str]:
    """The environment of an engine with a key, a model server, and an agent that looks for the key."""
    program = tmp_path / "seeker" / "claude"
    program.parent.mkdir()
    program.write_text(f"#!/usr/bin/env python3\n{Path(key_seeker.__file__).read_text()}")
    program.chmod(0o755)
    return {
        "LABRATS_CLAUDE_PATH": str(program),
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": server.url,
        "PATH": PATH,
    }


async def test_agent_finds_no_key_and_reaches_no_other_model(
    start_program: EngineFactory, environment: dict[str, str], server: ModelServer
) -> None:
    engine = start_program(**environment, LABRATS_SANDBOX="true")
    async with engine.user() as user:
        job = await user.wait(await user.submit(prompt="look", config=CONFIG))
        events = (await user.get(f"/api/jobs/{job['id']}/events", limit=1000)).json()["events"]

    assert job["status"] == "completed", job["failedReason"]
    assert json.loads(job["result"]) == {
        "found": [],
        "statuses": {"claude-sonnet-5-5": 200, "claude-opus-5-5": 404, "wrong token": 401},
        "token is the key": False,
    }
    assert (server.key, [request["model"] for request in server.requests]) == (KEY, ["claude-sonnet-5-5"])
    assert job["keyExposed"] is False
    assert (job["usage"]["inputTokens"], job["usage"]["outputTokens"]) == (30, 12), "the agent itself reports none"
    requests = [event["request"] for event in events if event["kind"] == "request"]
    assert [(request["model"], request["status"]) for request in requests] == [
        ("claude-sonnet-5-5", 200),
        ("claude-opus-5-5", 404),
        (None, 401),
    ]
    assert "claude-opus-5-5" in requests[1]["refusal"]


@pytest.mark.parametrize("limit", [{"maxTokens": 40}, {"maxCostUsd": 0.00001}], ids=["maxTokens", "maxCostUsd"])
async def test_limit_ends_the_job_although_its_agent_reports_no_usage(
    start_program: EngineFactory, environment: dict[str, str], limit: dict[str, float]
) -> None:
    engine = start_program(**environment, LABRATS_SANDBOX="true")
    async with engine.admin() as admin, engine.user() as user:
        model = {"name": "priced", **CONFIG, "slots": 1, "prices": {"input": 1, "output": 1}}
        assert (await admin.post("/api/ai-models", model)).status_code == 201
        job = await user.wait(await user.submit(prompt="look", config=CONFIG | limit))

    assert (job["status"], job["failedCode"]) == ("failed", "budget"), job["failedReason"]
    assert next(iter(limit)) in job["failedReason"]
    assert job["usage"]["outputTokens"] == 12


async def test_each_model_of_a_job_has_its_own_prices(
    start_program: EngineFactory, environment: dict[str, str]
) -> None:
    says = Says("hi", input_tokens=30, output_tokens=12)
    with scripted_model(MessagesApi(), [says, says]) as server:
        engine = start_program(**environment | {"ANTHROPIC_BASE_URL": server.url}, LABRATS_SANDBOX="true")
        async with engine.admin() as admin, engine.user() as user:
            for name, price in (("sonnet", 1), ("opus", 100)):
                prices = {"input": price, "output": price}
                model = {"name": name, "provider": "claude", "model": f"claude-{name}-5-5", "prices": prices}
                assert (await admin.post("/api/ai-models", model)).status_code == 201
            job = await user.wait(
                await user.submit(prompt="look", config=CONFIG | {"fallbackModel": "claude-opus-5-5"})
            )

    assert json.loads(job["result"])["statuses"]["claude-opus-5-5"] == 200
    assert job["usage"]["costUsd"] == pytest.approx(42 * (1 + 100) / 1_000_000)


async def test_limit_ends_the_job_although_its_server_reports_no_usage(
    start_program: EngineFactory, environment: dict[str, str]
) -> None:
    with scripted_model(MessagesApi(), [Says("hi", input_tokens=0, output_tokens=0)]) as silent:
        engine = start_program(**environment | {"ANTHROPIC_BASE_URL": silent.url}, LABRATS_SANDBOX="true")
        async with engine.user() as user:
            job = await user.wait(await user.submit(prompt="look", config=CONFIG | {"maxTokens": 2}))

    assert (job["status"], job["failedCode"]) == ("failed", "budget"), job["failedReason"]
    assert "maxTokens 2" in job["failedReason"]
    assert job["usage"]["outputTokens"] == 0


ASK_TWICE = """
import time, urllib.error, urllib.request
for name in ("NO_PROXY", "no_proxy"):
    del os.environ[name]

def ask():
    body = json.dumps({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode()
    headers = {"X-Api-Key": token, "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", body, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        answer.read()
        return answer.status

def reach(url):
    try:
        return urllib.request.urlopen(url, timeout=20).read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code

def attempt():
    return [ask(), reach(ALLOWED), reach("http://other.example/")]

before = attempt()
open("asked", "w").close()
while not os.path.exists("restarted"):
    time.sleep(0.05)
result = json.dumps([before, attempt()])
"""


async def test_attempt_keeps_its_proxies_although_the_engine_is_killed(
    start_program: EngineFactory, environment: dict[str, str], server: ModelServer, tmp_path: Path
) -> None:
    program = tmp_path / "programs" / "claude"
    program.parent.mkdir()
    program.write_text(f"#!/usr/bin/env python3\n{Path(program_agent.__file__).read_text()}")
    program.chmod(0o755)
    settings = {"LABRATS_CLAUDE_PATH": str(program), "OUTBOUND_ALLOWED_CIDRS": "127.0.0.0/8"}
    engine = start_program(**environment | settings, LABRATS_SANDBOX="true")
    with an_http_server() as (port, requests):
        prompt = f"MODEL, ALLOWED = {CONFIG['model']!r}, 'http://localhost:{port}/'\n{ASK_TWICE}"
        config = CONFIG | {"network": {"allow": [f"localhost:{port}"]}}
        async with engine.user() as user:
            job_id = await user.submit(prompt=prompt, config=config)
            workspace = engine.workspace(job_id)
            async with asyncio.timeout(30):
                while not (workspace / "asked").exists():
                    await asyncio.sleep(0.02)
            engine.kill()
            engine.start()
            (workspace / "restarted").touch()
            job = await user.wait(job_id)
            refused = (await user.get(f"/api/jobs/{job_id}/events", kind="refused_host")).json()["events"]
        metrics = (await engine.scrapes())[0].text

    assert json.loads(job["result"]) == [[200, ANSWER.decode(), 403]] * 2
    assert (job["attempts"], server.key, len(requests)) == (1, KEY, 2)
    assert (job["usage"]["inputTokens"], job["usage"]["outputTokens"]) == (60, 24)
    assert job["refusedHosts"] == ["other.example:80"]
    host = {"host": "other.example", "port": 80, "reason": "the network rule does not allow it"}
    assert [event["refusedHost"] for event in refused] == [host]
    assert "labrats_refused_hosts_total 1.0" in metrics.splitlines()
