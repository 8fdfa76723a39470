"""The backends that the conformance suites run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labrats.backends.embedded.store import EmbeddedStore
from labrats.ports import Store
from tests.fakes.store import MemoryStore


@pytest.fixture(params=["memory", "embedded"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each backend in turn."""
    if request.param == "memory":
        yield MemoryStore()
        return
    async with EmbeddedStore.open(tmp_path / "labrats.db") as embedded:
        yield embedded
