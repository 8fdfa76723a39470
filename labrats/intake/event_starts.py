"""The jobs that events start for an issue or pull request, counted for an hour.

Agents that start each other by what they write would otherwise run for ever. The counts are in the status of the
webhook source: a receiver on Kubernetes may not read jobs, and another one may receive the next event.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from labrats.intake.events import IncomingEvent
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Store, compare_and_set

_HOUR: Final = 3600
_MOST_THREADS: Final = 1000
_FINGERPRINT_CHARACTERS: Final = 8


def thread_of(event: IncomingEvent) -> str | None:
    """Return the issue or pull request that the event is about, as `owner/repo#7`; None if it is about none."""
    repository = event.text("repository", "full_name")
    number = event.find("pull_request", "number") or event.find("issue", "number")
    return f"{repository.lower()}#{number}" if repository and isinstance(number, int) else None


async def reserve_starts(
    store: Store, source: WebhookSource, thread: str, fingerprint: str, wanted: int, most: int, now: datetime
) -> int:
    """Return how many of the wanted jobs an event may start, and count them. Raises NotFound, RetryLater.

    fingerprint: of the event. An event that comes again may start the same number of jobs as before.
    """
    granted, mark = 0, fingerprint[:_FINGERPRINT_CHARACTERS]

    def change(stored: WebhookSource) -> WebhookSource:
        nonlocal granted
        counted = _of_last_hour(stored.status.event_starts, now)
        starts = counted.get(thread, ())
        if earlier := sum(start.endswith(f":{mark}") for start in starts):
            granted = min(earlier, wanted)
            return stored
        granted = max(0, min(wanted, most - len(starts)))
        if not granted:
            return stored
        others = {name: each for name, each in counted.items() if name != thread}
        for name in list(others)[: max(0, len(others) - _MOST_THREADS + 1)]:
            del others[name]
        now_counted = others | {thread: (*starts, *(f"{now.timestamp():.0f}:{mark}" for _ in range(granted)))}
        return replace(stored, status=replace(stored.status, event_starts=now_counted))

    await compare_and_set(store, lambda: store.get(WebhookSource, source.name), change)
    return granted


async def release_starts(store: Store, source: WebhookSource, thread: str, fingerprint: str) -> None:
    """Give back what an event has reserved, since it has started no job. Raises NotFound, RetryLater."""
    end = f":{fingerprint[:_FINGERPRINT_CHARACTERS]}"

    def change(stored: WebhookSource) -> WebhookSource:
        counted = stored.status.event_starts
        left = tuple(start for start in counted.get(thread, ()) if not start.endswith(end))
        return replace(stored, status=replace(stored.status, event_starts=counted | {thread: left}))

    await compare_and_set(store, lambda: store.get(WebhookSource, source.name), change)


def _of_last_hour(starts: Mapping[str, tuple[str, ...]], now: datetime) -> dict[str, tuple[str, ...]]:
    since = now.timestamp() - _HOUR
    recent = {name: tuple(each for each in of_thread if _time_of(each) > since) for name, of_thread in starts.items()}
    return {name: of_thread for name, of_thread in recent.items() if of_thread}


def _time_of(start: str) -> float:
    time = start.partition(":")[0]
    return float(time) if time.isdecimal() else 0.0
