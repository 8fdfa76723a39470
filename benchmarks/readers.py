"""`python -m benchmarks.readers [--quick] [--beside PROGRAM]`: the latency of /health while readers of a log stall.

PROGRAM is the `labrats` of another version, which is measured in the same run.
"""

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.engine import Engine, running_engine, succeed
from benchmarks.http import connected, request

LINE = "x" * 100
_PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Size:
    """The extent of a run. seconds: of one series of calls."""

    lines: int = 300_000
    readers: Sequence[int] = (50, 200, 500)
    seconds: float = 20.0


QUICK = Size(lines=1000, readers=(5,), seconds=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    parser.add_argument("--beside", metavar="PROGRAM", type=Path, help="the labrats of another version")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    own = Path(sys.executable).parent / "labrats"
    print(f"{'':34}{'p50':>12}{'p99':>12}{'worst':>12}{'p99, beside idle':>20}")
    for program in filter(None, (options.beside, own)):
        print(program)
        with tempfile.TemporaryDirectory(prefix="labrats-benchmark-") as folder:
            uvloop.run(measure(program, size, Path(folder)))


async def measure(program: Path, size: Size, folder: Path) -> None:
    async with running_engine(folder, program=program) as engine:
        job = await job_with_log(engine, size.lines)
        idle = await health_ms(engine, size.seconds)
        print_row("/health, nobody reads", idle, idle)
        for count in size.readers:
            with readers_that_never_read(engine, job, count):
                print_row(f"/health, {count} readers never read", await health_ms(engine, size.seconds), idle)


async def job_with_log(engine: Engine, lines: int) -> str:
    """Run a job that logs `lines` lines, and return its id."""
    steps = [{"log": LINE, "times": lines}]
    body = {"source": "benchmark", "type": "log", "prompt": "x", "config": {"provider": "mock"}}
    answer = await engine.call("POST", "/api/jobs/submit", body | {"metadata": {"mock": {"steps": steps}}})
    job: str = answer.json["jobId"]
    while (await engine.call("GET", f"/api/jobs/{job}")).json["status"] in ("waiting", "active"):
        await asyncio.sleep(0.1)
    return job


@contextmanager
def readers_that_never_read(engine: Engine, job: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            reader = stack.enter_context(socket.create_connection(("127.0.0.1", engine.port)))
            reader.sendall(engine.request("GET", f"/api/jobs/{job}/logs"))
        yield


async def health_ms(engine: Engine, seconds: float) -> list[float]:
    """Call /health one call after the other, and return the sorted latencies in milliseconds."""
    took: list[float] = []
    prepared = request("GET", "/health", "")
    end = time.perf_counter() + seconds
    async with connected(engine.port) as connection:
        while time.perf_counter() < end:
            began = time.perf_counter()
            await succeed(connection, prepared)
            took.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(_PAUSE_SECONDS)
    return sorted(took)


def print_row(label: str, took: Sequence[float], idle: Sequence[float]) -> None:
    p50, p99, idle_p99 = (series[int(len(series) * part)] for series, part in ((took, 0.5), (took, 0.99), (idle, 0.99)))
    print(f"{label:34}{p50:>9.2f} ms{p99:>9.2f} ms{took[-1]:>9.1f} ms{p99 / idle_p99:>18.1f} x")


if __name__ == "__main__":
    main()
