"""What the engine's own log says, and what it never says."""

from collections.abc import Iterator

import pytest
import structlog

from labrats.logs import configure_logs


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_shows_where_and_no_values(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", style)
    try:
        fail_beside("test-" + "secret-value")
    except ZeroDivisionError:
        structlog.get_logger().exception("reconciling failed", job="ir-0000000a")
    logged = capsys.readouterr().err
    assert "ZeroDivisionError" in logged
    assert "fail_beside" in logged
    assert "test-secret-value" not in logged


def fail_beside(secret: str) -> float:
    return len(secret) / 0
