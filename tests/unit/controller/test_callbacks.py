"""Callbacks: a real client against real servers on loopback, with made-up jobs."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from labrats.controller.callbacks import SENDS_AT_ONCE, SENDS_PER_HOST, SENDS_PER_OWNER, Callbacks
from labrats.metrics import Metrics
from labrats.model.errors import Invalid, Problem
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
    """The ordinary event loop, since the tests use sockets."""
    return "asyncio"


class HastyClock(FakeClock):
    """A clock whose sleeps return at once, with the time advanced."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.step(seconds)
        await asyncio.sleep(0)


class MeddledStore(MemoryStore):
    """A store in which another writer updates a job just before each update of its callback status."""

    async def update(self, resource: R) -> R:
        if isinstance(resource, Job) and resource.status.callback and not resource.status.logs:
            current = await self.get(Job, resource.id)
            await super().update(replace(current, status=replace(current.status, logs=("written meanwhile",))))
        return await super().update(resource)


class Engine:
    """A store with jobs, and the callbacks for them."""

    def __init__(self) -> None:
        self.clock, self.metrics = HastyClock(), Metrics()
        self.store: MemoryStore = MemoryStore(self.clock)

    @asynccontextmanager
    async def callbacks(self, client: OutboundClient = OPEN) -> AsyncIterator[None]:
        """Send callbacks during the block, and then drop all as in a crash."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(Callbacks(self.store, client, self.clock, [], self.metrics).run())
            yield
            running.cancel()

    async def add(self, phase: Phase, url: str, owner: str = "ci", **status: Any) -> Job:
        spec = a_spec(callback_url=url, owner=owner)
        return await self.store.create(a_job(phase, spec=spec, resource_version="", **status))

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

    async def settled(self, job: Job, phase: str) -> CallbackStatus:
        """Wait until the message for `phase` is delivered or given up, and return the callback status."""
        async with asyncio.timeout(30):
            while not (callback := await self.callback_of(job)) or callback.phase != phase:
                await asyncio.sleep(0.005)
        return callback

    def tries(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("labrats_callbacks_total", {"outcome": outcome}) or 0


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with a_receiver() as receiver:
        yield receiver


async def test_the_messages_of_a_job_arrive_in_order_and_are_recorded_on_the_job(
    engine: Engine, receiver: Receiver
) -> None:
    async with engine.callbacks():
        job = await engine.add(P.RUNNING, receiver.url)
        assert (await engine.settled(job, "in_progress")).problem is None
        await engine.move(job, phase=P.SUCCEEDED, finished_at=engine.clock.now(), result="done")
        assert (await engine.settled(job, "completed")).problem is None
        await receiver.got("in_progress", "completed")
    after = await engine.store.get(Job, job.id)
    assert (after.phase, after.status.result) == (P.SUCCEEDED, "done")
    assert engine.tries("delivered") == 2


async def test_a_failed_message_is_sent_again_with_the_same_id(engine: Engine, receiver: Receiver) -> None:
    receiver.replies = [answer(500), answer(429, "retry-after: 3600")]
    async with engine.callbacks():
        await engine.settled(await engine.add(P.SUCCEEDED, receiver.url), "completed")
    deliveries = await receiver.got("in_progress", "in_progress", "in_progress", "completed")
    assert len({delivery.id for delivery in deliveries[:3]}) == 1
    timestamps = [int(delivery.headers["webhook-timestamp"]) for delivery in deliveries[:3]]
    assert timestamps == sorted(set(timestamps))
    assert engine.clock.slept[1] == 3600
    assert (engine.tries("retried"), engine.tries("delivered"), engine.tries("given_up")) == (2, 2, 0)


async def test_messages_of_a_later_job_of_the_same_id_go_to_its_own_receiver(
    engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, may_try_again = asyncio.Event(), asyncio.Event()

    async def sleep(_: float) -> None:
        waits.set()
        await may_try_again.wait()

    monkeypatch.setattr(engine.clock, "sleep", sleep)
    receiver.replies = [answer(503)]
    async with a_receiver() as other, engine.callbacks():
        job = await engine.add(P.RUNNING, receiver.url)
        await waits.wait()
        await engine.store.delete(Job, job.id)
        later = a_job(P.RUNNING, job_id=job.id, spec=a_spec(callback_url=other.url, owner="ci"), resource_version="")
        other.replies = [answer(503)]
        await engine.store.create(later)
        await other.got("in_progress")
        may_try_again.set()
        await other.got("in_progress", "in_progress")
        await receiver.got("in_progress")  # and nothing more


async def test_jobs_that_wait_for_a_slow_receiver_are_read_when_it_is_their_turn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Very many can wait, and one with all its fields may take some MiB."""
    read, get = set[str](), engine.store.get

    async def counted(kind: type[R], name: str) -> R:
        read.add(name)
        return await get(kind, name)

    monkeypatch.setattr(engine.store, "get", counted)
    with socket.create_server(("127.0.0.1", 0), backlog=SENDS_PER_HOST) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        async with engine.callbacks():
            for _ in range(3 * SENDS_PER_HOST):
                await engine.add(P.RUNNING, url)
            await eventually(lambda: len(read) == SENDS_PER_HOST)
            await asyncio.sleep(0.1)
            assert len(read) == SENDS_PER_HOST


async def test_a_message_is_given_up_after_three_days(engine: Engine, receiver: Receiver) -> None:
    receiver.replies = [answer(503)] * 10
    async with engine.callbacks():
        job = await engine.add(P.RUNNING, receiver.url)
        callback = await engine.settled(job, "in_progress")
    assert callback.problem == "the receiver answered 503"
    assert len(receiver.received) == 10
    assert 60 * 3600 < sum(engine.clock.slept) < 91 * 3600
    assert engine.tries("given_up") == 1


async def test_no_redirect_is_followed(engine: Engine, receiver: Receiver) -> None:
    async with a_receiver() as elsewhere, engine.callbacks():
        receiver.replies = [answer(307, f"location: {elsewhere.url}")]
        job = await engine.add(P.RUNNING, receiver.url)
        assert (await engine.settled(job, "in_progress")).problem == "the receiver answered 307"
    assert elsewhere.received == []


async def test_an_internal_address_is_not_connected_to(engine: Engine) -> None:
    async with a_receiver() as inner, engine.callbacks(OutboundClient()):
        job = await engine.add(P.RUNNING, inner.url)
        assert "not allowed" in ((await engine.settled(job, "in_progress")).problem or "")
    assert inner.received == []


async def test_an_endless_answer_is_judged_by_its_status(engine: Engine, receiver: Receiver) -> None:
    receiver.replies = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 0x1000] * 2
    async with engine.callbacks():
        assert (await engine.settled(await engine.add(P.SUCCEEDED, receiver.url), "completed")).problem is None


async def test_a_host_that_never_answers_delays_no_other_host(engine: Engine, receiver: Receiver) -> None:
    async with a_receiver(*[None] * SENDS_AT_ONCE) as silent, engine.callbacks():
        for _ in range(SENDS_AT_ONCE):
            await engine.add(P.RUNNING, silent.url.replace("127.0.0.1", "localhost"))
        await eventually(lambda: len(silent.received) > 0)
        await engine.settled(await engine.add(P.SUCCEEDED, receiver.url), "completed")
        assert engine.tries("retried") == 0


async def test_silent_hosts_of_one_owner_delay_no_callback_of_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with a_receiver(*[None] * SENDS_PER_OWNER) as receiver, engine.callbacks():

        def url(host: int) -> str:
            return receiver.url.replace("127.0.0.1", f"host{host}.example")

        hosts = SENDS_AT_ONCE // SENDS_PER_HOST
        for number in range(SENDS_AT_ONCE):
            await engine.add(P.RUNNING, url(number % hosts), owner="a")
        await eventually(lambda: len(receiver.received) == SENDS_PER_OWNER)
        for host in (0, hosts):  # a host that is silent for the other owner, and another one
            await engine.settled(await engine.add(P.SUCCEEDED, url(host), owner="b"), "completed")
        assert engine.tries("retried") == 0


async def test_a_message_sent_but_not_recorded_before_a_crash_is_sent_again(engine: Engine, receiver: Receiver) -> None:
    receiver.replies = [None]
    async with engine.callbacks():
        job = await engine.add(P.RUNNING, receiver.url)
        await eventually(lambda: len(receiver.received) == 1)
    assert await engine.callback_of(job) is None
    async with engine.callbacks():
        await engine.settled(job, "in_progress")
    first, second = await receiver.got("in_progress", "in_progress")
    assert (first.id, first.body) == (second.id, second.body)


async def test_a_delivered_message_is_not_sent_again_after_a_restart(engine: Engine, receiver: Receiver) -> None:
    async with engine.callbacks():
        await engine.settled(await engine.add(P.SUCCEEDED, receiver.url), "completed")
    async with engine.callbacks():
        await engine.settled(await engine.add(P.SUCCEEDED, receiver.url), "completed")
    await receiver.got("in_progress", "completed", "in_progress", "completed")


async def test_a_concurrent_write_of_the_job_is_not_lost(engine: Engine, receiver: Receiver) -> None:
    engine.store = MeddledStore(engine.clock)
    async with engine.callbacks():
        job = await engine.add(P.RUNNING, receiver.url)
        await engine.settled(job, "in_progress")
    assert (await engine.store.get(Job, job.id)).status.logs == ("written meanwhile",)
    await receiver.got("in_progress")


async def test_the_message_for_an_end_is_dropped_after_a_retry(engine: Engine, receiver: Receiver) -> None:
    async with engine.callbacks():
        job = await engine.add(P.RUNNING, receiver.url)
        await engine.settled(job, "in_progress")
        receiver.replies = [None]
        await engine.move(job, phase=P.FAILED, finished_at=engine.clock.now())
        await receiver.got("in_progress", "failed")
        await engine.move(job, phase=P.SUCCEEDED, attempts=2, finished_at=engine.clock.now() + timedelta(hours=1))
        receiver.hang_up()
        await engine.settled(job, "completed")
    await receiver.got("in_progress", "failed", "completed")


async def test_no_message_is_sent_for_a_deleted_job(engine: Engine, receiver: Receiver) -> None:
    async with engine.callbacks():
        receiver.replies = [None]
        job = await engine.add(P.RUNNING, receiver.url)
        await eventually(lambda: len(receiver.received) == 1)
        await engine.store.delete(Job, job.id)
        await engine.settled(await engine.add(P.SUCCEEDED, receiver.url), "completed")
    assert {delivery.message["jobId"] for delivery in receiver.received[1:]} != {job.id}


async def test_the_messages_of_many_jobs_are_each_in_order(engine: Engine, receiver: Receiver) -> None:
    async with engine.callbacks():
        jobs = [await engine.add(P.SUCCEEDED, receiver.url) for _ in range(200)]
        await asyncio.gather(*(engine.settled(job, "completed") for job in jobs))
    by_job: dict[str, list[str]] = {}
    for delivery in receiver.received:
        by_job.setdefault(delivery.message["jobId"], []).append(delivery.phase)
    assert by_job == {job.id: ["in_progress", "completed"] for job in jobs}


async def test_jobs_that_became_invalid_delay_no_callbacks_of_others(engine: Engine, receiver: Receiver) -> None:
    async with engine.callbacks():
        for _ in range(SENDS_PER_HOST):
            engine.store.spoiled.add((await engine.add(P.RUNNING, receiver.url)).id)
        await asyncio.sleep(0.05)
        healthy = await engine.add(P.RUNNING, receiver.url)
        await engine.settled(healthy, "in_progress")


async def test_a_callback_that_cannot_be_recorded_stops_no_other(engine: Engine, receiver: Receiver) -> None:
    refused = a_job(P.RUNNING, spec=a_spec(callback_url=receiver.url), resource_version="")
    engine.store.refusals[refused.id] = Invalid(Problem("object", "is larger than etcd allows"))
    async with engine.callbacks():
        await engine.store.create(refused)
        await receiver.got("in_progress")
        await engine.settled(await engine.add(P.RUNNING, receiver.url), "in_progress")
        engine.store.refusals.clear()
        await engine.settled(refused, "in_progress")
