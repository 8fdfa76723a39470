"""Fixtures for the tests of limits."""

from typing import Any

import pytest

from labrats.executor.resource_limits import memory
from tests.unit.executor.resource_limits.limited_attempts import in_sandbox


@pytest.fixture(params=["sandbox", "process"])
def isolation(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the inputs of an attempt with this isolation."""
    return {} if request.param == "process" else in_sandbox()


@pytest.fixture
def without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open files take no memory of the kernel, as the pids of some tests are those of any processes."""
    monkeypatch.setattr(memory, "memory_of_tables", lambda pids: 0)
    monkeypatch.setattr(memory, "memory_of_proc_files", lambda pids: 0)
