"""Tells people what they may have to act on, by Events on the objects themselves, as `kubectl describe` shows them.

Each costs a write. So there is none for a job that goes well: its conditions and columns say all of that.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.codec import api_version_of
from labrats.model.errors import Conflict, LabratsError
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import encode
from labrats.ports import Clock

log = structlog.get_logger()

NOTE_BYTES: Final = 1024
"""The API server takes no longer note."""

UNTOLD: Final = 1000
"""How many Events may wait to be written. Further ones are dropped: the objects themselves say it too."""


@dataclass(frozen=True)
class KubernetesEvent:
    """Something that happened to an object. `key` tells it from all else that happens to it: it is told once."""

    kind: str
    name: str
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    key: str


def event_of(job: Job) -> KubernetesEvent | None:
    """What is to be told of a job that has just been written."""
    status, attempt = job.status, job.status.attempts
    match job.phase:
        case Phase.FAILED:
            return _event(job, "Warning", "Failed", f"{status.failed_code}: {status.failed_reason}")
        case Phase.PENDING if status.failed_code:
            why = f"{status.failed_code}: {status.failed_reason}"
            return _event(job, "Warning", "PutBack", f"attempt {attempt} failed, and another one follows: {why}")
        case Phase.CANCELLED:
            return _event(job, "Normal", "Cancelled", "somebody cancelled the job, and nothing of it runs")
        case _:
            return None


def _event(job: Job, kind: Literal["Normal", "Warning"], reason: str, note: str) -> KubernetesEvent:
    key = f"{job.status.attempts}-{reason.lower()}"
    return KubernetesEvent(job.kind(), job.name, job.metadata.uid, kind, reason, note, key)


class EventRecorder:
    """Writes Events, one after the other. Nobody waits for them, and one that cannot be written is only logged."""

    def __init__(self, client: ApiClient, namespace: str, clock: Clock) -> None:
        self._client, self._namespace, self._clock = client, namespace, clock
        self._untold: asyncio.Queue[dict[str, Any]] = asyncio.Queue(UNTOLD)

    def tell(self, event: KubernetesEvent) -> None:
        try:
            self._untold.put_nowait(self._object(event))
        except asyncio.QueueFull:
            log.warning("an Event is dropped", about=event.name, reason=event.reason)

    async def run(self) -> None:
        """Until cancelled."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events"
        while True:
            event = await self._untold.get()
            try:
                await self._client.request("POST", path, encode(event))
            except Conflict:
                pass  # it was told before
            except LabratsError as error:
                log.warning("an Event could not be written", about=event["regarding"]["name"], reason=str(error))

    def _object(self, event: KubernetesEvent) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{event.name}.{event.uid[:8]}.{event.key}", "namespace": self._namespace},
            "regarding": {
                "apiVersion": api_version_of(event.kind),
                "kind": event.kind,
                "namespace": self._namespace,
                "name": event.name,
                "uid": event.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "action": event.reason,
            "note": event.note.encode()[:NOTE_BYTES].decode(errors="ignore"),
            "eventTime": f"{self._clock.now():%Y-%m-%dT%H:%M:%S.%fZ}",
            "reportingController": "labrats.work/engine",
            "reportingInstance": socket.gethostname(),
        }
