"""F11: under far more submissions than it can run, the engine refuses the rest, and what it accepts it runs."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.engine import LocalEngine, User, a_submission

pytestmark = pytest.mark.slow

MOST_WAITING: Final = 100
CLIENTS: Final = 60
FLOOD_SECONDS: Final = 15.0
QUIET_JOBS: Final = 300


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    with LocalEngine(tmp_path, LABRATS_MAX_WAITING_JOBS=str(MOST_WAITING)) as engine:
        yield engine


async def test_engine_under_overload_refuses_what_it_cannot_run_and_runs_the_rest(
    engine: LocalEngine, record_property: Callable[[str, object], None]
) -> None:
    async with engine.admin() as admin:
        peak = await jobs_per_second(admin)
        before = await counts(admin)
        answers: Counter[int] = Counter()
        deadline = time.monotonic() + FLOOD_SECONDS
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(flood(engine, deadline, answers))
        ended = (await counts(admin))["completed"] - before["completed"]
        rates = f"{ended / FLOOD_SECONDS:.0f} jobs/s under overload, {peak:.0f} without"
        record_property("figure", f"{rates}; answers: {dict(answers)}")

        assert set(answers) == {201, 429}
        assert (await admin.get("/api/jobs", limit=1)).status_code == 200
        assert ended > MOST_WAITING
        async with asyncio.timeout(120):
            while (left := await counts(admin))["waiting"] or left["active"]:
                await asyncio.sleep(0.1)
        assert left["completed"] - before["completed"] == answers[201]


async def jobs_per_second(admin: User) -> float:
    """Return the rate at which the engine runs jobs that wait already, but not too many."""
    began = time.monotonic()
    for _ in range(QUIET_JOBS // MOST_WAITING):
        await asyncio.gather(*(admin.submit({"result": 1}) for _ in range(MOST_WAITING)))
        while (left := await counts(admin))["waiting"] or left["active"]:
            await asyncio.sleep(0.02)
    return QUIET_JOBS / (time.monotonic() - began)


async def flood(engine: LocalEngine, deadline: float, answers: Counter[int]) -> None:
    """Submit one job after the other, without waiting as long as a refusal asks for."""
    async with engine.admin() as admin:
        while time.monotonic() < deadline:
            answer = await admin.post("/api/jobs/submit", a_submission({"result": 1}))
            answers[answer.status_code] += 1
            if answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) > 0
                await asyncio.sleep(0.2)


async def counts(admin: User) -> dict[str, int]:
    answer = await admin.get("/api/jobs/facets")
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = {each["value"]: each["count"] for each in answer.json()["status"]}
    return dict.fromkeys(("waiting", "active", "completed"), 0) | found
