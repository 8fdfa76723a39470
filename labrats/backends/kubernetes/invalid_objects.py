"""Reports invalid objects, which a person wrote with kubectl: in a condition and an Event on the object itself."""

import asyncio
from typing import Any, Final
from zlib import crc32

import structlog

from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.backends.kubernetes.codec import ResourceType
from labrats.backends.kubernetes.events import EventRecorder, KubernetesEvent
from labrats.backends.kubernetes.reflector import RejectedObject
from labrats.model.condition import Condition
from labrats.model.errors import LabratsError
from labrats.model.job_conditions import ACCEPTED, INVALID
from labrats.model.record import encode
from labrats.ports import Clock

log = structlog.get_logger()

MAX_REPORTED: Final = 10_000
"""Maximum number of objects that a leader reports. If it forgot one, it would report its own write as invalid again."""


class InvalidObjectReporter:
    """A reporter that writes each problem of an object once. Only the leader runs it."""

    def __init__(self, client: ApiClient, namespace: str, events: EventRecorder, clock: Clock) -> None:
        self._client, self._namespace, self._events, self._clock = client, namespace, events, clock
        self._reported: dict[str, str] = {}
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def report(self, resources: ResourceType[Any], rejected: RejectedObject) -> None:
        """Report an object of this type that cannot be read, unless the same problem was reported before."""
        reason = rejected.reason
        if self._reported.get(rejected.uid) == reason:
            return
        if rejected.uid not in self._reported and len(self._reported) >= MAX_REPORTED:
            log.warning("invalid object not reported", name=rejected.name, reason="too many objects are invalid")
            return
        self._reported[rejected.uid] = reason
        kind, key = resources.record.kind(), f"invalid-{crc32(reason.encode()):08x}"
        self._events.record(KubernetesEvent(kind, rejected.name, rejected.uid, "Warning", INVALID, reason, key))
        if resources.has_status:
            condition = Condition(
                type=ACCEPTED,
                status="False",
                reason=INVALID,
                message=reason,
                last_transition_time=self._clock.now(),
                observed_generation=rejected.generation,
            )
            path = resources.path(self._namespace, rejected.name, "status")
            self._queue.put_nowait((path, encode({"status": {"conditions": [condition]}})))

    async def run(self) -> None:
        """Write queued conditions until cancelled."""
        while True:
            path, patch = await self._queue.get()
            try:
                await self._client.request("PATCH", path, patch, content_type=MERGE_PATCH)
            except LabratsError as error:
                log.warning("condition not written", path=path, reason=str(error))
