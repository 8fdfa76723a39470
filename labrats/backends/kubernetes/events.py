"""Kubernetes Events about jobs and invalid objects, as `kubectl describe` shows them.

An Event is recorded only if a person may have to act, since each costs a write. A job that succeeds has none: its
conditions and columns show everything.
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
"""Maximum size of a note, as the API server limits it."""

QUEUE_SIZE: Final = 1000
"""Maximum number of Events that wait to be written. More are dropped: the objects' conditions say the same."""


@dataclass(frozen=True)
class KubernetesEvent:
    """An occurrence on an object. `key` identifies it among those of the object, so that it is recorded only once."""

    kind: str
    name: str
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    key: str


def event_of(job: Job) -> KubernetesEvent | None:
    """Return the Event for a job that has just been written; None if it needs no attention."""
    status, attempt = job.status, job.status.attempts
    match job.phase:
        case Phase.FAILED:
            return _event(job, "Warning", "Failed", f"{status.failed_code}: {status.failed_reason}")
        case Phase.PENDING if status.failed_code:
            why = f"{status.failed_code}: {status.failed_reason}"
            return _event(job, "Warning", "Requeued", f"attempt {attempt} failed and will be repeated: {why}")
        case Phase.CANCELLED:
            return _event(job, "Normal", "Cancelled", "the job was cancelled, and nothing of it runs any more")
        case _:
            return None


def _event(job: Job, kind: Literal["Normal", "Warning"], reason: str, note: str) -> KubernetesEvent:
    key = f"{job.status.attempts}-{reason.lower()}"
    return KubernetesEvent(job.kind(), job.name, job.metadata.uid, kind, reason, note, key)


class EventRecorder:
    """A queue of Events, which a task writes one after the other. An Event that cannot be written is only logged."""

    def __init__(self, client: ApiClient, namespace: str, clock: Clock) -> None:
        self._client, self._namespace, self._clock = client, namespace, clock
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE_SIZE)

    def record(self, event: KubernetesEvent) -> None:
        try:
            self._queue.put_nowait(self._object(event))
        except asyncio.QueueFull:
            log.warning("Event dropped", about=event.name, reason=event.reason)

    async def run(self) -> None:
        """Write queued Events until cancelled."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events"
        while True:
            event = await self._queue.get()
            try:
                await self._client.request("POST", path, encode(event))
            except Conflict:
                pass  # it was recorded before
            except LabratsError as error:
                log.warning("Event not written", about=event["regarding"]["name"], reason=str(error))

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
