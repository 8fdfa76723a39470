"""The backends on which the conformance suites run."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from labrats.backends.embedded.store import EmbeddedStore
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.ports import Runner, Store
from tests.cluster.fixture import new_namespace
from tests.conformance.kubernetes_backend import KubernetesBackend
from tests.conformance.runner_backends import EmbeddedBackend, MemoryBackend, RunnerBackend
from tests.fakes.store import MemoryStore


@pytest.fixture(params=["memory", "embedded", pytest.param("kubernetes", marks=pytest.mark.kubernetes)])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Store]]:
    """Return a function that opens an empty store, for each backend in turn."""
    match request.param:
        case "embedded":
            return partial(EmbeddedStore.open, tmp_path / "labrats.db")
        case "kubernetes":
            return partial(open_kubernetes_store, request.getfixturevalue("kubeconfig"))
        case _:
            return lambda: nullcontext(MemoryStore())


@pytest.fixture
async def store(open_store: Callable[[], AbstractAsyncContextManager[Store]]) -> AsyncIterator[Store]:
    """An empty store of each backend in turn."""
    async with open_store() as store:
        yield store


@asynccontextmanager
async def open_kubernetes_store(kubeconfig: Path) -> AsyncIterator[KubernetesStore]:
    """Open a store in a namespace of its own."""
    async with (
        ApiClient.open(kubeconfig) as client,
        new_namespace(client) as namespace,
        KubernetesStore.open(client, namespace) as store,
    ):
        yield store


@pytest.fixture(params=["memory", "embedded", pytest.param("kubernetes", marks=pytest.mark.kubernetes(node=True))])
def open_backend(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[], AbstractAsyncContextManager[RunnerBackend]]:
    """Return a function that opens an empty machine or cluster, for each backend in turn."""
    match request.param:
        case "embedded":
            return partial(EmbeddedBackend.open, tmp_path)
        case "kubernetes":
            kubeconfig, image = request.getfixturevalue("kubeconfig"), request.getfixturevalue("executor_image")
            return partial(KubernetesBackend.open, kubeconfig, image, tmp_path)
        case _:
            return MemoryBackend.open


@pytest.fixture
async def backend(
    open_backend: Callable[[], AbstractAsyncContextManager[RunnerBackend]],
) -> AsyncIterator[RunnerBackend]:
    """A machine or cluster for the attempts of one test, for each backend in turn."""
    async with open_backend() as backend:
        yield backend


@pytest.fixture
async def runner(backend: RunnerBackend) -> AsyncIterator[Runner]:
    """The runner of one engine on `backend`."""
    async with backend.open_runner() as runner:
        yield runner
