"""Fixtures for all tests of the executor."""

from collections.abc import Iterator

import pytest

from tests.unit.executor.attempts import a_unique_name


@pytest.fixture
def unique_name() -> Iterator[str]:
    """Yield the name of an attempt whose processes a test searches for."""
    with a_unique_name() as name:
        yield name
