"""A request to run a job: the one form in which submissions, events, chains and applied jobs reach admission."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labrats.files.attachments import Content
from labrats.intake.events import IncomingEvent
from labrats.model.agent import AiAgent, Trigger
from labrats.model.concurrency import Concurrency
from labrats.model.config import JobConfig
from labrats.model.conversation import Conversation
from labrats.model.git_repo import FIELD as GIT_REPO_FIELD
from labrats.model.git_repo import GitRepo
from labrats.model.job import Chain, Job, Pipeline, SubmittedFields, WorkspaceUpload
from labrats.model.report import Report
from labrats.model.webhook_source import WebhookSource
from labrats.model.workspace_setup import Setup


@dataclass(frozen=True)
class RepoAddress:
    """The address of a repository as a caller wrote it: not validated, and perhaps with a credential in it.

    field: where the caller wrote it, for errors.
    """

    address: str = field(repr=False)
    field: str = GIT_REPO_FIELD


@dataclass(frozen=True)
class OpenedPullRequest:
    """A pull request on which the jobs of a chain work. commit: its last one on GitHub, if it is known."""

    url: str
    commit: str | None

    @property
    def number(self) -> int:
        """Its number, the last part of its address."""
        return int(self.url.rpartition("/")[2])

    @property
    def ref(self) -> str:
        """The reference of its head, which exists for pull requests of forks, too."""
        return f"refs/pull/{self.number}/head"


@dataclass(frozen=True)
class Texts:
    """The texts of one job. instructions: given to the agent apart from the prompt; None if there are none."""

    prompt: str
    instructions: str | None = None


@dataclass(frozen=True)
class FirstJob:
    """The job whose texts and settings a rerun or follow-up has.

    config: the settings that were chosen for it, and its provider.
    """

    job: Job
    texts: Texts
    config: JobConfig


@dataclass(frozen=True)
class FollowUp:
    """The job that a follow-up continues, by its id and uid, and the conversation up to the end of that job.

    uid: None for a job that an earlier version stored.
    """

    of: str
    uid: str | None
    conversation: Conversation


def _none(_: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A request to run one job. Its fields have the right types; Admission validates the rest.

    owner:        id of the API key, user or webhook source that the job belongs to.
    api_key_ref:  name of the Secret with that API key, if the key is stored.
    prompt:       the caller's prompt. Without one, the prompt is the agent's instructions and the event.
    errors:       observed errors of an `error-reporting` job, added to the prompt as data.
    agent_role:   `triggerName` of the agent, where a caller names it.
    agent:        the agent itself, where an event or a chain has chosen it.
    trigger:      the agent's trigger that matched the event.
    parent_result: result of the parent in the chain, added to the prompt as data.
    parent_data:  checked value of that result, for placeholders; None if the parent has no result schema.
    parent_pull_request: the pull request of the chain, which the job continues.
    submitted:    the fields that the job stores as they are.
    concurrency:  its key may have placeholders, except in a rerun or follow-up.
    repo:         a child gets its parent's repository, which was validated for the parent.
    token_from:   name of the Secret from which each attempt gets a token for the repository, instead of a credential.
    setup:        what prepares the workspace. The values of the agent apply where this sets none.
    files:        name in the workspace and contents of each file that comes with the request.
    uploads:      earlier uploads for the workspace.
    may_see:      returns whether the job may use uploads of an owner.
    is_applied:   true if the job was applied with kubectl.
    is_by_admin:  true if an administrator submitted the job, which may weaken its isolation.
    continues_admin: true if an administrator sent the event, or submitted the parent in the chain.
    untrusted:    true if an external contributor, whom the webhook source admits, caused the event.
    result_schema: JSON Schema of the result. The agent's applies if it is None, except in a rerun or follow-up.
    first:        the job that this one repeats or continues.
    follow_up:    the conversation that this job continues; None if it starts one.
    """

    source: str
    type: str
    owner: str
    api_key_ref: str | None = None
    prompt: str | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    event: IncomingEvent | None = None
    agent_role: str | None = None
    agent: AiAgent | None = None
    trigger: Trigger | None = None
    webhook_source: WebhookSource | None = None
    chain: Chain | None = None
    parent_result: Any = None
    parent_data: Any = None
    parent_pull_request: OpenedPullRequest | None = None
    config: JobConfig = field(default_factory=JobConfig)
    submitted: SubmittedFields = SubmittedFields()
    concurrency: Concurrency | None = None
    repo: RepoAddress | GitRepo | None = None
    token_from: str | None = None
    git_ref: str | None = None
    git_depth: int | None = None
    setup: Setup = Setup()
    files: Sequence[tuple[str, Content]] = ()
    uploads: Sequence[WorkspaceUpload] = ()
    may_see: Callable[[str], bool] = _none
    is_applied: bool = False
    is_by_admin: bool = False
    continues_admin: bool = False
    untrusted: bool = False
    pipeline: Pipeline | None = None
    report: Report | None = None
    result_schema: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    first: FirstJob | None = None
    follow_up: FollowUp | None = None

    @property
    def is_child(self) -> bool:
        """True if the job follows another one in a chain."""
        return self.chain is not None and self.chain.parent_job_id is not None

    @property
    def is_of_admin(self) -> bool:
        """True if an administrator started the work: the first job of the chain or conversation, or this one."""
        return self.is_by_admin or self.continues_admin or (self.first is not None and self.first.job.spec.by_admin)

    @property
    def has_next(self) -> bool:
        """True if another agent may follow the job in its chain."""
        return self.chain is not None and self.chain.next is not None

    @property
    def repo_name(self) -> str | None:
        """The `owner/repo` in the job's metadata."""
        name = self.metadata.get("repo")
        return name if isinstance(name, str) else None
