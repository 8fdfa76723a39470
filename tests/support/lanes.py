"""The two lanes of tests: `make test` leaves out the marks `extended` and `slow`, which `make test-all` includes.

The first lane has everything of one machine, 25 journeys through the dashboard in Chromium, and a smoke test of a
cluster. The other tests on a cluster or in a browser, torture and benchmarks are the second lane.
"""

from typing import Final

import pytest

_EXTENDED_FOLDERS: Final = ("tests/dashboard/", "tests/packages/", "tests/torture/", "tests/benchmarks/")


def mark_extended(items: list[pytest.Item]) -> None:
    """Mark the tests of the second lane: those on a cluster and of some folders, except tests marked `core`."""
    for item in items:
        is_of_a_cluster = item.get_closest_marker("kubernetes") is not None
        if (is_of_a_cluster or item.nodeid.startswith(_EXTENDED_FOLDERS)) and not item.get_closest_marker("core"):
            item.add_marker(pytest.mark.extended)
