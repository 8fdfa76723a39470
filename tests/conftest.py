"""What every test can ask for."""

import pytest
from hypothesis import HealthCheck, settings

# Times say nothing on a machine that is shared.
settings.register_profile("labrats", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("labrats")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"
