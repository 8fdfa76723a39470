"""`python -m benchmarks [--quick]`: measure the engine on this machine and print a table."""

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import uvloop

from benchmarks import measures
from benchmarks.engine import Engine, running_engine
from benchmarks.finished_jobs import create_finished_jobs
from benchmarks.measures import JobLatency, Latency, Work
from benchmarks.raw import raw_jobs_per_second

SLOTS = 4
WARM_SECONDS, COLD_SECONDS = 0.02, 0.2
"""Intervals between jobs: with the first, processors and caches are still warm from the last job; with the second,
they are not.
"""


@dataclass(frozen=True)
class Size:
    """The extent of a run. Other programs may disturb a round, so the best of several rounds counts."""

    rounds: int = 5
    submits: int = 500
    queue: int = 1000
    single_jobs: int = 40
    raw: int = 500
    lines: int = 1000
    readers: Sequence[int] = (50, 200)
    finished: Sequence[int] = (10_000, 100_000)
    lists: int = 200


QUICK = Size(rounds=1, submits=20, queue=32, single_jobs=3, raw=20, lines=20, readers=(5,), finished=(200,), lists=5)
"""Just enough to check that every measurement works."""


@dataclass(frozen=True)
class Round:
    """The measurements of one round. raw: jobs per second of the raw loop."""

    submit: Latency
    submits: Work
    raw: float
    queue: Work
    warm: JobLatency
    cold: JobLatency


@dataclass(frozen=True)
class Row:
    """A line of the table. aim: the project's target."""

    label: str
    measured: str
    aim: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the engine on this machine.")
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    size = QUICK if parser.parse_args().quick else Size()
    with tempfile.TemporaryDirectory(prefix="labrats-benchmark-") as folder:
        uvloop.run(print_table(size, Path(folder)))


async def print_table(size: Size, folder: Path) -> None:
    print(
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}, best of {size.rounds}\n"
    )
    rows = await fresh_engine(size, folder)
    for finished in size.finished:
        rows += await engine_with_finished_jobs(size, folder / f"{finished}-jobs", finished)
    print(f"{'':52}{'measured':>14}{'aim':>12}")
    for row in rows:
        print(f"{row.label:52}{row.measured:>14}{row.aim:>12}")


async def fresh_engine(size: Size, folder: Path) -> list[Row]:
    async with running_engine(folder / "fresh") as engine:
        idle = engine.resident_mib()
        await measures.configure_model(engine)
        await measures.job_latency(engine, 1, COLD_SECONDS)  # the first job starts the launcher
        rounds = [await one_round(engine, size, folder / f"raw-{number}.db") for number in range(size.rounds)]
        jobs = size.rounds * (size.submits + size.queue + 2 * size.single_jobs)
        return [
            *rows_of_rounds(rounds),
            Row("engine, memory, before the first job", f"{idle:.0f} MiB"),
            Row(f"engine, memory, after {jobs:,} jobs", f"{engine.resident_mib():.0f} MiB"),
            Row("engine, from exec to ready, no jobs kept", f"{engine.start_seconds:.2f} s"),
            *[await fan_out(engine, size, readers) for readers in size.readers],
            Row("engine, memory, after these log streams", f"{engine.resident_mib():.0f} MiB"),
        ]


async def fan_out(engine: Engine, size: Size, readers: int) -> Row:
    best = max([await measures.fan_out(engine, readers, size.lines) for _ in range(size.rounds)])
    return Row(f"log lines of one job to {readers} readers", f"{best:,.0f}/s")


async def one_round(engine: Engine, size: Size, raw_database: Path) -> Round:
    return Round(
        submit=await measures.submit_latency(engine, size.submits),
        submits=await measures.submit_at_once(engine, size.queue),
        raw=raw_jobs_per_second(raw_database, size.raw),
        queue=await measures.drain_queue(engine, SLOTS),
        warm=await measures.job_latency(engine, size.single_jobs, WARM_SECONDS),
        cold=await measures.job_latency(engine, size.single_jobs, COLD_SECONDS),
    )


def rows_of_rounds(rounds: Sequence[Round]) -> Iterator[Row]:
    raw, queue = max(each.raw for each in rounds), max(each.queue.per_second for each in rounds)
    submit_cpu = min(each.submits.engine_cpu_ms for each in rounds)
    run_cpu = min(each.queue.engine_cpu_ms for each in rounds)
    yield Row("submit, one client, p50", f"{min(each.submit.p50 for each in rounds):.2f} ms", "≤ 1.5 ms")
    yield Row("submit, one client, p95", f"{min(each.submit.p95 for each in rounds):.2f} ms")
    yield Row("submit, 16 clients", f"{max(each.submits.per_second for each in rounds):.0f}/s", "≥ 500/s")
    for apart, latencies in (
        (WARM_SECONDS, [each.warm for each in rounds]),
        (COLD_SECONDS, [each.cold for each in rounds]),
    ):
        started, finished = min(each.started for each in latencies), min(each.finished for each in latencies)
        yield Row(f"submit → started, jobs {apart * 1000:.0f} ms apart, p50", f"{started:.1f} ms", "≤ 8 ms")
        yield Row(f"submit → finished, jobs {apart * 1000:.0f} ms apart, p50", f"{finished:.1f} ms")
    yield Row(f"full queue, {SLOTS} slots", f"{queue:.0f} jobs/s", "≥ 250/s")
    yield Row("raw loop: commit a row, run /bin/true", f"{raw:.0f} jobs/s")
    yield Row("full queue, beside the raw loop", f"{queue / raw:.2f} x")
    yield Row("engine, CPU per job: submit", f"{submit_cpu:.2f} ms")
    yield Row("engine, CPU per job: queue, start, end", f"{run_cpu:.2f} ms")
    yield Row("engine, CPU per job, in all", f"{submit_cpu + run_cpu:.2f} ms", "≤ 4 ms")
    yield Row("executor, CPU per job", f"{min(each.queue.attempts_cpu_ms for each in rounds):.2f} ms")


async def engine_with_finished_jobs(size: Size, data_dir: Path, finished: int) -> list[Row]:
    await create_finished_jobs(data_dir, finished)
    starts, lists = [], []
    for _ in range(size.rounds):
        async with running_engine(data_dir) as engine:
            starts.append(engine.start_seconds)
            lists.append(await measures.call_latency(engine, "/api/jobs?limit=20", size.lists))
            resident = engine.resident_mib()
    among = f"{finished:,} finished jobs"
    return [
        Row(f"from exec to ready, {among}", f"{min(starts):.2f} s", "≤ 2 s" if finished <= 10_000 else ""),
        Row(f"list of 20 out of {among}, p50", f"{min(each.p50 for each in lists):.2f} ms", "≤ 3 ms"),
        Row(f"list of 20 out of {among}, p95", f"{min(each.p95 for each in lists):.2f} ms"),
        Row(f"engine, memory, {among}", f"{resident:.0f} MiB"),
    ]


if __name__ == "__main__":
    main()
