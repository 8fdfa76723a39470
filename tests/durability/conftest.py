"""The simulated disk of the durability tests, and the count of its faults."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import pytest

from tests.durability.disk import Disk

PAGES_PER_CHECKPOINT = 40
"""Far fewer than SQLite's 1,000, so that short tests have many checkpoints."""

COUNTERS = pytest.StashKey[Counter[str]]()


@pytest.fixture
def disk() -> Iterator[Disk]:
    """The disk of all SQLite databases during a test."""
    disk = Disk()
    with frequent_checkpoints():
        yield disk
    disk.unregister()


@contextmanager
def frequent_checkpoints() -> Iterator[None]:
    def checkpoint_often(connection: apsw.Connection) -> None:
        connection.wal_autocheckpoint(PAGES_PER_CHECKPOINT)

    apsw.connection_hooks.append(checkpoint_often)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(checkpoint_often)


@pytest.fixture
def counters(pytestconfig: pytest.Config) -> Counter[str]:
    """The number of survived faults of each kind, printed at the end."""
    return pytestconfig.stash.setdefault(COUNTERS, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if counters := config.stash.get(COUNTERS, None):
        terminalreporter.write_line("durability: " + ", ".join(f"{count:,} {what}" for what, count in counters.items()))
