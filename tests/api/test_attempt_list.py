"""The list of a job's attempts, of which there may be many with long outputs."""

import asyncio
from collections.abc import AsyncGenerator

import httpx2
import pytest
from msgspec.structs import replace

from labrats.model.attempt_name import AttemptName
from labrats.model.phases import Phase
from labrats.ports import Gone
from tests.api.conftest import Api
from tests.support.builders import a_job

ATTEMPTS = 50


async def test_other_requests_run_between_two_attempts(
    api: Api, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(Phase.FAILED, resource_version="")
    await api.store.create(replace(job, status=replace(job.status, attempts=ATTEMPTS)))
    turns, turns_at_find = 0, []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def find(name: AttemptName) -> Gone:
        turns_at_find.append(turns)
        return Gone()

    async def read(name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        for lines in list[bytes]():
            yield lines

    monkeypatch.setattr(api.services.runner, "find", find)
    monkeypatch.setattr(api.services.runner, "read", read)
    counting = asyncio.create_task(count_turns())
    answer = await admin.get(f"/api/jobs/{job.id}/attempts")
    counting.cancel()

    assert len(answer.json()["attempts"]) == ATTEMPTS
    assert len(set(turns_at_find)) == ATTEMPTS
