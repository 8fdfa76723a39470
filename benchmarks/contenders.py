"""The engines that `benchmarks.peer` measures, behind one interface: Labrats, and agenticore where it is installed."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from benchmarks.engine import Engine, free_port, running_engine, serving, succeed
from benchmarks.http import Connection, request

MODEL = "benchmark"
UNCONFINED: Final = {"LABRATS_SANDBOX": "false"}
SANDBOXED: Final = {"LABRATS_SANDBOX": "auto"}
_PROFILE = """\
name: code
auto_pr: false
claude:
  output_format: stream-json
  worktree: false
"""


class JobTimes(NamedTuple):
    """Seconds since the epoch. started: of the agent's process. ended: of the job, as its engine stored it."""

    started: float
    ended: float


class Server(Protocol):
    """A running engine."""

    @property
    def port(self) -> int: ...

    @property
    def start_seconds(self) -> float: ...

    async def submit(self, connection: Connection) -> str:
        """Submit a job, and return its id."""
        ...

    async def run(self, connection: Connection) -> None:
        """Submit a job, and wait until it has ended, without polling."""
        ...

    async def times(self, connection: Connection, job: str) -> JobTimes | None:
        """Return the times of a job; None until it has ended."""
        ...


class Contender(Protocol):
    """An engine to measure."""

    @property
    def name(self) -> str: ...

    def running(self, folder: Path, claude: Path, slots: int) -> AbstractAsyncContextManager[Server]:
        """Run the engine on a new folder, with `claude` as Claude Code and `slots` jobs at once."""
        ...


@dataclass(frozen=True)
class LabratsServer:
    engine: Engine
    submission: bytes

    @property
    def port(self) -> int:
        return self.engine.port

    @property
    def start_seconds(self) -> float:
        return self.engine.start_seconds

    async def submit(self, connection: Connection) -> str:
        job: str = (await succeed(connection, self.submission)).json["jobId"]
        return job

    async def run(self, connection: Connection) -> None:
        job = await self.submit(connection)
        async for _ in connection.stream(self.engine.request("GET", f"/api/jobs/{job}/logs")):
            pass

    async def times(self, connection: Connection, job: str) -> JobTimes | None:
        found = (await succeed(connection, self.engine.request("GET", f"/api/jobs/{job}"))).json
        if found["finishedAt"] is None:
            return None
        return JobTimes(float(found["result"]), _seconds(found["finishedAt"]))


@dataclass(frozen=True)
class Labrats:
    """settings: environment variables of the engine."""

    name: str
    settings: Mapping[str, str]

    @asynccontextmanager
    async def running(self, folder: Path, claude: Path, slots: int) -> AsyncIterator[LabratsServer]:
        async with running_engine(folder, program=None, LABRATS_CLAUDE_PATH=str(claude), **self.settings) as engine:
            model = {"name": MODEL, "provider": "claude", "model": MODEL, "slots": slots}
            await engine.call("POST", "/api/ai-models", model)
            config = {"provider": "claude", "model": MODEL}
            job = {"source": "benchmark", "type": "no-op", "prompt": "a prompt", "config": config}
            yield LabratsServer(engine, engine.request("POST", "/api/jobs/submit", job))


@dataclass(frozen=True)
class AgenticoreServer:
    port: int
    start_seconds: float

    async def submit(self, connection: Connection) -> str:
        return await self._submit(connection, wait=False)

    async def run(self, connection: Connection) -> None:
        await self._submit(connection, wait=True)

    async def _submit(self, connection: Connection, *, wait: bool) -> str:
        body = {"task": "a prompt", "profile": "code", "wait": wait}
        job: str = (await succeed(connection, request("POST", "/jobs", "", body))).json["job"]["id"]
        return job

    async def times(self, connection: Connection, job: str) -> JobTimes | None:
        found = (await succeed(connection, request("GET", f"/jobs/{job}", ""))).json["job"]
        if "ended_at" not in found:
            return None
        return JobTimes(_printed_start(found["output"]), _seconds(found["ended_at"]))


@dataclass(frozen=True)
class Agenticore:
    """program: the `agenticore` to run."""

    program: Path
    name: str = "agenticore"

    @asynccontextmanager
    async def running(self, folder: Path, claude: Path, slots: int) -> AsyncIterator[AgenticoreServer]:
        profile = folder / ".agenticore" / "profiles" / "code" / "profile.yml"
        profile.parent.mkdir(parents=True)
        profile.write_text(_PROFILE)
        port = free_port()
        environment = {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PATH": f"{claude.parent}:{os.environ['PATH']}",
            "AGENTICORE_TRANSPORT": "sse",
            "AGENTICORE_PORT": str(port),
            "AGENTICORE_MAX_PARALLEL_JOBS": str(slots),
            "AGENTICORE_OTEL_ENABLED": "false",
            "AGENTIHOOKS_PROFILE": "code",
        }
        async with serving([str(self.program), "serve"], port, "/health", environment) as (_, start_seconds):
            yield AgenticoreServer(port, start_seconds)


def _printed_start(output: str) -> float:
    """Return the time in the last event that the stand-in printed."""
    last: dict[str, Any] = json.loads(output.splitlines()[-1])
    return float(last["result"])


def _seconds(time_of_day: str) -> float:
    return datetime.fromisoformat(time_of_day).timestamp()
