"""R19: an engine that works for long uses no more memory, threads and open files.

LABRATS_TORTURE_MINUTES sets the duration.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.processes import descendants
from tests.acceptance.engine import LocalEngine, User
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

MINUTES: Final = float(os.environ.get("LABRATS_TORTURE_MINUTES", "0"))
ROUNDS: Final = 8
"""Rounds of work after the warm-up if no duration is set."""

WARM_UP_ROUNDS: Final = 16
"""Rounds that fill the caches of lists and of the feed."""

CLIENTS: Final = 6
JOBS: Final[Sequence[tuple[Sequence[Any], dict[str, Any]]]] = (
    ([{"log": "tick {n}", "times": 200}, {"result": "said"}], {}),
    ([{"result": "quick"}], {}),
    ([{"fail": "as asked"}], {}),
    ([{"onAttempt": 1, "steps": [{"signal": 9}]}, {"result": "at last"}], {"maxAttempts": 2}),
    ([{"fork": {"seconds": 300, "detached": True}}, {"result": "forked"}], {}),
    ([{"hang": True}], {"timeoutMs": 100}),
)
"""The jobs of each client in a round: steps and config."""

GROWTH: Final = 0.05
"""Most growth of the engine's memory after the warm-up."""

SPARE: Final = 4
"""Threads and open files more that pools may have after the warm-up. A leak would cost one for each job."""

Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """A function that prints a figure in the summary."""
    return lambda text: record_property("figure", text)


@dataclass(frozen=True)
class Use:
    """Resources of a process. memory: resident, in bytes. files: open ones."""

    memory: int
    threads: int
    files: int


def use_of(pid: int) -> Use:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Use(
        memory=int(status["VmRSS"].split()[0]) * 1024,
        threads=int(status["Threads"]),
        files=len(os.listdir(f"/proc/{pid}/fd")),
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    with LocalEngine(tmp_path) as engine:
        yield engine


async def test_engine_uses_no_more_the_longer_it_works(engine: LocalEngine, figure: Figure) -> None:
    for _ in range(WARM_UP_ROUNDS):
        await work(engine)
    before = await at_rest(engine)
    deadline, rounds = time.monotonic() + 60 * MINUTES, 0
    while time.monotonic() < deadline if MINUTES else rounds < ROUNDS:
        await work(engine)
        rounds += 1
    after = await at_rest(engine)
    figure(f"{rounds} rounds of {CLIENTS * len(JOBS)} jobs: {before}, then {after}")
    for one, other in zip(before, after, strict=True):
        assert other.threads <= one.threads + SPARE
        assert other.files <= one.files + SPARE
        assert other.memory <= one.memory * (1 + GROWTH)


async def work(engine: LocalEngine) -> None:
    """Run jobs of all kinds, each with a reader of its log, beside lists, pages and scrapes."""
    async with engine.browser() as page, asyncio.TaskGroup() as tasks:
        done = asyncio.Event()
        watching = tasks.create_task(watch(page, done))
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(run_jobs(engine))
        done.set()
        await watching


async def run_jobs(engine: LocalEngine) -> None:
    async with engine.admin() as user:
        for steps, config in JOBS:
            job = await user.submit(*steps, config=config)
            assert (await user.full_log(job))[-1].data["done"] is True
            if steps == [{"fail": "as asked"}]:
                assert (await user.post(f"/api/jobs/{job}/retry")).status_code == 200


async def watch(page: User, done: asyncio.Event) -> None:
    """Read what an open dashboard and Prometheus read, again and again."""
    while not done.is_set():
        async with page.stream("/api/changes") as events:
            await anext(aiter(events))
        for path in ("/api/jobs?limit=50", "/api/jobs/facets", "/api/stats", "/metrics", "/api/jobs/no-such-job"):
            assert (await page.get(path)).status_code < 500


async def at_rest(engine: LocalEngine) -> list[Use]:
    """Return what engine and launcher use once no job is left and all clients have gone."""
    async with engine.admin() as admin:
        await admin.end_jobs()
    launcher, *_ = descendants(engine.pid)

    def has_only_its_spare() -> bool:
        return len(descendants(launcher)) == 1

    await eventually(has_only_its_spare)
    return [use_of(pid) for pid in (engine.pid, launcher)]
