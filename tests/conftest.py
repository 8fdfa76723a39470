"""What every test can ask for."""

import pytest
from hypothesis import HealthCheck, settings

from tests.chart.fixture import helm, installation
from tests.cluster.fixture import (
    api_client,
    cluster,
    kubeconfig,
    namespace,
    node,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    write_why_no_cluster,
)
from tests.cluster.product import engine_image, executor_image
from tests.tally import tally, write_tally

__all__ = [
    "api_client",
    "cluster",
    "engine_image",
    "executor_image",
    "helm",
    "installation",
    "kubeconfig",
    "namespace",
    "node",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "tally",
]

# Times say nothing on a machine that is shared.
settings.register_profile("labrats", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("labrats")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the results alone do not say."""
    write_tally(terminalreporter)
    write_why_no_cluster(terminalreporter)
