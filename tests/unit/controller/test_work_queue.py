"""The keys that need a look: none missed, none at two workers."""

import asyncio
import random
from collections import Counter

import pytest

from labrats.controller.work_queue import WorkQueue
from tests.fakes.clock import FakeClock


async def take_one(queue: WorkQueue) -> str:
    async with queue.take() as key:
        return key


async def test_keys_come_in_the_order_they_were_added_each_once() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert len(queue) == 3
    assert [await take_one(queue) for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0


async def test_a_key_added_while_it_is_worked_on_comes_again_but_not_before() -> None:
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


async def test_work_that_fails_lets_go_of_its_key() -> None:
    queue = WorkQueue()
    queue.add("a")

    async def fail() -> None:
        async with queue.take():
            queue.add("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await take_one(queue) == "a"


async def test_a_worker_waits_for_a_key() -> None:
    queue = WorkQueue()
    worker = asyncio.create_task(take_one(queue))
    await asyncio.sleep(1)
    queue.add("a")
    assert await worker == "a"


async def test_a_worker_cancelled_as_it_was_woken_hands_its_wake_on() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(take_one(queue)) for _ in range(2))
    await asyncio.sleep(1)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    assert first.cancelled()


async def test_a_worker_cancelled_while_it_waits_takes_no_wake_with_it() -> None:
    queue = WorkQueue()
    first, second = (asyncio.create_task(take_one(queue)) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.wait([first])
    queue.add("a")
    assert await second == "a"


# Later


async def test_a_delayed_key_comes_when_its_time_has_come(clock: FakeClock) -> None:
    queue = WorkQueue()
    queue.add_later("a", 10)
    await clock.advance(9)
    assert len(queue) == 0
    await clock.advance(2)
    assert len(queue) == 1


@pytest.mark.parametrize(("first", "second"), [(10, 20), (20, 10)])
async def test_the_latest_wish_for_a_key_counts(clock: FakeClock, first: float, second: float) -> None:
    queue = WorkQueue()
    queue.add_later("a", first)
    queue.add_later("a", second)
    await clock.advance(second - 1)
    assert len(queue) == 0
    await clock.advance(2)
    assert await take_one(queue) == "a"
    await clock.advance(60)
    assert len(queue) == 0


async def test_a_forgotten_delay_never_ends(clock: FakeClock) -> None:
    queue = WorkQueue()
    queue.add_later("a", 10)
    queue.cancel_timer("a")
    queue.cancel_timer("a")
    await clock.advance(60)
    assert len(queue) == 0


async def test_a_delay_that_is_over_is_none() -> None:
    queue = WorkQueue()
    queue.add_later("a", -5)
    assert await take_one(queue) == "a"


@pytest.mark.parametrize("seed", range(100))
async def test_no_key_is_missed_nor_worked_on_twice_at_a_time(seed: int) -> None:
    """Workers that come, work, fail and are cancelled at random: whatever was added is seen after it was."""
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
            added.update(busy)  # what a dying worker held is not done: whoever cancels it adds it again
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
