"""The count of what long tests went through, printed at the end: it depends on how long they may take."""

from collections import Counter

import pytest

from tests.support.workers import TALLY


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Counter[str]:
    """What happened how often."""
    return request.config.stash.setdefault(TALLY, Counter())


def write_tally(terminalreporter: pytest.TerminalReporter) -> None:
    if tally := terminalreporter.config.stash.get(TALLY, None):
        terminalreporter.write_line("went through: " + ", ".join(f"{what} {count}" for what, count in tally.items()))
