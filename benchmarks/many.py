"""`python -m benchmarks.many [--quick] [--running NUMBER] [--program PROGRAM]`: measure an engine with many agents.

The agents are stand-ins for Claude Code that sleep and print a line a second. Each has a reader of its log, and twice
as many jobs wait. PROGRAM is the `labrats` of another version.
"""

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from benchmarks.engine import Engine, running_engine, succeed
from benchmarks.http import Answer, Connection, connected
from benchmarks.measures import wait_until_idle
from benchmarks.processes import adopt_orphans, cpu_seconds_below, end_orphans, memory_mib
from benchmarks.stand_in import NAME, talkative_run
from labrats.processes import descendants, process_name, raise_descriptor_limit

MODEL = "many"
CLIENTS = 16
PATIENCE_SECONDS = 300.0
POLL_SECONDS = 0.2
EXECUTOR = "lr-"
"""The beginning of the process names of executors."""
_TIME = re.compile(rb'"log":"(\d+\.\d+)"')


@dataclass(frozen=True)
class Size:
    """The extent of a run. running: agents, each with a reader. waiting: jobs. seconds: of each observation.

    settle_seconds: between a change and the next observation.
    """

    running: int = 1000
    waiting: int = 2000
    seconds: float = 30.0
    settle_seconds: float = 3.0


QUICK = Size(running=20, waiting=40, seconds=2.0, settle_seconds=0.2)
"""Just enough to check that every measurement works."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    parser.add_argument("--running", type=int, help="agents that run at once; twice as many jobs wait")
    parser.add_argument("--program", type=Path, help="the labrats to measure")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    if options.running:
        size = replace(size, running=options.running, waiting=2 * options.running)
    adopt_orphans()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="labrats-many-") as folder:
        uvloop.run(print_table(size, Path(folder), options.program))


async def print_table(size: Size, folder: Path, program: Path | None) -> None:
    print("| figure | measured | aim |\n|---|---:|---:|")
    async with engine_with_model(folder, program, size.running) as engine:
        await measure(engine, size)


def print_row(label: str, measured: str, aim: str = "") -> None:
    print(f"| {label} | {measured} | {aim} |", flush=True)


@asynccontextmanager
async def engine_with_model(folder: Path, program: Path | None, slots: int) -> AsyncIterator[Engine]:
    """Run an engine whose model has `slots`. End all its processes afterwards."""
    claude = talkative_run(folder / "bin", seconds=1)
    running = running_engine(folder / "data", program=program, LABRATS_CLAUDE_PATH=str(claude), LABRATS_SANDBOX="false")
    try:
        async with running as engine:
            body = {"name": MODEL, "provider": "claude", "model": MODEL, "slots": slots}
            await engine.call("POST", "/api/ai-models", body)
            yield engine
    finally:
        end_orphans(seconds=0)


async def measure(engine: Engine, size: Size) -> None:
    await cancel(engine, await submit(engine, 1))  # the first job starts the launcher
    await wait_until_idle(engine)
    running = await start(engine, size)
    waiting = await submit(engine, size.waiting)
    await asyncio.sleep(size.settle_seconds)
    load = Load(engine)
    await asyncio.sleep(size.seconds)
    load.print("nobody reads")
    async with asyncio.TaskGroup() as group:
        readers = [Reader(engine, job) for job in running]
        reading = [group.create_task(each.read()) for each in readers]
        await observe(engine, readers, size)
        await cancel_all(engine, running, waiting, reading)
    print_row("engine, memory, afterwards", f"{engine.resident_mib():.0f} MiB")


async def start(engine: Engine, size: Size) -> list[str]:
    """Start agents, and print the memory that they use. Return their jobs."""
    agents = size.running
    idle, began = memory_mib(descendants(os.getpid())), time.perf_counter()
    running = await submit(engine, agents)
    await until(lambda: len(running_as(NAME)) == agents)
    print_row(f"start of {agents:,} agents", f"{agents / (time.perf_counter() - began):.0f}/s")
    await asyncio.sleep(size.settle_seconds)
    beyond = memory_mib(descendants(os.getpid())) - idle - memory_mib(running_as(NAME))
    print_row("memory per running agent beyond its own", f"{beyond / agents:.2f} MiB", "≤ 3 MiB")
    print_row("engine, memory", f"{engine.resident_mib():.0f} MiB")
    return running


async def observe(engine: Engine, readers: Sequence["Reader"], size: Size) -> None:
    """Print what reading costs, and the delays of the lines."""
    await asyncio.sleep(size.settle_seconds)
    load = Load(engine)
    await asyncio.sleep(size.settle_seconds)  # looking at all processes has delayed the readers
    for each in readers:
        each.delays.clear()
    await asyncio.sleep(size.seconds)
    await until(lambda: any(each.delays for each in readers))  # on a busy machine the first line may come late
    print_delays([delay for each in readers for delay in each.delays])
    load.print("each with a reader")
    print_row("engine, memory, with the readers", f"{engine.resident_mib():.0f} MiB")


async def cancel_all(
    engine: Engine, running: Sequence[str], waiting: Sequence[str], reading: Sequence[asyncio.Task[None]]
) -> None:
    """Cancel all jobs, and print the time until their readers, processes and slots are gone."""
    began = time.perf_counter()
    await cancel(engine, [*waiting, *running])
    requested = time.perf_counter() - began
    print_row(f"requests to cancel {len(waiting):,} waiting and {len(running):,} running jobs", f"{requested:.1f} s")
    await asyncio.gather(*reading)
    await wait_until_idle(engine)
    await until(lambda: not running_as(NAME, EXECUTOR))
    print_row("cancel of all, until nothing is left", f"{time.perf_counter() - began:.1f} s", "≤ 10 s")


class Load:
    """A measurement of processor time that begins with the object's creation."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began, self._engine_cpu, self._all_cpu = self._now()

    def print(self, label: str) -> None:
        now, engine_cpu, all_cpu = self._now()
        seconds = now - self._began
        print_row(
            f"engine, processor time, {label}", f"{100 * (engine_cpu - self._engine_cpu) / seconds:.1f} %", "≤ 25 %"
        )
        print_row(f"all processes, processor time, {label}", f"{100 * (all_cpu - self._all_cpu) / seconds:.1f} %")

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), self._engine.cpu_seconds(), cpu_seconds_below()


def print_delays(delays: Sequence[float]) -> None:
    ordered = sorted(delays)
    print_row("lines that readers got", f"{len(ordered):,}")
    for part, aim in ((0.5, ""), (0.99, "≤ 100 ms"), (0.999, "")):
        print_row(f"line → reader, p{100 * part:g}", f"{1000 * ordered[int(len(ordered) * part)]:.1f} ms", aim)


class Reader:
    """A reader of a job's log. delays: seconds from the print of each line until the reader had it."""

    def __init__(self, engine: Engine, job: str) -> None:
        self._engine, self._request = engine, engine.request("GET", f"/api/jobs/{job}/logs")
        self.delays: list[float] = []

    async def read(self) -> None:
        async with connected(self._engine.port) as connection:
            async for data in connection.stream(self._request):
                now = time.time()
                self.delays += [now - float(printed) for printed in _TIME.findall(data)]


async def submit(engine: Engine, jobs: int) -> list[str]:
    """Submit jobs, and return their ids."""
    config = {"provider": "claude", "model": MODEL}
    body = {"source": "benchmark", "type": "talk", "prompt": "a prompt", "config": config}
    requests = [engine.request("POST", "/api/jobs/submit", body)] * jobs
    return [answer.json["jobId"] for answer in await call_all(engine, requests)]


async def cancel(engine: Engine, jobs: Sequence[str]) -> None:
    await call_all(engine, [engine.request("POST", f"/api/jobs/{job}/cancel") for job in jobs])


async def call_all(engine: Engine, requests: Sequence[bytes]) -> list[Answer]:
    """Send requests on several connections, and return the answers."""
    answers: list[Answer] = []
    left = iter(requests)

    async def client(connection: Connection) -> None:
        answers.extend([await succeed(connection, each) for each in left])

    async with AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connected(engine.port)) for _ in range(CLIENTS)]
        await asyncio.gather(*map(client, connections))
    return answers


def running_as(*names: str) -> list[int]:
    """Return the processes below this one whose name begins with one of `names`."""
    return [pid for pid in descendants(os.getpid()) if process_name(pid).startswith(names)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
