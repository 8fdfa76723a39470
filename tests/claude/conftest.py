"""The real Claude Code program."""

from collections.abc import Iterator

import pytest

from tests.agent_programs import CLAUDE, installed
from tests.unit.executor.attempts import a_unique_name


@pytest.fixture(scope="session")
def claude_cli() -> str:
    """The path of the program."""
    return installed(CLAUDE)


@pytest.fixture
def unique_name() -> Iterator[str]:
    """The name of an attempt whose processes are looked for."""
    with a_unique_name() as name:
        yield name
