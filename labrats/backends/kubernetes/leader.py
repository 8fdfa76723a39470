"""Which engine leads: one at a time, by a Lease. Each leadership has a number, its epoch, higher than all before it.

A Lease alone stops nobody: an engine that was paused goes on where it was, and takes a moment to notice that it leads
no more. So every write of a leader names its epoch, and the API server refuses those of former ones (see fence.py).
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

log = structlog.get_logger()

LEASE: Final = "labrats-leader"

LeaderTask = Callable[[int], Coroutine[Any, Any, None]]
"""What a leader does, given its epoch. It is cancelled when the lead is lost."""

Prepare = Callable[[int], Awaitable[None]]
"""What comes before that. It is short, since the Lease is not renewed meanwhile."""


@dataclass(frozen=True)
class LeaseTiming:
    """In seconds. lease: how long a leader that is not heard of is waited for. renew: how often it is heard of.
    give_up: after how long without being heard it stops leading by itself. look: how often others look at the Lease.
    """

    lease: float = 10.0
    renew: float = 2.0
    give_up: float = 7.0
    look: float = 1.0


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
    """The Lease, as far as it matters here. `spec.lease_transitions` is the epoch."""

    metadata: _LeaseMeta
    spec: _LeaseSpec = _LeaseSpec()


_LEASES: Final = msgspec.json.Decoder(Lease)


class Election:
    """One engine's part in it. identity: a name that no other engine has, not even this one when started again."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        identity: str,
        timing: LeaseTiming | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self._client, self._identity, self._timing = client, identity, timing or LeaseTiming()
        self._prepare = prepare
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._lease: Lease | None = None
        self._changed_at = 0.0  # when the Lease was last seen to change: by our own time, no other is trusted
        self._has_won = False
        self.leads_since = 0.0
        """The moment, of time.monotonic(), from which on nobody else has led. For whoever leads."""

    async def run(self, lead: LeaderTask) -> None:
        """Take part until cancelled; then hand the lead over. An error of `lead` surfaces."""
        try:
            while True:
                await self._win()
                await self._lead(lead)
        finally:
            await self._hand_over()

    # Not leading

    async def try_at_once(self) -> None:
        """Take the lead, if it is free and the API server within reach; `run` then begins with leading.

        What an engine reads after that is new enough to lead by.
        """
        try:
            self._has_won = await self._is_free() and await self._take()
        except RetryLater as error:
            log.warning("the Lease is out of reach", reason=str(error))

    async def _win(self) -> None:
        """Return once this engine leads."""
        if _now() > self._changed_at + self._timing.give_up:  # since it won, more has happened than should have
            self._has_won = False
        while not self._has_won:
            await self.try_at_once()
            if not self._has_won:
                await asyncio.sleep(self._timing.look)
        self._has_won = False

    async def _is_free(self) -> bool:
        """Look at the Lease: whether nobody holds it, or its holder has not been heard of for too long."""
        found = await self._read()
        if found != self._lease:
            self._lease, self._changed_at = found, _now()
        return not found.spec.holder_identity or _now() - self._changed_at > found.spec.lease_duration_seconds

    async def _take(self) -> bool:
        """False when another was quicker."""
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
        if self._prepare:
            await self._prepare(spec.lease_transitions)
        self.leads_since = time.monotonic()
        return True

    # Leading

    async def _lead(self, lead: LeaderTask) -> None:
        """Lead for as long as the Lease is held, and no longer."""
        assert self._lease
        epoch = self._lease.spec.lease_transitions
        log.info("this engine leads", epoch=epoch)
        async with asyncio.TaskGroup() as tasks:
            leading = tasks.create_task(lead(epoch), name="lead")
            await self._hold()
            leading.cancel()
        log.warning("this engine leads no more", epoch=epoch)

    async def _hold(self) -> None:
        """Renew the Lease until it is lost."""
        with suppress(TimeoutError):
            while self._is_ours:
                # Others count from when they see a renewal, which is never before it was sent.
                async with asyncio.timeout_at(self._changed_at + self._timing.give_up):
                    await asyncio.sleep(self._timing.renew)
                    await self._renew()

    async def _renew(self) -> None:
        assert self._lease
        try:
            await self._write_or_read(self._lease.spec)
        except RetryLater as error:
            log.warning("the Lease could not be renewed", reason=str(error))

    async def _write_or_read(self, spec: _LeaseSpec) -> None:
        """When it was written since, that was another, or an earlier renewal that arrived after all."""
        try:
            await self._write(spec)
        except (Conflict, NotFound):
            self._lease = await self._read()

    @property
    def _is_ours(self) -> bool:
        return self._lease is not None and self._lease.spec.holder_identity == self._identity

    async def _hand_over(self) -> None:
        """Let another lead at once, rather than have it wait until the Lease has run out."""
        if self._lease and self._is_ours:
            with suppress(LabratsError, TimeoutError):
                async with asyncio.timeout(self._timing.renew):
                    await self._write(replace(self._lease.spec, holder_identity=""))

    # The Lease

    async def _read(self) -> Lease:
        try:
            return _LEASES.decode(await self._client.request("GET", f"{self._path}/{LEASE}"))
        except NotFound:
            return Lease(metadata=_LeaseMeta(name=LEASE))

    async def _write(self, spec: _LeaseSpec) -> None:
        """Replace the Lease that is known. Raises Conflict when it was written since."""
        assert self._lease
        sent_at = _now()
        lease = replace(self._lease, spec=replace(spec, renew_time=_timestamp()))
        method, path = ("PUT", f"{self._path}/{LEASE}") if lease.metadata.resource_version else ("POST", self._path)
        self._lease = _LEASES.decode(await self._client.request(method, path, encode(lease)))
        self._changed_at = sent_at


def _now() -> float:
    return asyncio.get_running_loop().time()


def _timestamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
