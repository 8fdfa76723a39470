"""Counters of long tests, printed in the summary because they depend on how long the tests may run."""

from collections import Counter

import pytest

from tests.support.workers import COUNTERS


@pytest.fixture
def counters(request: pytest.FixtureRequest) -> Counter[str]:
    """Counters by name, printed at the end of the test run."""
    return request.config.stash.setdefault(COUNTERS, Counter())


def write_counters(terminalreporter: pytest.TerminalReporter) -> None:
    if counters := terminalreporter.config.stash.get(COUNTERS, None):
        terminalreporter.write_line("counters: " + ", ".join(f"{name} {count}" for name, count in counters.items()))
