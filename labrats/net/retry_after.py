"""The headers Retry-After and Date of a response."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_MOST_SECONDS: Final = 1e9
"""Some thirty years: larger numbers do not fit into a date."""


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Return the delay that the header asks for, in seconds or as a date; None for anything else."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return min(float(value), _MOST_SECONDS)
    date = http_date(value)
    return max((date - now).total_seconds(), 0.0) if date else None


def http_date(value: str | None) -> datetime | None:
    """Return the time in a header; None if it is missing or invalid."""
    with suppress(ValueError, OverflowError):  # the latter for an impossible time zone
        date = parsedate_to_datetime(value or "")
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None
