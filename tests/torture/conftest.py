"""The count of what the engine went through, printed at the end."""

from collections import Counter

import pytest

TALLY = pytest.StashKey[Counter[str]]()


@pytest.fixture
def tally(pytestconfig: pytest.Config) -> Counter[str]:
    """What happened how often."""
    return pytestconfig.stash.setdefault(TALLY, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tally := config.stash.get(TALLY, None):
        terminalreporter.write_line("torture: " + ", ".join(f"{what} {count}" for what, count in tally.items()))
