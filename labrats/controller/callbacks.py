"""Callbacks: report the progress of jobs to the addresses that callers gave, and try again on failure."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from labrats.controller.callback_messages import (
    CallbackDelivered,
    CallbackFailed,
    CallbackMessage,
    CallbackRefused,
    Verdict,
    judge_answer,
    next_message,
    settled,
    wait_after,
)
from labrats.metrics import Metrics
from labrats.model.errors import LabratsError, NotFound, RetryLater, delay_after
from labrats.model.job import Job
from labrats.net.address_policy import Forbidden, Unresolvable, share_of
from labrats.net.client import InvalidUrl, OutboundClient, Unreachable, parse_url
from labrats.net.webhook_signature import signed_headers
from labrats.ports import Changed, Clock, Store, compare_and_set

log = structlog.get_logger()

SEND_SECONDS: Final = 10.0
"""Longest time of one try, from the name lookup to the status of the answer."""

SENDS_AT_ONCE: Final = 256
SENDS_PER_OWNER: Final = 64
"""Concurrent sends for the jobs of one owner, so that slow hosts do not delay the callbacks of others."""
SENDS_PER_HOST: Final = 4
"""Concurrent sends for the jobs of one owner to one host, so that a slow host delays no other."""


class Callbacks:
    """Sends the callback messages of jobs: those of one job in order, those of different jobs concurrently.

    Each message is sent at least once, with the same id every time. The status of a job records its last message.
    """

    def __init__(
        self, store: Store, client: OutboundClient, clock: Clock, signing_keys: Sequence[bytes], metrics: Metrics
    ) -> None:
        self._store, self._client, self._clock, self._keys = store, client, clock, signing_keys
        self._metrics = metrics
        self._versions: dict[_JobReference, int] = {}
        """The latest known version of each job with a message in progress. Jobs and messages may be large."""
        self._all_sends = asyncio.Semaphore(SENDS_AT_ONCE)
        self._sends_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._sends_to: WeakValueDictionary[tuple[str, str], asyncio.Semaphore] = WeakValueDictionary()

    async def run(self) -> None:
        """Send messages until cancelled."""
        async with asyncio.TaskGroup() as senders:
            async for change in self._store.watch(Job, unsettled_only=True):
                if isinstance(change, Changed) and self._observe(job := change.resource):
                    sending = self._send_all(_JobReference.of(job))
                    senders.create_task(sending, name=f"callbacks-{job.id}")
                    del job

    def _observe(self, job: Job) -> bool:
        """Take note of a job. Return whether it has a message to send, and no task for it yet."""
        version, reference = int(job.metadata.resource_version), _JobReference.of(job)
        if reference in self._versions:
            self._versions[reference] = max(version, self._versions[reference])
            return False
        if next_message(job) is None:
            return False
        self._versions[reference] = version
        return True

    async def _send_all(self, reference: "_JobReference") -> None:
        """Send the messages of a job until there is none left: each until it is delivered or given up, or outdated."""
        latest, tries = "", 0
        try:
            with suppress(NotFound):  # the job was deleted
                while True:
                    try:
                        # A job is read when it has a place, as very many may wait for one.
                        async with self._place(reference):
                            # No await follows the last check, so no change of the job is missed.
                            if (message := next_message(await self._refresh(reference))) is None:
                                return
                            verdict = await self._try(reference, message)
                    except RetryLater as error:  # it must keep no place from others meanwhile
                        await self._clock.sleep(error.delay_seconds)
                        continue
                    tries = tries + 1 if message.id == latest else 1
                    latest = message.id
                    wait = wait_after(verdict, message, tries, self._clock.now())
                    self._count(reference.id, message, verdict, will_retry=wait is not None)
                    if wait is None:
                        await self._settle(reference, message, verdict)
                    del message
                    await self._clock.sleep(wait or 0.0)
        finally:
            del self._versions[reference]

    async def _refresh(self, reference: "_JobReference") -> Job:
        """Read the job again, in a version that is not older than the latest observed one.

        Raises NotFound, also if another job has its id by now, and RetryLater.
        """
        while True:
            found = await self._store.get(Job, reference.id)
            if _JobReference.of(found) != reference:
                raise NotFound(f"the job {reference.id} was replaced by another one")
            if int(found.metadata.resource_version) >= self._versions[reference]:
                return found

    @asynccontextmanager
    async def _place(self, reference: "_JobReference") -> AsyncIterator[None]:
        """Wait for a place among the concurrent sends to a host, of an owner, and of all."""
        owner, host = reference.owner, reference.url
        with suppress(InvalidUrl):
            host = parse_url(reference.url).host
        sends_to_host = self._sends_to.setdefault((owner, host), asyncio.Semaphore(SENDS_PER_HOST))
        sends_of_owner = self._sends_of.setdefault(owner, asyncio.Semaphore(SENDS_PER_OWNER))
        async with sends_to_host, sends_of_owner, self._all_sends:
            yield

    async def _try(self, reference: "_JobReference", message: CallbackMessage) -> Verdict:
        """Send the message once."""
        try:
            return await self._send(reference, message)
        except (InvalidUrl, Forbidden) as error:
            return CallbackRefused(str(error))
        except (Unreachable, Unresolvable, TimeoutError):
            return CallbackFailed("the receiver did not answer")
        except Exception:
            # A bug that one message triggers must stop neither the others nor the engine.
            log.exception("callback crashed", job=reference.id)
            return CallbackFailed("the callback could not be sent")

    async def _send(self, reference: "_JobReference", message: CallbackMessage) -> Verdict:
        async with asyncio.timeout(SEND_SECONDS):
            now = self._clock.now()
            headers = {"content-type": "application/json"}
            headers |= signed_headers(message.id, now, message.body, self._keys)
            share = share_of(reference.owner)
            send = self._client.send("POST", reference.url, headers=headers, content=message.body, share=share)
            async with send as answer:
                return judge_answer(answer.status, answer.headers, now)  # the body is not read

    async def _settle(self, reference: "_JobReference", message: CallbackMessage, verdict: Verdict) -> None:
        """Record in the status of the job that the message was delivered or given up. Raises NotFound."""
        callback = settled(message, verdict, self._clock.now())

        def with_callback(job: Job) -> Job:
            return replace(job, status=replace(job.status, callback=callback))

        while True:
            try:
                await compare_and_set(self._store, lambda: self._refresh(reference), with_callback)
                return
            except NotFound:
                raise
            except LabratsError as error:
                log.warning("callback not recorded", job=reference.id, reason=str(error))
                await self._clock.sleep(delay_after(error))

    def _count(self, job_id: str, message: CallbackMessage, verdict: Verdict, *, will_retry: bool) -> None:
        if isinstance(verdict, CallbackDelivered):
            self._metrics.callback_tried("delivered")
            return
        self._metrics.callback_tried("retried" if will_retry else "given_up")
        log.info(
            "callback failed", job=job_id, message=message.phase.value, reason=verdict.problem, will_retry=will_retry
        )


class _JobReference(NamedTuple):
    """A job, with the address and owner that its messages need. Another job may get its id, so it has its UID, too."""

    id: str
    uid: str
    url: str
    owner: str

    @classmethod
    def of(cls, job: Job) -> "_JobReference":
        return cls(job.id, job.metadata.uid, job.spec.callback_url or "", job.spec.owner)
