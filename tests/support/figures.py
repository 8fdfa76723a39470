"""Figures that tests have measured, printed in the summary: the properties named "figure" of their reports."""

import pytest


def write_figures(terminalreporter: pytest.TerminalReporter) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for name, value in report.user_properties:
                    if name == "figure":
                        terminalreporter.write_line(f"measured: {value}")
