"""The distribution of tests among pytest's workers, as with `pytest -n 4` or `make test`.

The tests of a file run in one worker because they share fixtures. Tests that need a cluster form three groups, so that
at most three workers start a cluster. These groups start first because they take longest, and mostly wait.
"""

from collections import Counter
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

COUNTERS: Final = pytest.StashKey[Counter[str]]()
"""The counters of long tests. Each worker reports its own at the end."""

CLUSTER_FAILURE: Final = pytest.StashKey[str]()
"""The reason why a worker could not start a cluster."""

_OWN_INSTALLATIONS: Final = (
    "tests/chart/test_agents.py",
    "tests/chart/test_injections.py",
    "tests/chart/test_network.py",
    "tests/chart/test_reports.py",
)
"""Tests that install releases of their own, and do not use the shared one."""

_BACKEND_TESTS: Final = (
    "tests/chart/test_rendering.py",
    "tests/kubernetes/test_watch_faults.py",
    "tests/kubernetes/test_write_faults.py",
    "tests/kubernetes/test_attempt_failures.py",
    "tests/kubernetes/test_runner_faults.py",
    "tests/kubernetes/test_leader.py",
    "tests/kubernetes/test_invalid_objects.py",
    "tests/kubernetes/test_store.py",
    "tests/benchmarks/test_quick.py::test_quick_run_on_a_cluster",
)
"""Tests of single parts of the Kubernetes backend, and of the chart without an installation. They share a cluster,
apart from the tests of whole engines.
"""


_FEWEST_TESTS: Final = 2
"""A worker begins a test when it has a second one, or learns that there is none."""


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A scheduler that gives a worker one group at a time: the tests on the shared Helm installation, the tests of
    backend parts, the other tests on a cluster, or the tests of one file.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_on_a_cluster(nodeid) or nodeid.split("::", maxsplit=1)[0]

    def remove_node(self, node: Any) -> Any:
        """Give the tests of a worker that has ended to another one, but not the test that has ended it."""
        if crashed := super().remove_node(node):
            self.workqueue[self._split_scope(crashed)][crashed] = True
        return crashed

    def _reschedule(self, node: Any) -> None:
        super()._reschedule(node)
        if self._pending_of(self.assigned_work[node]) < _FEWEST_TESTS:
            super()._reschedule(node)


def group_on_a_cluster(nodeid: str) -> str | None:
    """Return the group of a test if its group needs a cluster."""
    if "[kubernetes" in nodeid or nodeid.startswith(_BACKEND_TESTS):
        return "parts"
    if nodeid.startswith(("tests/kubernetes/", *_OWN_INSTALLATIONS)):
        return "cluster"
    return "installation" if nodeid.startswith("tests/chart/") or "[installed" in nodeid else None


def is_parallel(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def sort_tests(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the tests on a cluster last in a single process, so that the cluster lives briefly, and first in a worker."""
    items.sort(key=lambda item: (item.get_closest_marker("kubernetes") is None) == is_parallel(config))


def send_worker_report(config: Any) -> None:
    """Send this worker's counters and cluster failure to the main process at the worker's end."""
    if is_parallel(config):
        config.workeroutput["counters"] = dict(config.stash.get(COUNTERS, Counter()))
        config.workeroutput["failure"] = config.stash.get(CLUSTER_FAILURE, "")


def merge_worker_report(config: pytest.Config, report: dict[str, Any]) -> None:
    """Add a worker's report to the totals. The report of a crashed worker is empty."""
    config.stash.setdefault(COUNTERS, Counter()).update(report.get("counters", {}))
    if failure := report.get("failure"):
        config.stash[CLUSTER_FAILURE] = failure
