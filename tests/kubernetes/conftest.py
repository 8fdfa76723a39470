"""Fixtures of engines on the test cluster, and of their users."""

import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from labrats.backends.kubernetes.client import ApiClient
from tests.acceptance.engine import LocalEngine, User
from tests.cluster.cluster import Cluster
from tests.cluster.fixture import fence_leaders, new_namespace
from tests.kubernetes.engine import an_engine

EngineFactory = Callable[..., LocalEngine]
Kubectl = Callable[..., str]

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture
async def jobs_namespace(api_client: ApiClient) -> AsyncIterator[str]:
    """An empty namespace with Pod Security `restricted`, in which former leaders are fenced."""
    await fence_leaders(api_client)
    async with new_namespace(api_client, RESTRICTED) as name:
        yield name


@pytest.fixture
def start_engine(kubeconfig: Path, jobs_namespace: str, executor_image: str, tmp_path: Path) -> Iterator[EngineFactory]:
    """Return a function that starts an engine in the test's namespace, with these environment variables.

    Each further call starts another replica.
    """
    with ExitStack() as engines:

        def start(**environment: str) -> LocalEngine:
            folder = tmp_path / f"engine-{secrets.token_hex(4)}"
            folder.mkdir()
            engine = an_engine(
                kubeconfig, jobs_namespace, executor_image, folder, volume=tmp_path / "volume", **environment
            )
            return engines.enter_context(engine)

        yield start


@pytest.fixture
def engine(start_engine: EngineFactory) -> LocalEngine:
    return start_engine()


@pytest.fixture
async def user(engine: LocalEngine) -> AsyncIterator[User]:
    async with engine.user() as user:
        yield user


@pytest.fixture
def kubectl(cluster: Cluster | None, kubeconfig: Path, namespace: str) -> Kubectl:
    """Return a function that runs kubectl in the test's namespace and returns its output, also of a failed command."""
    program = cluster.programs / "kubectl" if cluster else "kubectl"

    def run(*arguments: str, stdin: Any = None) -> str:
        command = [program, "--kubeconfig", kubeconfig, "--namespace", namespace, *arguments]
        done = subprocess.run(
            command, input=json.dumps(stdin), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.stdout

    return run
