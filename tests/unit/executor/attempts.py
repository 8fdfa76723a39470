"""Builders for the executor's tests: a folder with an attempt's inputs, and access to its outcome."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from labrats.executor.context import RunContext
from labrats.executor.event_lines import EventLines
from labrats.executor.event_writer import EventWriter
from labrats.model.config import JobConfig
from labrats.model.job import AgentSession, FailedCode, WorkspaceSetup
from labrats.model.protocol import (
    AnyEvent,
    ErrorEvent,
    LogEvent,
    ResultEvent,
    Resumption,
    SessionEvent,
    Task,
    ToolEvent,
    decode_event,
)
from labrats.model.record import encode
from labrats.processes import send_signal, with_environment

DEADLINE_SECONDS = 30.0

_INPUTS = ("job.json", "prompt", "instructions")


def a_task(tmp_path: Path, steps: list[Any] | None = None, **fields: Any) -> Task:
    """Build a task for the mock provider. steps: its script."""
    usual: dict[str, Any] = {
        "job_id": "ir-0000000a",
        "attempt": "ir-0000000a-1",
        "number": 1,
        "workspace": str(tmp_path / "ws"),
        "config": JobConfig(provider="mock"),
        "metadata": {} if steps is None else {"mock": {"steps": steps}},
    }
    return Task(**usual | fields)


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of an attempt for a real executor."""

    path: Path
    output: Path

    @property
    def workspace(self) -> Path:
        return self.path.parent / "ws"

    @property
    def events(self) -> list[AnyEvent]:
        return events_in(self.output)

    @property
    def outcome(self) -> ResultEvent | ErrorEvent:
        """The terminal event. Fails unless there is exactly one, at the end."""
        ends = [event for event in self.events if isinstance(event, ResultEvent | ErrorEvent)]
        assert len(ends) == 1, self.output.read_text() + (self.path / "stderr.log").read_text()
        assert self.events[-1] is not None
        assert self.events[-1].seq == ends[0].seq
        return ends[0]

    @property
    def result(self) -> Any:
        """The result. Fails unless the attempt has succeeded."""
        outcome = self.outcome
        assert isinstance(outcome, ResultEvent), outcome
        return outcome.result

    @property
    def error(self) -> ErrorEvent:
        """The error event. Fails unless the attempt has failed."""
        outcome = self.outcome
        assert isinstance(outcome, ErrorEvent), outcome
        return outcome

    @property
    def failure(self) -> tuple[FailedCode, str]:
        """The code and message of the failure. Fails unless the attempt has failed."""
        return self.error.code, self.error.message

    @property
    def tool_events(self) -> list[ToolEvent]:
        return [event for event in self.events if isinstance(event, ToolEvent)]

    @property
    def logs(self) -> list[str]:
        return logs_of(self.events)

    @property
    def task(self) -> Task:
        return msgspec.json.decode((self.path / "job.json").read_bytes(), type=Task)

    @property
    def session(self) -> AgentSession:
        """The last session that the agent's program has reported."""
        return [event.session for event in self.events if isinstance(event, SessionEvent)][-1]

    def run(self, *, without_capabilities: bool = False, seconds: float = DEADLINE_SECONDS) -> int:
        """Run `python -m labrats.executor` to the end. Return its exit status.

        without_capabilities: whether the permissions of files apply as for an ordinary user, also if this is root.
        seconds: time in which it must end.
        """
        drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
        with self.started(drop if without_capabilities else []) as process:
            return process.wait(seconds)

    @contextmanager
    def started(self, prefix: Sequence[str] = ()) -> Iterator["subprocess.Popen[bytes]"]:
        """Start `python -m labrats.executor`. Kill it when the context exits if it is still running.

        prefix: a command that executes another one, which it takes as arguments.
        """
        with (
            self.output.open("ab") as output,
            (self.path / "stderr.log").open("ab") as stderr,
            subprocess.Popen(
                [*prefix, sys.executable, "-m", "labrats.executor", str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=stderr,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()


def an_attempt(
    tmp_path: Path,
    steps: list[Any] | None = None,
    *,
    prompt: str = "Fix the bug.",
    instructions: str | None = None,
    secrets: Mapping[str, str] | None = None,
    **fields: Any,
) -> AttemptFolder:
    """Write the inputs of an attempt to a folder below `tmp_path`."""
    folder = tmp_path / "attempt"
    (folder / "secrets").mkdir(parents=True)
    for name, value in (secrets or {}).items():
        (folder / "secrets" / name).write_text(value)
    (folder / "prompt").write_text(prompt)
    if instructions is not None:
        (folder / "instructions").write_text(instructions)
    (folder / "job.json").write_bytes(encode(a_task(tmp_path, steps, **fields)))
    return AttemptFolder(folder, folder / "output.jsonl")


def the_next_attempt(
    earlier: AttemptFolder, session: AgentSession | None = None, *, secrets: Mapping[str, str] | None = None
) -> AttemptFolder:
    """Write the inputs of another attempt of the same job, which resumes `session` or the session of `earlier`.

    Its task also has a workspace of its own, for an attempt that starts over.
    """
    resumption = Resumption(
        session=session or earlier.session, workspace=str(earlier.workspace), folder=str(earlier.path)
    )
    folder = earlier.path.parent / "next" / "attempt"
    (folder / "secrets").mkdir(parents=True)
    for name in _INPUTS:
        if (earlier.path / name).exists():
            shutil.copy(earlier.path / name, folder)
    for name, value in (secrets or {}).items():
        (folder / "secrets" / name).write_text(value)
    task = replace(earlier.task, number=2, workspace=str(folder.parent / "ws"), resumption=resumption)
    (folder / "job.json").write_bytes(encode(task))
    return AttemptFolder(folder, folder / "output.jsonl")


def in_a_clone_of(repository: Path) -> dict[str, Any]:
    """Return the fields of a task whose workspace is a clone of `repository`."""
    return {"workspace_setup": WorkspaceSetup(git_repo=str(repository)), "repo_roots": (str(repository.parent),)}


def a_repository(path: Path) -> Path:
    """Create a repository with one file, `notes.txt`, that contains `old`."""
    path.mkdir()
    (path / "notes.txt").write_text("old\n")
    git(path, "init", "-q", "-b", "main")
    commit_all(path)
    return path


def commit_all(repository: Path) -> None:
    git(repository, "add", "-A")
    git(repository, "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-qm", "a commit")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Work:
    """A RunContext for a provider in this process, and the events that it has written."""

    context: RunContext
    output: Path

    @property
    def events(self) -> list[AnyEvent]:
        return events_in(self.output)

    @property
    def logs(self) -> list[str]:
        return logs_of(self.events)


@contextmanager
def some_work(tmp_path: Path, task: Task, secrets: Mapping[str, str] | None = None) -> Iterator[Work]:
    """Yield a RunContext whose workspace exists."""
    Path(task.workspace).mkdir(exist_ok=True)
    folder = tmp_path / "attempt"
    folder.mkdir()
    output = folder / "output.jsonl"
    with output.open("wb") as file:
        events = EventWriter(EventLines(file.fileno(), folder))
        yield Work(RunContext(task, "Fix the bug.", "", secrets or {}, folder, folder / "credentials", events), output)


@contextmanager
def a_unique_name() -> Iterator[str]:
    """Yield a unique name of an attempt. Kill processes with this name that a failed test has left."""
    name = f"ir-{secrets.token_hex(4)}-1"
    try:
        yield name
    finally:
        for pid in with_environment("LABRATS_ATTEMPT", name):
            send_signal(pid, signal.SIGKILL)


def events_in(output: Path) -> list[AnyEvent]:
    """Return all events in a file, which may be missing. Fails if a line is not an event."""
    if not output.exists():
        return []
    events = [decode_event(line) for line in output.read_bytes().splitlines()]
    assert None not in events
    return [event for event in events if event]


def logs_of(events: list[AnyEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, LogEvent)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Fails after a generous deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.005)
