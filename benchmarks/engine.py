"""The engine to measure, in a process of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.http import Answer, Connection, connected, request
from labrats.processes import descendants

PATIENCE_SECONDS = 120
POLL_SECONDS = 0.01
"""Pause between two requests for `/ready`. A shorter one costs a starting engine much of a processor."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 15


@dataclass(frozen=True)
class Engine:
    """A running engine. start_seconds: from its exec until /ready answered 200."""

    data_dir: Path
    port: int
    pid: int
    start_seconds: float

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        key = (self.data_dir / "admin.key").read_text().strip()
        return request(method, path, key, body)

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Make a call that is not measured, on a new connection. Raises RuntimeError unless it succeeds."""
        async with connected(self.port) as connection:
            return await succeed(connection, self.request(method, path, body))

    def cpu_seconds(self) -> float:
        """Return the processor time of the engine's process so far, without its launcher and executors."""
        return cpu_seconds(self.pid)

    def attempts_cpu_seconds(self) -> float:
        """Return the processor time of the launcher, the executors and their programs so far."""
        return sum(sum(_ticks(pid)) for pid in descendants(self.pid)) / _TICKS_PER_SECOND

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kib) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far, without its children."""
    return _ticks(pid)[0] / _TICKS_PER_SECOND


def _ticks(pid: int) -> tuple[int, int]:
    """Return the processor time of a process, and of its ended children, in clock ticks."""
    fields = [int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:15]]
    return fields[0] + fields[1], fields[2] + fields[3]


async def succeed(connection: Connection, prepared: bytes) -> Answer:
    answer = await connection.call(prepared)
    if answer.status >= 300:
        raise RuntimeError(f"the engine answered {answer.status}: {answer.body.decode()}")
    return answer


@asynccontextmanager
async def running_engine(data_dir: Path, *, program: Path | None = None, **environment: str) -> AsyncIterator[Engine]:
    """Run an engine on `data_dir` during the block.

    program: the `labrats` to run, by default the one beside this Python. environment: settings that are not default.
    """
    port = free_port()
    labrats = program or Path(sys.executable).parent / "labrats"
    command = [str(labrats), "serve", "--port", str(port), "--data-dir", str(data_dir)]
    async with serving(command, port, "/ready", environment) as (pid, start_seconds):
        yield Engine(data_dir, port, pid, start_seconds)


@asynccontextmanager
async def serving(
    command: Sequence[str], port: int, ready_path: str, environment: Mapping[str, str] = {}
) -> AsyncIterator[tuple[int, float]]:
    """Run a server during the block. Yield its pid, and the seconds from its exec until `ready_path` answered 200."""
    began = time.perf_counter()
    process = _start(command, environment)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _until_ready(port, ready_path, process)
        yield process.pid, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_SECONDS)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)


async def _until_ready(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError, asyncio.IncompleteReadError):
            async with connected(port) as connection:
                if (await connection.call(request("GET", path, ""))).status == 200:
                    return
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"the server exited with {process.returncode} before it was ready")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
