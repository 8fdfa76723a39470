"""An event is kept with the jobs of a chain, within bounds."""

from typing import Any

import pytest

from labrats.intake.events import IncomingEvent
from labrats.intake.stored_events import EVENT_BYTES, event_part, stored_event
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import NotFound
from labrats.model.record import Metadata


def kept(payload: dict[str, Any]) -> IncomingEvent:
    part = event_part("ir-1-event", IncomingEvent("github", "push", payload))
    assert len(part.data["event"].encode()) <= EVENT_BYTES
    return stored_event(part)


def test_an_event_comes_back_as_it_was() -> None:
    payload = {"issue": {"number": 7, "title": "naïve"}, "labels": ["a", {"b": None}]}
    assert kept(payload) == IncomingEvent("github", "push", payload)


def test_of_a_large_one_long_texts_and_lists_are_cut_and_the_rest_stays() -> None:
    large = {"number": 7, "body": "ü" * EVENT_BYTES, "commits": [{"id": n} for n in range(50_000)]}
    found = kept(large)
    assert found.find("number") == 7
    assert found.find("body").startswith("ü")
    assert found.find("commits")[0] == {"id": 0}


def test_one_that_no_cut_makes_small_enough_is_kept_by_its_name() -> None:
    def nested(depth: int) -> Any:
        return {f"{'k' * 200}{n}": nested(depth - 1) for n in range(10)} if depth else "x"

    assert kept(nested(5)) == IncomingEvent("github", "push", {})


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"source": 1}'])
def test_what_is_no_event_is_said_to_be_none(text: str | None) -> None:
    part = ConfigMap(metadata=Metadata(name="hand-made"), data={} if text is None else {"event": text})
    with pytest.raises(NotFound, match="hand-made"):
        stored_event(part)
