"""How the tests are shared out among pytest's workers: `pytest -n 4`, as `make test` runs them.

A file's tests stay together, since they share fixtures. So do those that need a cluster, in three groups, which share
one in each worker: they take longest, mostly waiting, so they begin first, and the rest fills the other workers.
"""

from collections import Counter
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

COUNTERS: Final = pytest.StashKey[Counter[str]]()
CLUSTER_FAILURE: Final = pytest.StashKey[str]()
"""What workers tell at the end: the count of what long tests went through, and why no cluster could be had."""


_PARTS: Final = (
    "tests/kubernetes/test_watch_faults.py",
    "tests/kubernetes/test_write_faults.py",
    "tests/kubernetes/test_failures.py",
    "tests/kubernetes/test_faults.py",
    "tests/kubernetes/test_leader.py",
    "tests/kubernetes/test_invalid_objects.py",
    "tests/kubernetes/test_store.py",
    "tests/benchmarks/test_quick.py::test_a_quick_run_on_a_cluster",
)
"""Where something of the backend is tested by itself."""


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A unit of work is a file; or what is tested on an installation by Helm; or of the parts of the backend for
    clusters; or all else that needs a cluster.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/chart/") or "[installed" in nodeid:
            return "installation"
        if "[kubernetes" in nodeid or nodeid.startswith(_PARTS):
            return "parts"
        if nodeid.startswith("tests/kubernetes/"):
            return "cluster"
        return nodeid.split("::", maxsplit=1)[0]


def is_parallel(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def sort_tests(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Alone, a cluster lives no longer than it must; among several workers its many tests begin first."""
    items.sort(key=lambda item: (item.get_closest_marker("kubernetes") is None) == is_parallel(config))


def send_worker_report(config: Any) -> None:
    """What this worker has to tell, as it ends."""
    if is_parallel(config):
        config.workeroutput["counters"] = dict(config.stash.get(COUNTERS, Counter()))
        config.workeroutput["failure"] = config.stash.get(CLUSTER_FAILURE, "")


def merge_worker_report(config: pytest.Config, told: dict[str, Any]) -> None:
    """Take in what a worker has told; nothing where it crashed."""
    config.stash.setdefault(COUNTERS, Counter()).update(told.get("counters", {}))
    if failure := told.get("failure"):
        config.stash[CLUSTER_FAILURE] = failure
