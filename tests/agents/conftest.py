"""Fixtures for attempts of the real agent programs with a scripted model."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labrats.model.config import JobConfig
from labrats.model.network import Network
from labrats.model.protocol import Sandbox
from tests.agents.agent_cli import AgentCli
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.support.scripted_model import ModelServer
from tests.unit.executor.attempts import AttemptFolder, a_unique_name, an_attempt

Prepare = Callable[..., AttemptFolder]
LOOPBACK = ("127.0.0.0/8", "::1/128")
"""The networks of the servers of tests."""


EACH_VERSION = [CLAUDE, CODEX, *(pytest.param(each.newest(), marks=pytest.mark.extended) for each in (CLAUDE, CODEX))]
"""The programs in the version that the engine needs at least, and in the second lane also in the newest."""


@pytest.fixture(params=[CLAUDE, CODEX], ids=str)
def cli(request: pytest.FixtureRequest) -> AgentCli:
    """Return each of the programs, so that a test runs with all of them."""
    program: AgentCli = request.param
    return program


@pytest.fixture
def unique_name() -> Iterator[str]:
    """Yield the name of an attempt whose processes a test searches for."""
    with a_unique_name() as name:
        yield name


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """The sandbox of all attempts. MCP servers run this Python, and the programs beside these tests."""
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    readable = (sys.prefix, sys.base_prefix, str(Path(__file__).parent))
    return Sandbox(program=program, readable=readable, etc_snapshots=str(tmp_path / "etc-snapshots"))


@pytest.fixture
def network() -> Network:
    """The network rule of all attempts: their programs reach the server of their model, and nothing else."""
    return "none"


@pytest.fixture
def attempt_on(cli: AgentCli, tmp_path: Path, unique_name: str, sandbox: Sandbox, network: Network) -> Prepare:
    """Return a function that prepares an attempt with a server; None for the provider's own server."""

    def prepare(
        server: ModelServer | str | None, *, config: dict[str, Any] | None = None, **task: Any
    ) -> AttemptFolder:
        url = server.url if isinstance(server, ModelServer) else server
        usual: dict[str, Any] = {"provider": cli.provider, "model": cli.model, "timeout_ms": 60_000, "network": network}
        inputs: dict[str, Any] = {
            **cli.task_fields,
            "secrets": cli.secrets,
            "sandbox": sandbox,
            "git_addresses": LOOPBACK,
        }
        return an_attempt(
            tmp_path,
            attempt=unique_name,
            config=JobConfig(**usual | (config or {})),
            endpoint=None if url is None else url + cli.base_path,
            **inputs | task,
        )

    return prepare
