"""`python -m benchmarks.peer [--peer PROGRAM]`: measure Labrats beside agenticore, with a stand-in for Claude Code.

PROGRAM is an installed `agenticore`. The engines alternate, and the best of several rounds counts. Processor time
includes every process that did the work: the measuring process adopts the orphans of the engines.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.contenders import SANDBOXED, UNCONFINED, Agenticore, Contender, Labrats, Server
from benchmarks.http import Connection, connected
from benchmarks.processes import adopt_orphans, cpu_seconds_below, end_orphans, memory_mib, named, sleepers
from benchmarks.stand_in import NAME, short_run, silent_run
from labrats.processes import descendants

SLOTS = CLIENTS = 4
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """The extent of a run. single_jobs: submitted one after the other. jobs: of each client. running: agents at once.

    others: further processes on the machine. settle_seconds: between the start of agents and a look at their memory.
    """

    rounds: int = 5
    single_jobs: int = 40
    jobs: int = 25
    running: int = 50
    others: int = 2000
    settle_seconds: float = 1.0


QUICK = Size(rounds=1, single_jobs=2, jobs=2, running=4, others=20, settle_seconds=0.1)
"""Just enough to check that every measurement works."""


@dataclass(frozen=True)
class Round:
    """The measurements of one engine in one round. Times are in milliseconds, and medians."""

    submit_ms: float
    started_ms: float
    ended_ms: float
    per_second: float
    cpu_ms: float
    ready_seconds: float


@dataclass(frozen=True)
class Figure:
    """A row of the table. best: of several rounds."""

    label: str
    unit: str
    value: Callable[[Round], float]
    best: Callable[[Sequence[float]], float] = min


FIGURES: Sequence[Figure] = (
    Figure("submit, p50", "ms", lambda each: each.submit_ms),
    Figure("submit → agent's process started, p50", "ms", lambda each: each.started_ms),
    Figure("submit → ended, p50", "ms", lambda each: each.ended_ms),
    Figure(f"jobs per second, {SLOTS} slots, {CLIENTS} clients", "/s", lambda each: each.per_second, max),
    Figure("processor time per job, all processes", "ms", lambda each: each.cpu_ms),
    Figure("from exec to ready", "s", lambda each: each.ready_seconds),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    parser.add_argument("--peer", metavar="PROGRAM", type=Path, help="the agenticore to measure beside Labrats")
    options = parser.parse_args()
    contenders: list[Contender] = [Labrats("Labrats", UNCONFINED), Labrats("sandboxed", SANDBOXED)]
    if options.peer:
        contenders.append(Agenticore(options.peer))
    adopt_orphans()
    uvloop.run(print_table(QUICK if options.quick else Size(), contenders))


async def print_table(size: Size, contenders: Sequence[Contender]) -> None:
    """Measure, and print a row for each figure. The last column is the ratio of Labrats and the peer."""
    has_peer = isinstance(contenders[-1], Agenticore)
    names = [each.name for each in contenders] + ["Labrats / agenticore"] * has_peer
    print(f"| best of {size.rounds} | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")

    def print_row(label: str, unit: str, values: Sequence[float]) -> None:
        ratio = [f"{values[0] / values[-1]:.2f} x"] * has_peer
        print(f"| {' | '.join([label, *(f'{value:.2f} {unit}' for value in values), *ratio])} |", flush=True)

    rounds = [[await one_round(each, size) for each in contenders] for _ in range(size.rounds)]
    for figure in FIGURES:
        columns = zip(*rounds, strict=True)
        print_row(
            figure.label, figure.unit, [figure.best([figure.value(each) for each in column]) for column in columns]
        )
    memory = [await memory_per_agent(each, size) for each in contenders]
    print_row(f"memory per running agent, {size.running} of them", "MiB", [each.total for each in memory])
    print_row("beyond the agent's own", "MiB", [each.beyond for each in memory])
    others = [await cpu_ratio(each, size) for each in contenders]
    print_row(f"processor time per job with {size.others:,} other processes, relative", "x", others)


async def one_round(contender: Contender, size: Size) -> Round:
    async with server_of(contender, short_run, SLOTS) as server:
        submit, started, ended = await latencies(server, size.single_jobs)
        per_second, cpu_ms = await load(server, size.jobs)
        return Round(submit, started, ended, per_second, cpu_ms, server.start_seconds)


@asynccontextmanager
async def server_of(
    contender: Contender, script: Callable[[Path], Path], slots: int, spare: Sequence[int] = ()
) -> AsyncIterator[Server]:
    """Run an engine on a new folder, with `script` as Claude Code. End all its processes afterwards, except `spare`."""
    with tempfile.TemporaryDirectory(prefix="labrats-peer-") as folder:
        claude = script(Path(folder) / "bin")
        try:
            async with contender.running(Path(folder) / "data", claude, slots) as server:
                yield server
        finally:
            end_orphans(spare, seconds=0)


async def latencies(server: Server, jobs: int) -> tuple[float, float, float]:
    """Run jobs one after the other. Return the median milliseconds of a submission, to its start and to its end."""
    async with connected(server.port) as connection:
        await server.run(connection)  # the first job loads programs
        measured = [await _one_job(server, connection) for _ in range(jobs)]
    submit, started, ended = (median(column) * 1000 for column in zip(*measured, strict=True))
    return submit, started, ended


async def _one_job(server: Server, connection: Connection) -> tuple[float, float, float]:
    sent, began = time.time(), time.perf_counter()
    job = await server.submit(connection)
    submitted = time.perf_counter() - began
    while True:
        await asyncio.sleep(POLL_SECONDS)
        if times := await server.times(connection, job):
            return submitted, times.started - sent, times.ended - sent


async def load(server: Server, jobs: int) -> tuple[float, float]:
    """Let each client run jobs one after the other. Return the jobs per second, and a job's processor time in ms."""
    began, cpu = time.perf_counter(), cpu_seconds_below()
    await asyncio.gather(*(_client(server, jobs) for _ in range(CLIENTS)))
    seconds, cpu = time.perf_counter() - began, cpu_seconds_below() - cpu
    return CLIENTS * jobs / seconds, 1000 * cpu / (CLIENTS * jobs)


async def _client(server: Server, jobs: int) -> None:
    async with connected(server.port) as connection:
        for _ in range(jobs):
            await server.run(connection)


@dataclass(frozen=True)
class Memory:
    """MiB per running agent. total: of all processes. beyond: the agent's own processes excepted."""

    total: float
    beyond: float


async def memory_per_agent(contender: Contender, size: Size) -> Memory:
    """Measure the growth of memory while agents run that print nothing."""
    running = size.running
    async with server_of(contender, silent_run, running) as server, AsyncExitStack() as opened:
        idle = memory_mib(descendants(os.getpid()))
        for _ in range(running):
            await server.submit(await opened.enter_async_context(connected(server.port)))
        await _until_running(running)
        await asyncio.sleep(size.settle_seconds)  # until what starts them has settled
        agents = named(NAME, os.getpid())
        total = memory_mib(descendants(os.getpid())) - idle
        return Memory(total / running, (total - memory_mib(agents)) / running)


async def _until_running(agents: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(named(NAME, os.getpid())) < agents:
            await asyncio.sleep(POLL_SECONDS)


async def cpu_ratio(contender: Contender, size: Size) -> float:
    """Measure the processor time of a job while further processes sleep, beside the same without them."""
    alone, beside = [], []
    for _ in range(size.rounds):
        alone.append(await _cpu_ms(contender, size.jobs))
        with sleepers(size.others) as parent:
            beside.append(await _cpu_ms(contender, size.jobs, [parent]))
    return min(beside) / min(alone)


async def _cpu_ms(contender: Contender, jobs: int, spare: Sequence[int] = ()) -> float:
    async with server_of(contender, short_run, SLOTS, spare) as server:
        await load(server, 1)  # the first job loads programs
        return (await load(server, jobs))[1]


if __name__ == "__main__":
    main()
