"""Streams take turns, so that none of them holds up the rest of the engine."""

import asyncio

from labrats.api.http.turns import Turns


async def test_other_work_comes_between_any_two_turns() -> None:
    turns, done = Turns(), list[str]()

    async def stream(pieces: int) -> None:
        for _ in range(pieces):
            async with turns.turn():
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


async def test_turns_go_round() -> None:
    turns, done = Turns(), list[int]()

    async def stream(number: int) -> None:
        for _ in range(3):
            async with turns.turn():
                done.append(number)

    await asyncio.gather(*(stream(number) for number in range(3)))
    assert done == [0, 1, 2] * 3
