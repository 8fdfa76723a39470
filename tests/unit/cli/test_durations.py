"""Parsing and formatting of durations and times."""

import pytest

from labrats.cli.durations import describe_span, describe_time, parse_ms
from labrats.model.durations import describe_seconds


@pytest.mark.parametrize(
    ("text", "ms"), [("500ms", 500), ("90s", 90_000), ("10m", 600_000), ("1.5h", 5_400_000), ("1h30m", 5_400_000)]
)
def test_duration_is_parsed_in_its_units(text: str, ms: int) -> None:
    assert parse_ms(text) == ms


@pytest.mark.parametrize("text", ["", "90", "s", "ten minutes", "10m!", "-5s", "10 m"])
def test_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s, 10m"):
        parse_ms(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0.0s"),
        (0.44, "0.4s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (3600, "1h00m"),
        (7620, "2h07m"),
        (356_400, "4d03h"),
    ],
)
def test_duration_is_formatted_with_two_units(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


def test_span_without_a_start_is_empty() -> None:
    assert describe_span(None, None) == ""


def test_span_runs_from_start_to_end() -> None:
    assert describe_span("2030-01-01T12:00:00Z", "2030-01-01T12:03:05.200Z") == "3m05s"


def test_time_is_formatted_in_utc_to_the_second() -> None:
    assert describe_time("2030-01-31T14:00:59.123456+02:00") == "2030-01-31 12:00:59 UTC"
    assert describe_time(None) == ""
