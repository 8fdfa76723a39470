"""Pages of a job's events: after or before an event, the last ones, or those that match a filter."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, NamedTuple

import msgspec

from labrats.api.routes.event_views import event_view
from labrats.api.routes.job_streams import Position, event_id
from labrats.api.services import Services
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job
from labrats.model.protocol import decode_event, stored_lines
from labrats.model.record import encode

WINDOW: Final = 1000
"""Events that are read first on the way backwards. Each further step is twice as long as the one before."""

SEARCHES_AT_ONCE: Final = 2
"""Searches of one caller that read at the same time. Each reads all logs of a job."""

_NOT_SEARCHED: Final = frozenset({"id", "attempt", "at", "kind", "origin", "call"})
"""Fields of an event that are no text of it."""

_LOWER_CASE: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True)
class EventFilter:
    """Conditions on events. kinds: any of them, or all if empty. text: as `in_lower_case` returns it, in the event."""

    kinds: frozenset[str] = frozenset()
    text: str = ""

    @property
    def needle(self) -> bytes:
        """The text as it occurs in the JSON of an event in lower case."""
        return msgspec.json.encode(self.text)[1:-1]

    def matches(self, view: dict[str, Any]) -> bool:
        shown = (value for name, value in view.items() if name not in _NOT_SEARCHED)
        return not self.text or any(self.text in in_lower_case(text) for value in shown for text in _texts(value))


EVERY_EVENT: Final = EventFilter()


class PageTooLarge(Exception):
    """The page has more bytes than were allowed."""


class PagedEvent(NamedTuple):
    """An event of a page. place: its attempt and number. json: see EventView.

    An event takes up to 30 times as much memory before it is JSON.
    """

    place: Position
    json: bytes


class _Events:
    """The first events of a page, or the last `limit`. Raises PageTooLarge beyond `most_bytes` of JSON."""

    def __init__(self, most_bytes: float, limit: int | None = None) -> None:
        self._events: deque[PagedEvent] = deque(maxlen=limit)
        self._left = most_bytes

    def append(self, event: PagedEvent) -> None:
        if len(self._events) == self._events.maxlen:
            self._left += len(self._events[0].json)
        self._events.append(event)
        self._left -= len(event.json)
        if self._left < 0:
            raise PageTooLarge

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[PagedEvent]:
        return iter(self._events)


def in_lower_case(text: str) -> str:
    """Return `text` with the letters A-Z in lower case. Other letters stay, as `bytes.lower` leaves them in JSON."""
    return text.translate(_LOWER_CASE)


@dataclass
class Page:
    """A page of events. totals: of matching events by attempt, where they were counted. is_last: no more follow."""

    events: list[PagedEvent] = field(default_factory=list)
    totals: Counter[int] = field(default_factory=Counter)
    is_last: bool = True


@dataclass(frozen=True)
class PageRequest:
    """A page that a caller asks for, of some attempts of a job. limit: its most events."""

    caller_id: str
    job: Job
    attempts: range
    wanted: EventFilter
    limit: int


async def page_after(services: Services, request: PageRequest, position: Position, most_bytes: float) -> Page:
    """Return the first events after the position. Raises PageTooLarge."""
    events, is_last = _Events(most_bytes), True
    async with aclosing(_events_after(services, request, request.attempts, position)) as found:
        async for event in found:
            if len(events) == request.limit:
                is_last = False
                break
            events.append(event)
    return Page(list(events), is_last=is_last)


async def search(services: Services, request: PageRequest, position: Position, most_bytes: float) -> Page:
    """Return the first events after the position, and count those of the whole job. Raises PageTooLarge."""
    events, totals, is_last = _Events(most_bytes), Counter[int](), True
    every = all_attempts(request.job)
    async with _place(services, request), aclosing(_events_after(services, request, every, (1, 0))) as found:
        async for event in found:
            attempt, _ = event.place
            totals[attempt] += 1
            if attempt not in request.attempts or event.place <= position:
                continue
            if len(events) < request.limit:
                events.append(event)
            else:
                is_last = False
    return Page(list(events), totals, is_last)


async def page_before(services: Services, request: PageRequest, position: Position | None, most_bytes: float) -> Page:
    """Return the last events before the position, or the last of all without one. Raises PageTooLarge."""
    async with _place(services, request) if request.wanted != EVERY_EVENT else nullcontext():
        return await _page_before(services, request, position, most_bytes)


def _place(services: Services, request: PageRequest) -> asyncio.Semaphore:
    """Return the limit of the searches of one caller that read at the same time."""
    return services.search_places.setdefault(request.caller_id, asyncio.Semaphore(SEARCHES_AT_ONCE))


async def _page_before(services: Services, request: PageRequest, position: Position | None, most_bytes: float) -> Page:
    events: list[PagedEvent] = []
    for number in reversed(request.attempts):
        if position and number > position[0]:
            continue
        end, step = await _last_seq(services, request.job, number) + 1, WINDOW
        if position and number == position[0]:
            end = min(end, position[1])
        while end > 1 and len(events) < request.limit:
            begin = max(1, end - step)
            window = _Events(most_bytes - sum(len(event.json) for event in events), request.limit - len(events))
            await _read_window(services, request, number, range(begin, end), window)
            events = [*window, *events]
            end, step = begin, 2 * step  # few steps, whatever numbers an agent has written into its output
            await asyncio.sleep(0)  # a step without any event has not let other requests run
        if len(events) >= request.limit:
            break
    return Page(events, is_last=position is None)


def all_attempts(job: Job) -> range:
    """Return the numbers of the attempts so far."""
    return range(1, job.status.attempts + 1)


async def bounds(services: Services, job: Job, attempts: range) -> tuple[str | None, str | None]:
    """Return the ids of the attempts' first and last event; None while there is none, or if all were deleted."""
    first, _ = await _first_with_events(services, job, attempts)
    last, last_seq = await _first_with_events(services, job, reversed(attempts))
    return (event_id(first, 1), event_id(last, last_seq)) if last_seq else (None, None)


async def _first_with_events(services: Services, job: Job, numbers: Iterable[int]) -> Position:
    """Return the number of the first attempt that has events, and that of its last event; (0, 0) if none has any."""
    for number in numbers:
        if seq := await _last_seq(services, job, number):
            return number, seq
    return 0, 0


async def _last_seq(services: Services, job: Job, number: int) -> int:
    return (await services.runner.tail(AttemptName(job.id, number))).last_seq


async def _read_window(services: Services, request: PageRequest, number: int, seqs: range, window: _Events) -> None:
    """Append the matching events of an attempt whose numbers are in the range."""
    async with aclosing(
        services.runner.read(AttemptName(request.job.id, number), seqs.start - 1, follow=False)
    ) as batches:
        async for lines in batches:
            for event in _events_in(number, lines, request.wanted):
                if event.place[1] >= seqs.stop:
                    return
                window.append(event)
            if _last_seq_in(lines) >= seqs.stop - 1:
                break
            await asyncio.sleep(0)  # a long log is read in pieces, between other requests


def _last_seq_in(lines: bytes) -> int:
    """Return the number of the last event in complete lines; 0 if the last line is no event."""
    last_line = lines[lines.rfind(b"\n", 0, -1) + 1 :]
    return max((stored.seq for stored, _ in stored_lines(last_line)), default=0)


async def _events_after(
    services: Services, request: PageRequest, attempts: range, position: Position
) -> AsyncGenerator[PagedEvent]:
    """Yield the wanted events of these attempts, after the position."""
    first, seq = position
    for number in attempts:
        if number < first:
            continue
        after = seq if number == first else 0
        async with aclosing(services.runner.read(AttemptName(request.job.id, number), after, follow=False)) as batches:
            async for lines in batches:
                for event in _events_in(number, lines, request.wanted):
                    yield event
                await asyncio.sleep(0)  # a long log is read in pieces, between other requests


def _events_in(number: int, lines: bytes, wanted: EventFilter) -> Iterator[PagedEvent]:
    """Yield the matching events. Only those that may match are decoded."""
    needle = wanted.needle
    if needle and needle not in lines.lower():
        return
    for stored, line in stored_lines(lines):
        if (wanted.kinds and stored.kind not in wanted.kinds) or (needle and needle not in line.lower()):
            continue
        if (event := decode_event(line)) and (view := event_view(number, event)) and wanted.matches(view):
            yield PagedEvent((number, stored.seq), encode(view))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
