"""Measurements from a client's side. Each function runs one round of one measurement."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from benchmarks.engine import Engine, succeed
from benchmarks.http import Connection, connected

MODEL = "benchmark"
"""The AiModel that jobs run on. Its slots control when they start."""

POLL_SECONDS = 0.05
"""Interval between polls, long enough that the polls do not distort the measurement."""


@dataclass(frozen=True)
class Latency:
    """Percentiles of a latency in milliseconds."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        ordered = sorted(seconds)
        return cls(median(ordered) * 1000, ordered[int(len(ordered) * 0.95)] * 1000)


@dataclass(frozen=True)
class JobLatency:
    """Milliseconds since the client sent the submission of a job.

    started: until the executor's first event. finished: until the job's `finishedAt`.
    """

    started: float
    finished: float


@dataclass(frozen=True)
class Work:
    """Throughput in jobs per second, and processor time per job in milliseconds.

    engine_cpu_ms: of the engine. attempts_cpu_ms: of the launcher and the executors.
    """

    per_second: float
    engine_cpu_ms: float
    attempts_cpu_ms: float


class Stopwatch:
    """A measurement of Work that begins with the object's creation."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began, self._engine_cpu, self._attempts_cpu = self._now()

    def read(self, jobs: int) -> Work:
        now, engine_cpu, attempts_cpu = self._now()
        return Work(
            jobs / (now - self._began),
            (engine_cpu - self._engine_cpu) / jobs * 1000,
            (attempts_cpu - self._attempts_cpu) / jobs * 1000,
        )

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), self._engine.cpu_seconds(), self._engine.attempts_cpu_seconds()


async def configure_model(engine: Engine) -> None:
    body = {"name": MODEL, "provider": "mock", "model": MODEL, "slots": 0}
    await engine.call("POST", "/api/ai-models", body)


async def set_slots(engine: Engine, slots: int) -> None:
    await engine.call("PATCH", f"/api/ai-models/{MODEL}", {"slots": slots})


def submission(engine: Engine, steps: Sequence[Any] = ({"result": 1},)) -> bytes:
    return engine.request(
        "POST",
        "/api/jobs/submit",
        {
            "source": "benchmark",
            "type": "no-op",
            "prompt": "a prompt",
            "config": {"provider": "mock", "model": MODEL},
            "metadata": {"mock": {"steps": list(steps)}},
        },
    )


async def submit_latency(engine: Engine, jobs: int) -> Latency:
    """Measure the submissions of one client, one after the other. The jobs stay in the queue."""
    return Latency.of(await _submit_in_turn(engine, jobs))


async def submit_at_once(engine: Engine, jobs: int, clients: int = 16) -> Work:
    """Measure the submissions of concurrent clients. The jobs stay in the queue."""
    stopwatch = Stopwatch(engine)
    await asyncio.gather(*(_submit_in_turn(engine, jobs // clients) for _ in range(clients)))
    return stopwatch.read(jobs // clients * clients)


async def _submit_in_turn(engine: Engine, jobs: int) -> list[float]:
    """Submit jobs one after the other, and return the seconds that each submission took."""
    prepared, seconds = submission(engine), []
    async with connected(engine.port) as connection:
        for _ in range(jobs):
            began = time.perf_counter()
            await succeed(connection, prepared)
            seconds.append(time.perf_counter() - began)
    return seconds


async def drain_queue(engine: Engine, slots: int) -> Work:
    """Give the model slots, and measure until all waiting jobs have ended."""
    jobs = await count(engine, "waiting")
    stopwatch = Stopwatch(engine)
    await set_slots(engine, slots)
    await wait_until_idle(engine)
    work = stopwatch.read(jobs)
    await set_slots(engine, 0)
    return work


async def count(engine: Engine, status: str) -> int:
    total: int = (await engine.call("GET", f"/api/jobs?status={status}&limit=1")).json["total"]
    return total


async def wait_until_idle(engine: Engine) -> None:
    """Wait until no job waits or runs."""
    requests = [engine.request("GET", f"/api/jobs?status={status}&limit=1") for status in ("waiting", "active")]
    async with connected(engine.port) as connection:
        for prepared in requests:
            while (await succeed(connection, prepared)).json["total"]:
                await asyncio.sleep(POLL_SECONDS)


async def job_latency(engine: Engine, jobs: int, apart_seconds: float) -> JobLatency:
    """Run jobs one after the other, each alone in the engine, and return the median latencies.

    apart_seconds: minimum time between submissions. After a long interval, processors sleep and caches are cold.
    """
    await set_slots(engine, 1)
    latencies = [await _one_job(engine, apart_seconds) for _ in range(jobs)]
    await set_slots(engine, 0)
    return JobLatency(median(each.started for each in latencies), median(each.finished for each in latencies))


async def _one_job(engine: Engine, apart_seconds: float) -> JobLatency:
    prepared = submission(engine)
    async with connected(engine.port) as connection:
        sent = time.time()
        job_id = (await succeed(connection, prepared)).json["jobId"]
        await asyncio.sleep(apart_seconds)
        get_job = engine.request("GET", f"/api/jobs/{job_id}")
        while (job := (await succeed(connection, get_job)).json)["finishedAt"] is None:
            await asyncio.sleep(POLL_SECONDS)
    output = engine.data_dir / "attempts" / job_id[-2:] / f"{job_id}-1" / "output.jsonl"
    first_event = json.loads(output.read_text().partition("\n")[0])
    return JobLatency(started=_ms_since(sent, first_event["at"]), finished=_ms_since(sent, job["finishedAt"]))


def _ms_since(began: float, time_of_day: str) -> float:
    return (datetime.fromisoformat(time_of_day).timestamp() - began) * 1000


async def call_latency(engine: Engine, path: str, calls: int) -> Latency:
    """Measure GET requests of `path`, one after the other."""
    prepared, seconds = engine.request("GET", path), []
    async with connected(engine.port) as connection:
        for _ in range(calls):
            began = time.perf_counter()
            await succeed(connection, prepared)
            seconds.append(time.perf_counter() - began)
    return Latency.of(seconds)


async def fan_out(engine: Engine, readers: int, lines: int) -> float:
    """Return the log lines per second that one job delivers to all readers, from its start to the last reader's end."""
    log = {"log": "a line of the log, as long as they usually are, again and again", "times": lines}
    async with AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connected(engine.port)) for _ in range(readers)]
        job_id = (await succeed(connections[0], submission(engine, [log]))).json["jobId"]
        follow = engine.request("GET", f"/api/jobs/{job_id}/logs")
        reading = [asyncio.create_task(_count_events(connection, follow)) for connection in connections]
        began = time.perf_counter()
        await set_slots(engine, 1)
        events = await asyncio.gather(*reading)
        seconds = time.perf_counter() - began
    await set_slots(engine, 0)
    if set(events) != {lines + 1}:
        raise RuntimeError(f"readers got {sorted(set(events))} events instead of {lines + 1}")
    return readers * lines / seconds


async def _count_events(connection: Connection, follow: bytes) -> int:
    """Count events by their opening braces: each has one, and counting costs far less than parsing."""
    return sum([data.count(b"{") async for data in connection.stream(follow)])
