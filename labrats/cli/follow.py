"""Following the log or the events of a job to the end, across broken connections and restarts of the engine."""

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from labrats.cli.errors import EngineUnreachable
from labrats.cli.output import print_stderr

if TYPE_CHECKING:
    from labrats.cli.client import Client

RETRY_PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, *(2.0,) * 60)
"""The pause before each retry: two minutes in all, enough to restart or upgrade the engine."""


def follow_log(
    client: "Client", job_id: str, after: str = "", pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Yield each line of the job's log, in the way of `follow_events`."""
    return _follow(client, f"/api/jobs/{job_id}/logs", after, pause)


def follow_events(client: "Client", job_id: str, after: str = "") -> Iterator[dict[str, Any]]:
    """Yield each event of the job once, in order, including the final one, which has `done`.

    after: the id `{attempt}-{seq}` of the event to start after; empty to read all attempts.
    Raises EngineUnreachable at once if the first connection fails, or after all retries if a later one breaks.
    """
    return _follow(client, f"/api/jobs/{job_id}/events", after, time.sleep)


def _follow(client: "Client", path: str, after: str, pause: Callable[[float], None]) -> Iterator[dict[str, Any]]:
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
            print_stderr(f"{disconnect}\nretrying for two minutes; the job is not affected")
        pause(seconds)
