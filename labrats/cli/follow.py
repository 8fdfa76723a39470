"""Following live streams of the engine across broken connections and restarts: of one job, or of all changes."""

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from labrats.cli.errors import EngineUnreachable
from labrats.cli.output import print_stderr

if TYPE_CHECKING:
    from labrats.cli.client import Client

T = TypeVar("T")

RETRY_PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, *(2.0,) * 60)
"""The pause before each retry: two minutes in all, enough to restart or upgrade the engine."""

_JOB_NOTE: Final = "retrying for two minutes; the job is not affected"


def follow_log(
    client: "Client", job_id: str, after: str = "", pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Yield each line of the job's log, in the way of `follow_events`."""
    return _follow(client, f"/api/jobs/{job_id}/logs", after, pause, _JOB_NOTE)


def follow_events(client: "Client", job_id: str, after: str = "") -> Iterator[dict[str, Any]]:
    """Yield each event of the job once, in order, including the final one, which has `done`.

    after: the id `{attempt}-{seq}` of the event to start after; empty to read all attempts.
    Raises EngineUnreachable at once if the first connection fails, or after all retries if a later one breaks.
    """
    return _follow(client, f"/api/jobs/{job_id}/events", after, time.sleep, _JOB_NOTE)


def follow_changes(client: "Client", pause: Callable[[float], None] = time.sleep) -> Iterator[dict[str, Any]]:
    """Yield the changes of all jobs that the caller may see, without end. A change without `jobs` asks for a new list.

    Raises EngineUnreachable as `follow_events` does.
    """
    return _follow(client, "/api/changes", "", pause, "retrying for two minutes")


def until_reachable(read: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """Return what `read` returns; retry for two minutes while the engine is unreachable. Raises EngineUnreachable."""
    for seconds in RETRY_PAUSES_SECONDS:
        try:
            return read()
        except EngineUnreachable:
            pause(seconds)
    return read()


def _follow(
    client: "Client", path: str, after: str, pause: Callable[[float], None], note: str
) -> Iterator[dict[str, Any]]:
    last_id, was_connected, pauses = after, False, iter(RETRY_PAUSES_SECONDS)
    while True:
        try:
            with client.stream(path, last_id) as events:
                was_connected = True
                for event in events:
                    last_id, pauses = event.id or last_id, iter(RETRY_PAUSES_SECONDS)
                    line = json.loads(event.data)
                    yield line
                    if line.get("done"):
                        return
            disconnect = EngineUnreachable(f"the engine at {client.base_url} closed the connection")
        except EngineUnreachable as error:
            if not was_connected:
                raise
            disconnect = error
        if (seconds := next(pauses, None)) is None:
            raise disconnect
        if seconds == RETRY_PAUSES_SECONDS[0]:
            print_stderr(f"{disconnect}\n{note}")
        pause(seconds)
