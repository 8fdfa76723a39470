"""Leader election by a Lease: one engine leads at a time. Each leadership has a number, its epoch, which only grows.

A Lease alone does not stop a former leader: an engine that was paused continues to write until it notices that it lost
the Lease. So every write of a leader names its epoch, and the API server refuses writes of former epochs (fence.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.record import Record, encode
from labrats.ports import ControllerLease

log = structlog.get_logger()

LEASE: Final = "labrats-leader"
PUBLISHER_LEASE: Final = "labrats-publisher"
"""The Lease of the process that writes reports to GitHub, of which one works at a time, too."""

_WORK: Final = {LEASE: "leadership", PUBLISHER_LEASE: "the publishing of reports"}
"""The words for the work of each Lease's holder, in the log."""

LeaderTask = Callable[[int], Coroutine[Any, Any, None]]
"""The work of a leader, given its epoch. It is cancelled when leadership is lost."""

Prepare = Callable[[int], Awaitable[None]]
"""A step before that work, while the Lease is renewed."""


@dataclass(frozen=True)
class LeaseTiming:
    """Durations of the election, in seconds.

    lease:   time without a renewal after which another engine may take the Lease.
    renew:   interval between two renewals.
    give_up: time without a successful renewal after which the leader stops.
    poll:    interval at which other engines read the Lease.
    """

    lease: float = 10.0
    renew: float = 2.0
    give_up: float = 7.0
    poll: float = 1.0


class _LeaseMeta(Record):
    name: str
    resource_version: str = ""


class _LeaseSpec(Record):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    lease_transitions: int = 0
    acquire_time: str = ""
    renew_time: str = ""


class Lease(Record):
    """The fields of the Lease that the election uses. `spec.lease_transitions` is the epoch."""

    metadata: _LeaseMeta
    spec: _LeaseSpec = _LeaseSpec()


_LEASES: Final = msgspec.json.Decoder(Lease)


class Election:
    """One candidate of the election. identity: a name that is unique to this run of the engine."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        identity: str,
        timing: LeaseTiming | None = None,
        prepare: Prepare | None = None,
        lease: str = LEASE,
    ) -> None:
        """lease: the name of the Lease, which is created if it is missing."""
        self._work = _WORK[lease]
        self._client = client.apart()  # many slow requests, as with a slow admission webhook, must not end the term
        self._identity, self._timing = identity, timing or LeaseTiming()
        self._prepare, self._name = prepare, lease
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._lease: Lease | None = None
        self._changed_at = 0.0  # time of the last change of the Lease, by the clock of this machine only
        self._holds_lease = False
        self.leader_since = 0.0
        """Start of this leadership by time.monotonic(): no other engine has led since."""

    async def run(self, lead: LeaderTask) -> None:
        """Take part in the election until cancelled, then release the Lease. Errors of `lead` are raised."""
        try:
            while True:
                await self._acquire()
                await self._lead(lead)
        finally:
            await self._release()

    # Before leading

    async def try_acquire(self) -> None:
        """Try once to take the Lease, and prepare to lead. After a success, `run` begins by leading.

        Whatever the engine reads after a success is new enough for a leader.
        """
        try:
            self._holds_lease = await self._is_free() and await self._try_take()
        except RetryLater as error:
            log.warning("Lease unavailable", reason=str(error))

    async def _acquire(self) -> None:
        """Return once this engine holds the Lease."""
        if _now() > self._changed_at + self._timing.give_up:  # it was won too long ago
            self._holds_lease = False
        while not self._holds_lease:
            await self.try_acquire()
            if not self._holds_lease:
                await asyncio.sleep(self._timing.poll)
        self._holds_lease = False

    async def _is_free(self) -> bool:
        """Read the Lease. Return whether it has no holder, or has expired."""
        found = await self._read()
        if found != self._lease:
            self._lease, self._changed_at = found, _now()
        return not found.spec.holder_identity or _now() - self._changed_at > found.spec.lease_duration_seconds

    async def _try_take(self) -> bool:
        """Take the Lease with the next epoch. Return False if another engine took it first, or meanwhile."""
        assert self._lease
        spec = _LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=round(self._timing.lease),
            lease_transitions=self._lease.spec.lease_transitions + 1,
            acquire_time=_timestamp(),
        )
        try:
            await self._write(spec)
        except (Conflict, NotFound):
            return False
        await self._prepare_to_lead(spec.lease_transitions)
        self.leader_since = time.monotonic()
        return self._is_ours

    async def _prepare_to_lead(self, epoch: int) -> None:
        if self._prepare:
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._renew_until_lost(), name="renew")
                await self._prepare(epoch)
                renewing.cancel()

    # Leading

    async def _lead(self, lead: LeaderTask) -> None:
        """Run `lead` while the Lease is held."""
        assert self._lease
        epoch = self._lease.spec.lease_transitions
        log.info(f"acquired {self._work}", epoch=epoch)
        async with asyncio.TaskGroup() as tasks:
            leading = tasks.create_task(lead(epoch), name="lead")
            await self._renew_until_lost()
            leading.cancel()
        log.warning(f"lost {self._work}", epoch=epoch)

    async def _renew_until_lost(self) -> None:
        """Renew the Lease until it is lost."""
        with suppress(TimeoutError):
            while self._is_ours:
                # Others count from the time at which they see a renewal, which is never before it was sent.
                async with asyncio.timeout_at(self._changed_at + self._timing.give_up):
                    await asyncio.sleep(self._timing.renew)
                    await self._renew()

    async def _renew(self) -> None:
        assert self._lease
        try:
            await self._write_or_read(self._lease.spec)
        except RetryLater as error:
            log.warning("Lease not renewed", reason=str(error))

    async def _write_or_read(self, spec: _LeaseSpec) -> None:
        """Write the Lease; after a conflict, read it: another engine wrote it, or an earlier renewal arrived late."""
        try:
            await self._write(spec)
        except (Conflict, NotFound):
            self._lease = await self._read()

    @property
    def _is_ours(self) -> bool:
        return self._lease is not None and self._lease.spec.holder_identity == self._identity

    async def _release(self) -> None:
        """Release the Lease, so that another engine need not wait for it to expire."""
        if self._lease and self._is_ours:
            with suppress(LabratsError, TimeoutError):
                async with asyncio.timeout(self._timing.renew):
                    await self._write(replace(self._lease.spec, holder_identity=""))

    # The Lease

    async def _read(self) -> Lease:
        try:
            return _LEASES.decode(await self._client.request("GET", f"{self._path}/{self._name}"))
        except NotFound:
            return Lease(metadata=_LeaseMeta(name=self._name))

    async def _write(self, spec: _LeaseSpec) -> None:
        """Replace the Lease that was read last. Raises Conflict if it was written since."""
        assert self._lease
        sent_at = _now()
        lease = replace(self._lease, spec=replace(spec, renew_time=_timestamp()))
        method, path = (
            ("PUT", f"{self._path}/{self._name}") if lease.metadata.resource_version else ("POST", self._path)
        )
        self._lease = _LEASES.decode(await self._client.request(method, path, encode(lease)))
        self._changed_at = sent_at


async def read_lease(client: ApiClient, namespace: str) -> ControllerLease:
    """Return the state of the Lease. Raises LabratsError if it cannot be read."""
    try:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"
        spec = _LEASES.decode(await client.request("GET", path)).spec
    except NotFound:
        return ControllerLease()
    renewed_at = datetime.fromisoformat(spec.renew_time) if spec.renew_time else None
    return ControllerLease(spec.holder_identity or None, renewed_at, spec.lease_duration_seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _timestamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
