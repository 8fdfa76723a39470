"""Fixtures and hooks for all tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.acceptance.engine import ForkedEngine, LocalEngine
from tests.chart.fixture import helm, installation
from tests.cluster.fixture import (
    api_client,
    cluster,
    fail_without_cluster,
    kubeconfig,
    kubectl_cache,
    namespace,
    node,
    pytest_collection_finish,
    pytest_runtest_setup,
    write_cluster_failure,
)
from tests.cluster.product import agents_image, engine_image, executor_image
from tests.support.counters import counters, write_counters
from tests.support.durations import write_durations
from tests.support.figures import write_figures
from tests.support.lanes import mark_extended
from tests.support.random_seed import SEED
from tests.support.workers import GroupScheduling, merge_worker_report, send_worker_report, sort_tests

__all__ = [
    "SEED",
    "agents_image",
    "api_client",
    "cluster",
    "counters",
    "engine_image",
    "executor_image",
    "helm",
    "installation",
    "kubeconfig",
    "kubectl_cache",
    "namespace",
    "node",
    "pytest_collection_finish",
    "pytest_runtest_setup",
]

pytest_plugins = ["tests.support.hung_tests"]

# Without a deadline for each example: on a shared machine, durations vary too much.
settings.register_profile("labrats", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("labrats")


@pytest.fixture(scope="session", autouse=True)
def etc_snapshots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for the snapshots of /etc of all engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalEngine, "etc_snapshots", tmp_path_factory.mktemp("etc-snapshots"))
        yield


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """The process that forks the engines, until the last test of this process has ended."""
    yield
    ForkedEngine.forks.close()


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark_extended(items)
    sort_tests(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    return GroupScheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    send_worker_report(session.config)
    fail_without_cluster(session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    merge_worker_report(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the durations, the counters, measured figures, and the reason for a missing cluster."""
    write_durations(terminalreporter)
    write_counters(terminalreporter)
    write_figures(terminalreporter)
    write_cluster_failure(terminalreporter)
