"""`python -m benchmarks.layers`: show in which layers of the engine a request spends its processor time.

Each kind of request is sent many times to an engine under Python's profiler, which slows down short functions more than
long ones. The shares are therefore those of the profile, and the milliseconds are shares of the time without it. The
start of the engine and its writer thread are not part of the profile; the last row is the time of the other threads.
"""

import marshal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.engine import running_engine, succeed
from benchmarks.finished_jobs import create_finished_jobs
from benchmarks.http import connected
from benchmarks.web import CALLS, Call, measure, prepare, prepared

REQUESTS: Final = 3000
FINISHED: Final = 1000

LAYERS: Final[Mapping[str, tuple[str, ...]]] = {
    "event loop and HTTP parser": ("uvloop", "uvicorn", "asyncio", "socket"),
    "connections, checks of requests, errors": ("labrats/api/http",),
    "routing and dependencies": ("starlette", "fastapi", "labrats/api/routing", "contextlib", "anyio"),
    "caller: key, rights, limits": ("labrats/api/auth",),
    "parsing and checking of parameters and bodies": ("pydantic", "labrats/api/schemas", "json/"),
    "routes and presentation": ("labrats/api",),
    "admission": ("labrats/intake", "labrats/files", "labrats/net"),
    "index": ("labrats/index",),
    "store": ("labrats/backends", "labrats/model", "msgspec"),
    "queue and loops that follow the change": ("labrats/controller",),
    "metrics and log": ("labrats/metrics", "labrats/logs", "prometheus_client", "structlog"),
}
"""Layers and the parts of paths by which functions belong to them. The first that matches counts."""

OTHER: Final = "other"
_PROFILED: Final = """
import cProfile, marshal, runpy, sys, time
profile = cProfile.Profile(time.thread_time)
program, output, sys.argv = sys.argv[1], sys.argv[2], sys.argv[1:2] + sys.argv[3:]
try:
    profile.runcall(runpy.run_path, program, run_name="__main__")
finally:
    profile.create_stats()
    marshal.dump(profile.stats, open(output, "wb"))
"""

Profile = Mapping[tuple[str, int, str], tuple[int, int, float, float, Mapping[tuple[str, int, str], Any]]]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="labrats-layers-") as folder:
        uvloop.run(print_tables(Path(folder)))


async def print_tables(folder: Path) -> None:
    start = await layers_of(folder / "start", None)
    for number, call in enumerate(CALLS):
        found = await layers_of(folder / f"{number}", call)
        costs = {layer: seconds - start.get(layer, 0) for layer, seconds in found.items()}
        whole, main_thread = await plain_ms(folder / f"{number}-plain", call)
        profiled = sum(costs.values())
        print(f"\n| {call.label} | share | ms |\n|---|---:|---:|")
        for layer, seconds in sorted(costs.items(), key=lambda each: -each[1]):
            if (share := seconds / profiled) >= 0.005:
                print(f"| {layer} | {share:.0%} | {share * main_thread:.3f} |")
        print(
            f"| other threads: commits, queries | | {whole - main_thread:.3f} |\n| in all | | {whole:.3f} |", flush=True
        )


async def layers_of(folder: Path, call: Call | None) -> dict[str, float]:
    """Return the processor seconds of each layer in the main thread of an engine: its start, and the calls."""
    profile = folder / "profile"
    program = folder / "profiled"
    await create_finished_jobs(folder, FINISHED)
    script = folder / "profiled.py"
    script.write_text(_PROFILED)
    labrats = Path(sys.executable).parent / "labrats"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "{labrats}" "{profile}" "$@"\n')
    program.chmod(0o700)
    async with running_engine(folder, program=program) as engine:
        await prepare(engine)
        if call:
            await measure(engine.port, engine.pid, prepared(engine, call, 1 + REQUESTS))
    return by_layer(marshal.loads(profile.read_bytes()))


async def plain_ms(folder: Path, call: Call) -> tuple[float, float]:
    """Return the milliseconds of processor time per request without a profile: of all threads, and of the main one."""
    await create_finished_jobs(folder, FINISHED)
    async with running_engine(folder) as engine:
        await prepare(engine)
        requests = prepared(engine, call, 1 + REQUESTS)
        async with connected(engine.port) as connection:
            await succeed(connection, requests[0])
            before = thread_seconds(engine.pid)
            for each in requests[1:]:
                await succeed(connection, each)
            spent = {each: 1000 * now / REQUESTS for each, now in thread_seconds(engine.pid).items()}
    was = {each: 1000 * then / REQUESTS for each, then in before.items()}
    return sum(spent.values()) - sum(was.values()), spent[engine.pid] - was[engine.pid]


def thread_seconds(pid: int) -> dict[int, float]:
    """Return the processor time of each thread of a process. The main thread has the id of the process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {int(each.name): int((each / "schedstat").read_text().split()[0]) / 1e9 for each in threads}


def by_layer(profile: Profile) -> dict[str, float]:
    """Return the seconds of each layer. A built-in function counts for the layer that calls it."""
    seconds: dict[str, float] = defaultdict(float)
    for (file, _, _), (_, _, own, _, callers) in profile.items():
        if file != "~":
            seconds[layer_of(file)] += own
            continue
        for (caller, _, _), figures in callers.items():
            seconds[layer_of(caller)] += figures[2]
    return seconds


def layer_of(file: str) -> str:
    return next((layer for layer, parts in LAYERS.items() if any(part in file for part in parts)), OTHER)


if __name__ == "__main__":
    main()
