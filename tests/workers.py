"""How the tests are shared out among pytest's workers: `pytest -n 3`, as `make test` runs them.

A file's tests stay together, since they share fixtures. So do those that need a cluster, in two groups, each with a
cluster of its own: they take longest, mostly waiting, so they begin first, and the rest fills the other workers.
"""

from collections import Counter
from typing import Any, Final

import pytest
from xdist.scheduler import LoadGroupScheduling

INSTALLATION: Final = "installation"
CLUSTER: Final = "cluster"
"""The two groups: tests of what Helm installs, and all others that need a cluster."""

TALLY: Final = pytest.StashKey[Counter[str]]()
FAILURE: Final = pytest.StashKey[str]()
"""What workers tell at the end: the count of what long tests went through, and why no cluster could be had."""


class FilesTogether(LoadGroupScheduling):  # type: ignore[misc]  # xdist has no types
    """A unit of work is a group of tests, or else a file."""

    def _split_scope(self, nodeid: str) -> str:
        return str(super()._split_scope(nodeid)).split("::", maxsplit=1)[0]


def is_parallel(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def share_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests, and say which go together."""
    parallel = is_parallel(config)
    # Alone, a cluster lives no longer than it must; among several, its many tests begin first.
    items.sort(key=lambda item: (item.get_closest_marker("kubernetes") is None) != parallel)
    for item in items if parallel else ():
        if item.get_closest_marker("kubernetes"):
            item.add_marker(pytest.mark.xdist_group(INSTALLATION if needs(item, "helm") else CLUSTER))


def needs(item: pytest.Item, what: str) -> bool:
    """Whether a test asks for it as a fixture, or for what is made of it, by its mark: `kubernetes(node=True)`."""
    marker = item.get_closest_marker("kubernetes")
    return what in getattr(item, "fixturenames", ()) or bool(marker and marker.kwargs.get(what))


def tell(config: Any) -> None:
    """What this worker has to tell, as it ends."""
    if is_parallel(config):
        config.workeroutput["tally"] = dict(config.stash.get(TALLY, Counter()))
        config.workeroutput["failure"] = config.stash.get(FAILURE, "")


def hear(config: pytest.Config, told: dict[str, Any]) -> None:
    """Take in what a worker has told; nothing where it crashed."""
    config.stash.setdefault(TALLY, Counter()).update(told.get("tally", {}))
    if failure := told.get("failure"):
        config.stash[FAILURE] = failure
