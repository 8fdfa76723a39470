"""`labrats connect` with a real engine and the real agent programs: credentials, model, first job and its cost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine
from tests.agents.acp import OPENCODE
from tests.agents.agent_cli import AgentCli
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.support.loopback import QuietHandler, served_by
from tests.support.scripted_model import JSON, ModelServer, Says

ENDPOINTS = {"claude": "ANTHROPIC_BASE_URL", "codex": "OPENAI_BASE_URL"}


@pytest.fixture(params=[CLAUDE, CODEX], ids=str)
def cli(request: pytest.FixtureRequest) -> AgentCli:
    cli: AgentCli = request.param
    return cli


@pytest.fixture
def server(cli: AgentCli) -> Iterator[ModelServer]:
    with cli.serve(Says("Hello from the model.")) as server:
        yield server


@pytest.fixture
def engine(tmp_path: Path, cli: AgentCli, server: ModelServer) -> Iterator[LocalEngine]:
    environment = {cli.path_variable: cli.installed(), ENDPOINTS[cli.provider]: server.url + cli.base_path}
    with LocalEngine(tmp_path, **environment) as engine:
        yield engine


def connect(engine: LocalEngine, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `labrats connect` against the engine, away from a terminal."""
    return subprocess.run(
        [Path(sys.executable).parent / "labrats", "connect", *arguments, "--data-dir", engine.data_dir],
        env={"PATH": os.environ["PATH"], **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


async def test_one_command_leads_from_a_key_to_the_first_answer(
    engine: LocalEngine, cli: AgentCli, server: ModelServer, tmp_path: Path
) -> None:
    shown = {row.split()[0]: row for row in connect(engine).stdout.splitlines()}
    assert f"labrats connect {cli.provider}" in shown[cli.provider]
    missing = connect(engine, cli.provider)
    assert missing.returncode == 2
    assert f"labrats connect {cli.provider} --key-file FILE" in missing.stderr

    (tmp_path / "key.txt").write_text("test-model-key\n")
    done = connect(engine, cli.provider, "--key-file", str(tmp_path / "key.txt"))

    assert (done.returncode, "Hello from the model." in done.stdout) == (0, True), done.stderr
    assert server.key == "test-model-key"
    assert server.key not in done.stdout + done.stderr
    assert f"model {cli.provider} created, with 2 slots" in done.stderr
    assert "it cost $" in done.stderr or "its cost is unknown" in done.stderr
    assert "next: labrats submit" in done.stderr
    async with engine.admin() as admin:
        [ai_model] = (await admin.get("/api/ai-models")).json()["aiModels"]
        assert (ai_model["model"], ai_model["credentialsRef"]) == (cli.provider, f"{cli.provider}-api-key")

        again = connect(engine, cli.provider, "--model", cli.model)
        assert again.returncode == 0, again.stderr
        others = (await admin.get("/api/ai-models")).json()["aiModels"]
        assert [(each["model"], each["credentialsRef"]) for each in others if each != ai_model] == [
            (cli.model, f"{cli.provider}-api-key")
        ]
    assert connect(engine).stdout.count("ready") == 2  # this provider, and mock


def test_program_of_the_agent_client_protocol_is_connected_by_its_name(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "opencode").symlink_to(OPENCODE.installed())
    (tmp_path / "key.txt").write_text("test-model-key\n")
    with (
        OPENCODE.serve(Says("Hello from the model.")) as server,
        LocalEngine(tmp_path, PATH=f"{programs}:{os.environ['PATH']}") as engine,
    ):
        unknown = connect(engine, "acp", "gpt-pilot", "--endpoint", server.url)
        server.models = ["coder", "other"]
        undecided = connect(engine, "acp", "opencode", "--endpoint", server.url)
        key = ("--key-file", str(tmp_path / "key.txt"))
        done = connect(engine, "acp", "opencode", "--endpoint", server.url, "--model", "coder", *key)
        shown = {row.split()[0]: row for row in connect(engine).stdout.splitlines()}

    assert (unknown.returncode, "opencode, qwen-code, goose" in unknown.stderr) == (2, True), unknown.stderr
    assert f"labrats connect acp opencode --endpoint {server.url} --model coder" in undecided.stderr
    assert (done.returncode, "Hello from the model." in done.stdout) == (0, True), done.stdout + done.stderr
    assert server.key == "test-model-key"
    assert "--provider acp --model coder" in done.stderr
    assert "ready" in shown["acp"]


@pytest.fixture
def local_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    with LocalEngine(tmp_path) as engine:
        yield engine


@pytest.fixture
def local_server() -> Iterator[list[str]]:
    """Yield the URL of a server with the OpenAI API, and then the names of its models. A test may change them."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            names = {"/v1/models": shared[1:]}.get(self.path)
            if names is None:
                self.answer(404, b"not found", {})
            elif "closed" in names and self.headers["Authorization"] != "Bearer test-key":
                self.answer(401, b"{}", JSON)
            else:
                self.answer(200, json.dumps({"data": [{"id": name} for name in names]}).encode(), JSON)

        def do_POST(self) -> None:
            request = json.loads(self.body())
            message = {"role": "assistant", "content": f"Hello from {request['model']}."}
            choices = [{"index": 0, "message": message, "delta": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 3, "completion_tokens": 5}
            answer = json.dumps({"id": "1", "choices": choices, "usage": usage}).encode()
            if request.get("stream"):
                self.answer(200, b"data: " + answer + b"\n\ndata: [DONE]\n\n", {"Content-Type": "text/event-stream"})
            else:
                self.answer(200, answer, JSON)

    with served_by(Handler) as port:
        shared = [f"http://127.0.0.1:{port}", "coder-30b"]
        yield shared


def test_local_server_is_connected_by_its_address(
    local_engine: LocalEngine, local_server: list[str], tmp_path: Path
) -> None:
    url = local_server[0]
    done = connect(local_engine, "local", url)
    assert (done.returncode, "Hello from coder-30b." in done.stdout) == (0, True), done.stderr
    assert "the server's model is coder-30b" in done.stderr
    assert "--provider openai --model coder-30b" in done.stderr

    local_server[1:] = ["Coder/30B"]
    assert "model openai-coder-30b-2 created" in connect(local_engine, "local", url).stderr

    local_server[1:] = ["connected-before"]
    connect(local_engine, "local", url, "--provider", "vllm")
    assert "--provider vllm --model connected-before" in connect(local_engine, "local", url).stderr

    local_server[1:] = ["small", "large"]
    undecided = connect(local_engine, "local", url)
    assert undecided.returncode == 2
    assert f"labrats connect local {url}/v1 --model small" in undecided.stderr
    assert "has no model 'tiny'" in connect(local_engine, "local", url, "--model", "tiny").stderr

    local_server[1:] = ["closed"]
    refused = connect(local_engine, "local", url)
    assert refused.returncode == 4
    assert f"labrats connect local {url} --key-file FILE" in refused.stderr
    (tmp_path / "key").write_text("test-key")
    assert connect(local_engine, "local", url, "--key-file", str(tmp_path / "key")).returncode == 0

    local_server[1:] = []
    assert "load one" in connect(local_engine, "local", url).stderr
    assert "no OpenAI API" in connect(local_engine, "local", f"{url}/other").stderr
    nothing = connect(local_engine, "local", "http://127.0.0.1:9")
    assert (nothing.returncode, "start it" in nothing.stderr) == (3, True)
