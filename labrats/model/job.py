"""A job: the request (spec), the progress and outcome (status), and the moves between phases."""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import PurePath
from typing import Annotated, Any, Final

from msgspec import Meta
from msgspec.structs import replace

from labrats.model.agent import ChainLink
from labrats.model.attempt_name import AttemptName
from labrats.model.concurrency import Concurrency
from labrats.model.config import REQUEST_LAYER, RERUN_LAYER, ConfigLayer, JobConfig, ResolvedConfig, resolve_config
from labrats.model.errors import IllegalMove
from labrats.model.found_secrets import SecretDigest, digests_of
from labrats.model.network import MOST_REFUSED_HOSTS
from labrats.model.phases import ENDED, JobEvent, Phase, next_phase
from labrats.model.record import Record, Resource
from labrats.model.redaction import Redactor
from labrats.model.report import Published, Report, ReportMode
from labrats.model.thread_requests import REQUEST_ANNOTATION
from labrats.model.workspace_setup import Setup

OWNER_PREFIX: Final = "webhook-source/"
"""The prefix of the owner of a webhook source's jobs, before the source's name."""

DEFAULT_PRIORITY: Final = 2
PROMPT_BYTES: Final = 900 * 1024
METADATA_BYTES: Final = 64 * 1024
TOKEN_LIFETIME: Final = timedelta(minutes=10)
"""Assumed lifetime of a git token that came with a job. An older job is not retried with its token."""
STATUS_LOG_LINES: Final = 100
STATUS_LOG_BYTES: Final = 32 * 1024
STATUS_RESULT_BYTES: Final = 32 * 1024


class FailedCode(StrEnum):
    """Machine-readable cause of a failure. `failedReason` is the message for people."""

    AUTH = "auth"
    QUOTA = "quota"
    MODEL_NOT_FOUND = "model_not_found"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    CONTEXT_TOO_LONG = "context_too_long"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"
    OUTPUT_LIMIT = "output_limit"
    PROCESS_LIMIT = "process_limit"
    DISK_LIMIT = "disk_limit"
    TIMEOUT = "timeout"
    START_TIMEOUT = "start_timeout"
    LOST = "lost"
    NODE_LOST = "node_lost"
    OUT_OF_MEMORY = "out_of_memory"
    EVICTED = "evicted"
    IMAGE_PULL = "image_pull"
    UNSCHEDULABLE = "unschedulable"
    GIT_CLONE = "git_clone"
    SETUP = "setup"
    WORKSPACE = "workspace"
    AGENT_ERROR = "agent_error"
    RESULT_INVALID = "result_invalid"
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
        FailedCode.PROCESS_LIMIT,
        FailedCode.DISK_LIMIT,
        FailedCode.TIMEOUT,
        FailedCode.RESULT_INVALID,
        FailedCode.INVALID,
    }
)
"""Failures that every further attempt would meet too. `maxAttempts` does not repeat them."""


PAUSING: Final = frozenset({FailedCode.RATE_LIMITED, FailedCode.OVERLOADED})
"""Failures that pause the model instead of failing the job. The job is requeued, up to its deadline."""


JOB_ID: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""Pattern of the ids of jobs, which are names of Kubernetes."""


class KeyReference(Record):
    """One key of a ConfigMap or Secret."""

    name: str
    key: str


class WorkspaceSetup(Setup, kw_only=True):
    """The repository to clone, and what prepares the workspace. `git_repo` contains no credentials.

    credentials_ref: name of the Secret with the credentials, in the keys `username` and `password`.
    token_from:      name of a Secret with the key of a GitHub App, or a token. The engine writes the Secret
                     `credentials_ref` from it before each attempt.
    """

    git_repo: str
    git_ref: str | None = None
    git_depth: int | None = None
    credentials_ref: str | None = None
    token_from: str | None = None


FILE_PATH: Final = "^jobs/[^/]*[^/.][^/]*/[^/]*[^/.][^/]*$"
"""Pattern of the path of a job's file on the uploads volume. A pod mounts the folder of one job, never that of all."""


class WorkspaceFile(Record):
    """A file for the workspace. name: relative path in the workspace. path: location on the uploads volume."""

    name: str
    path: str
    size: int

    def on_volume(self, uploads: PurePath) -> "WorkspaceFile":
        """Return the file with its absolute path, if the volume is mounted at `uploads`."""
        return replace(self, path=str(uploads / self.path))


UPLOAD_ID: Final = "^up-[0-9a-f]{16}$"
"""Pattern of the id of an upload, which is also its folder on the uploads volume."""


class WorkspaceUpload(Record):
    """An earlier upload to copy into the workspace."""

    id: str
    name: str


class Pipeline(Record):
    """A pipeline that runs instead of a single inference."""

    type: str


class Chain(Record):
    """Position of a job in a chain.

    path: `triggerName` of each agent, from the first to that of this job.
    next: link to follow when this job has ended.
    """

    id: str
    depth: int = 0
    path: tuple[str, ...] = ()
    parent_job_id: str | None = None
    next: ChainLink | None = None


class SubmittedFields(Record):
    """The fields of a submission that its job stores as they are.

    A field here is in the body of a submission, in `labrats submit --field`, in the custom resource and in the
    dashboard's types.
    """

    priority: int | float = DEFAULT_PRIORITY
    callback_url: str | None = None
    not_before: Annotated[
        datetime | None,
        Meta(description="The job does not start before this time.", examples=["2030-01-01T12:00:00Z"]),
    ] = None


class JobSpec(SubmittedFields, kw_only=True):
    """The request. Never changes after creation.

    instructions_ref: instructions of the agent, in addition to the prompt.
    event_ref:        event that started the chain, for the next agents.
    title:            first line of the prompt.
    concurrency:      the job's concurrency key, resolved.
    rerun_of:         id of the job that this one repeats.
    follow_up_of:     id of the job that this one continues. follow_up_uid: its uid; another job may get the id later.
    conversation_ref: the conversation up to the end of that job.
    result_schema:    JSON Schema of the result, the job's own or its agent's.
    resolved:         settings of the job. A job applied with kubectl has them in its status, and so has the job of a
                      delivery once it is checked.
    """

    source: str
    type: str
    agent_role: str | None = None
    title: str | None = None
    rerun_of: str | None = None
    follow_up_of: Annotated[str, Meta(pattern=JOB_ID)] | None = None
    follow_up_uid: str | None = None
    prompt: str | None = None
    prompt_ref: KeyReference | None = None
    instructions_ref: KeyReference | None = None
    event_ref: KeyReference | None = None
    conversation_ref: KeyReference | None = None
    concurrency: Concurrency | None = None
    workspace_setup: WorkspaceSetup | None = None
    workspace_files: tuple[WorkspaceFile, ...] = ()
    workspace_uploads: tuple[WorkspaceUpload, ...] = ()
    pipeline: Pipeline | None = None
    report: Report | None = None
    result_schema: dict[str, Any] | None = None
    chain: Chain | None = None
    config: JobConfig = JobConfig()
    resolved: ResolvedConfig | None = None
    metadata: dict[str, Any] = {}
    untrusted: bool = False
    """True if an external contributor, admitted by the webhook source, wrote the event that started the job."""
    by_admin: bool = False
    """True if an administrator submitted the job, or the first one of its chain or conversation."""
    owner: str = ""
    """Id of the caller that submitted the job. A caller sees its own jobs."""
    api_key_ref: str | None = None
    """Name of the Secret of the API key that submitted the job, if the key is a stored one."""

    @property
    def files(self) -> tuple[WorkspaceFile, ...]:
        """All files for the workspace.

        The API turns uploads into `workspace_files`. Only a job applied with kubectl has `workspace_uploads`, which
        must not be deleted before it runs.
        """
        uploads = (
            WorkspaceFile(name=each.name, path=f"{each.id}/{each.name}", size=0) for each in self.workspace_uploads
        )
        return (*uploads, *self.workspace_files)


MAX_USAGE: Final = 10**12
"""Upper bound of every usage value of one attempt, far above any real one."""


class Usage(Record):
    """Consumption of a job, over all its attempts.

    input_tokens:       without those read from a cache.
    cache_write_tokens: share of the input tokens that the provider wrote to its cache.
    reasoning_tokens:   share of the output tokens that was hidden reasoning.
    cost_usd:           None if the price or the consumption is unknown.
    is_notional:        whether a subscription paid for some of it. The cost is then at list prices.
    turns:              answers of a model.
    seconds:            time for which the job held its slot.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    is_notional: bool = False
    turns: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens

    @property
    def known_cost_usd(self) -> float | None:
        """The cost: 0.0 while no model has answered, None if the cost of an answer is unknown."""
        return 0.0 if self.cost_usd is None and not self.tokens and not self.turns else self.cost_usd

    def clamped(self) -> "Usage":
        """Return the usage with impossible values moved to the nearest possible ones.

        A hijacked agent can report anything, and the values are summed over all jobs.
        """
        return Usage(
            input_tokens=min(max(0, self.input_tokens), MAX_USAGE),
            output_tokens=min(max(0, self.output_tokens), MAX_USAGE),
            cache_read_tokens=min(max(0, self.cache_read_tokens), MAX_USAGE),
            cache_write_tokens=min(max(0, self.cache_write_tokens), MAX_USAGE),
            reasoning_tokens=min(max(0, self.reasoning_tokens), MAX_USAGE),
            cost_usd=None if self.cost_usd is None else min(max(0.0, self.cost_usd), MAX_USAGE),
            is_notional=self.is_notional,
            turns=min(max(0, self.turns), MAX_USAGE),
            seconds=self.seconds,
        )

    def __add__(self, other: "Usage") -> "Usage":
        cost, other_cost = self.known_cost_usd, other.known_cost_usd
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=None if cost is None or other_cost is None else cost + other_cost,
            is_notional=self.is_notional or other.is_notional,
            turns=self.turns + other.turns,
            seconds=self.seconds + other.seconds,
        )

    def beyond(self, other: "Usage") -> "Usage":
        """Return the tokens and the known cost of this usage that are not part of the other one."""
        return Usage(
            input_tokens=max(0, self.input_tokens - other.input_tokens),
            output_tokens=max(0, self.output_tokens - other.output_tokens),
            cost_usd=max(0.0, (self.cost_usd or 0.0) - (other.cost_usd or 0.0)),
        )


MOST_COMMITS: Final = 50
"""Most new commits that a job lists."""


class Outputs(Record):
    """Results of the agent besides its answer.

    base_commit:    checked out at the start; None if unknown, as after attempts in one session on different ones.
    branch, commit: checked out at the end, if they differ from the start.
    commits:        new commits, the newest first, at most MOST_COMMITS.
    files_changed:  number of files in the patch of the workspace; None if unknown.
    bundle_bytes:   size of the git bundle with the new commits; None if there is none.
    key_exposed:    True if the agent could read the credentials of its model, which could not be proxied.
    refused_hosts:  hosts, each with its port, that the job's network rule has refused to the agent, at most
                    MOST_REFUSED_HOSTS.
    answered_by:    the model that answered last, by its own name; None if unknown.
    """

    base_commit: str | None = None
    branch: str | None = None
    commit: str | None = None
    pull_request_url: str | None = None
    commits: tuple[str, ...] = ()
    files_changed: int | None = None
    bundle_bytes: int | None = None
    key_exposed: bool = False
    refused_hosts: tuple[str, ...] = ()
    answered_by: str | None = None

    @property
    def is_bounded(self) -> bool:
        """False if an executor in an image of the caller reports more than it may."""
        return len(self.commits) <= MOST_COMMITS and len(self.refused_hosts) <= MOST_REFUSED_HOSTS


SESSION_ID: Final = r"^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$"
"""Pattern of a valid session id. No match can be mistaken for a command-line option."""


class AgentSession(Record):
    """A session of an agent CLI, which a later attempt of the job can resume.

    id:      given by the CLI of the provider.
    attempt: number of the attempt that started the session, and in whose workspace it continues.
    """

    provider: str
    id: Annotated[str, Meta(pattern=SESSION_ID)]
    attempt: int


class CallbackPhase(StrEnum):
    """Progress of a job, as callbacks report it."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class CallbackStatus(Record):
    """The last callback message that was delivered or given up.

    attempts, finished_at: as the message reported them.
    problem:               reason why the message was given up; None if it was delivered.
    is_unwanted:           whether the receiver refuses further messages.
    """

    phase: CallbackPhase
    settled_at: datetime
    attempts: int = 0
    finished_at: datetime | None = None
    problem: str | None = None
    is_unwanted: bool = False


class JobStatus(Record):
    """Progress and outcome of a job. Times are UTC.

    slot:         name of the AiModel, or `provider/model` without one, whose slot the job holds or held.
    pauses:       number of attempts that ended with a pause of the model.
    known_cost_usd: cost of those attempts whose cost is known. It counts for the limit where `usage` has no cost.
    started_at:   time when the latest attempt was admitted.
    deadline_at:  time when the engine stops the attempt. After a pause the next attempt has only the remaining time.
    not_before:   time until which a requeued job waits.
    cancelled_by:  the caller who cancelled the job; None if the engine did.
    superseded_by: id of the newer job of its concurrency key for which the job was cancelled.
    logs:         last lines, within limits. The output of the attempts has all lines.
    session:      session for the next attempt to resume, if the runner still has its workspace.
    result_cut:   whether the result is too large for the status. The output of the attempt has it.
    result_data:  the checked value of a job with a result schema.
    child_job_id: next job of the chain.
    chain_ended:  reason why the chain has no next job.
    redacted:     hashes of the found secrets that the stored texts of the job no longer contain.
    resolved, prompt_ref, instructions_ref, result_schema: set for a job applied with kubectl. Other jobs have them in
                  their spec. The job of a delivery has `resolved` in both; see Job.is_unchecked.
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
    cancelled_by: str | None = None
    superseded_by: str | None = None
    failed_code: FailedCode | None = None
    failed_reason: str | None = None
    result: Any = None
    result_cut: bool = False
    result_data: Any = None
    logs: tuple[str, ...] = ()
    usage: Usage = Usage()
    known_cost_usd: float = 0.0
    outputs: Outputs = Outputs()
    session: AgentSession | None = None
    child_job_id: str | None = None
    chain_ended: str | None = None
    callback: CallbackStatus | None = None
    published: Published | None = None
    redacted: tuple[str, ...] = ()
    resolved: ResolvedConfig | None = None
    prompt_ref: KeyReference | None = None
    instructions_ref: KeyReference | None = None
    result_schema: dict[str, Any] | None = None


class Job(Resource):
    """A job, stored as the resource InferenceRequest."""

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
    def title(self) -> str | None:
        """`metadata.title`, or else the first line of the prompt, cut to TITLE_LENGTH; None if neither is known."""
        title = self.spec.metadata.get("title")
        return title_of(title if isinstance(title, str) and title.strip() else self.spec.title or self.spec.prompt)

    @property
    def is_settled(self) -> bool:
        """True once the job has ended, was reported to its caller and to GitHub, and its chain has gone on or ended."""
        return self._caller_is_informed and not self.needs_output and not self.unredacted

    @property
    def unredacted(self) -> tuple[SecretDigest, ...]:
        """Digests of the secrets in its commits that its stored texts may still contain; empty until it has ended."""
        if not self.ended or self.status.published is None:
            return ()
        found, redacted = digests_of(self.status.published.secrets), self.status.redacted
        return tuple(digest for digest in found if digest.sha256 not in redacted)

    @property
    def is_published(self) -> bool:
        """True once the report of the job's end is written, or if there is nothing to write."""
        if self.spec.report is None or self.spec.report.mode is ReportMode.PREVIEW or self.is_unchecked:
            return True
        last = self.status.published
        return last is not None and (last.attempts, last.finished_at) == (self.status.attempts, self.status.finished_at)

    @property
    def needs_output(self) -> bool:
        """True while its report or the next job of its chain may still read the output of its attempts."""
        return not (self.ended and self.is_published and self._chain_is_decided)

    @property
    def _caller_is_informed(self) -> bool:
        if self.spec.callback_url is None:
            return True
        if (last := self.status.callback) is None:
            return False
        return last.is_unwanted or (last.attempts, last.finished_at) == (self.status.attempts, self.status.finished_at)

    @property
    def _chain_is_decided(self) -> bool:
        has_next = self.spec.chain is not None and self.spec.chain.next is not None
        return not has_next or self.status.child_job_id is not None or self.status.chain_ended is not None

    @property
    def attempt_name(self) -> AttemptName:
        """The name of the latest attempt. On Kubernetes, its Job has the same name."""
        return AttemptName(self.id, self.status.attempts)

    @property
    def paused_until(self) -> datetime | None:
        """End of the pause of its model that the latest attempt reported; None if the job does not wait for one.

        All jobs of the model wait for it. The executor in an image that the caller has chosen may report anything, so
        that it delays its own job only.
        """
        is_paused = self.phase is Phase.PENDING and self.status.failed_code in PAUSING
        if not is_paused or self.resolved.origins.get("executorImage") in (REQUEST_LAYER, RERUN_LAYER):
            return None
        return self.status.not_before

    @property
    def debounced_until(self) -> datetime | None:
        """Time until which the job waits for newer ones of its concurrency key; None if it does not."""
        concurrency = self.spec.concurrency
        if concurrency is None or not concurrency.debounce_seconds:
            return None
        return self.created_at + timedelta(seconds=concurrency.debounce_seconds)

    @property
    def not_before(self) -> datetime | None:
        """Time before which its caller wants no start, or until which it was put back; None without one."""
        return max(filter(None, (self.spec.not_before, self.status.not_before)), default=None)

    @property
    def starts_after(self) -> datetime | None:
        """Time before which a Pending job must not start; None if it may start at once."""
        return max(filter(None, (self.not_before, self.debounced_until)), default=None)

    @property
    def is_resolved(self) -> bool:
        """True once the job has its settings and texts, and so can be queued.

        The controller resolves a job applied with kubectl, and checks the job of a delivery.
        """
        return (self.spec.resolved or self.status.resolved) is not None and not self.is_unchecked

    @property
    def is_unchecked(self) -> bool:
        """True for the job of a delivery until the controller has checked its spec. Nothing may act on the spec before.

        A receiver of webhooks, which on a cluster faces the internet, may have written it. Receivers create no other
        kind of job: none of a chain, no rerun or follow-up, and none for a request from a thread.
        """
        spec = self.spec
        is_of_engine = (spec.chain and spec.chain.parent_job_id) or spec.rerun_of or spec.follow_up_of
        return (
            spec.owner.startswith(OWNER_PREFIX)
            and spec.resolved is not None
            and self.status.resolved is None
            and self.status.attempts == 0
            and not is_of_engine
            and REQUEST_ANNOTATION not in self.metadata.annotations
        )

    @property
    def resolved(self) -> ResolvedConfig:
        """Settings of the job. Until it is resolved, they are those of its own request."""
        layers = [ConfigLayer(REQUEST_LAYER, self.spec.config)]
        return self.status.resolved or self.spec.resolved or resolve_config(layers)

    @property
    def prompt_ref(self) -> KeyReference | None:
        """Location of its prompt, if the spec does not contain it."""
        return self.spec.prompt_ref or self.status.prompt_ref

    @property
    def instructions_ref(self) -> KeyReference | None:
        """Location of its instructions, if it has any."""
        return self.spec.instructions_ref or self.status.instructions_ref

    @property
    def result_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the result; None if any result is valid."""
        own = self.spec.result_schema
        return self.status.result_schema if own is None else own

    @property
    def created_at(self) -> datetime:
        assert self.metadata.created_at is not None, "a store sets created_at"
        return self.metadata.created_at


def without_secrets(job: Job, redactor: Redactor) -> Job:
    """Return the job with the texts that its agent has written redacted."""
    status = job.status
    return replace(
        job,
        status=replace(
            status,
            result=redactor.redact_value(status.result),
            result_data=redactor.redact_value(status.result_data),
            failed_reason=status.failed_reason and redactor.redact(status.failed_reason),
            logs=tuple(map(redactor.redact, status.logs)),
        ),
    )


def without_large_fields(job: Job) -> Job:
    """Return the job with only the fields that decide when it starts. It must not be stored.

    Very many jobs may wait, and one with all its fields may take some MiB.
    """
    spec, status, chain = job.spec, job.status, job.spec.chain
    annotations = {name: value for name, value in job.metadata.annotations.items() if name == REQUEST_ANNOTATION}
    return replace(
        job,
        metadata=replace(job.metadata, labels={}, annotations=annotations),
        spec=replace(
            spec,
            prompt=None,
            title=None,
            workspace_setup=None,
            workspace_files=(),
            workspace_uploads=(),
            report=None,
            result_schema=None,
            chain=chain and Chain(id=chain.id, parent_job_id=chain.parent_job_id),
            config=_brief_config(spec.config),
            resolved=spec.resolved and replace(spec.resolved, config=_brief_config(spec.resolved.config)),
            metadata={},
        ),
        status=replace(
            status,
            failed_reason=None,
            result=None,
            result_data=None,
            logs=(),
            outputs=Outputs(),
            published=None,
            resolved=status.resolved and replace(status.resolved, config=_brief_config(status.resolved.config)),
            result_schema=None,
        ),
    )


def _brief_config(config: JobConfig) -> JobConfig:
    return JobConfig(provider=config.provider, model=config.model)


def title_of(text: str | None) -> str | None:
    """Return the first line of a text that is not blank, cut to TITLE_LENGTH; None if there is none."""
    lines = (line.strip() for line in (text or "")[:_TITLE_SEARCH].splitlines())
    first = next((line for line in lines if line), None)
    return first if first is None or len(first) <= TITLE_LENGTH else f"{first[: TITLE_LENGTH - 1].rstrip()}…"


TITLE_LENGTH: Final = 120
"""Characters of a job's title."""

_TITLE_SEARCH: Final = 10_000


def advance(job: Job, event: JobEvent, **changes: Any) -> Job:
    """Return the job after an event, with changes to its status. Raises IllegalMove. No other code sets a phase."""
    phase = next_phase(job.phase, event)
    return replace(job, status=replace(job.status, phase=phase, **changes))


def retried(job: Job) -> Job:
    """Return a Failed job as Pending, with its failure cleared. Raises IllegalMove for any other job."""
    cleared = dict.fromkeys(("finished_at", "failed_code", "failed_reason", "slot", "deadline_at", "chain_ended"))
    return advance(job, JobEvent.RETRY, redacted=(), **cleared)


def after_retry_request(job: Job, now: datetime) -> Job:
    """Return a Failed job as Pending. Raises IllegalMove for any other job, and for one whose git token has expired."""
    pending = retried(job)
    check_git_token(job, now)
    return pending


def git_secret_name(job_id: str) -> str:
    """Return the name of the Secret with a git token that the engine stores for a job."""
    return f"{job_id}-git"


def check_git_token(job: Job, now: datetime) -> None:
    """Raise IllegalMove if the git token that came with the job has likely expired."""
    setup = job.spec.workspace_setup
    came_with_token = setup and setup.credentials_ref and not setup.token_from
    if came_with_token and now - job.created_at > TOKEN_LIFETIME:
        message = "the job's git token is more than 10 minutes old and has likely expired; submit the job again"
        raise IllegalMove(message)


def after_cancel_request(job: Job, now: datetime, by: str | None = None) -> Job:
    """Return a Pending job as Cancelled, and a Running one with the request. Raises IllegalMove for an ended job.

    by: the caller who requests it; None for the engine itself.
    """
    if job.phase is not Phase.RUNNING:
        return advance(job, JobEvent.CANCEL, finished_at=now, cancel_requested_at=now, cancelled_by=by)
    if job.status.cancel_requested_at:
        return job
    return replace(job, status=replace(job.status, cancel_requested_at=now, cancelled_by=by))


def after_publish_request(job: Job, now: datetime) -> Job:
    """Return an ended job whose report is to be written again. Raises IllegalMove for a job without one to write."""
    if not job.ended:
        raise IllegalMove("the job has not ended; its report is written again once it has")
    report, published = job.spec.report, job.status.published or Published()
    if report is None or report.target is None:
        raise IllegalMove("the job has no report to GitHub")
    if report.mode is ReportMode.PREVIEW:
        raise IllegalMove("the report of the job has the mode `preview`, in which nothing is written")
    again = replace(published, refused=(), attempts=0, finished_at=None, requested_at=now)
    return replace(job, status=replace(job.status, published=again))


def superseded(job: Job, by: str, now: datetime) -> Job:
    """Return the job, which is live, as cancelled or being cancelled for a newer job of its concurrency key."""
    cancelled = after_cancel_request(job, now)
    return replace(cancelled, status=replace(cancelled.status, superseded_by=by))


def new_job_ids(number: int) -> list[str]:
    """Return random ids, each `ir-` and 8 hex digits."""
    digits = secrets.token_hex(4 * number)
    return [f"ir-{digits[8 * each : 8 * each + 8]}" for each in range(number)]


DEFAULT_BRANCH_ANNOTATION: Final = "labrats.work/default-branch"
"""Annotation of the job of an event, with the default branch of the event's repository."""


def cache_scope(job: Job) -> str:
    """Return the name of the folder with the job's cached folders.

    Jobs of one repository, ref and owner share it: an agent may have made the commits of another ref, and setup
    commands run what these contain. Those of external contributors have one of their own, so that nothing they store
    reaches a trusted job; and so have jobs applied with kubectl, whose owner is what their author wrote.
    """
    return _cache_scope(job, _other_ref(job))


def base_cache_scope(job: Job) -> str | None:
    """Return the scope of the default branch, whose cached folders a job of another ref gets, too; None for others."""
    return _cache_scope(job, None) if _other_ref(job) else None


def _other_ref(job: Job) -> str | None:
    """Return the ref that a job checks out; None for the default branch, as far as that is known."""
    setup = job.spec.workspace_setup
    ref = ((setup and setup.git_ref) or "").removeprefix("refs/heads/")
    return ref if ref and ref != job.metadata.annotations.get(DEFAULT_BRANCH_ANNOTATION) else None


def _cache_scope(job: Job, ref: str | None) -> str:
    setup, trust = job.spec.workspace_setup, "untrusted" if job.spec.untrusted else "trusted"
    if job.spec.resolved is None:
        trust = f"applied, {trust}"
    parts = [setup.git_repo if setup else "", job.spec.owner, trust, *([ref] if ref else [])]
    return sha256("\n".join(parts).encode()).hexdigest()[:32]
