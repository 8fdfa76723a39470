"""Fixtures of the controller's tests, which run in virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clock import FakeClock, VirtualTimeLoop
from tests.fakes.runner import MemoryMachine
from tests.unit.controller.engine_data import EngineData, engine_data
from tests.unit.controller.lab import Lab


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def clock() -> FakeClock:
    """A clock at noon."""
    return FakeClock()


@pytest.fixture
async def lab(clock: FakeClock) -> AsyncIterator[Lab]:
    """A store and a machine, with no controller yet."""
    async with MemoryMachine(clock) as machine:
        yield Lab(clock, machine)


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[EngineData]:
    """The data of an engine without a controller."""
    async with engine_data(tmp_path) as data:
        yield data
