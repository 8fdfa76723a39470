"""`python -m benchmarks.history [--jobs N] [--quick]`: measure an engine with a long history beside an empty one.

Every other request is a `/health`, on another connection: its worst time shows how long the event loop was busy.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import apsw
import uvloop

from benchmarks.engine import Engine, running_engine, succeed
from benchmarks.finished_jobs import create_finished_jobs
from benchmarks.http import Connection, connected

JOBS, QUICK_JOBS = 1_000_000, 300
REQUESTS, SLOW_REQUESTS = 50, 5
HEALTH_PAUSE_SECONDS = 0.002

BY_INDEX: Sequence[str] = (
    "/api/jobs?limit=20&cursor=",
    "/api/jobs?limit=20&cursor=&status=failed",
    "/api/jobs?limit=20&cursor=&owner=user-7",
    "/api/jobs?limit=20&cursor=&agentRole=agent-3",
    "/api/jobs?limit=20&cursor=&repo=octocat/repository-7",
    "/api/jobs?limit=20&cursor=&model=model-2",
    "/api/jobs/facets",
    "/api/jobs/facets?status=failed",
    "/api/jobs/facets?owner=user-7",
    "/api/jobs/facets?model=model-2&agentRole=agent-3",
)
"""Requests that an index or a counter answers."""

OFF_THE_LOOP: Sequence[str] = (
    "/api/jobs?limit=20&q=repository-49",
    "/api/jobs?limit=20&q=no-such-text",
    "/api/jobs?limit=20&owner=user-7&model=model-2&from=2020-01-01T00:00:00Z",
    "/api/jobs/facets?q=repository-49",
    "/api/jobs/facets?q=repository-49&model=model-2",
    "/api/jobs/facets?from=2020-01-01T00:00:00Z",
    "/api/jobs/facets?from=2020-01-01T00:00:00Z&model=model-2",
    "/api/stats/timeseries?metric=jobs",
)
"""Requests that read many rows."""


class Answered(NamedTuple):
    """Milliseconds: the median of the answers, and the worst `/health` meanwhile."""

    took: float
    health: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description="Measure a long history.")
    parser.add_argument("--jobs", type=int, default=JOBS, help="number of finished jobs")
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labrats-history-") as folder:
        uvloop.run(print_table(QUICK_JOBS if options.quick else options.jobs, Path(folder)))


async def print_table(jobs: int, folder: Path) -> None:
    empty_start, empty_memory = await start_of(folder / "empty")
    data = folder / "history"
    await create_finished_jobs(data, jobs)
    first_start, _ = await start_of(data)  # fills the index
    start, memory = await start_of(data)
    stored = sum(file.stat().st_size for file in data.glob("*.db*"))
    print(f"{os.cpu_count()} CPUs, SQLite {apsw.sqlite_lib_version()}, {jobs:,} finished jobs\n")
    print(f"from exec to ready: {start:.2f} s; with no jobs {empty_start:.2f} s; the first time {first_start:.2f} s")
    print(f"memory: {memory:.0f} MiB; with no jobs {empty_memory:.0f} MiB")
    print(f"databases: {stored / jobs / 1024:.2f} KiB per job\n")
    print("| request | p50, ms | worst /health meanwhile, ms |\n|---|---:|---:|")
    async with running_engine(data) as engine, connected(engine.port) as connection:
        for paths, number in ((BY_INDEX, REQUESTS), (OFF_THE_LOOP, SLOW_REQUESTS)):
            for path in paths:
                answered = await latency(engine, connection, path, number)
                print(f"| `{path}` | {answered.took:.2f} | {answered.health:.2f} |", flush=True)


async def start_of(data_dir: Path) -> tuple[float, float]:
    """Return the seconds from exec to ready, and the MiB of the engine then."""
    async with running_engine(data_dir) as engine:
        return engine.start_seconds, engine.resident_mib()


async def latency(engine: Engine, connection: Connection, path: str, number: int) -> Answered:
    request, took = engine.request("GET", path), list[float]()
    await succeed(connection, request)
    async with health_watch(engine) as worst:
        for _ in range(number):
            began = time.perf_counter()
            await succeed(connection, request)
            took.append(time.perf_counter() - began)
    return Answered(median(took) * 1000, max(worst, default=0.0) * 1000)


@asynccontextmanager
async def health_watch(engine: Engine) -> AsyncIterator[list[float]]:
    """Request `/health` again and again during the block. Yields the list to which each time is added, in seconds."""
    took: list[float] = []

    async def watch() -> None:
        async with connected(engine.port) as connection:
            request = engine.request("GET", "/health")
            while True:
                began = time.perf_counter()
                await succeed(connection, request)
                took.append(time.perf_counter() - began)
                await asyncio.sleep(HEALTH_PAUSE_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield took
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    main()
