"""Conditions: one per type, and their transition times."""

from datetime import UTC, datetime, timedelta

from labrats.model.condition import Condition, with_condition

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def a_condition(kind: str, status: str, at: datetime, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason="Test", message=message, last_transition_time=at)


def test_a_condition_replaces_the_one_of_its_type() -> None:
    ready, found = a_condition("Ready", "True", NOON), a_condition("SecretFound", "True", NOON)
    later = a_condition("Ready", "False", NOON + timedelta(hours=1))
    assert with_condition([ready, found], later) == (found, later)


def test_the_transition_time_changes_only_with_the_status() -> None:
    ready = a_condition("Ready", "True", NOON, "as it was")
    again = a_condition("Ready", "True", NOON + timedelta(hours=1), "as it is")
    assert with_condition([ready], again) == (a_condition("Ready", "True", NOON, "as it is"),)
