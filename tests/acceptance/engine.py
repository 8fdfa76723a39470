"""The engine as its users see it: a real program on a real port, and users with API keys.

Tests use an engine only through `Engine`, so that the same tests run against a local process and an installation.
"""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import httpx2
import pytest

from labrats.api.auth.login_links import create_login_link
from labrats.backends.embedded.store import EmbeddedStore
from labrats.cli.secrets import put_value
from labrats.processes import ProcessId, descendants, send_signal
from tests.support import impatient_labrats, weakened_labrats
from tests.support.forked_labrats import Fork, Forks
from tests.support.waiting import poll_intervals

PATIENCE_SECONDS: Final = 60.0
"""Timeout for any operation. It is generous because machines that run tests are busy."""

POLL_SECONDS: Final = 0.02
ENDED: Final = ("completed", "failed", "cancelled")

_QUICK: Final = {"LABRATS_STOP_GRACE_SECONDS": "1", "LABRATS_RETRY_BACKOFF_SECONDS": "0.05"}


WITHOUT_CAPABILITIES: Final = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Start of a command that runs another one without the capabilities of root."""


class Engine(ABC):
    """An engine that runs at `url`. log: its output since its first start."""

    url: str
    many_jobs = 1000
    """Number of jobs to submit at once in tests of many jobs."""
    many_slots = 16
    """Number of those jobs that run at once."""
    start_seconds = 2.0
    """Time within which a job starts, even on a busy machine."""
    executor_image = "registry.example/executor:1"
    """An executor image that jobs may request."""

    @property
    @abstractmethod
    def log(self) -> str: ...

    @property
    @abstractmethod
    def admin_key(self) -> str: ...

    @abstractmethod
    def run_labrats(self, *arguments: str) -> str:
        """Run a command of the `labrats` command line next to the engine, and return its output."""

    @abstractmethod
    def set_secret(self, name: str, key: str, value: str) -> None:
        """Create a Secret for jobs."""

    async def scrapes(self) -> list[httpx2.Response]:
        """Return the response of each of the engine's processes to a scrape by Prometheus."""
        async with self.client() as anonymous:
            return [await anonymous.get("/metrics")]

    @abstractmethod
    async def login_link(self) -> str:
        """Return a new login link, as `labrats login-link` prints it."""

    def client(self, key: str | None = None, **options: Any) -> httpx2.AsyncClient:
        """Return a client that sends `key`."""
        return an_http_client(self.url, key, **options)

    @asynccontextmanager
    async def admin(self) -> "AsyncIterator[User]":
        """Yield a user with the engine's admin key."""
        async with self.client(self.admin_key) as client:
            yield User(client, self.admin_key)

    @asynccontextmanager
    async def user(self, *, scopes: Sequence[str] = ("submit",), **fields: Any) -> "AsyncIterator[User]":
        """Yield a new user with a new API key. fields: of the key."""
        async with self.admin() as admin:
            created = await admin.post(
                "/api/api-keys", {"name": f"user {os.urandom(4).hex()}", "scopes": scopes, **fields}
            )
        assert created.status_code == 201, created.text
        async with self.client(created.json()["key"]) as client:
            yield User(client, created.json()["key"], created.json()["id"])

    @asynccontextmanager
    async def browser(self) -> "AsyncIterator[User]":
        """Yield a user who has signed in by a login link, without a secret, and sends the headers of the dashboard."""
        async with self.client() as client:
            opened = await client.get(await self.login_link())
            assert opened.status_code == 303, opened.text
            client.headers["Sec-Fetch-Site"] = "same-origin"
            yield User(client, client.cookies["auth_token"])

    # State that tests inspect without the API

    @property
    @abstractmethod
    def admin_key_file(self) -> Path:
        """The file with the admin key."""

    @abstractmethod
    def workspace(self, job_id: str, attempt: int = 1) -> Path:
        """Return the workspace of an attempt."""

    @abstractmethod
    def files_with(self, text: str) -> list[str]:
        """Return the engine's files that contain `text`, except for the database and workspaces."""

    @abstractmethod
    def resources_with(self, text: str) -> list[str]:
        """Return the stored resources that contain `text`, each as kind and name."""

    @abstractmethod
    def processes_of(self, job_id: str) -> Sequence[object]:
        """Return the job's live processes (its executor and descendants), or the pods that contain them."""


class LocalEngine(Engine):
    """A process of `labrats serve` with its own data folder and none of the tests' environment variables."""

    etc_snapshots: ClassVar[Path | None] = None
    """A folder for the snapshots of /etc of all engines. Each engine would need half a second for one of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.url = ""
        self.data_dir, self._log_file = folder / "data", folder / "engine.log"
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **_QUICK, **environment}
        self._process: subprocess.Popen[bytes] | Fork | None = None
        self._started: set[ProcessId] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if self._process is None:
                self.start()
            asyncio.run(self._end_all_jobs())
            self.stop()
        finally:
            left = self._kill_leftovers()
        assert failed or not left, f"processes survived the engine and its jobs: {left}"

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    @property
    def admin_key_file(self) -> Path:
        return self.data_dir / "admin.key"

    @property
    def admin_key(self) -> str:
        return self.admin_key_file.read_text().strip()

    @property
    def pid(self) -> int:
        """The id of the engine's process, while it runs."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start the engine, on its earlier port if it had one, and wait until it is ready."""
        self._share_snapshots()
        port = self.url.rpartition(":")[2] or "0"
        log_size = self._log_file.stat().st_size if self._log_file.exists() else 0
        self._process = self._run("--port", port)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (ready := _find_log_event(self._log_file, log_size, "engine ready")):
            assert self._process.poll() is None, f"the engine exited during its start: {self.log[log_size:]}"
            assert time.monotonic() < deadline, f"the engine was not ready in time: {self.log[log_size:]}"
            time.sleep(POLL_SECONDS)
        self.url = ready["url"]
        assert httpx2.get(f"{self.url}/ready").json() == {"status": "ok"}

    def _share_snapshots(self) -> None:
        if self.etc_snapshots and not self.data_dir.exists() and "LABRATS_BACKEND" not in self._environment:
            self.data_dir.mkdir(mode=0o700)
            (self.data_dir / "etc-snapshots").symlink_to(self.etc_snapshots)

    def _run(self, *options: str) -> subprocess.Popen[bytes] | Fork:
        with open(self._log_file, "ab") as log:
            return subprocess.Popen(self.command(*options), stdout=log, stderr=log, env=self._environment)

    def command(self, *options: str) -> list[str]:
        """Return the command line that starts an engine on this engine's data folder."""
        for program in (impatient_labrats, weakened_labrats):
            if program.VARIABLE in self._environment:
                return [sys.executable, "-P", str(program.__file__), *self._arguments(*options)]
        return [str(Path(sys.executable).parent / "labrats"), *self._arguments(*options)]

    def _arguments(self, *options: str) -> list[str]:
        return ["serve", "--data-dir", str(self.data_dir), *options]

    def run_another(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Start a second engine on the same data folder, which is expected to exit with an error."""
        return subprocess.run(
            self.command(*options), env=self._environment | environment, timeout=PATIENCE_SECONDS, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    def run_labrats(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "labrats"), *arguments]
        environment = self._environment | {"LABRATS_DATA_DIR": str(self.data_dir)}
        return subprocess.run(
            command, env=environment, timeout=PATIENCE_SECONDS, check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip

    def set_secret(self, name: str, key: str, value: str) -> None:
        async def put() -> None:
            async with EmbeddedStore.open(self.data_dir / "labrats.db") as store:
                await put_value(store, name, key, value)

        with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop
            thread.submit(asyncio.run, put()).result()

    def stop(self) -> None:
        """Stop the engine as Ctrl-C does."""
        assert self._end(signal.SIGINT) == 0, self.log

    def kill(self) -> None:
        """Kill the engine, as in a crash. Its jobs continue to run."""
        assert self._end(signal.SIGKILL) == -signal.SIGKILL

    def pause(self) -> None:
        """Suspend the engine's process, as when its machine is suspended."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._record_processes()
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE_SECONDS)
        self._process = None
        return code

    async def login_link(self) -> str:
        async with EmbeddedStore.open(self.data_dir / "labrats.db") as store:
            return await create_login_link(store, self.url, datetime.now(UTC))

    def workspace(self, job_id: str, attempt: int = 1) -> Path:
        return self.data_dir / "workspaces" / f"{job_id}-{attempt}"

    def files_with(self, text: str) -> list[str]:
        files = {path.relative_to(self.data_dir): path for path in self.data_dir.rglob("*") if path.is_file()}
        others = {name: path for name, path in files.items() if not str(name).startswith(("labrats.db", "workspaces/"))}
        return sorted(str(name) for name, path in others.items() if text.encode() in path.read_bytes())

    def resources_with(self, text: str) -> list[str]:
        with closing(sqlite3.connect(self.data_dir / "labrats.db")) as database:
            rows = database.execute("SELECT kind, name, body FROM resources").fetchall()
        return [f"{kind} {name}" for kind, name, body in rows if text.encode() in body]

    def bodies_of(self, kind: str) -> list[str]:
        """Return the stored resources of a kind, as JSON."""
        with closing(sqlite3.connect(self.data_dir / "labrats.db")) as database:
            return [body.decode() for (body,) in database.execute("SELECT body FROM resources WHERE kind = ?", (kind,))]

    def processes_of(self, job_id: str) -> list[int]:
        claims = self.data_dir.glob(f"attempts/*/{job_id}-*/claim")
        executors = [process for claim in claims if (process := ProcessId.parse(claim.read_text()))]
        return [pid for each in executors if each.is_alive for pid in (each.pid, *descendants(each.pid))]

    # Clean-up

    def _record_processes(self) -> None:
        assert self._process is not None
        self._started |= {found for pid in descendants(self._process.pid) if (found := ProcessId.of(pid))}

    async def _end_all_jobs(self) -> None:
        async with self.admin() as admin:
            await admin.end_jobs()

    def _kill_leftovers(self) -> list[ProcessId]:
        """Wait until the processes that the engine has started end. Kill those that do not, and return them."""
        if self._process:  # it failed to stop
            self._record_processes()
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + PATIENCE_SECONDS / 2
        while (left := [each for each in self._started if each.is_alive]) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for each in left:
            send_signal(each.pid, signal.SIGKILL)
        return left


class ForkedEngine(LocalEngine):
    """A LocalEngine that starts in a fourth of the time. /proc does not show its command line and environment."""

    forks: ClassVar = Forks()

    def _run(self, *options: str) -> Fork:
        self._log_file.touch()
        return self.forks.start(self._arguments(*options), self._environment, self._log_file)


class OrdinaryEngine(LocalEngine):
    """An engine without capabilities, like that of an ordinary user, also if this is root."""

    def command(self, *options: str) -> list[str]:
        return [*WITHOUT_CAPABILITIES, *super().command(*options)]


def an_http_client(url: str, key: str | None = None, **options: Any) -> httpx2.AsyncClient:
    """Return a client that sends `key` to the engine at `url`."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # verify=False saves the loading of certificates: no server here uses TLS.
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_SECONDS, verify=False, **options)


def _find_log_event(log: Path, offset: int, event: str) -> dict[str, Any] | None:
    """Return the first log line with that event from `offset` on, parsed."""
    for line in log.read_bytes()[offset:].splitlines():
        if line.startswith(b"{") and line.endswith(b"}") and (message := json.loads(line))["event"] == event:
            found: dict[str, Any] = message
            return found
    return None


@dataclass(frozen=True)
class SentEvent:
    """A server-sent event. id: empty if the stream sent none."""

    id: str
    data: dict[str, Any]


@dataclass(frozen=True)
class User:
    """A user with an API key, who uses only the documented API."""

    http: httpx2.AsyncClient
    key: str
    key_id: str = ""

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self.http.get(path, params=query)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, json=body, headers=named) if body is not None else await self.http.post(path)

    async def submit(self, *steps: Any, config: dict[str, Any] | None = None, **fields: Any) -> str:
        """Submit a job of the mock provider that plays `steps`, and return its id. fields: of the submission."""
        answer = await self.post("/api/jobs/submit", a_submission(*steps, config=config, **fields))
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["jobId"]
        return job_id

    async def job(self, job_id: str) -> dict[str, Any]:
        """Return the job's detail."""
        answer = await self.get(f"/api/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        detail: dict[str, Any] = answer.json()
        return detail

    async def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the job has one of `statuses`, or without any, until it has ended. Return its detail."""
        detail: dict[str, Any] = {}
        pause = poll_intervals()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (detail := await self.job(job_id))["status"] not in (statuses or ENDED):
                    assert not statuses or detail["status"] not in ENDED, f"ended without reaching {statuses}: {detail}"
                    await asyncio.sleep(next(pause))
        except TimeoutError:
            pytest.fail(f"did not reach {statuses or ENDED} in time: {detail}")
        return detail

    async def run(self, *steps: Any, **options: Any) -> dict[str, Any]:
        """Submit a job as `submit` does, wait for its end, and return its detail."""
        return await self.wait(await self.submit(*steps, **options))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        answer = await self.post(f"/api/jobs/{job_id}/cancel")
        assert answer.status_code == 200, answer.text
        detail: dict[str, Any] = answer.json()
        return detail

    async def end_jobs(self, *, wait: bool = True) -> None:
        """Cancel the user's waiting and running jobs, and wait until they have ended, unless `wait` is False."""
        pause = poll_intervals()
        async with asyncio.timeout(PATIENCE_SECONDS):
            for status in ("waiting", "active"):
                while jobs := (await self.get("/api/jobs", status=status, limit=100)).json()["jobs"]:
                    await asyncio.gather(*(self.post(f"/api/jobs/{job['id']}/cancel") for job in jobs))
                    if not wait:
                        break
                    await asyncio.sleep(next(pause))

    @asynccontextmanager
    async def log_stream(
        self, job_id: str, last_event_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[SentEvent]]:
        """Open the job's log stream. Yields an iterator of its events, which ends with the stream."""
        async with self.stream(f"/api/jobs/{job_id}/logs", last_event_id) as events:
            yield events

    @asynccontextmanager
    async def stream(self, path: str, last_event_id: str | None = None) -> AsyncIterator[AsyncIterator[SentEvent]]:
        """Open the stream at `path`. Yields an iterator of its server-sent events."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        async with self.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
            yield _sent_events(answer)

    async def full_log(self, job_id: str, last_event_id: str | None = None) -> list[SentEvent]:
        """Return all events of the job's log stream, once it has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS), self.log_stream(job_id, last_event_id) as events:
            return [event async for event in events]

    async def log_lines(self, job_id: str) -> list[str]:
        return lines_of(await self.full_log(job_id))


def a_submission(*steps: Any, config: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the submission of a job of the mock provider. steps: its script."""
    usual = {
        "source": "manual",
        "type": "code-review",
        "prompt": "Review the change.",
        "config": {"provider": "mock"} | (config or {}),
        "metadata": {"mock": {"steps": list(steps)}} if steps else {},
    }
    return usual | fields


def lines_of(events: Sequence[SentEvent]) -> list[str]:
    """Return the log lines in `events`."""
    return [event.data["log"] for event in events if "log" in event.data]


async def _sent_events(answer: httpx2.Response) -> AsyncIterator[SentEvent]:
    """Yield the events of a stream in the format of the HTML standard."""
    event_id, data = "", ""
    async for line in answer.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield SentEvent(event_id, json.loads(data))
            event_id = data = ""
        elif name == "id":
            event_id = value
        elif name == "data":
            data += value
