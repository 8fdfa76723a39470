"""Callers are told what becomes of their jobs: a real client against real servers on loopback, with jobs made up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from labrats.controller.callbacks import SENDS_AT_ONCE, Callbacks
from labrats.metrics import Metrics
from labrats.model.job import CallbackStatus, Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.net.client import OutboundClient
from labrats.ports import compare_and_set
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec
from tests.support.waiting import eventually
from tests.support.webhook_receiver import Receiver, a_receiver, answer

R = TypeVar("R", bound=Resource)

P = Phase
OPEN = OutboundClient(["127.0.0.0/8"])


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary loop, since there are sockets."""
    return "asyncio"


class HastyClock(FakeClock):
    """Nobody waits for it: every sleep is over at once, and the time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.step(seconds)
        await asyncio.sleep(0)


class MeddledStore(MemoryStore):
    """Somebody else always writes to a job just before its caller's progress is."""

    async def update(self, resource: R) -> R:
        if isinstance(resource, Job) and resource.status.callback and not resource.status.logs:
            current = await self.get(Job, resource.id)
            await super().update(replace(current, status=replace(current.status, logs=("written meanwhile",))))
        return await super().update(resource)


class Desk:
    """Where jobs are kept, and whoever tells of them."""

    def __init__(self) -> None:
        self.clock, self.metrics = HastyClock(), Metrics()
        self.store: MemoryStore = MemoryStore(self.clock)

    @asynccontextmanager
    async def callbacks(self, client: OutboundClient = OPEN) -> AsyncIterator[None]:
        """Callers are told while the block lasts; then all is dropped as in a crash."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(Callbacks(self.store, client, self.clock, [], self.metrics).run())
            yield
            running.cancel()

    async def add(self, phase: Phase, url: str, **status: Any) -> Job:
        return await self.store.create(a_job(phase, spec=a_spec(callback_url=url), resource_version="", **status))

    async def move(self, job: Job, **status: Any) -> Job:
        """Change the job's status as the controller does."""
        _, moved = await compare_and_set(
            self.store,
            lambda: self.store.get(Job, job.id),
            lambda found: replace(found, status=replace(found.status, **status)),
        )
        return moved

    async def callback_of(self, job: Job) -> CallbackStatus | None:
        return (await self.store.get(Job, job.id)).status.callback

    async def knows(self, job: Job, phase: str) -> CallbackStatus:
        """What the job keeps, once it says that its message of `phase` is done with."""
        async with asyncio.timeout(30):
            while not (callback := await self.callback_of(job)) or callback.phase != phase:
                await asyncio.sleep(0.005)
        return callback

    def tries(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("labrats_callbacks_total", {"outcome": outcome}) or 0


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with a_receiver() as receiver:
        yield receiver


async def test_the_messages_of_a_job_come_in_order_and_the_job_keeps_that_they_came(
    desk: Desk, receiver: Receiver
) -> None:
    async with desk.callbacks():
        job = await desk.add(P.RUNNING, receiver.url)
        assert (await desk.knows(job, "in_progress")).problem is None
        await desk.move(job, phase=P.SUCCEEDED, finished_at=desk.clock.now(), result="done")
        assert (await desk.knows(job, "completed")).problem is None
        await receiver.got("in_progress", "completed")
    after = await desk.store.get(Job, job.id)
    assert (after.phase, after.status.result) == (P.SUCCEEDED, "done")
    assert desk.tries("delivered") == 2


async def test_what_fails_is_sent_again_under_the_same_id(desk: Desk, receiver: Receiver) -> None:
    receiver.replies = [answer(500), answer(429, "retry-after: 3600")]
    async with desk.callbacks():
        await desk.knows(await desk.add(P.SUCCEEDED, receiver.url), "completed")
    deliveries = await receiver.got("in_progress", "in_progress", "in_progress", "completed")
    assert len({delivery.id for delivery in deliveries[:3]}) == 1
    timestamps = [int(delivery.headers["webhook-timestamp"]) for delivery in deliveries[:3]]
    assert timestamps == sorted(set(timestamps))
    assert desk.clock.slept[1] == 3600
    assert (desk.tries("retried"), desk.tries("delivered"), desk.tries("given_up")) == (2, 2, 0)


async def test_after_three_days_without_success_a_message_is_given_up(desk: Desk, receiver: Receiver) -> None:
    receiver.replies = [answer(503)] * 10
    async with desk.callbacks():
        job = await desk.add(P.RUNNING, receiver.url)
        callback = await desk.knows(job, "in_progress")
    assert callback.problem == "the receiver answered 503"
    assert len(receiver.received) == 10
    assert 60 * 3600 < sum(desk.clock.slept) < 91 * 3600
    assert desk.tries("given_up") == 1


async def test_no_redirect_is_followed(desk: Desk, receiver: Receiver) -> None:
    async with a_receiver() as elsewhere, desk.callbacks():
        receiver.replies = [answer(307, f"location: {elsewhere.url}")]
        job = await desk.add(P.RUNNING, receiver.url)
        assert (await desk.knows(job, "in_progress")).problem == "the receiver answered 307"
    assert elsewhere.received == []


async def test_an_address_that_turned_out_to_be_an_inner_one_is_not_connected_to(desk: Desk) -> None:
    async with a_receiver() as inner, desk.callbacks(OutboundClient()):
        job = await desk.add(P.RUNNING, inner.url)
        assert "not allowed" in ((await desk.knows(job, "in_progress")).problem or "")
    assert inner.received == []


async def test_an_endless_answer_counts_by_its_status(desk: Desk, receiver: Receiver) -> None:
    receiver.replies = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 0x1000] * 2
    async with desk.callbacks():
        assert (await desk.knows(await desk.add(P.SUCCEEDED, receiver.url), "completed")).problem is None


async def test_a_host_that_never_answers_keeps_only_its_own_callers_waiting(desk: Desk, receiver: Receiver) -> None:
    async with a_receiver(*[None] * SENDS_AT_ONCE) as silent, desk.callbacks():
        for _ in range(SENDS_AT_ONCE):
            await desk.add(P.RUNNING, silent.url.replace("127.0.0.1", "localhost"))
        await eventually(lambda: len(silent.received) > 0)
        await desk.knows(await desk.add(P.SUCCEEDED, receiver.url), "completed")
        assert desk.tries("retried") == 0


async def test_killed_between_sending_and_recording_it_sends_the_same_once_more(desk: Desk, receiver: Receiver) -> None:
    receiver.replies = [None]
    async with desk.callbacks():
        job = await desk.add(P.RUNNING, receiver.url)
        await eventually(lambda: len(receiver.received) == 1)
    assert await desk.callback_of(job) is None
    async with desk.callbacks():
        await desk.knows(job, "in_progress")
    first, second = await receiver.got("in_progress", "in_progress")
    assert (first.id, first.body) == (second.id, second.body)


async def test_what_was_told_is_not_told_again_after_a_restart(desk: Desk, receiver: Receiver) -> None:
    async with desk.callbacks():
        await desk.knows(await desk.add(P.SUCCEEDED, receiver.url), "completed")
    async with desk.callbacks():
        await desk.knows(await desk.add(P.SUCCEEDED, receiver.url), "completed")
    await receiver.got("in_progress", "completed", "in_progress", "completed")


async def test_a_job_written_to_at_the_same_moment_loses_nothing(desk: Desk, receiver: Receiver) -> None:
    desk.store = MeddledStore(desk.clock)
    async with desk.callbacks():
        job = await desk.add(P.RUNNING, receiver.url)
        await desk.knows(job, "in_progress")
    assert (await desk.store.get(Job, job.id)).status.logs == ("written meanwhile",)
    await receiver.got("in_progress")


async def test_an_end_that_a_retry_overtakes_is_not_sent_any_more(desk: Desk, receiver: Receiver) -> None:
    async with desk.callbacks():
        job = await desk.add(P.RUNNING, receiver.url)
        await desk.knows(job, "in_progress")
        receiver.replies = [None]
        await desk.move(job, phase=P.FAILED, finished_at=desk.clock.now())
        await receiver.got("in_progress", "failed")
        await desk.move(job, phase=P.SUCCEEDED, attempts=2, finished_at=desk.clock.now() + timedelta(hours=1))
        receiver.hang_up()
        await desk.knows(job, "completed")
    await receiver.got("in_progress", "failed", "completed")


async def test_of_a_deleted_job_nothing_more_is_told(desk: Desk, receiver: Receiver) -> None:
    async with desk.callbacks():
        receiver.replies = [None]
        job = await desk.add(P.RUNNING, receiver.url)
        await eventually(lambda: len(receiver.received) == 1)
        await desk.store.delete(Job, job.id)
        await desk.knows(await desk.add(P.SUCCEEDED, receiver.url), "completed")
    assert {delivery.message["jobId"] for delivery in receiver.received[1:]} != {job.id}


async def test_of_many_jobs_each_is_told_of_in_its_order(desk: Desk, receiver: Receiver) -> None:
    async with desk.callbacks():
        jobs = [await desk.add(P.SUCCEEDED, receiver.url) for _ in range(200)]
        await asyncio.gather(*(desk.knows(job, "completed") for job in jobs))
    by_job: dict[str, list[str]] = {}
    for delivery in receiver.received:
        by_job.setdefault(delivery.message["jobId"], []).append(delivery.phase)
    assert by_job == {job.id: ["in_progress", "completed"] for job in jobs}
