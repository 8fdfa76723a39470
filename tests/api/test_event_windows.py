"""Pages of events that are read backwards: each part of a long log is read once, between other requests."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import LogEvent
from labrats.model.record import encode
from labrats.ports import OutputTail
from tests.api.conftest import Api, a_submission
from tests.fakes.clock import NOON
from tests.support.waiting import DEADLINE_SECONDS

EVENTS = 20_000
BATCH = 100


class LongLog:
    """The output of a runner with many lines. batches: the number of batches that were read."""

    def __init__(self) -> None:
        self.batches = 0

    async def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        for first in range(after_seq + 1, EVENTS + 1, BATCH):
            self.batches += 1
            lines = [encode(LogEvent(seq=seq, at=NOON, text="tick")) for seq in range(first, first + BATCH)]
            yield b"\n".join(lines) + b"\n"

    async def tail(self, name: AttemptName) -> OutputTail:
        return OutputTail(last_seq=EVENTS)


@pytest.mark.parametrize("query", [{"kind": "tool"}, {"q": "no such text"}, {"kind": "tool", "q": "tick"}])
async def test_a_page_without_matches_reads_each_part_of_the_log_once(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, query: dict[str, Any]
) -> None:
    job = (await user.post("/api/jobs/submit", json=a_submission())).json()["jobId"]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await user.get(f"/api/jobs/{job}")).json()["status"] != "completed":
            await asyncio.sleep(0.01)
    log, runner = LongLog(), api.services.runner
    monkeypatch.setattr(runner, "read", log.read)
    monkeypatch.setattr(runner, "tail", log.tail)

    page = (await user.get(f"/api/jobs/{job}/events", params=query | {"tail": "true"})).json()

    assert page["events"] == []
    assert log.batches == EVENTS / BATCH
