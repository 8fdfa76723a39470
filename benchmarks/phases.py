"""`python -m benchmarks.phases [--quick]`: measure the phases of one job, with a stand-in for Claude Code.

The jobs run one after the other, with and without the sandbox in turn. A row is the median time from the point before
it.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.contenders import SANDBOXED, UNCONFINED, Labrats, LabratsServer
from benchmarks.http import connected
from benchmarks.peer import POLL_SECONDS, server_of
from benchmarks.processes import adopt_orphans
from benchmarks.stand_in import short_run

JOBS, QUICK_JOBS = 100, 2

CONTENDERS: Sequence[Labrats] = (
    Labrats("Labrats", UNCONFINED),
    Labrats("sandboxed", SANDBOXED),
    Labrats("sandboxed, without network", {**SANDBOXED, "LABRATS_NETWORK": "none"}),
)

PHASES: Sequence[str] = (
    "submit → the answer: check, commit durably",
    "→ the executor's first event: queue, commit the start, write the inputs, wake an executor",
    "→ the workspace is ready",
    "→ the program's first line: home, configuration, start of a process",
    "→ its first output is read",
    "→ the result: exit, processes, patch, secrets",
    "→ the job's end: confirm, commit",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phases", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    options = parser.parse_args()
    adopt_orphans()
    uvloop.run(print_table(QUICK_JOBS if options.quick else JOBS))


async def print_table(jobs: int) -> None:
    measured = await phases(jobs)
    print(f"| median of {jobs} | {' | '.join(measured)} |\n|---|{'---:|' * len(measured)}")
    for phase, *values in zip((*PHASES, "in all"), *([*each, sum(each)] for each in measured.values()), strict=True):
        print(f"| {phase} | {' | '.join(f'{value:.2f} ms' for value in values)} |")


async def phases(jobs: int) -> dict[str, list[float]]:
    """Return the median milliseconds of each phase for each contender. Their jobs run in turn."""
    async with AsyncExitStack() as stack:
        servers: dict[str, LabratsServer] = {}
        for contender in CONTENDERS:
            server = await stack.enter_async_context(server_of(contender, short_run, slots=1))
            assert isinstance(server, LabratsServer)
            servers[contender.name] = server
        for server in servers.values():
            await one_job(server)  # the first job loads programs
        rounds = [{name: await one_job(server) for name, server in servers.items()} for _ in range(jobs)]
    return {
        name: [1000 * median(column) for column in zip(*(each[name] for each in rounds), strict=True)]
        for name in servers
    }


async def one_job(server: LabratsServer) -> list[float]:
    """Run a job, and return the seconds of each phase."""
    async with connected(server.port) as connection:
        sent = time.time()
        job = await server.submit(connection)
        answered = time.time()
        while (times := await server.times(connection, job)) is None:
            await asyncio.sleep(POLL_SECONDS)
    output = server.engine.data_dir / "attempts" / job[-2:] / f"{job}-1" / "output.jsonl"
    preparing, ready, first_output, *_, result = event_times(output)
    points = (sent, answered, preparing, ready, times.started, first_output, result, times.ended)
    return [after - before for before, after in pairwise(points)]


def event_times(output: Path) -> list[float]:
    """Return the seconds since the epoch of each event of an attempt."""
    lines = output.read_text().splitlines()
    return [datetime.fromisoformat(json.loads(line)["at"]).timestamp() for line in lines]


if __name__ == "__main__":
    main()
