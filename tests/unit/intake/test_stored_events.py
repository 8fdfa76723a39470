"""Events stored with the jobs of a chain, within bounds."""

from typing import Any

import pytest

from labrats.intake.events import IncomingEvent
from labrats.intake.stored_events import EVENT_BYTES, event_part, stored_event
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import NotFound
from labrats.model.record import Metadata


def stored_and_read(payload: dict[str, Any]) -> IncomingEvent:
    part = event_part("ir-1-event", IncomingEvent("github", "push", payload))
    assert len(part.data["event"].encode()) <= EVENT_BYTES
    return stored_event(part)


def test_an_event_is_read_as_it_was_stored() -> None:
    payload = {"issue": {"number": 7, "title": "naïve"}, "labels": ["a", {"b": None}]}
    assert stored_and_read(payload) == IncomingEvent("github", "push", payload)


def test_long_texts_and_lists_of_a_large_event_are_cut() -> None:
    large = {"number": 7, "body": "ü" * EVENT_BYTES, "commits": [{"id": n} for n in range(50_000)]}
    found = stored_and_read(large)
    assert found.find("number") == 7
    assert found.find("body").startswith("ü")
    assert found.find("commits")[0] == {"id": 0}


def test_an_event_that_stays_too_large_is_stored_without_its_payload() -> None:
    def nested(depth: int) -> Any:
        return {f"{'k' * 200}{n}": nested(depth - 1) for n in range(10)} if depth else "x"

    assert stored_and_read(nested(5)) == IncomingEvent("github", "push", {})


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"source": 1}'])
def test_a_config_map_without_an_event_is_not_found(text: str | None) -> None:
    part = ConfigMap(metadata=Metadata(name="applied"), data={} if text is None else {"event": text})
    with pytest.raises(NotFound, match="applied"):
        stored_event(part)
