"""The feed of changes: bounds, deletions, slow readers and resumption."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import apsw
import httpx2
import pytest

from labrats.api.change_feed import COLLECT_SECONDS, KEPT_FRAMES, MOST_JOBS, Frame
from labrats.model.caller import ADMIN, SUBMIT, Caller
from labrats.model.errors import RetryLater
from labrats.model.job import Job
from tests.api.conftest import Api, a_submission
from tests.support.builders import an_ai_model

A_CALLER = Caller("user-of-no-job", frozenset({SUBMIT}))
AN_ADMIN = Caller("admin", frozenset({SUBMIT, ADMIN}))


@pytest.fixture(autouse=True)
async def held_back(api: Api) -> None:
    """Let no job start: its model has no slots."""
    await api.store.create(an_ai_model("mock", model="mock", slots=0))


@pytest.fixture
async def events(api: Api) -> AsyncIterator[AsyncGenerator[bytes]]:
    """Yield an admin's feed, after its first frame."""
    async with aclosing(api.services.change_feed.read(AN_ADMIN, None)) as frames:
        await anext(frames)
        yield frames


def parse(frame: bytes) -> tuple[str, Any]:
    """Return the id and the data of a frame."""
    head, _, data = frame.decode().partition("\ndata: ")
    return head.removeprefix("id: "), json.loads(data)


async def submit(user: httpx2.AsyncClient, number: int = 1) -> list[str]:
    answers = [await user.post("/api/jobs/submit", json=a_submission()) for _ in range(number)]
    return [answer.json()["jobId"] for answer in answers]


async def test_changes_of_a_moment_are_one_frame(user: httpx2.AsyncClient, events: AsyncGenerator[bytes]) -> None:
    ids = await submit(user, 5)

    _, data = parse(await anext(events))

    assert sorted(job["id"] for job in data["jobs"]) == sorted(ids)
    assert data["counts"]["waiting"] == 5


async def test_deleted_jobs_are_named(api: Api, user: httpx2.AsyncClient, events: AsyncGenerator[bytes]) -> None:
    [job_id] = await submit(user)
    await anext(events)
    await api.store.delete(Job, job_id)

    _, data = parse(await anext(events))

    assert (data["jobs"], data["gone"]) == ([], [job_id])


async def test_too_many_changes_are_only_counted(user: httpx2.AsyncClient, events: AsyncGenerator[bytes]) -> None:
    await submit(user, MOST_JOBS + 1)
    counted = 0
    while counted <= MOST_JOBS:
        _, data = parse(await anext(events))
        counted = data["counts"]["waiting"]
        assert data.get("many") or len(data["jobs"]) <= MOST_JOBS


async def test_reader_resumes_after_its_last_frame(
    api: Api, user: httpx2.AsyncClient, events: AsyncGenerator[bytes]
) -> None:
    await submit(user)
    last_id, _ = parse(await anext(events))
    [job_id] = await submit(user)
    await anext(events)

    async with aclosing(api.services.change_feed.read(AN_ADMIN, last_id)) as resumed:
        _, data = parse(await anext(resumed))

    assert [job["id"] for job in data["jobs"]] == [job_id]


async def test_changes_that_nobody_reads_are_not_collected(api: Api, user: httpx2.AsyncClient) -> None:
    await submit(user, 3)
    feed = api.services.change_feed

    assert (feed._jobs, len(feed._frames)) == ({}, 0)


async def test_changes_are_published_once_the_store_can_be_read_again(
    api: Api, user: httpx2.AsyncClient, events: AsyncGenerator[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RetryLater("the disk is full"), apsw.IOError("the index cannot be read")]
    get_many = api.store.get_many

    async def failing(kind: Any, names: Any) -> Any:
        if failures:
            raise failures.pop()
        return await get_many(kind, names)

    monkeypatch.setattr(api.store, "get_many", failing)
    [first] = await submit(user)
    api.services.change_feed._activity_changed(first, "owner", "npm test")
    await api.clock.sleep(2 * COLLECT_SECONDS)
    [second] = await submit(user)

    _, data = parse(await anext(events))

    assert not failures
    assert {job["id"] for job in data["jobs"]} == {first, second}
    assert data["activities"] == {first: "npm test"}


async def test_reader_that_is_too_slow_is_told_to_start_over(api: Api, events: AsyncGenerator[bytes]) -> None:
    feed = api.services.change_feed
    feed._frames.extend(Frame(number, [], {}) for number in range(1, KEPT_FRAMES + 3))
    feed._last_number = KEPT_FRAMES + 2

    _, data = parse(await anext(events))

    assert data["reset"] is True


async def test_caller_gets_no_frame_without_a_job_of_its_own(api: Api, user: httpx2.AsyncClient) -> None:
    async with aclosing(api.services.change_feed.read(A_CALLER, None)) as frames:
        await anext(frames)
        await submit(user)
        await api.clock.sleep(4 * COLLECT_SECONDS)
        [frame] = api.services.change_feed._frames
        assert frame.for_owner(A_CALLER.id, {}) is None
