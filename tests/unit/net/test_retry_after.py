"""Parsing the header Retry-After."""

from datetime import timedelta
from email.utils import format_datetime

import pytest

from labrats.net.retry_after import retry_after_seconds
from tests.fakes.clock import NOON


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("9" * 400, 1e9),
        (format_datetime(NOON + timedelta(minutes=2), usegmt=True), 120),
        (format_datetime(NOON - timedelta(minutes=2), usegmt=True), 0),
        ("Thu, 01 Jan 2026 12:02:00", 120),
    ],
)
def test_delay_is_in_seconds_or_until_a_date(value: str, seconds: float) -> None:
    assert retry_after_seconds(value, NOON) == seconds


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "²", "٣", "1e3", f"Mon, 01 Jan 2026 00:00:00 +{'9' * 20}"])
def test_header_without_a_delay_is_ignored(value: str | None) -> None:
    assert retry_after_seconds(value, NOON) is None
