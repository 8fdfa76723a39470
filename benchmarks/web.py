"""`python -m benchmarks.web [--quick]`: measure requests beside a bare uvicorn handler that answers the same bytes.

The bare handler makes one durable commit where the engine does. Both servers alternate, and the best of several rounds
counts.
"""

import argparse
import hashlib
import hmac
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

from benchmarks.bare import COMMITTED
from benchmarks.engine import Engine, cpu_seconds, free_port, running_engine, serving, succeed
from benchmarks.finished_jobs import create_finished_jobs
from benchmarks.http import connected, request
from benchmarks.measures import MODEL, configure_model

SOURCE = "benchmark"
SECRET = "the-secret-of-a-benchmark"
WEBHOOK = f"/webhooks/{SOURCE}"
CONFIG = {"provider": "mock", "model": MODEL}
SUBMISSION = {"source": SOURCE, "type": "no-op", "prompt": "a prompt", "config": CONFIG}
LEAST_PROGRAM = "import fastapi, uvicorn, apsw"


@dataclass(frozen=True)
class Size:
    """The extent of a run. finished: jobs in the store."""

    rounds: int = 5
    requests: int = 2000
    finished: int = 1000


QUICK = Size(rounds=1, requests=5, finished=30)
"""Just enough to check that every measurement works."""


@dataclass(frozen=True)
class Call:
    """A request to measure. commits: True for one that writes."""

    label: str
    method: str
    path: str
    commits: bool = False


CALLS: Sequence[Call] = (
    Call("GET /api/jobs?limit=20", "GET", "/api/jobs?limit=20"),
    Call("GET /api/jobs/ID", "GET", "/api/jobs/ir-00000000"),
    Call("POST /api/jobs/submit", "POST", "/api/jobs/submit", commits=True),
    Call("POST /webhooks/NAME", "POST", WEBHOOK, commits=True),
)


class Cost(NamedTuple):
    """The cost of one request, in milliseconds. took: median time until its answer."""

    cpu: float
    took: float


class Start(NamedTuple):
    """Seconds from exec to ready, and MiB of an idle engine. least: seconds of a program that only imports."""

    ready: float
    least: float
    idle: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    size = QUICK if parser.parse_args().quick else Size()
    with tempfile.TemporaryDirectory(prefix="labrats-web-") as folder:
        uvloop.run(print_tables(size, Path(folder)))


async def print_tables(size: Size, folder: Path) -> None:
    starts = [await start(folder / f"start-{number}") for number in range(size.rounds)]
    rounds = [await one_round(size, folder / f"{number}") for number in range(size.rounds)]
    print(f"| best of {size.rounds} | Labrats | bare | ratio |\n|---|---:|---:|---:|")
    for call in CALLS:
        engine, bare = zip(*(each[call] for each in rounds), strict=True)
        print_row(
            f"{call.label}, processor time", "ms", min(each.cpu for each in engine), min(each.cpu for each in bare)
        )
        if call.commits:
            print_row(f"{call.label}, p50", "ms", min(each.took for each in engine), min(each.took for each in bare))
    ready, least = min(each.ready for each in starts), min(each.least for each in starts)
    print_row(f"from exec to ready, beside `{LEAST_PROGRAM}`", "s", ready, least)
    print(f"| memory, idle | {min(each.idle for each in starts):.1f} MiB | | |")


def print_row(label: str, unit: str, engine: float, bare: float) -> None:
    ratio = f"{engine / bare:.2f} x" if bare else "–"
    print(f"| {label} | {engine:.2f} {unit} | {bare:.2f} {unit} | {ratio} |", flush=True)


async def start(folder: Path) -> Start:
    async with running_engine(folder) as engine:
        idle = engine.resident_mib()
    return Start(engine.start_seconds, least_seconds(), idle)


def least_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LEAST_PROGRAM], check=True)
    return time.perf_counter() - began


async def one_round(size: Size, folder: Path) -> dict[Call, tuple[Cost, Cost]]:
    """Measure each call to the engine and to the bare handler."""
    costs = {}
    await create_finished_jobs(folder, size.finished)
    async with running_engine(folder) as engine:
        await prepare(engine)
        for call in CALLS:
            requests = prepared(engine, call, 1 + size.requests)
            cost, answer = await measure(engine.port, engine.pid, requests)
            async with bare_server(folder, answer) as (port, pid):
                path = COMMITTED if call.commits else "/"
                same = [each.replace(call.path.encode(), path.encode(), 1) for each in requests]
                costs[call] = cost, (await measure(port, pid, same))[0]
    return costs


async def prepare(engine: Engine) -> None:
    """Configure a model without slots, and an agent that webhooks start."""
    await configure_model(engine)
    await engine.call("POST", "/api/instructions", {"name": "benchmark", "content": "Do it."})
    trigger = {"source": SOURCE, "events": ["received"], "instruction": "benchmark", "config": CONFIG}
    agent = {"name": "benchmark", "triggerName": "benchmark", "eventTriggers": [trigger]}
    await engine.call("POST", "/api/agents", agent)
    await engine.call("POST", "/api/webhook-sources", {"name": SOURCE, "type": "generic", "secret": SECRET})


def prepared(engine: Engine, call: Call, repetitions: int) -> list[bytes]:
    """Return the requests of a measurement. Each delivery of a webhook differs, since a redelivery creates no job."""
    if call.path == WEBHOOK:
        return [delivery(number) for number in range(repetitions)]
    body = SUBMISSION if call.commits else None
    return [engine.request(call.method, call.path, body)] * repetitions


def delivery(number: int) -> bytes:
    body = {"number": number, "text": "x" * 500}
    signature = hmac.new(SECRET.encode(), json.dumps(body).encode(), hashlib.sha256).hexdigest()
    return request("POST", WEBHOOK, "", body, {"X-Hub-Signature-256": f"sha256={signature}"})


async def measure(port: int, pid: int, requests: Sequence[bytes]) -> tuple[Cost, bytes]:
    """Send requests to the server of process `pid`, one after the other. Return their cost, and the last answer."""
    took = []
    async with connected(port) as connection:
        await succeed(connection, requests[0])
        began_cpu = cpu_seconds(pid)
        for each in requests[1:]:
            began = time.perf_counter()
            answer = await succeed(connection, each)
            took.append(time.perf_counter() - began)
    cpu = cpu_seconds(pid) - began_cpu
    return Cost(1000 * cpu / len(took), 1000 * median(took)), answer.body


@asynccontextmanager
async def bare_server(folder: Path, answer: bytes) -> AsyncIterator[tuple[int, int]]:
    """Run the bare handler during the block. Yield its port and its pid."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        (Path(own) / "answer").write_bytes(answer)
        async with serving([sys.executable, "-m", "benchmarks.bare", str(port), own], port, "/") as (pid, _):
            yield port, pid


if __name__ == "__main__":
    main()
