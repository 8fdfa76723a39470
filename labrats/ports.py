"""What a backend fulfils: Store, Runner and Clock. The docstrings are the contract; tests/conformance holds every
backend, and the in-memory fakes of the unit tests, to it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec.structs import replace

from labrats.model.ai_model import AiModel, nearest
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig, Sampling
from labrats.model.job import AgentSession, FailedCode, Job, Outputs, Usage
from labrats.model.model_files import FileOperation, FoundFile
from labrats.model.protocol import ErrorEvent, ResultEvent, Selection
from labrats.model.record import Resource

R = TypeVar("R", bound=Resource)

SUGGESTIONS: Final = 5
"""Names of AiModels in an attempt's selection, at most."""


@dataclass(frozen=True)
class Changed(Generic[R]):
    """A resource as it is now: created, or written again."""

    resource: R


@dataclass(frozen=True)
class Deleted(Generic[R]):
    """A resource that is gone, as it last was."""

    resource: R


@dataclass(frozen=True)
class Synced:
    """All that existed when the watch began has been delivered."""


Change = Changed[R] | Deleted[R] | Synced


class Store(Protocol):
    """Watchable resources. Whatever returns has reached stable storage first.

    A resource_version is a decimal number that grows with every write of the resource.

    Every call raises RetryLater when the storage is out of reach or out of space; the caller may then not know
    whether a write happened, and reads again before it repeats one.
    """

    async def get(self, kind: type[R], name: str) -> R:
        """Never older than the last write that returned. Raises NotFound."""
        ...

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        """Those of `names` that exist, in the order of `names`. What another engine has just written may be missing."""
        ...

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        """All of a kind that carry all of `labels`, ordered by name."""
        ...

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        """Add `resource` together with its `parts`, all of them or none; sets uid, resource_version and created_at.

        The parts belong to `resource` and are deleted with it. Raises Conflict, naming it, when a name is taken, and
        Taken when another of its kind has its `claim`: whoever else creates one at the same instant, one of them stays.
        After RetryLater it may be there, and without some of its parts (see labrats/intake/job_parts.py).
        """
        ...

    async def update(self, resource: R) -> R:
        """Replace the stored resource, if its resource_version is still that of `resource`.

        Raises Conflict when it was written since, NotFound when it is gone, and Taken when it now claims what another
        of its kind has. Two that share a claim, since people made them, are written as before. Returns it with its new
        version.
        """
        ...

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        """Remove it and what belongs to it. One of its name can be created at once, with parts of the same names.

        Raises NotFound; Conflict when a version is given and no longer current.
        """
        ...

    def watch(self, kind: type[R]) -> AsyncIterator[Change[R]]:
        """First everything that exists, as Changed, then Synced, then every later change, in order, none left out.

        Several writes of one resource may arrive as one. The iterator never ends by itself; a slow reader delays
        nobody. What breaks heals: while the storage is out of reach it is silent, and raises nothing.
        """
        ...

    def silent_seconds(self, kind: type[Resource]) -> float:
        """For how long the watch of `kind` has heard nothing from the storage, not even that nothing has changed.

        0 where a watch cannot be out of date.
        """
        ...


@dataclass(frozen=True)
class Attempt:
    """One run of a job: what a Runner needs to start it. `ai_model` is the configured model it runs on, if any.

    others: all configured models, for advice where none of them is the job's.
    """

    job: Job
    ai_model: AiModel | None = None
    others: Collection[AiModel] = ()

    @property
    def name(self) -> AttemptName:
        return self.job.attempt_name

    @property
    def config(self) -> JobConfig:
        """The job's settings, with those of the model that it runs on where it has none."""
        config = self.job.resolved.config
        default = self.ai_model.spec.sampling if self.ai_model else None
        return replace(config, sampling=(config.sampling or Sampling()).over(default)) if default else config

    @property
    def selection(self) -> Selection:
        """The origin of the job's provider and model."""
        resolved = self.job.resolved
        if self.ai_model:
            credentials_ref = self.ai_model.spec.credentials_ref
            return Selection(origins=resolved.origins, ai_model=self.ai_model.name, credentials_ref=credentials_ref)
        likely = nearest(self.others, resolved.provider, resolved.model)[:SUGGESTIONS]
        others = tuple(f"{each.name} ({each.spec.provider}/{each.spec.model})" for each in likely)
        return Selection(origins=resolved.origins, others=others)

    @property
    def earlier_session(self) -> AgentSession | None:
        """The one that it is to go on with: of an attempt before it, and of its provider."""
        session, status = self.job.status.session, self.job.status
        if session and session.provider == self.job.resolved.provider and 0 < session.attempt < status.attempts:
            return session
        return None


@dataclass(frozen=True)
class OutputTail:
    """What an attempt has said lately. logs: its last lines, within the bounds of JobStatus.logs."""

    logs: tuple[str, ...] = ()
    usage: Usage = Usage()
    outputs: Outputs = Outputs()
    session: AgentSession | None = None


@dataclass(frozen=True)
class NotStarted:
    """The runner knows nothing by that name: it was never started, or has been removed."""


@dataclass(frozen=True)
class Alive:
    """Its executor, or a process it left behind, may still be running."""

    pod_name: str | None = None


@dataclass(frozen=True)
class Gone:
    """Nothing of it is running, and nothing can be again.

    outcome:      its terminal event, or None when it ended without one.
    code, reason: why it has none, as far as the backend knows.
    tail:         the end of its output.
    """

    outcome: ResultEvent | ErrorEvent | None = None
    code: FailedCode = FailedCode.LOST
    reason: str = "the attempt vanished without an outcome"
    tail: OutputTail = OutputTail()


AttemptState = NotStarted | Alive | Gone


@dataclass(frozen=True)
class Place:
    """Where on a cluster an attempt runs or ran, by names that its people know. None on one machine."""

    job_name: str | None = None
    pod_name: str | None = None


class Runner(Protocol):
    """Starts, finds, follows and stops attempts, each known by its name. Attempts outlive the engine."""

    async def start(self, attempt: Attempt) -> None:
        """Start it, unless it was started before: at most one executor ever runs under a name, whoever asks.

        It goes on with the attempt's `earlier_session`, in the workspace and the home where that began, if there is one
        and these are kept; no two executors ever work in one workspace. Otherwise everything is new to it.

        Raises GiveUp when it can never start, RetryLater when it may later.
        """
        ...

    async def find(self, name: AttemptName) -> AttemptState:
        """How it stands now."""
        ...

    async def stop(self, name: AttemptName) -> None:
        """Ask it to end, and return at once. Harmless when repeated, or when it is gone."""
        ...

    async def kill(self, name: AttemptName) -> None:
        """End it and every process it started, now. When this returns, `find` says Gone, also for a name that was
        never started: no executor can start under it any more. Raises RetryLater when nobody can confirm that yet,
        as when its machine is out of reach."""
        ...

    def watch(self) -> AsyncIterator[AttemptName]:
        """The names of attempts whose state may have changed, as it happens. Never ends by itself."""
        ...

    async def place(self, name: AttemptName) -> Place:
        """Where it runs or ran, for as long as its output is kept."""
        ...

    async def tail(self, name: AttemptName) -> OutputTail:
        """The end of its output so far; empty when there is none."""
        ...

    def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        """Yield its events with a `seq` above `after_seq`, in order, as they come: whole lines of the executor's
        protocol, some 32 KiB at a time. A line may be foreign; see stored_lines and events_in.

        follow=False: until the end of what is there. follow=True: until the attempt is Gone and all is read.
        """
        ...

    async def result(self, name: AttemptName) -> Any:
        """The whole result of an attempt whose `result` event names a file. Raises NotFound when it was removed."""
        ...

    async def patch(self, name: AttemptName) -> bytes:
        """What an attempt changed in its workspace, as git prints it. Raises NotFound when none is kept."""
        ...

    async def workspaces(self) -> list[AttemptName]:
        """The attempts whose workspace is still kept."""
        ...

    async def kept(self) -> list[AttemptName]:
        """The attempts of which anything is kept, whether or not their jobs exist."""
        ...

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        """Delete what it left: workspace and inputs, and its output too unless `keep_output`. Only when it is Gone.

        With `keep_output`, nothing happens while a later attempt works in its workspace.
        """
        ...


@dataclass(frozen=True)
class ModelPlace:
    """Where the files of local models are: a folder of the engine's, or the volume of a claim on a cluster."""

    folder: str | None = None
    claim: str | None = None


class ModelFiles(Protocol):
    """The files of local models, and what is done to them. Operations outlive the engine.

    Every call raises RetryLater when they are out of reach.
    """

    @property
    def place(self) -> ModelPlace: ...

    async def scan(self) -> Sequence[FoundFile]:
        """What is there now, by provider and name."""
        ...

    async def begin(self, operation: FileOperation) -> FileOperation:
        """Have it done, and return it as it stands. On stable storage when this returns, and not forgotten.

        Only one thing is done to a file at a time: an operation that does the same and has not ended is returned in its
        place, one that does something else raises Conflict. One that has ended is forgotten.
        """
        ...

    async def operations(self) -> Sequence[FileOperation]:
        """The last one of each file, the newest first."""
        ...

    async def log(self, name: str) -> Sequence[str]:
        """What the operation by that name has said so far; all of it once it has ended. Raises NotFound."""
        ...


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. Zero or less only yields."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
