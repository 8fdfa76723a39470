"""What every test can ask for."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.chart.fixture import helm, installation
from tests.cluster.fixture import (
    api_client,
    cluster,
    kubeconfig,
    kubectl_cache,
    namespace,
    node,
    pytest_collection_finish,
    write_why_no_cluster,
)
from tests.cluster.product import engine_image, executor_image
from tests.support.counters import tally, write_tally
from tests.support.durations import write_times
from tests.support.random_seed import SEED
from tests.support.workers import Groups, hear, put_in_order, tell

__all__ = [
    "SEED",
    "api_client",
    "cluster",
    "engine_image",
    "executor_image",
    "helm",
    "installation",
    "kubeconfig",
    "kubectl_cache",
    "namespace",
    "node",
    "pytest_collection_finish",
    "tally",
]

# Times say nothing on a machine that is shared.
settings.register_profile("labrats", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("labrats")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    put_in_order(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    tell(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    hear(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the results alone do not say."""
    write_times(terminalreporter)
    write_tally(terminalreporter)
    write_why_no_cluster(terminalreporter)
