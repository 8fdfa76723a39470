"""The real Claude Code and the real Codex in the pods of an installation, with scripted models beside the cluster.

The image is built as users build it. With a network rule, each connection of a pod leads through the egress proxy: that
of the clone, of the key proxy to the model, and those of the agent, its tools and its MCP servers.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.model.core_resources import JOB_CREDENTIALS
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User
from tests.acceptance.git_server import git, make_repository, serve_git
from tests.agents import mcp_server
from tests.agents.agent_cli import KEY, AgentCli, words
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.agents.http_mcp_server import http_mcp_server
from tests.agents.test_key_proxy import FINDS_KEY
from tests.chart.engine import InstalledEngine
from tests.chart.fixture import new_installation
from tests.chart.installation import VALUES, Helm, Installation
from tests.chart.test_installation import a_user_of
from tests.chart.test_network import Listener, a_listener
from tests.cluster.cluster import GATEWAY, Cluster
from tests.support.http_server import ANSWER, an_http_server
from tests.support.scripted_model import ModelServer, Refuses, Says, Turn, scripted_model

pytestmark = [
    pytest.mark.kubernetes(node=True, helm=True, engine_image=True, agents_image=True),
    pytest.mark.timeout(400),
    pytest.mark.slow,
]
CLIS = pytest.mark.parametrize("cli", [CLAUDE, CODEX], ids=str)

LARGE: Final = "x" * 300_000
"""A text of one event."""

FETCH: Final = """python3 - <<'END'
import os, socket, urllib.request
for url in {urls!r}:
    try:
        print(url, urllib.request.urlopen(url, timeout=10).read().decode())
    except OSError as error:
        print(url, error)
try:
    print("direct", socket.create_connection({direct!r}, timeout=3))
except OSError as error:
    print("direct", type(error).__name__)
END"""
"""A command that asks servers by the proxy in the environment, and connects directly to another one."""


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster | None,
    helm: Helm,
    engine_image: str,
    agents_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """An installation whose pods have the agent CLIs, and the resources that the chart gives them by default.

    The egress proxy knows the name `allowed.test`, at the node's address.
    """
    if cluster is None:
        pytest.skip("the tests need a cluster of their own, whose pods can reach this machine")
    folder = tmp_path_factory.mktemp("volumes")
    with new_installation(cluster, helm, engine_image, agents_image, folder) as installation:
        hosts = f"127.0.0.1 localhost\n{GATEWAY} allowed.test\n"
        for each in (
            {"kind": "ConfigMap", "metadata": {"name": "hosts"}, "data": {"hosts": hosts}},
            *({"kind": "Secret", **a_secret(cli)} for cli in (CLAUDE, CODEX)),
        ):
            installation.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1"} | each))
        executor = installation.values()["executor"]
        installation.install(
            api={"replicas": 1},
            controller={"replicas": 1, "resources": {"requests": {"cpu": "10m"}}},
            executor={name: executor[name] for name in ("image", "pod")},
            egressProxy={
                "drainSeconds": 0,
                "extraVolumes": [{"name": "hosts", "configMap": {"name": "hosts"}}],
                "extraVolumeMounts": [{"name": "hosts", "mountPath": "/etc/hosts", "subPath": "hosts"}],
            },
            networkPolicy={"executorEgress": [{"to": [{"ipBlock": {"cidr": f"{GATEWAY}/32"}}]}]},
            settings=VALUES["settings"]
            | {"OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32"}
            | {"LABRATS_MODEL_PAUSE_SECONDS": 1, "LABRATS_STOP_GRACE_SECONDS": 10},
        )
        yield installation


def a_secret(cli: AgentCli) -> dict[str, Any]:
    return {"metadata": {"name": cli.provider, "labels": JOB_CREDENTIALS}, "stringData": cli.secrets}


@pytest.fixture
async def user(installed: Installation) -> AsyncIterator[User]:
    async with a_user_of(installed) as user:
        yield user


@dataclass(frozen=True)
class Bench:
    """A user of the installation, a model that plays a script, and a repository with an MCP server.

    listener: a machine that no rule allows.
    """

    user: User
    cli: AgentCli
    model: ModelServer
    repository: str
    listener: Listener

    async def submit(self, network: Any, **config: Any) -> str:
        """Submit a job in the repository on a new AiModel with the script's server."""
        ai_model = {
            "name": f"{self.cli.provider}-{secrets.token_hex(4)}",
            "provider": self.cli.provider,
            "model": f"{self.cli.model}-{secrets.token_hex(4)}",
            "endpoint": f"http://{GATEWAY}:{self.model.port}{self.cli.base_path}",
            "credentialsRef": self.cli.provider,
            "slots": 1,
        }
        created = await self.user.post("/api/ai-models", ai_model)
        assert created.status_code == 201, created.text
        settings = {"provider": self.cli.provider, "model": ai_model["model"], "network": network, "timeoutMs": 120_000}
        return await self.user.submit(
            prompt="Greet.", config=settings | config, workspaceSetup={"gitRepo": self.repository}
        )

    async def events(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        answer = await self.user.get(f"/api/jobs/{job_id}/events", kind=kind, limit=1000)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["events"])

    async def patch(self, job_id: str) -> str:
        return (await self.user.get(f"/api/jobs/{job_id}/patch")).text

    def fetch(self, *urls: str) -> str:
        """Return a command that asks these URLs by the proxy, and the listener with and without it."""
        return FETCH.format(urls=[*urls, self.forbidden_url], direct=(GATEWAY, self.listener.port))

    @property
    def forbidden(self) -> str:
        return f"{GATEWAY}:{self.listener.port}"

    @property
    def forbidden_url(self) -> str:
        return f"http://{self.forbidden}/"


@contextmanager
def a_bench(installed: Installation, user: User, cli: AgentCli, folder: Path, *turns: Turn) -> Iterator[Bench]:
    repository = make_repository(folder / "hello.git")
    (repository / "docs_server.py").write_text(Path(mcp_server.__file__).read_text())
    git(repository, "add", "docs_server.py")
    git(repository, "commit", "--quiet", "-m", "Add an MCP server")
    listen = installed.cluster.listen
    with (
        scripted_model(cli.api, turns, listen()) as model,
        serve_git(folder, "octocat", "secret", listen()) as git_server,
        a_listener(installed.cluster) as listener,
    ):
        url = f"http://octocat:secret@{GATEWAY}:{git_server.port}/hello.git"
        yield Bench(user, cli, model, url, listener)


def assert_usage(job: dict[str, Any], cli: AgentCli, turns: int) -> None:
    """Check the usage of a job whose model gave `turns` answers of 100 and 10 tokens."""
    expected = cli.usage(turns=turns, input_tokens=100 * turns, output_tokens=10 * turns)
    usage = job["usage"]
    assert {name: usage[name] for name in ("inputTokens", "outputTokens", "cacheReadTokens", "turns")} == {
        "inputTokens": expected.input_tokens,
        "outputTokens": expected.output_tokens,
        "cacheReadTokens": expected.cache_read_tokens,
        "turns": turns,
    }


@CLIS
async def test_agent_with_its_tools_and_its_mcp_server_works_within_its_rule(
    installed: Installation, user: User, cli: AgentCli, tmp_path: Path
) -> None:
    """It changes a file, calls tools of MCP servers, and reaches only the allowed hosts; its model sends slowly."""
    commit = "sed -i s/Hello/Goodbye/ README.md; git commit -qam Greet && echo committed"
    listen = installed.cluster.listen
    with (
        a_bench(installed, user, cli, tmp_path) as bench,
        an_http_server(listen()) as (port, asked),
        http_mcp_server(listen()) as wiki,
    ):
        allowed = f"http://allowed.test:{port}/"
        bench.model.answer_from_now_on(
            cli.shell(commit, text=LARGE),
            cli.shell(bench.fetch(allowed)),
            cli.ask(f"{allowed}docs"),
            cli.ask(bench.forbidden_url),
            cli.ask("Why?", server="wiki"),
            cli.shell(FINDS_KEY),
            Says(LARGE, seconds=12),
        )
        servers = {
            "docs": {"command": "python3", "args": ["docs_server.py", "fetch"]},
            "wiki": {"url": f"http://allowed.test:{wiki.port}/mcp"},
        }
        rule = {"allow": [f"allowed.test:{each}" for each in (port, wiki.port)]}
        job_id = await bench.submit(rule, mcpServers=servers)
        job = await user.wait(job_id)
        assert job["status"] == "completed", job
        calls, outputs = tools_in(await bench.events(job_id, "tool"))
        requests = [each["request"] for each in await bench.events(job_id, "request")]
        said = [each["text"] for each in await bench.events(job_id, "log") if each["origin"] == "agent"]
        patch = await bench.patch(job_id)
        assert bench.listener.arrived == []

    assert [call["name"] for call in calls] == [
        *(cli.shell_tool, cli.shell_tool, cli.mcp_tool, cli.mcp_tool),
        *(cli.mcp_tool.replace("docs", "wiki"), cli.shell_tool),
    ]
    committed, fetched, from_docs, refused_docs, from_wiki, searched = outputs
    assert committed.rstrip() == "committed"
    assert f"{allowed} {ANSWER.decode()}" in fetched
    assert f"{bench.forbidden_url} HTTP Error 403" in fetched
    assert "direct TimeoutError" in fetched or "direct ConnectionRefusedError" in fetched
    assert from_docs == f"{allowed}docs {ANSWER.decode()}"
    assert "HTTPError: HTTP Error 403" in refused_docs
    assert from_wiki == "Why? over HTTP"
    assert [line.split()[1] for line in asked] == ["/", "/docs"]
    assert job["refusedHosts"] == [bench.forbidden]

    assert searched.strip() == "searched"
    assert (bench.model.key, job["keyExposed"]) == (KEY, False)
    assert installed.files_with(KEY) == []
    resources = InstalledEngine(installed, str(user.http.base_url)).resources_with(KEY)
    assert resources == [f"Secret {each}" for each in (CLAUDE, CODEX)]

    assert [(each["path"], each["status"], each["refusal"]) for each in requests] == [(cli.api.path, 200, None)] * 7
    assert_usage(job, cli, turns=7)
    assert job["result"] == LARGE
    assert "".join(said) == LARGE * 2  # in parts of 16 KiB: before the first call, and at the end
    assert "-# Hello\n+# Goodbye\n" in patch
    assert (job["outputs"]["filesChanged"], len(job["outputs"]["commits"])) == (1, 1)


def tools_in(events: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the calls, and their outputs in the same order."""
    calls = [each for each in events if each["name"]]
    outputs = {each["call"]: each["output"] for each in events if not each["name"]}
    return calls, [outputs[call["call"]] for call in calls]


@CLIS
async def test_session_continues_in_the_pods_of_further_attempts_and_of_a_follow_up(
    installed: Installation, user: User, cli: AgentCli, tmp_path: Path
) -> None:
    """The jobs have no network: their tools reach nothing."""
    slow_down = Refuses(429, cli.rate_limit, "Please try again in 1s.", {"retry-after": "0"})
    with a_bench(installed, user, cli, tmp_path) as bench:
        bench.model.answer_from_now_on(cli.shell(f"echo one >> README.md; {bench.fetch()}"), slow_down)
        job_id = await bench.submit("none")
        paused = await until(user, job_id, lambda job: bool(job["notBefore"]))
        bench.model.answer_from_now_on(cli.shell("echo two >> README.md"), Says("worth the wait"))
        job = await user.wait(job_id)
        resumed_request = bench.model.requests[-1]
        attempts = (await user.get(f"/api/jobs/{job_id}/attempts")).json()["attempts"]
        first_patch = await bench.patch(job_id)

        bench.model.answer_from_now_on(cli.shell("echo three >> README.md"), Says("once more"))
        answer = await user.post(f"/api/jobs/{job_id}/messages", {"prompt": "Add three, please."})
        reply = await user.wait(answer.json()["jobId"])
        assert bench.listener.arrived == []

    assert (paused["failedCode"], paused["attempts"], paused["refusedHosts"]) == (
        "rate_limited",
        1,
        [bench.forbidden],
    )
    assert (job["status"], job["result"], job["attempts"]) == ("completed", "worth the wait", 2), job
    assert len({each["executorPodName"] for each in attempts}) == 2
    assert "[resuming the session of attempt 1 in a new workspace with its changes]" in job["logs"]
    assert job["session"]["id"] == paused["session"]["id"]
    assert "echo one" in words(resumed_request[cli.conversation])
    assert "+one\n+two\n" in first_patch
    assert_usage(job, cli, turns=3)

    assert (reply["status"], reply["result"], reply["refusedHosts"]) == ("completed", "once more", []), reply
    assert reply["logs"][0] == f"[follow-up of {job_id}: resuming its session in a new workspace with its changes]"
    conversation = words(bench.model.requests[-1][cli.conversation])
    assert all(each in conversation for each in ("echo one", "worth the wait", "Add three, please."))
    assert "+one\n+two\n+three\n" in await bench.patch(reply["id"])
    assert_usage(reply, cli, turns=2)


async def until(user: User, job_id: str, condition: Any) -> dict[str, Any]:
    """Wait until `condition` holds for the job's detail, and return the detail."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition(job := await user.job(job_id)):
            await asyncio.sleep(POLL_SECONDS)
    return job


@CLIS
async def test_cancelled_job_ends_at_once_and_has_the_work_of_its_agent(
    installed: Installation, user: User, cli: AgentCli, tmp_path: Path
) -> None:
    """The job has an open network: it reaches its repository and its model without the egress proxy."""
    turns = (cli.shell("echo half >> README.md"), cli.shell("trap '' TERM INT; sleep 300"))
    with a_bench(installed, user, cli, tmp_path, *turns) as bench:
        job_id = await bench.submit("open")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len([each for each in await bench.events(job_id, "tool") if each["name"]]) < 2:
                await asyncio.sleep(POLL_SECONDS)
        cancelled_at = time.monotonic()
        await user.cancel(job_id)
        job = await user.wait(job_id)
        seconds = time.monotonic() - cancelled_at
        patch = await bench.patch(job_id)
        requests = [each["request"]["status"] for each in await bench.events(job_id, "request")]

    assert job["status"] == "cancelled", job
    assert seconds < 10, "the executor was killed after its grace period"
    assert InstalledEngine(installed, str(user.http.base_url)).processes_of(job_id) == []
    assert "+half\n" in patch
    assert requests == [200, 200]
    assert_usage(job, cli, turns=2)
