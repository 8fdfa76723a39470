"""Fixtures for tools that run in the tests' own process instead of an executor."""

import os

import pytest

from labrats.executor import process_exit
from labrats.processes import descendants, kill_descendants


@pytest.fixture(autouse=True)
def spare_earlier_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare earlier descendants of the tests' process, such as a cluster. A command kills all descendants."""
    others = frozenset(descendants(os.getpid()))
    monkeypatch.setattr(
        process_exit, "kill_descendants", lambda root, seconds: kill_descendants(root, spare=others, seconds=seconds)
    )
