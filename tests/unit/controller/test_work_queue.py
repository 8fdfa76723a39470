"""The work queue: no key is missed, or held by two workers."""

import asyncio
import random
from collections import Counter

import pytest

from labrats.work_queue import WorkQueue, work_forever
from tests.fakes.clock import FakeClock


async def take_one(queue: WorkQueue) -> str:
    async with queue.take() as key:
        return key


async def test_keys_are_taken_once_each_in_the_order_of_their_addition() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert len(queue) == 3
    assert [await take_one(queue) for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0


async def test_a_key_added_while_a_worker_holds_it_is_queued_again_afterwards() -> None:
    queue = WorkQueue()
    queue.add("a")
    async with queue.take():
        queue.add("a")
        queue.add("a")
        second = asyncio.create_task(take_one(queue))
        await asyncio.sleep(1)
        assert not second.done()
    assert await second == "a"
    assert len(queue) == 0


async def test_failed_work_releases_its_key() -> None:
    queue = WorkQueue()
    queue.add("a")

    async def fail() -> None:
        async with queue.take():
            queue.add("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await take_one(queue) == "a"


async def test_work_that_waits_for_nothing_leaves_time_to_others() -> None:
    """A key that is queued again at once may wait for what another task does."""
    queue, done = WorkQueue(), 0

    async def work(key: str) -> None:
        nonlocal done
        done += 1
        if done < 100_000:
            queue.add(key)

    queue.add("a")
    worker = asyncio.create_task(work_forever(queue, work))
    for _ in range(10):
        await asyncio.sleep(0)
    worker.cancel()
    assert 0 < done < 20


async def test_a_worker_waits_for_a_key() -> None:
    queue = WorkQueue()
    worker = asyncio.create_task(take_one(queue))
    await asyncio.sleep(1)
    queue.add("a")
    assert await worker == "a"


async def test_a_worker_cancelled_after_its_wake_up_wakes_another() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(take_one(queue)) for _ in range(2))
    await asyncio.sleep(1)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    assert first.cancelled()


async def test_a_worker_cancelled_while_it_waits_blocks_no_other() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(take_one(queue)) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.wait([first])
    queue.add("a")
    assert await second == "a"


# Timers


async def test_a_delayed_key_is_queued_after_its_delay(clock: FakeClock) -> None:
    queue = WorkQueue()
    queue.add_later("a", 10)
    await clock.advance(9)
    assert len(queue) == 0
    await clock.advance(2)
    assert len(queue) == 1


@pytest.mark.parametrize(("first", "second"), [(10, 20), (20, 10)])
async def test_a_new_timer_of_a_key_replaces_the_earlier_one(clock: FakeClock, first: float, second: float) -> None:
    queue = WorkQueue()
    queue.add_later("a", first)
    queue.add_later("a", second)
    await clock.advance(second - 1)
    assert len(queue) == 0
    await clock.advance(2)
    assert await take_one(queue) == "a"
    await clock.advance(60)
    assert len(queue) == 0


async def test_a_cancelled_timer_never_fires(clock: FakeClock) -> None:
    queue = WorkQueue()
    queue.add_later("a", 10)
    queue.cancel_timer("a")
    queue.cancel_timer("a")
    await clock.advance(60)
    assert len(queue) == 0


async def test_a_key_with_a_negative_delay_is_queued_at_once() -> None:
    queue = WorkQueue()
    queue.add_later("a", -5)
    assert await take_one(queue) == "a"


@pytest.mark.parametrize("seed", range(100))
async def test_no_key_is_missed_or_held_by_two_workers(seed: int) -> None:
    """Workers start, work and are cancelled at random. Every added key is taken after its addition."""
    chance, queue = random.Random(seed), WorkQueue()
    seen, added, busy = Counter[str](), Counter[str](), set[str]()

    async def work() -> None:
        while True:
            async with queue.take() as key:
                assert key not in busy
                busy.add(key)
                try:
                    seen[key] = added[key]
                    await asyncio.sleep(chance.random())
                finally:
                    busy.discard(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(200):
        key = chance.choice("abcdefgh")
        added[key] += 1
        if chance.random() < 0.7:
            queue.add(key)
        else:
            queue.add_later(key, chance.random())
        if chance.random() < 0.2:
            victim = chance.randrange(len(workers))
            added.update(busy)  # the cancelled worker may not have finished its key, so the key is added again
            for held in busy:
                queue.add(held)
            workers[victim].cancel()
            workers[victim] = asyncio.create_task(work())
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() / 2)
    await asyncio.sleep(1000)
    assert seen == added
    for worker in workers:
        worker.cancel()
    outcomes = await asyncio.gather(*workers, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
