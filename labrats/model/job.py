"""A job: what was asked (spec), what became of it (status), and the one way it changes phase."""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any, Final

from msgspec import Meta
from msgspec.structs import replace

from labrats.model.agent import ChainLink
from labrats.model.attempt_name import AttemptName
from labrats.model.config import ConfigLayer, JobConfig, ResolvedConfig, resolve_config
from labrats.model.phases import ENDED, JobEvent, Phase, next_phase
from labrats.model.record import Record, Resource

DEFAULT_PRIORITY: Final = 2
PROMPT_BYTES: Final = 900 * 1024
METADATA_BYTES: Final = 64 * 1024
TOKEN_LIFETIME: Final = timedelta(minutes=10)
"""Assumed lifetime of a git token that came with a job: no older job is retried with it."""
STATUS_LOG_LINES: Final = 100
STATUS_LOG_BYTES: Final = 32 * 1024
STATUS_RESULT_BYTES: Final = 32 * 1024


class FailedCode(StrEnum):
    """Why a job failed, for programs; `failedReason` says it for people."""

    AUTH = "auth"
    QUOTA = "quota"
    MODEL_NOT_FOUND = "model_not_found"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    CONTEXT_TOO_LONG = "context_too_long"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"
    OUTPUT_LIMIT = "output_limit"
    TIMEOUT = "timeout"
    START_TIMEOUT = "start_timeout"
    LOST = "lost"
    NODE_LOST = "node_lost"
    OUT_OF_MEMORY = "out_of_memory"
    EVICTED = "evicted"
    IMAGE_PULL = "image_pull"
    UNSCHEDULABLE = "unschedulable"
    GIT_CLONE = "git_clone"
    WORKSPACE = "workspace"
    AGENT_ERROR = "agent_error"
    EXECUTOR_DIED = "executor_died"
    INVALID = "invalid"
    INTERNAL = "internal"


PERMANENT: Final = frozenset(
    {
        FailedCode.AUTH,
        FailedCode.QUOTA,
        FailedCode.MODEL_NOT_FOUND,
        FailedCode.CONTEXT_TOO_LONG,
        FailedCode.MAX_TURNS,
        FailedCode.BUDGET,
        FailedCode.OUTPUT_LIMIT,
        FailedCode.TIMEOUT,
        FailedCode.INVALID,
    }
)
"""Failures that the same attempt would meet again: `maxAttempts` does not repeat them."""


PAUSING: Final = frozenset({FailedCode.RATE_LIMITED, FailedCode.OVERLOADED})
"""Not failures of the job: its model is left alone for a while, and the job waits again, up to its deadline."""


class KeyReference(Record):
    """One key of a ConfigMap or Secret."""

    name: str
    key: str


class WorkspaceSetup(Record):
    """The repository to clone. `git_repo` carries no credential: the Secret `credentials_ref` does, by the keys
    `username` and `password`.

    token_from: the Secret with a GitHub App's key, or a token, of which `credentials_ref` is made for each attempt.
    """

    git_repo: str
    git_ref: str | None = None
    git_depth: int | None = None
    credentials_ref: str | None = None
    token_from: str | None = None


class WorkspaceFile(Record):
    """A file for the workspace. `name` is its relative path there; `path` where the bytes lie on the uploads volume."""

    name: str
    path: str
    size: int

    def on_volume(self, uploads: PurePath) -> "WorkspaceFile":
        """The same with its whole path, where the volume is found at `uploads`."""
        return replace(self, path=str(uploads / self.path))


class WorkspaceUpload(Record):
    """A file uploaded before, for the workspace."""

    id: str
    name: str


class Pipeline(Record):
    """What runs in the place of one inference."""

    type: str


class Chain(Record):
    """Where a job stands in a chain of agents. path: the `triggerName` of each, from the first to this job's.

    next: the link that is followed when this job has ended.
    """

    id: str
    depth: int = 0
    path: tuple[str, ...] = ()
    parent_job_id: str | None = None
    next: ChainLink | None = None


class JobSpec(Record):
    """What was asked for. Never changes after creation.

    instructions_ref: what the agent works by, apart from what it is asked here.
    event_ref:        the event that its chain began with, for the agents that follow.
    resolved:         the settings it runs with. A job that was written by hand has them in its status.
    """

    source: str
    type: str
    agent_role: str | None = None
    prompt: str | None = None
    prompt_ref: KeyReference | None = None
    instructions_ref: KeyReference | None = None
    event_ref: KeyReference | None = None
    priority: int | float = DEFAULT_PRIORITY
    workspace_setup: WorkspaceSetup | None = None
    workspace_files: tuple[WorkspaceFile, ...] = ()
    workspace_uploads: tuple[WorkspaceUpload, ...] = ()
    pipeline: Pipeline | None = None
    callback_url: str | None = None
    chain: Chain | None = None
    config: JobConfig = JobConfig()
    resolved: ResolvedConfig | None = None
    metadata: dict[str, Any] = {}
    untrusted: bool = False
    """An outsider wrote what made it, whom a person has let in."""
    owner: str = ""
    """Who asked: the id of the API key. A caller sees its own jobs."""
    api_key_ref: str | None = None
    """The Secret of the API key by which it was asked for, if it was by a stored one."""

    @property
    def files(self) -> tuple[WorkspaceFile, ...]:
        """All files for the workspace. Of uploads that it names, the API makes `workspace_files`: a job that names them
        itself was written by hand, and finds them only as long as they are kept.
        """
        named = (
            WorkspaceFile(name=each.name, path=f"{each.id}/{each.name}", size=0) for each in self.workspace_uploads
        )
        return (*named, *self.workspace_files)


MOST_USED: Final = 10**12
"""Of anything, in one attempt. Far more than is possible."""


class Usage(Record):
    """What a job consumed, over all its attempts.

    input_tokens:       fresh ones. Those that came from a cache are apart.
    cache_write_tokens: the share of the input tokens that the provider wrote to its cache.
    reasoning_tokens:   how many of the output tokens nobody saw.
    cost_usd:           None where the price, or what was consumed, is not known.
    turns:              answers of a model.
    seconds:            how long it held its slot.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    turns: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens

    @property
    def known_cost_usd(self) -> float | None:
        """The cost: 0.0 while no model has answered, None where the cost of the answers is not known."""
        return 0.0 if self.cost_usd is None and not self.tokens and not self.turns else self.cost_usd

    def within_reason(self) -> "Usage":
        """This, with what no run can have consumed at the nearest that one can: a hijacked agent reports anything, and
        sums over all jobs are made of it.
        """
        return Usage(
            input_tokens=min(max(0, self.input_tokens), MOST_USED),
            output_tokens=min(max(0, self.output_tokens), MOST_USED),
            cache_read_tokens=min(max(0, self.cache_read_tokens), MOST_USED),
            cache_write_tokens=min(max(0, self.cache_write_tokens), MOST_USED),
            reasoning_tokens=min(max(0, self.reasoning_tokens), MOST_USED),
            cost_usd=None if self.cost_usd is None else min(max(0.0, self.cost_usd), MOST_USED),
            turns=min(max(0, self.turns), MOST_USED),
            seconds=self.seconds,
        )

    def __add__(self, other: "Usage") -> "Usage":
        ours, theirs = self.known_cost_usd, other.known_cost_usd
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=None if ours is None or theirs is None else ours + theirs,
            turns=self.turns + other.turns,
            seconds=self.seconds + other.seconds,
        )


class Outputs(Record):
    """What the agent made outside its text.

    branch, commit: what is checked out, where that is another than before. commits: new ones, newest first, at most 50.
    files_changed:  how many files the patch of the workspace is about; None where that is not known.
    """

    branch: str | None = None
    commit: str | None = None
    pull_request_url: str | None = None
    commits: tuple[str, ...] = ()
    files_changed: int | None = None


SESSION_ID: Final = r"^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$"
"""What an agent's program may call a session: a word that it cannot take for an option."""


class AgentSession(Record):
    """A session of an agent's own program, with which another attempt of the job can go on.

    provider: whose program it is. id: how that calls it. attempt: the number of the one in whose workspace it began.
    """

    provider: str
    id: Annotated[str, Meta(pattern=SESSION_ID)]
    attempt: int


class CallbackPhase(StrEnum):
    """What a caller is told of its job."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class CallbackStatus(Record):
    """How far the caller was told, at `callback_url`, what became of the job.

    phase:       of the last message that is done with. attempts, finished_at: those of the job, as it told them.
    problem:     why that message was given up; None when it was delivered.
    is_unwanted: the receiver wants to hear nothing more.
    """

    phase: CallbackPhase
    settled_at: datetime
    attempts: int = 0
    finished_at: datetime | None = None
    problem: str | None = None
    is_unwanted: bool = False


class JobStatus(Record):
    """What became of a job. Times are UTC.

    slot:         the AiModel (or implicit `provider/model`) whose slot the job holds or held.
    pauses:       how many of the attempts ended because the model had to be left alone.
    started_at:   when the latest attempt was admitted.
    deadline_at:  when the engine ends it. An attempt that follows a pause has the time that is left.
    not_before:   a job put back waits until then.
    logs:         the last lines, bounded; all of them are in the attempts' output.
    session:      with which the next attempt goes on, where there is one and the runner still has its workspace.
    result_cut:   the result is larger than fits here; it is in the attempt's output.
    child_job_id: the job that follows in the chain. chain_ended: why none does.
    resolved, prompt_ref, instructions_ref: what intake puts into the spec of the jobs that it makes, of a job that a
                  person wrote.
    """

    phase: Phase = Phase.PENDING
    attempts: int = 0
    pauses: int = 0
    slot: str | None = None
    started_at: datetime | None = None
    deadline_at: datetime | None = None
    finished_at: datetime | None = None
    not_before: datetime | None = None
    cancel_requested_at: datetime | None = None
    failed_code: FailedCode | None = None
    failed_reason: str | None = None
    result: Any = None
    result_cut: bool = False
    logs: tuple[str, ...] = ()
    usage: Usage = Usage()
    outputs: Outputs = Outputs()
    session: AgentSession | None = None
    child_job_id: str | None = None
    chain_ended: str | None = None
    callback: CallbackStatus | None = None
    resolved: ResolvedConfig | None = None
    prompt_ref: KeyReference | None = None
    instructions_ref: KeyReference | None = None


class Job(Resource):
    """One InferenceRequest."""

    spec: JobSpec
    status: JobStatus = JobStatus()

    @classmethod
    def kind(cls) -> str:
        return "InferenceRequest"

    @property
    def id(self) -> str:
        return self.metadata.name

    @property
    def phase(self) -> Phase:
        return self.status.phase

    @property
    def ended(self) -> bool:
        return self.status.phase in ENDED

    @property
    def attempt_name(self) -> AttemptName:
        """The name of the latest attempt."""
        return AttemptName(self.id, self.status.attempts)

    @property
    def paused_until(self) -> datetime | None:
        """Until when its model is left alone, as far as the latest attempt of this waiting job knows."""
        is_paused = self.phase is Phase.PENDING and self.status.failed_code in PAUSING
        return self.status.not_before if is_paused else None

    @property
    def is_resolved(self) -> bool:
        """Whether it has its settings and texts, as it needs to wait for a slot. A job that a person wrote gets them
        from the controller.
        """
        return (self.spec.resolved or self.status.resolved) is not None

    @property
    def resolved(self) -> ResolvedConfig:
        """The settings it runs with; as long as it is not resolved, those that it asks for itself."""
        asked = [ConfigLayer("request", self.spec.config)]
        return self.spec.resolved or self.status.resolved or resolve_config(asked)

    @property
    def prompt_ref(self) -> KeyReference | None:
        """Where its prompt is, if that is not in its spec."""
        return self.spec.prompt_ref or self.status.prompt_ref

    @property
    def instructions_ref(self) -> KeyReference | None:
        """Where its instructions are, if it has any."""
        return self.spec.instructions_ref or self.status.instructions_ref

    @property
    def created_at(self) -> datetime:
        assert self.metadata.created_at is not None, "a store sets created_at"
        return self.metadata.created_at


def advance(job: Job, event: JobEvent, **changes: Any) -> Job:
    """The job after `event`, its status changed by `changes`. Raises IllegalMove. No other code sets a phase."""
    phase = next_phase(job.phase, event)
    return replace(job, status=replace(job.status, phase=phase, **changes))


def put_back(job: Job) -> Job:
    """A failed job, waiting for another attempt. Raises IllegalMove for any other."""
    cleared = dict.fromkeys(("finished_at", "failed_code", "failed_reason", "slot", "deadline_at", "chain_ended"))
    return advance(job, JobEvent.RETRY, **cleared)


def new_job_id() -> str:
    """A fresh name: `ir-` and 8 hex digits."""
    return f"ir-{secrets.token_hex(4)}"
