"""Fixtures for the tests of limits."""

from typing import Any

import pytest

from tests.unit.executor.resource_limits.limited_attempts import in_sandbox


@pytest.fixture(params=["sandbox", "process"])
def isolation(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the inputs of an attempt with this isolation."""
    return {} if request.param == "process" else in_sandbox()
