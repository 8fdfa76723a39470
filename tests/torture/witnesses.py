"""Observers of a kill test besides its clients: versions in the store, outputs of attempts, and /proc."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import msgspec

from labrats.backends.embedded.database import open_for_reading, open_for_writing
from labrats.backends.embedded.folders import Folders
from labrats.files.attempt_output import attempt_names
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job
from labrats.model.protocol import AnyEvent, ErrorEvent, LogEvent, ResultEvent, decode_event
from labrats.processes import ProcessId
from tests.torture.history import JobVersion, Line, Run

CHECK_SECONDS = 0.01

_RECORD_VERSIONS = """
    CREATE TABLE versions (number INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TRIGGER record_new AFTER INSERT ON resources WHEN new.kind = 'InferenceRequest' BEGIN
        INSERT INTO versions (at, body) VALUES (unixepoch('subsec'), new.body);
    END;
    CREATE TRIGGER record_change AFTER UPDATE ON resources WHEN new.kind = 'InferenceRequest' BEGIN
        INSERT INTO versions (at, body) VALUES (unixepoch('subsec'), new.body);
    END;
"""


# The store


def record_versions(database: Path) -> None:
    """Create a store that records every version of every job, in the transaction that writes it."""
    with closing(open_for_writing(database)) as connection:
        connection.execute(_RECORD_VERSIONS)


def recorded_versions(database: Path) -> list[JobVersion]:
    """Return every version of every job, in the order of commits."""
    with closing(open_for_reading(database)) as connection:
        rows = connection.execute("SELECT at, body FROM versions ORDER BY number")
        return [version_of(at, msgspec.json.decode(body, type=Job)) for at, body in rows]


def version_of(at: float, job: Job) -> JobVersion:
    """Convert a version of a job that was committed at that time."""
    return JobVersion(
        at=at,
        job_id=job.id,
        phase=job.phase,
        attempts=job.status.attempts,
        tag=job.spec.metadata["tag"],
        model=job.resolved.model,
        priority=job.spec.priority,
        max_attempts=job.resolved.max_attempts,
        created_at=job.created_at.timestamp(),
        not_before=_seconds(job.status.not_before),
    )


def _seconds(time_of_day: datetime | None) -> float:
    return time_of_day.timestamp() if time_of_day else 0


# Processes


@dataclass
class Sighting:
    """A process that belonged to `attempt`, or to none, at least from `first` to `last`."""

    process: ProcessId
    command: str
    attempt: str | None
    is_executor: bool
    first: float
    last: float


class ProcessWatch:
    """Scans /proc repeatedly, in a thread, for processes with `mark` in their environment.

    It recognizes an executor by its stdout, the output file of an attempt, and other processes by LABRATS_ATTEMPT.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._sightings: dict[tuple[ProcessId, str | None], Sighting] = {}
        self._alive: list[Sighting] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._scan_forever, name="process-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def sightings(self) -> Sequence[Sighting]:
        """Every observed process that belongs to an attempt."""
        return [sighting for sighting in self._sightings.values() if sighting.attempt]

    def executors(self) -> list[ProcessId]:
        """Return the executors that lived at the last scan."""
        return [sighting.process for sighting in self._alive if sighting.is_executor]

    def launchers(self) -> list[ProcessId]:
        """Return the launchers that lived at the last scan, with their executors that had no attempt."""
        return [
            sighting.process
            for sighting in self._alive
            if "labrats.executor.launcher" in sighting.command and not sighting.attempt
        ]

    def scan(self) -> list[Sighting]:
        """Return the marked processes that live now."""
        return list(self._marked_processes())

    def _scan_forever(self) -> None:
        while not self._stop.wait(CHECK_SECONDS):
            self._alive = self.scan()
            for now in self._alive:
                self._sightings.setdefault((now.process, now.attempt), now).last = now.last

    def _marked_processes(self) -> Iterator[Sighting]:
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with suppress(OSError):  # it ended meanwhile
                    if (found := self._inspect(int(entry))) is not None:
                        yield found

    def _inspect(self, pid: int) -> Sighting | None:
        before = time.time()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if self._mark not in environment:
            return None
        process = ProcessId.of(pid)
        if process is None or not process.is_alive:
            return None
        stdout = os.readlink(f"/proc/{pid}/fd/1")
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        is_executor = stdout.endswith("/output.jsonl")
        attempt = Path(stdout).parent.name if is_executor else _attempt_of(environment)
        return Sighting(process, command, attempt, is_executor, first=time.time(), last=before)


def _attempt_of(environment: bytes) -> str | None:
    for variable in environment.split(b"\0"):
        if variable.startswith(b"LABRATS_ATTEMPT="):
            return variable.partition(b"=")[2].decode()
    return None


def kill(process: ProcessId) -> bool:
    """Send SIGKILL to exactly this process. Return False if it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if ProcessId.of(process.pid) != process:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


# Runs: outputs of attempts, and sightings of their processes


def read_runs(folders: Folders, sightings: Sequence[Sighting]) -> list[Run]:
    """Return every attempt that has or had an executor."""
    seen: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        assert sighting.attempt
        seen.setdefault(sighting.attempt, []).append(sighting)
    names = sorted(attempt_names(folders.attempts))
    runs = (_run(folders, name, seen.get(str(name), ())) for name in names)
    return [run for run in runs if run]


def _run(folders: Folders, name: AttemptName, seen: Sequence[Sighting]) -> Run | None:
    folder = folders.of(name)
    claimed_by = folder.executor()
    if not isinstance(claimed_by, ProcessId):
        return None
    # An executor that lost the claim ends at once. It is not a run of the attempt.
    seen = [sighting for sighting in seen if not sighting.is_executor or sighting.process == claimed_by]
    return run_of(name, folder.output, seen)


def run_of(name: AttemptName, output: Path, seen: Sequence[Sighting] = ()) -> Run | None:
    """Return the run of an attempt, from its output and sightings; None if it has neither."""
    events = _events(output)
    begins = [sighting.first for sighting in seen] + [event.at.timestamp() for event in events[:1]]
    ends = [sighting.last for sighting in seen] + [event.at.timestamp() for event in events[-1:]]
    if not begins:
        return None
    return Run(
        job_id=name.job_id,
        attempt=name.number,
        first=min(begins),
        last=max(ends),
        seqs=tuple(event.seq for event in events),
        lines=tuple(Line(name.number, event.seq, event.text) for event in events if isinstance(event, LogEvent)),
        outcome=_outcome(events),
    )


def _events(output: Path) -> list[AnyEvent]:
    lines = output.read_bytes().splitlines() if output.exists() else []
    return [event for line in lines if (event := decode_event(line))]


def _outcome(events: Sequence[AnyEvent]) -> str | None:
    match events[-1:]:
        case [ResultEvent()]:
            return "result"
        case [ErrorEvent()]:
            return "error"
    return None
