"""The backends that the conformance suites run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labrats.backends.embedded.store import EmbeddedStore
from labrats.ports import Runner, Store
from tests.conformance.runner_backends import RunnerBackend, open_backend
from tests.fakes.store import MemoryStore


@pytest.fixture(params=["memory", "embedded"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each backend in turn."""
    if request.param == "memory":
        yield MemoryStore()
        return
    async with EmbeddedStore.open(tmp_path / "labrats.db") as embedded:
        yield embedded


@pytest.fixture(params=["memory", "embedded"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunnerBackend]:
    """A machine of each kind in turn, for the attempts of one test."""
    async with open_backend(request.param, tmp_path) as backend:
        yield backend


@pytest.fixture
async def runner(backend: RunnerBackend) -> AsyncIterator[Runner]:
    """The runner of an engine on that machine."""
    async with backend.open_runner() as runner:
        yield runner
