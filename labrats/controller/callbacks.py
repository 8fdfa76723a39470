"""Tells callers what becomes of their jobs, at the addresses they named, and keeps at it. Never touches an outcome."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
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
from labrats.net.address_policy import Forbidden, Unresolvable
from labrats.net.client import InvalidUrl, OutboundClient, Unreachable, parse_url
from labrats.net.webhook_signature import signed_headers
from labrats.ports import Changed, Clock, Store, compare_and_set

log = structlog.get_logger()

SEND_SECONDS: Final = 10.0
"""How long one try may take, from looking up the name to the answer's status."""

SENDS_AT_ONCE: Final = 256
SENDS_PER_HOST: Final = 4
"""So that a host that keeps all its callers waiting keeps nobody else's waiting."""


class Callbacks:
    """Sends what jobs owe to their callers: the messages of one job in order, those of different jobs side by side.

    Each is sent at least once, and under the same id each time: how far a job's caller was told is kept on the job.
    """

    def __init__(
        self, store: Store, client: OutboundClient, clock: Clock, signing_keys: Sequence[bytes], metrics: Metrics
    ) -> None:
        self._store, self._client, self._clock, self._keys = store, client, clock, signing_keys
        self._metrics = metrics
        self._owing: dict[str, Job] = {}
        """The newest that is known of each job whose caller is being told something."""
        self._all_sends = asyncio.Semaphore(SENDS_AT_ONCE)
        self._sends_to: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tellers:
            async for change in self._store.watch(Job):
                if isinstance(change, Changed) and self._note(change.resource):
                    tellers.create_task(self._tell(change.resource.id), name=f"callbacks-{change.resource.id}")

    def _note(self, job: Job) -> bool:
        """Take note of `job`; whether its caller has to be told something, and nobody is at it yet."""
        if job.id in self._owing:
            self._owing[job.id] = _newer(self._owing[job.id], job)
            return False
        if next_message(job) is None:
            return False
        self._owing[job.id] = job
        return True

    async def _tell(self, job_id: str) -> None:
        """Until the caller knows all there is to know of the job."""
        try:
            with suppress(NotFound):  # somebody has deleted the job
                await self._refresh(job_id)
                # Between this look and the end there is no await: no news of the job is missed.
                while message := next_message(self._owing[job_id]):
                    await self._deliver(message, self._owing[job_id])
                    await self._refresh(job_id)
        finally:
            del self._owing[job_id]

    async def _refresh(self, job_id: str) -> Job:
        """The job as it is now: what the watch tells may be older than what was written here. Raises NotFound."""
        while True:
            try:
                fresh = await self._store.get(Job, job_id)
            except RetryLater as error:
                await self._clock.sleep(error.delay_seconds)
                continue
            self._owing[job_id] = _newer(self._owing[job_id], fresh)
            return self._owing[job_id]

    async def _deliver(self, message: CallbackMessage, job: Job) -> None:
        """Send `message` until it is done with, or until the job has something else to tell."""
        tries = 0
        while (due := next_message(job)) and due.id == message.id:
            verdict = await self._try(job, message)
            tries += 1
            wait = wait_after(verdict, message, tries, self._clock.now())
            self._count(job, message, verdict, will_retry=wait is not None)
            if wait is None:
                await self._settle(job.id, message, verdict)
                return
            await self._clock.sleep(wait)
            job = await self._refresh(job.id)

    async def _try(self, job: Job, message: CallbackMessage) -> Verdict:
        """Send it once."""
        try:
            return await self._send(job.spec.callback_url or "", message)
        except (InvalidUrl, Forbidden) as error:
            return CallbackRefused(str(error))
        except (Unreachable, Unresolvable, TimeoutError):
            return CallbackFailed("no answer came from the receiver")
        except Exception:
            # A bug met on one message must neither stop the others nor the engine.
            log.exception("sending a callback failed", job=job.id)
            return CallbackFailed("the callback could not be sent")

    async def _send(self, url: str, message: CallbackMessage) -> Verdict:
        host = parse_url(url).host
        sends_to_host = self._sends_to.setdefault(host, asyncio.Semaphore(SENDS_PER_HOST))
        async with sends_to_host, self._all_sends, asyncio.timeout(SEND_SECONDS):
            now = self._clock.now()
            headers = {"content-type": "application/json"}
            headers |= signed_headers(message.id, now, message.body, self._keys)
            async with self._client.send("POST", url, headers=headers, content=message.body) as answer:
                return judge_answer(answer.status, answer.headers, now)  # of the body nothing is read

    async def _settle(self, job_id: str, message: CallbackMessage, verdict: Verdict) -> None:
        """Keep on the job that `message` is done with. Raises NotFound."""
        callback = settled(message, verdict, self._clock.now())

        def with_callback(job: Job) -> Job:
            return replace(job, status=replace(job.status, callback=callback))

        while True:
            try:
                await compare_and_set(self._store, lambda: self._refresh(job_id), with_callback)
                return
            except RetryLater as error:
                await self._clock.sleep(error.delay_seconds)

    def _count(self, job: Job, message: CallbackMessage, verdict: Verdict, *, will_retry: bool) -> None:
        if isinstance(verdict, CallbackDelivered):
            self._metrics.callback_tried("delivered")
            return
        self._metrics.callback_tried("retried" if will_retry else "given_up")
        log.info(
            "callback failed", job=job.id, message=message.phase.value, reason=verdict.problem, will_retry=will_retry
        )


def _newer(one: Job, other: Job) -> Job:
    return max(one, other, key=lambda job: int(job.metadata.resource_version))
