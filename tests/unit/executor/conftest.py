"""Fixtures for all tests of the executor."""

import os
from collections.abc import Iterator
from functools import partial

import pytest

from labrats.executor import leftovers
from labrats.executor.resource_limits import watcher
from labrats.processes import children, descendants, kill_descendants, kill_once
from tests.unit.executor.attempts import a_unique_name


@pytest.fixture(autouse=True)
def spare_earlier_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare earlier descendants of the tests' process, such as an engine or a cluster that other tests share.

    Git, the tools and the limits run in the tests' own process here instead of an executor, and kill all descendants.
    """
    others = frozenset(descendants(os.getpid()))
    monkeypatch.setattr(leftovers, "has_child", lambda: not others.issuperset(children(os.getpid())))
    monkeypatch.setattr(leftovers, "kill_once", lambda root: kill_once(root, spare=others))
    monkeypatch.setattr(watcher, "kill_descendants", partial(kill_descendants, spare=others))


@pytest.fixture
def unique_name() -> Iterator[str]:
    """Yield the name of an attempt whose processes a test searches for."""
    with a_unique_name() as name:
        yield name
