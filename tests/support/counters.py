"""The count of what long tests went through, printed at the end: it depends on how long they may take."""

from collections import Counter

import pytest

from tests.support.workers import COUNTERS


@pytest.fixture
def counters(request: pytest.FixtureRequest) -> Counter[str]:
    """What happened how often."""
    return request.config.stash.setdefault(COUNTERS, Counter())


def write_counters(terminalreporter: pytest.TerminalReporter) -> None:
    if counters := terminalreporter.config.stash.get(COUNTERS, None):
        terminalreporter.write_line("went through: " + ", ".join(f"{what} {count}" for what, count in counters.items()))
