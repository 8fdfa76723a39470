"""Streams share a fair lock, so that none of them holds up the rest of the engine."""

import asyncio

from labrats.api.http.fair_lock import FairLock


async def test_other_tasks_run_between_two_holders_of_the_lock() -> None:
    lock, done = FairLock(), list[str]()

    async def stream(pieces: int) -> None:
        for _ in range(pieces):
            async with lock.hold():
                done.append("piece")

    async def other() -> None:
        while len(done) < 100:
            done.append("other")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(stream(10))
        tasks.create_task(other())
    assert "piece piece" not in " ".join(done[: done.index("other", 50)])


async def test_tasks_hold_the_lock_in_the_order_of_their_requests() -> None:
    lock, done = FairLock(), list[int]()

    async def stream(number: int) -> None:
        for _ in range(3):
            async with lock.hold():
                done.append(number)

    await asyncio.gather(*(stream(number) for number in range(3)))
    assert done == [0, 1, 2] * 3
