"""Parsing and formatting of times and durations."""

import re
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from labrats.model.durations import describe_seconds

_MS_PER_UNIT: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_ms(text: str) -> int:
    """Parse a duration such as `90s`, `10m`, `1h30m` or `500ms` into milliseconds.

    Raises ValueError, also for a number without a unit: it could mean seconds or milliseconds.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration: write 90s, 10m, 1h30m or 500ms")
    milliseconds = sum(float(number) * _MS_PER_UNIT[unit] for number, unit in parts)
    if not isfinite(milliseconds):
        raise ValueError("the duration is too long")
    return round(milliseconds)


def describe_span(start: str | None, end: str | None) -> str:
    """Format the duration from `start` to `end`, both RFC 3339.

    Without an end the duration runs until now; without a start the text is empty.
    """
    if start is None:
        return ""
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return describe_seconds((until - datetime.fromisoformat(start)).total_seconds())


def describe_time(time: str | None) -> str:
    """Format an RFC 3339 time to the second: `2030-01-31 12:00:59 UTC`. None gives an empty text."""
    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if time else ""
