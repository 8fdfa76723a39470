"""Storage of an event with a job, for later agents of its chain. A large event is pruned."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from labrats.intake.events import IncomingEvent
from labrats.model.core_resources import EVENT_KEY, ConfigMap
from labrats.model.errors import NotFound
from labrats.model.outside_text import shortened
from labrats.model.record import Metadata, encode

EVENT_BYTES: Final = 512 * 1024
"""The bound on a stored event. The job's prompt is stored, too."""

_BOUNDS: Final = ((16 * 1024, 1000), (1024, 100), (200, 10))
"""Bounds for pruning a payload, tried in order: bytes of a text, and items of a list or object."""


def event_part(name: str, event: IncomingEvent) -> ConfigMap:
    """Return the resource that stores `event`. Long texts and lists of a large payload are cut."""
    return ConfigMap(metadata=Metadata(name=name), data={EVENT_KEY: _encoded(event, event.payload)})


def stored_event(part: ConfigMap) -> IncomingEvent:
    """Return the event that `part` stores. Raises NotFound."""
    try:
        stored = msgspec.json.decode(part.data[EVENT_KEY])
        return IncomingEvent(stored["source"], stored["event"], stored["payload"])
    except (KeyError, TypeError, msgspec.DecodeError) as error:
        raise NotFound(f"the ConfigMap {part.name!r} contains no event") from error


def _encoded(event: IncomingEvent, payload: Mapping[str, Any]) -> str:
    for text_bytes, items in _BOUNDS:
        if len(encoded := encode({"source": event.source, "event": event.name, "payload": payload})) <= EVENT_BYTES:
            return encoded.decode()
        payload = _pruned(payload, text_bytes, items)
    encoded = encode({"source": event.source, "event": event.name, "payload": payload})
    return encoded.decode() if len(encoded) <= EVENT_BYTES else _encoded(event, {})


def _pruned(value: Any, text_bytes: int, items: int) -> Any:
    if isinstance(value, str):
        return shortened(value, text_bytes)
    if isinstance(value, Mapping):
        return {key: _pruned(item, text_bytes, items) for key, item in list(value.items())[:items]}
    if isinstance(value, list | tuple):
        return [_pruned(item, text_bytes, items) for item in value[:items]]
    return value
