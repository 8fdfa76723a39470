"""Says on an object that makes no sense, because a person wrote it, what is wrong with it. Everything else goes on."""

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

REMEMBERED: Final = 10_000
"""How many objects' faults are remembered, so that each is told once. After that many they are told again."""


class InvalidObjectReporter:
    """For the engine that leads: others would only say it again."""

    def __init__(self, client: ApiClient, namespace: str, events: EventRecorder, clock: Clock) -> None:
        self._client, self._namespace, self._events, self._clock = client, namespace, events, clock
        self._told: dict[str, str] = {}
        self._unwritten: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def put(self, resources: ResourceType[Any], rejected: RejectedObject) -> None:
        """An object of this type cannot be read. It is told once, however often the object comes by."""
        reason = rejected.reason
        if self._told.get(rejected.uid) == reason:
            return
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told[rejected.uid] = reason
        kind, key = resources.record.kind(), f"invalid-{crc32(reason.encode()):08x}"
        self._events.tell(KubernetesEvent(kind, rejected.name, rejected.uid, "Warning", INVALID, reason, key))
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
            self._unwritten.put_nowait((path, encode({"status": {"conditions": [condition]}})))

    async def run(self) -> None:
        """Write what is to be said, until cancelled."""
        while True:
            path, patch = await self._unwritten.get()
            try:
                await self._client.request("PATCH", path, patch, content_type=MERGE_PATCH)
            except LabratsError as error:
                log.warning("a condition could not be written", path=path, reason=str(error))
