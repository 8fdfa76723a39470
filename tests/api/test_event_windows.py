"""Pages of events that are read backwards: each part of a long log is read once, between other requests."""

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from msgspec import Raw

from labrats.api.routes.event_pages import SEARCHES_AT_ONCE
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job
from labrats.model.protocol import LogEvent, ToolEvent
from labrats.model.record import encode
from labrats.ports import OutputTail
from tests.api.conftest import Api, a_submission
from tests.fakes.clock import NOON
from tests.support.waiting import DEADLINE_SECONDS, eventually

EVENTS = 20_000
BATCH = 100
MANY_READS = 100


LISTS = Raw(b"[" + b",".join([b"[]"] * 5_000) + b"]")
"""A value that takes 20 times as much memory as its JSON."""


class LongLog:
    """The output of a runner with many lines. batches: the number of batches that were read.

    slow_reads: number of reads that wait for `may_end`. large_events: the first events, which are large.
    """

    def __init__(self, large_events: int = 0) -> None:
        self.large_events = large_events
        self.batches, self.reads, self.last_seq = 0, 0, EVENTS
        self.slow_reads, self.may_end = 0, asyncio.Event()

    async def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        self.reads += 1
        assert self.reads < MANY_READS  # an endless loop would not let a timeout end the test
        if self.reads <= self.slow_reads:
            await self.may_end.wait()
        for first in range(after_seq + 1, EVENTS + 1, BATCH):
            self.batches += 1
            lines = [encode(self._event(seq)) for seq in range(first, first + BATCH)]
            yield b"\n".join(lines) + b"\n"
        if self.last_seq > EVENTS:
            yield encode(LogEvent(seq=self.last_seq, at=NOON, text="forged")) + b"\n"

    def _event(self, seq: int) -> LogEvent | ToolEvent:
        if seq <= self.large_events:
            return ToolEvent(seq=seq, at=NOON, id="1", name="Read", input=LISTS)
        return LogEvent(seq=seq, at=NOON, text="tick")

    async def tail(self, name: AttemptName) -> OutputTail:
        return OutputTail(last_seq=self.last_seq)


@pytest.fixture
async def job(user: httpx2.AsyncClient) -> str:
    job: str = (await user.post("/api/jobs/submit", json=a_submission())).json()["jobId"]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await user.get(f"/api/jobs/{job}")).json()["status"] != "completed":
            await asyncio.sleep(0.01)
    return job


@pytest.fixture
def log(api: Api, job: str, monkeypatch: pytest.MonkeyPatch) -> LongLog:
    """The output that the ended job has from now on."""
    log, runner = LongLog(), api.services.runner
    monkeypatch.setattr(runner, "read", log.read)
    monkeypatch.setattr(runner, "tail", log.tail)
    return log


@pytest.mark.parametrize("query", [{"kind": "tool"}, {"q": "no such text"}, {"kind": "tool", "q": "tick"}])
@pytest.mark.parametrize("place", [{"tail": "true"}, {"before": "1-999999999999"}])
async def test_a_page_without_matches_reads_each_part_of_the_log_once(
    user: httpx2.AsyncClient, job: str, log: LongLog, query: dict[str, Any], place: dict[str, Any]
) -> None:
    page = (await user.get(f"/api/jobs/{job}/events", params=query | place)).json()
    assert page["events"] == []
    assert log.batches == EVENTS / BATCH


async def test_a_page_before_a_number_beyond_the_log_has_its_last_events(
    user: httpx2.AsyncClient, job: str, log: LongLog
) -> None:
    page = (await user.get(f"/api/jobs/{job}/events", params={"before": "1-999999999999", "limit": 2})).json()
    assert [event["id"] for event in page["events"]] == [f"1-{EVENTS - 1}", f"1-{EVENTS}"]


async def test_a_forged_number_in_the_log_hides_no_events_and_costs_few_reads(
    user: httpx2.AsyncClient, job: str, log: LongLog
) -> None:
    log.last_seq = 2**63 - 1
    page = (await user.get(f"/api/jobs/{job}/events", params={"tail": "true", "limit": 3})).json()
    assert [event["id"] for event in page["events"]] == [f"1-{EVENTS - 1}", f"1-{EVENTS}", f"1-{log.last_seq}"]


@pytest.mark.parametrize("query", [{"q": "tick"}, {"q": "tick", "tail": "true"}], ids=["from the start", "at the end"])
async def test_searches_of_one_caller_delay_no_search_of_another(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient, job: str, log: LongLog, query: dict[str, str]
) -> None:
    log.slow_reads = SEARCHES_AT_ONCE
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(DEADLINE_SECONDS):
        path = f"/api/jobs/{job}/events"
        searches = [tasks.create_task(user.get(path, params=query)) for _ in range(SEARCHES_AT_ONCE + 1)]
        await eventually(lambda: log.reads == SEARCHES_AT_ONCE)
        assert (await admin.get(path, params=query)).json()["events"]
        assert log.reads == SEARCHES_AT_ONCE + 1
        log.may_end.set()
    assert all(search.result().json()["events"] for search in searches)


async def test_a_page_of_large_events_takes_little_more_memory_than_its_json(
    user: httpx2.AsyncClient, job: str, log: LongLog
) -> None:
    log.large_events = 200
    tracemalloc.start()
    try:
        page = await user.get(f"/api/jobs/{job}/events", params={"limit": 200})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(page.content) > 200 * len(bytes(LISTS))
    assert peak < 10 * len(page.content)


async def test_a_caller_gets_one_page_of_large_events_at_a_time(
    api: Api, user: httpx2.AsyncClient, job: str, log: LongLog
) -> None:
    log.large_events = 100
    owner = (await api.services.store.get(Job, job)).spec.owner
    path = f"/api/jobs/{job}/events"
    async with asyncio.TaskGroup() as tasks, api.services.large_pages.turn_of(owner):  # it is being sent
        large = tasks.create_task(user.get(path, params={"limit": 100}))
        small = await user.get(path, params={"after": "1-100", "limit": 100})
        assert [event["kind"] for event in small.json()["events"]] == ["log"] * 100
        await asyncio.sleep(0.1)
        assert not large.done()
    assert [event["id"] for event in large.result().json()["events"]] == [f"1-{seq}" for seq in range(1, 101)]
