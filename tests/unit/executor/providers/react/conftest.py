"""The tools are used in the tests' own process, which stands for an executor's."""

import os

import pytest

from labrats.executor.providers.react import commands
from labrats.processes import descendants, kill_descendants


@pytest.fixture(autouse=True)
def what_was_started_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command ends all that runs below the executor. Below the tests' process there may be a whole cluster."""
    others = frozenset(descendants(os.getpid()))
    monkeypatch.setattr(commands, "kill_descendants", lambda root: kill_descendants(root, spare=others))
