"""The ports that a backend implements: Store, Runner, ModelFiles and Clock. The docstrings are the contract.

tests/conformance checks every backend, and the in-memory fakes of the unit tests, against it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, Generic, Protocol, TypeVar

from msgspec.structs import replace

from labrats.model.ai_model import AiModel, most_similar
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig, Sampling
from labrats.model.errors import Conflict, GiveUp, Taken
from labrats.model.isolation import Isolation, IsolationLevels, strength
from labrats.model.job import AgentSession, FailedCode, Job, Outputs, Usage
from labrats.model.model_files import FileOperation, FoundFile
from labrats.model.network import Network
from labrats.model.protocol import ErrorEvent, ResultEvent, Selection
from labrats.model.record import Resource
from labrats.model.redaction import Redactor

R = TypeVar("R", bound=Resource)

SUGGESTIONS: Final = 5
"""The maximum number of AiModels that an attempt's selection suggests."""


@dataclass(frozen=True)
class Changed(Generic[R]):
    """The current state of a resource that was created or updated."""

    resource: R


@dataclass(frozen=True)
class Deleted(Generic[R]):
    """The last state of a resource that was deleted."""

    resource: R


@dataclass(frozen=True)
class Synced:
    """A marker in a watch: every resource that existed at its beginning has been delivered."""


@dataclass(frozen=True)
class DeletedUnseen:
    """A resource that was deleted after the version from which a watch resumes, and before it began."""

    name: str


@dataclass(frozen=True)
class Reset:
    """A marker in a watch: it cannot resume. Forget everything; every existing resource follows."""


Change = Changed[R] | Deleted[R] | DeletedUnseen | Reset | Synced


class Store(Protocol):
    """A store of resources that can be watched. A write has reached stable storage when the call returns.

    A resource_version is a decimal number that grows with every write of the resource.

    Every call raises RetryLater while the storage is unreachable or full. The write may have happened nevertheless:
    read the resource before repeating it.
    """

    async def get(self, kind: type[R], name: str) -> R:
        """Return the resource. It is never older than the last completed write. Raises NotFound."""
        ...

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        """Return the existing resources among `names`, in that order.

        What another engine has just written may be missing: a new resource, or the latest version of one.
        """
        ...

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        """Return all resources of a kind that have all of `labels`, ordered by name."""
        ...

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        """Create `resource` together with its `parts`, all or none, and return it with uid, version and creation time.

        The creation time is that in the metadata of `resource`, which must be within a minute of now, or else now. The
        parts belong to `resource` and are deleted with it.

        Raises Conflict, with the name, if a name is taken, and Taken if another resource of the kind has the same
        `claim`; of two that are created at the same instant, one succeeds. After RetryLater the resource may exist,
        possibly without some of its parts (see labrats/intake/job_parts.py).
        """
        ...

    async def update(self, resource: R) -> R:
        """Replace the stored resource, and return it with its new version.

        Raises Conflict if the stored version is no longer that of `resource`, NotFound if there is none, and Taken if
        the update claims what another resource of the kind has. Resources that already share a claim, after writes with
        kubectl, can still be updated.
        """
        ...

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        """Delete a resource with its parts. The names can be reused at once.

        Raises NotFound, and Conflict if `resource_version` is given and no longer current.
        """
        ...

    @property
    def identity(self) -> str:
        """An id of the storage, within which resource versions can be compared for ever; empty where they cannot."""
        ...

    def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        """Yield every existing resource as Changed, then Synced, then every later change in order.

        after: resume from this resource version of the same `identity`. Before Synced come only resources that were
        written since, in the order of their versions, and DeletedUnseen for each that was deleted since; or Reset and
        every resource, when the deletions since are no longer known.
        unsettled_only: before Synced come only resources that are not `is_settled`.

        Several writes of one resource may arrive as one change. The iterator never ends by itself, and a slow reader
        delays nobody. While the storage is unreachable, the watch yields nothing and raises nothing; then it resumes.
        """
        ...

    def silent_seconds(self, kind: type[Resource]) -> float:
        """Return the seconds since the storage last sent anything on the watch of `kind`, even a sign of no change.

        0 for a watch that cannot be out of date.
        """
        ...


async def compare_and_set(store: Store, read: Callable[[], Awaitable[R]], change: Callable[[R], R]) -> tuple[R, R]:
    """Read a resource and store the result of `change`. Start over when another writer stored the resource meanwhile.

    change: returns the resource to store, or the same object to store nothing. A resource without a version is created.

    Returns the resource before and after the change. Raises what `read` and `change` raise, and Taken.
    """
    while True:
        before = await read()
        after = change(before)
        if after is before:
            return before, before
        try:
            write = store.update if after.metadata.resource_version else store.create
            return before, await write(after)
        except Taken:
            raise
        except Conflict:
            continue


@dataclass(frozen=True)
class Attempt:
    """One run of a job, with everything a Runner needs to start it.

    ai_model: the configured model that it runs on, if any.
    others:   all configured models: for their prices, and to suggest some when the job's model is not configured.
    followed: the job that this one continues, if it still exists.
    """

    job: Job
    ai_model: AiModel | None = None
    others: Collection[AiModel] = ()
    followed: Job | None = None

    @property
    def name(self) -> AttemptName:
        return self.job.attempt_name

    @property
    def config(self) -> JobConfig:
        """The job's settings, completed by the sampling defaults of its model."""
        config = self.job.resolved.config
        default = self.ai_model.spec.sampling if self.ai_model else None
        return replace(config, sampling=(config.sampling or Sampling()).with_defaults(default)) if default else config

    @property
    def selection(self) -> Selection:
        """The origin of the job's provider and model."""
        resolved = self.job.resolved
        if self.ai_model:
            credentials_ref = self.ai_model.spec.credentials_ref
            return Selection(origins=resolved.origins, ai_model=self.ai_model.name, credentials_ref=credentials_ref)
        likely = most_similar(self.others, resolved.provider, resolved.model)[:SUGGESTIONS]
        others = tuple(f"{each.name} ({each.spec.provider}/{each.spec.model})" for each in likely)
        return Selection(origins=resolved.origins, others=others)

    def isolation_in(self, levels: IsolationLevels) -> Isolation:
        """Return the isolation that the attempt gets where these levels exist. Raises GiveUp if it cannot have any."""
        asked, untrusted = self.job.resolved.isolation or levels.default, self.job.spec.untrusted
        wanted = max(asked, levels.untrusted, key=strength) if untrusted else asked
        if level := levels.at_least(wanted):
            provider, by_admin = self.job.resolved.provider, self.job.spec.by_admin
            if problem := levels.problem_without_sandbox(level, provider, by_admin=by_admin):
                raise GiveUp(FailedCode.INVALID, f"the isolation of the job {problem}")
            return level
        reason = f"the isolation of the job {levels.problem_of(wanted)}"
        if wanted is not asked:
            reason = (
                f"an external contributor caused this job, and {reason} LABRATS_UNTRUSTED_ISOLATION sets the minimum."
            )
        raise GiveUp(FailedCode.INVALID, reason)

    @property
    def earlier_session(self) -> AgentSession | None:
        """The session to resume: of an earlier attempt of the same provider. None if there is none."""
        session, status = self.job.status.session, self.job.status
        if session and session.provider == self.job.resolved.provider and 0 < session.attempt < status.attempts:
            return session
        return None

    @property
    def continued(self) -> AttemptName | None:
        """The attempt whose workspace this one may copy: of the followed job, of the same repository and trust."""
        followed = self.followed
        if followed is None or not followed.ended or followed.status.attempts == 0:
            return None
        if followed.spec.untrusted != self.job.spec.untrusted:
            return None
        if _checkout_of(followed)[0] != _checkout_of(self.job)[0]:
            return None
        session = followed.status.session
        return AttemptName(followed.id, session.attempt if session else followed.status.attempts)

    @property
    def starts_at_head(self) -> bool:
        """True if the job starts from another ref than the followed one: a head with that job's and others' commits."""
        return self.followed is not None and _checkout_of(self.followed) != _checkout_of(self.job)

    @property
    def continued_session(self) -> AgentSession | None:
        """The session that a copy of that workspace may resume: one of the same provider."""
        session = self.followed.status.session if self.followed else None
        return session if session and session.provider == self.job.resolved.provider else None


def _checkout_of(job: Job) -> tuple[str | None, str | None]:
    """Return the repository of a job and the ref that it starts from."""
    setup = job.spec.workspace_setup
    return (setup.git_repo, setup.git_ref) if setup else (None, None)


@dataclass(frozen=True)
class OutputTail:
    """The end of an attempt's output.

    logs:     its last lines, within the bounds of JobStatus.logs.
    last_seq: the number of its last event; 0 without one.
    """

    logs: tuple[str, ...] = ()
    usage: Usage = Usage()
    outputs: Outputs = Outputs()
    session: AgentSession | None = None
    last_seq: int = 0


@dataclass(frozen=True)
class NotStarted:
    """The runner does not know the attempt: it was never started, or has been removed."""


@dataclass(frozen=True)
class Alive:
    """The attempt's executor, or a process that the executor left behind, may still be running."""

    pod_name: str | None = None


@dataclass(frozen=True)
class Gone:
    """No process of the attempt is running, and none can start any more.

    outcome:      its terminal event; None if it ended without one.
    code, reason: the cause of a missing outcome, as far as the backend knows it.
    tail:         the end of its output.
    """

    outcome: ResultEvent | ErrorEvent | None = None
    code: FailedCode = FailedCode.LOST
    reason: str = "the attempt vanished without an outcome"
    tail: OutputTail = OutputTail()


AttemptState = NotStarted | Alive | Gone


@dataclass(frozen=True)
class Place:
    """The names of an attempt's Job and pod on a cluster; None on a single machine."""

    job_name: str | None = None
    pod_name: str | None = None


class Runner(Protocol):
    """A service that starts, finds, follows and stops attempts by their names. Attempts outlive the engine."""

    @property
    def isolation(self) -> IsolationLevels:
        """The levels of isolation that attempts can have here."""
        ...

    def network_problem(self, network: Network | None = None) -> str | None:
        """Return why the network of agents cannot be restricted here, as a part of a sentence; None if it can.

        network: the rule; None for rules in general.
        """
        ...

    def untrusted_network_problem(self) -> str | None:
        """Return why the network of an external contributor's job must not be open here; None if it may be."""
        ...

    async def start(self, attempt: Attempt) -> None:
        """Start the attempt unless it was started before. At most one executor ever runs under a name.

        With an `earlier_session` whose workspace and home still exist, the attempt resumes it there. Any other attempt
        starts in a fresh workspace. Two executors never work in the same workspace.

        Raises GiveUp when the attempt can never start, RetryLater when it may start later.
        """
        ...

    async def find(self, name: AttemptName) -> AttemptState:
        """Return the current state of an attempt."""
        ...

    async def stop(self, name: AttemptName) -> None:
        """Ask an attempt to end, and return at once. Repeating it is harmless, and so is stopping one that is Gone."""
        ...

    async def kill(self, name: AttemptName) -> None:
        """Kill an attempt with every process that it started. When this returns, `find` returns Gone.

        That holds for a name that was never started, too: no executor can start under it any more. Raises RetryLater
        while nobody can confirm the end, for example because the machine is unreachable.
        """
        ...

    def watch(self) -> AsyncIterator[AttemptName]:
        """Yield the name of each attempt whose state may have changed. Never ends by itself."""
        ...

    async def place(self, name: AttemptName) -> Place:
        """Return the names of the attempt's Job and pod, for as long as its output is retained."""
        ...

    async def tail(self, name: AttemptName) -> OutputTail:
        """Return the end of the attempt's output so far; empty when there is none."""
        ...

    async def activity(self, name: AttemptName) -> str | None:
        """Return what the attempt does now, see labrats/model/activity.py; None if the end of its output has none.

        It reads much less than `tail`.
        """
        ...

    def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        """Yield the attempt's events with a `seq` above `after_seq`, in order: whole lines, some 32 KiB at a time.

        A line may not be an event of the protocol; see stored_lines and events_in.

        follow=False: ends at the end of the present output. follow=True: ends once the attempt is Gone and all is read.
        """
        ...

    async def result(self, name: AttemptName) -> Any:
        """Return the complete result of an attempt whose `result` event names a file. Raises NotFound if it is gone."""
        ...

    async def patch(self, name: AttemptName) -> BinaryIO:
        """Open the attempt's changes to its workspace, a git patch. Raises NotFound when none is retained.

        It may be large: read it in pieces.
        """
        ...

    async def changes_so_far(self, name: AttemptName) -> BinaryIO:
        """Open the changes of a running attempt so far, or its patch once it has ended. Raises NotFound without any.

        They may be some seconds old.
        """
        ...

    async def bundle(self, name: AttemptName) -> BinaryIO:
        """Open the attempt's commits, a git bundle with the ref BUNDLE_REF. Raises NotFound when none is retained.

        Its prerequisite is the commit that was cloned. An agent chose the content: check it before use.
        """
        ...

    async def publication(self, name: AttemptName) -> bytes:
        """Return what the agent proposes to publish, as JSON for parse_publication. Raises NotFound without any."""
        ...

    async def redact(self, name: AttemptName, redactor: Redactor) -> None:
        """Redact the output of an attempt that is Gone: its events, result, patch and publication.

        Its workspace, its commits and its session stay as they are. Repeating it is harmless.
        """
        ...

    async def workspaces(self) -> list[AttemptName]:
        """Return the names of the attempts whose workspace is retained."""
        ...

    async def workspace_bytes(self, name: AttemptName) -> int:
        """Return the size of an attempt's workspace on the disk, with the agent's home; 0 if it is not retained."""
        ...

    async def remove_output(self, name: AttemptName) -> int:
        """Delete the output of an attempt that is Gone, but its end. A log line says that the rest was deleted.

        On a cluster, a stored session is a part of the output. Return the bytes that became free on the disk.
        """
        ...

    def retained(self) -> AsyncIterator[list[AttemptName]]:
        """Yield the names of the attempts of which anything is retained, in batches. Their jobs may not exist."""
        ...

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        """Delete the workspace and inputs of an attempt that is Gone, and its output unless `keep_output`.

        With `keep_output`, do nothing while a later attempt works in the workspace.
        """
        ...


@dataclass(frozen=True)
class ModelPlace:
    """The location of model files: a folder of the engine, or the volume of a PersistentVolumeClaim."""

    folder: str | None = None
    claim: str | None = None


class ModelFiles(Protocol):
    """The files of local models, and operations on them, which outlive the engine.

    Every call raises RetryLater while the files are unreachable.
    """

    @property
    def place(self) -> ModelPlace: ...

    async def scan(self) -> Sequence[FoundFile]:
        """Return the present files, by provider and name."""
        ...

    async def begin(self, operation: FileOperation) -> FileOperation:
        """Begin the operation and return it. It is on stable storage when this returns, and survives a restart.

        At most one operation per file is active. If an equal one is active, it is returned instead; a different one
        raises Conflict. The new operation replaces one that has ended.
        """
        ...

    async def operations(self) -> Sequence[FileOperation]:
        """Return the last operation of each file, newest first."""
        ...

    async def log(self, name: str) -> Sequence[str]:
        """Return the log of an operation so far; complete once it has ended. Raises NotFound."""
        ...


@dataclass(frozen=True)
class ControllerLease:
    """The last sign of life of the engine that drives jobs. holder: its name; None if none does.

    renewed_at: by its clock. seconds: time from then on for which it counts as alive.
    """

    holder: str | None = None
    renewed_at: datetime | None = None
    seconds: float = 0.0

    def is_alive(self, now: datetime) -> bool:
        """Return whether an engine drives jobs."""
        if self.holder is None or self.renewed_at is None:
            return False
        return (now - self.renewed_at).total_seconds() <= self.seconds


class Clock(Protocol):
    """A source of time, which tests replace."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep. Zero or less only yields to other tasks."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
