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
from labrats.model.errors import NotFound, RetryLater
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
        self._versions: dict[_Receiver, int] = {}
        """The latest known version of each job with a message in progress. Jobs and messages may be large."""
        self._all_sends = asyncio.Semaphore(SENDS_AT_ONCE)
        self._sends_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._sends_to: WeakValueDictionary[tuple[str, str], asyncio.Semaphore] = WeakValueDictionary()

    async def run(self) -> None:
        """Send messages until cancelled."""
        async with asyncio.TaskGroup() as senders:
            async for change in self._store.watch(Job, unsettled_only=True):
                if isinstance(change, Changed) and self._observe(job := change.resource):
                    sending = self._send_all(_Receiver.of(job))
                    senders.create_task(sending, name=f"callbacks-{job.id}")
                    del job

    def _observe(self, job: Job) -> bool:
        """Take note of a job. Return whether it has a message to send, and no task for it yet."""
        version, receiver = int(job.metadata.resource_version), _Receiver.of(job)
        if receiver in self._versions:
            self._versions[receiver] = max(version, self._versions[receiver])
            return False
        if next_message(job) is None:
            return False
        self._versions[receiver] = version
        return True

    async def _send_all(self, receiver: "_Receiver") -> None:
        """Send the messages of a job until there is none left: each until it is delivered or given up, or outdated."""
        latest, tries = "", 0
        try:
            with suppress(NotFound):  # the job was deleted
                while True:
                    # A job is read when it has a place, as very many may wait for one.
                    async with self._place(receiver):
                        # No await follows the last check, so no change of the job is missed.
                        if (message := next_message(await self._refresh(receiver))) is None:
                            return
                        verdict = await self._try(receiver, message)
                    tries = tries + 1 if message.id == latest else 1
                    latest = message.id
                    wait = wait_after(verdict, message, tries, self._clock.now())
                    self._count(receiver.job_id, message, verdict, will_retry=wait is not None)
                    if wait is None:
                        await self._settle(receiver, message, verdict)
                    del message
                    await self._clock.sleep(wait or 0.0)
        finally:
            del self._versions[receiver]

    async def _refresh(self, receiver: "_Receiver") -> Job:
        """Read the job again, in a version that is not older than the latest observed one.

        Raises NotFound, also if another job has its id by now.
        """
        while True:
            try:
                job = await self._store.get(Job, receiver.job_id)
            except RetryLater as error:
                await self._clock.sleep(error.delay_seconds)
                continue
            if _Receiver.of(job) != receiver:
                raise NotFound(f"the job {receiver.job_id} was replaced by another one")
            if int(job.metadata.resource_version) >= self._versions[receiver]:
                return job

    @asynccontextmanager
    async def _place(self, receiver: "_Receiver") -> AsyncIterator[None]:
        """Wait for a place among the concurrent sends to a host, of an owner, and of all."""
        owner, host = receiver.owner, receiver.url
        with suppress(InvalidUrl):
            host = parse_url(receiver.url).host
        sends_to_host = self._sends_to.setdefault((owner, host), asyncio.Semaphore(SENDS_PER_HOST))
        sends_of_owner = self._sends_of.setdefault(owner, asyncio.Semaphore(SENDS_PER_OWNER))
        async with sends_to_host, sends_of_owner, self._all_sends:
            yield

    async def _try(self, receiver: "_Receiver", message: CallbackMessage) -> Verdict:
        """Send the message once."""
        try:
            return await self._send(receiver, message)
        except (InvalidUrl, Forbidden) as error:
            return CallbackRefused(str(error))
        except (Unreachable, Unresolvable, TimeoutError):
            return CallbackFailed("the receiver did not answer")
        except Exception:
            # A bug that one message triggers must stop neither the others nor the engine.
            log.exception("callback crashed", job=receiver.job_id)
            return CallbackFailed("the callback could not be sent")

    async def _send(self, receiver: "_Receiver", message: CallbackMessage) -> Verdict:
        async with asyncio.timeout(SEND_SECONDS):
            now = self._clock.now()
            headers = {"content-type": "application/json"}
            headers |= signed_headers(message.id, now, message.body, self._keys)
            share = share_of(receiver.owner)
            send = self._client.send("POST", receiver.url, headers=headers, content=message.body, share=share)
            async with send as answer:
                return judge_answer(answer.status, answer.headers, now)  # the body is not read

    async def _settle(self, receiver: "_Receiver", message: CallbackMessage, verdict: Verdict) -> None:
        """Record in the status of the job that the message was delivered or given up. Raises NotFound."""
        callback = settled(message, verdict, self._clock.now())

        def with_callback(job: Job) -> Job:
            return replace(job, status=replace(job.status, callback=callback))

        while True:
            try:
                await compare_and_set(self._store, lambda: self._refresh(receiver), with_callback)
                return
            except RetryLater as error:
                await self._clock.sleep(error.delay_seconds)

    def _count(self, job_id: str, message: CallbackMessage, verdict: Verdict, *, will_retry: bool) -> None:
        if isinstance(verdict, CallbackDelivered):
            self._metrics.callback_tried("delivered")
            return
        self._metrics.callback_tried("retried" if will_retry else "given_up")
        log.info(
            "callback failed", job=job_id, message=message.phase.value, reason=verdict.problem, will_retry=will_retry
        )


class _Receiver(NamedTuple):
    """The job whose messages are sent, and where they go. Another job may get its id."""

    job_id: str
    uid: str
    url: str
    owner: str

    @classmethod
    def of(cls, job: Job) -> "_Receiver":
        return cls(job.id, job.metadata.uid, job.spec.callback_url or "", job.spec.owner)
