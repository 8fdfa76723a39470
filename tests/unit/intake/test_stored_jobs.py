"""Reading many stored jobs."""

from collections.abc import Sequence
from typing import TypeVar

import pytest

from labrats.intake.stored_jobs import existing_jobs
from labrats.model.record import Resource
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job

R = TypeVar("R", bound=Resource)


class CountingStore(MemoryStore):
    """A store that notes how many resources are read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        self.numbers.append(len(names))
        return await super().get_many(kind, names)


@pytest.mark.anyio
async def test_existing_jobs_are_read_few_at_a_time_in_the_given_order() -> None:
    store = CountingStore()
    for number in (7, 3, 21):
        await store.create(a_job(job_id=f"ir-{number:08x}"))
    wanted = [f"ir-{number:08x}" for number in range(25, 0, -1)]
    assert [job.id async for job in existing_jobs(store, wanted)] == ["ir-00000015", "ir-00000007", "ir-00000003"]
    assert store.numbers == [10, 10, 5]


@pytest.mark.anyio
async def test_no_jobs_are_no_read() -> None:
    store = CountingStore()
    assert [job async for job in existing_jobs(store, [])] == []
    assert store.numbers == []
