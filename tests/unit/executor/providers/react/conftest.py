"""Fixtures for tools that run in the tests' own process instead of an executor."""

import os

import pytest

from labrats.executor import leftovers
from labrats.processes import children, descendants, kill_once


@pytest.fixture(autouse=True)
def spare_earlier_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare earlier descendants of the tests' process, such as a cluster. A command kills all descendants."""
    others = frozenset(descendants(os.getpid()))
    monkeypatch.setattr(leftovers, "has_child", lambda: not others.issuperset(children(os.getpid())))
    monkeypatch.setattr(leftovers, "kill_once", lambda root: kill_once(root, spare=others))
