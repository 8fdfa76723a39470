"""Following a job's log, or its events, to the end, across cuts and restarts of the engine."""

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from labrats.cli.exits import EngineUnreachable
from labrats.cli.output import remark

if TYPE_CHECKING:
    from labrats.cli.client import Client

PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, *(2.0,) * 60)
"""The waits before each new try: two minutes in all, enough for a restart or an upgrade of the engine."""


def follow_log(
    client: "Client", job_id: str, after: str = "", pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Each line of the job's log; as `follow_events`."""
    return _follow(client, f"/api/jobs/{job_id}/logs", after, pause)


def follow_events(client: "Client", job_id: str, after: str = "") -> Iterator[dict[str, Any]]:
    """Each event of the job once, in order, up to and with the one that says `done`.

    after: the id of the last event to leave out, `{attempt}-{seq}`; all attempts are read where it is empty.
    Raises EngineUnreachable at once when the first connection fails, and when a later one stays lost.
    """
    return _follow(client, f"/api/jobs/{job_id}/events", after, time.sleep)


def _follow(client: "Client", path: str, after: str, pause: Callable[[float], None]) -> Iterator[dict[str, Any]]:
    last_id, was_connected, pauses = after, False, iter(PAUSES_SECONDS)
    while True:
        try:
            with client.stream(path, last_id) as events:
                was_connected = True
                for event in events:
                    last_id, pauses = event.id or last_id, iter(PAUSES_SECONDS)
                    line = json.loads(event.data)
                    yield line
                    if line.get("done"):
                        return
            cut = EngineUnreachable(f"the engine at {client.base_url} closed the connection")
        except EngineUnreachable as error:
            if not was_connected:
                raise
            cut = error
        if (seconds := next(pauses, None)) is None:
            raise cut
        if seconds == PAUSES_SECONDS[0]:
            remark(f"{cut}\ntrying again for two minutes; the job is not affected")
        pause(seconds)
