"""What every test of the executor can ask for."""

from collections.abc import Iterator

import pytest

from tests.unit.executor.attempts import a_unique_name


@pytest.fixture
def unique_name() -> Iterator[str]:
    """The name of an attempt whose processes are looked for."""
    with a_unique_name() as name:
        yield name
