"""Ends the process of a test that hangs, so that a worker does not hold up the run without an end.

pytest-timeout interrupts a test only once. It does not notice if the end of a fixture hangs after that, or a rerun of
the test.
"""

import faulthandler
import os
from collections.abc import Generator
from typing import Final

import pytest

MARGIN_SECONDS: Final = 60.0
"""Time beyond the limit of pytest-timeout, which comes first and fails the test without an end of the process."""

_STANDARD_ERROR: Final = pytest.StashKey[int]()
"""A copy of the descriptor of standard error, which pytest redirects while a test runs."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STANDARD_ERROR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STANDARD_ERROR])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _ending_the_process_if_it_hangs(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _ending_the_process_if_it_hangs(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _ending_the_process_if_it_hangs(item))


def _ending_the_process_if_it_hangs(item: pytest.Item) -> Generator[None, object, object]:
    if (seconds := _timeout_of(item)) > 0:
        standard_error = item.config.stash[_STANDARD_ERROR]
        faulthandler.dump_traceback_later(seconds + MARGIN_SECONDS, exit=True, file=standard_error)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _timeout_of(item: pytest.Item) -> float:
    """Return the seconds of the test's mark `timeout`, of the option or of the setting; 0 for no limit."""
    if marker := item.get_closest_marker("timeout"):
        return float(marker.args[0])
    option = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if option is None else option)
