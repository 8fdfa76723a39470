"""The time that the tests of each folder took, printed in the summary."""

from collections import defaultdict

import pytest


def write_durations(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds by folder, longest first. With several workers, folders overlap in time."""
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds["/".join(report.nodeid.split("/")[:2])] += report.duration
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    terminalreporter.write_line("seconds by folder: " + ", ".join(f"{folder} {took:.0f}" for folder, took in longest))
