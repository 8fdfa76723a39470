"""Jobs in responses."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from labrats.api.schemas.base import IsolationName, ResponseBody, optional
from labrats.api.schemas.concurrency import ConcurrencyView, concurrency_view
from labrats.api.schemas.mcp_servers import McpServerView
from labrats.api.schemas.network import NetworkView
from labrats.api.schemas.report import PublishedView, ReportView
from labrats.api.schemas.result_schema import EXAMPLE
from labrats.api.schemas.sampling import SamplingView
from labrats.api.schemas.variables import VariablesView
from labrats.api.schemas.workspace_setup import SetupView, setup_view
from labrats.index.job_table import repo_of
from labrats.model.agent import ChainCondition
from labrats.model.git_repo import without_tokens
from labrats.model.job import AgentSession, CallbackPhase, Chain, FailedCode, Job, Outputs, Usage
from labrats.model.phases import API_STATUS, Phase
from labrats.model.waiting import WAIT_REASONS, WaitReason
from labrats.ports import OutputTail, Place

Status = Literal["waiting", "active", "completed", "failed", "cancelled"]


class UsageView(ResponseBody):
    """Usage of the job, summed over its attempts."""

    input_tokens: int = Field(examples=[1200])
    output_tokens: int = Field(examples=[340])
    cache_read_tokens: int = Field(examples=[800])
    cache_write_tokens: int = Field(description="Input tokens that were written to the provider's cache.", examples=[0])
    reasoning_tokens: int = Field(description="Output tokens of the model's hidden reasoning.", examples=[0])
    cost_usd: float | None = Field(description="Null if the model's price or its usage is unknown.", examples=[0.0125])
    cost_kind: Literal["billed", "notional"] = Field(
        description="`notional`: a subscription paid for some of it, and the cost is at list prices.",
        examples=["billed"],
    )
    turns: int = Field(description="Number of responses of the model.", examples=[3])
    seconds: float = Field(description="Time that the ended attempts held a slot.", examples=[41.7])


class JobItem(ResponseBody):
    """A job in a list."""

    id: str = Field(examples=["ir-3ab1c2d4"])
    name: str = Field(description="The job's type.", examples=["implement-issue"])
    source: str = Field(examples=["github"])
    agent_role: str | None
    repo: str | None = Field(description="From `metadata.repo`.", examples=["octocat/hello-world"])
    status: Status = Field(examples=["completed"])
    attempts: int = Field(description="Number of attempts started.", examples=[1])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    processed_at: datetime | None = Field(description="Start of the latest attempt.", examples=["2030-01-01T12:00:02Z"])
    finished_at: datetime | None = Field(examples=["2030-01-01T12:00:44Z"])
    failed_reason: str | None = Field(description="The reason, as one sentence for people.")
    chain_id: str | None
    chain_depth: int | None
    parent_job_id: str | None
    chain_path: list[str] | None
    title: str | None = Field(
        description="`metadata.title`, or else the first line of the prompt.", examples=["Add a --version flag"]
    )
    provider: str = Field(examples=["claude"])
    model: str = Field(examples=["opus"])
    priority: int | float = Field(description="Lower runs first.", examples=[2])
    failed_code: FailedCode | None = Field(description="The reason of a failure, for programs.", examples=["timeout"])
    usage: UsageView
    owner: str = Field(description="The id of the API key that submitted the job.", examples=["admin"])
    child_job_id: str | None = Field(description="The next job in the chain.")
    cancel_requested_at: datetime | None
    not_before: datetime | None = Field(
        description="A waiting job does not start before this time. `failedReason` says why a job was requeued."
    )
    activity: str | None = Field(
        description="What the agent of a running job does now, in at most 120 characters; null if it is unknown. "
        "Updated every second at most.",
        examples=["Bash: npm test"],
    )
    result: Any = optional(
        description="The agent's answer; null if it is too large for a list.",
        examples=["Done, see the branch."],
    )


class JobPage(ResponseBody):
    """One page of jobs: with a `cursor` it has `next`, without one `total` and `page`."""

    jobs: list[JobItem]
    total: int = optional(description="Number of matching jobs on all pages.", examples=[1])
    page: int = optional(examples=[1])
    next: str | None = optional(description="The cursor of the next page; null on the last one.")
    limit: int = Field(examples=[20])


class FacetValue(ResponseBody):
    """A value of a field, and the number of jobs that have it."""

    value: str = Field(examples=["opus"])
    count: int = Field(examples=[40])


class JobFacets(ResponseBody):
    """The number of matching jobs for each value of a field, the most frequent first: at most 100 values a field."""

    status: list[FacetValue]
    failed_code: list[FacetValue]
    model: list[FacetValue]
    agent_role: list[FacetValue]
    repo: list[FacetValue]
    owner: list[FacetValue] = Field(
        description="By the id of the API key, user or webhook source. Only admins see the jobs of others."
    )


class OutputsView(ResponseBody):
    """Changes that the agent made; null or empty without any."""

    branch: str | None
    commit: str | None
    pull_request_url: str | None
    commits: list[str] = Field(description="New commits, newest first, at most 50.", examples=[[]])
    files_changed: int | None = Field(description="Number of files in the patch; null if unknown.", examples=[2])
    bundle_bytes: int | None = Field(
        description="Size of the git bundle with the commits; null if there is none.", examples=[1024]
    )


class SessionView(ResponseBody):
    """A session of Claude Code or Codex."""

    provider: str = Field(description="The provider whose program has the session.", examples=["claude"])
    id: str = Field(description="The program's id of the session.", examples=["0b6c7c5e-3f0a-4b7e-9c55-3d1f6a2b8e90"])
    attempt: int = Field(description="The attempt in whose workspace the session started.", examples=[1])


class WorkspaceSetupView(SetupView):
    """The repository, without credentials, and what prepares the workspace."""

    git_repo: str = Field(examples=["https://github.com/octocat/hello-world.git"])
    git_ref: str | None = Field(examples=["main"])
    git_depth: int | None
    has_credential: bool = Field(description="True if the address came with a token, which is never shown.")


class WorkspaceFileView(ResponseBody):
    """A file that was submitted with the job."""

    name: str = Field(examples=["notes/todo.txt"])
    size: int = Field(examples=[6])


class PromptRef(ResponseBody):
    """The ConfigMap and key that hold the prompt."""

    name: str = Field(examples=["ir-3ab1c2d4-prompt"])
    key: str = Field(examples=["prompt"])


class ChainNext(ResponseBody):
    """The next agent of a chain."""

    agent: str = Field(description="Its `triggerName`.", examples=["ai-reviewer"])
    condition: ChainCondition = Field(description="The end of this job after which it starts.", examples=["on-success"])


class CallbackView(ResponseBody):
    """The outcome of the latest delivered or abandoned message to the `callbackUrl`."""

    phase: CallbackPhase
    settled_at: datetime
    problem: str | None = Field(description="Why the message was abandoned; null if it was delivered.")


class QueuePlace(ResponseBody):
    """Why a job waits, and its place in the queue."""

    reason: WaitReason = Field(
        description=" ".join(f"`{reason}`: {text}" for reason, text in WAIT_REASONS.items()),
        examples=["slots_busy"],
    )
    position: int = Field(description="Place in the queue of its model; 1 is next.", examples=[2])
    slots: int = Field(description="Slots of its model.", examples=[4])
    active: int = Field(description="Number of jobs that hold a slot.", examples=[4])
    paused_until: datetime | None
    waits_for: str | None = Field(
        description="The job of the same concurrency key that must end first; null without one.",
        examples=["ir-0a1b2c3d"],
    )
    debounced_until: datetime | None = Field(description="Null unless `reason` is `debounce`.")
    starts_after: datetime | None = Field(
        description="The job does not start before this time, whatever else it waits for; null without one."
    )
    estimate_seconds: int | None = Field(
        description="Seconds until it starts, if jobs run as long as the latest ones. Null if that is unknown: fewer"
        " than five have ended, or a job that holds a slot has run longer than all of them.",
        examples=[360],
    )


class WaitingView(QueuePlace):
    """Why a job waits, and the jobs that run instead."""

    holders: list[str] = Field(description="The jobs with a slot that the caller may see.", examples=[["ir-0a1b2c3d"]])


class ConfigView(ResponseBody):
    """The resolved settings of a job. Unset fields are absent."""

    provider: str = Field(examples=["claude"])
    model: str = Field(examples=["sonnet"])
    effort: str = Field(examples=["medium"])
    fast: bool
    timeout_ms: int = Field(examples=[3_300_000])
    max_turns: int = Field(examples=[25])
    max_attempts: int = Field(examples=[1])
    executor_image: str = optional()
    executor_resources: dict[str, dict[str, str]] = optional(
        description="Resources of the attempt's container, on Kubernetes."
    )
    react_enabled: bool = optional()
    max_cost_usd: float = optional()
    max_tokens: int = optional()
    fallback_model: str = optional()
    mcp_servers: dict[str, McpServerView] = optional(description="MCP servers, by name.")
    sampling: SamplingView = optional(description="Sampling settings of a local model.")
    env: VariablesView = optional(description="Environment variables of the agent and its tools, by name.")
    network: NetworkView = optional(description="Hosts that the agent may reach; all if absent.")
    isolation: IsolationName = optional(
        description="The least isolation that the job asks for; absent if it asks for none.", examples=["sandbox"]
    )


class JobDetail(JobItem):
    """A job in detail."""

    result: Any = optional(description="The agent's whole answer.", examples=["Done, see the branch."])
    phase: Phase = Field(examples=["Succeeded"])
    rerun_of: str | None = Field(description="The job of which this one is a rerun.")
    follow_up_of: str | None = Field(description="The job that this one continues; null if it is no follow-up.")
    concurrency: ConcurrencyView | None = Field(description="Null without a concurrency key.")
    cancelled_by: str | None = Field(
        description="The caller who cancelled the job; null if it was not cancelled, or by the engine itself.",
        examples=[None],
    )
    superseded_by: str | None = Field(
        description="The newer job of the same concurrency key for which this one was cancelled."
    )
    account_name: str | None = Field(description="The AiModel whose slot the job holds or held.")
    k8s_job_name: str | None = Field(alias="k8sJobName", description="The latest attempt's Job, on Kubernetes.")
    executor_pod_name: str | None = Field(description="The pod of that Job, once it has started.")
    returnvalue: Any = optional(description="The same as `result`.", examples=["Done, see the branch."])
    result_schema: dict[str, Any] | None = Field(
        description="The JSON Schema of the result; null if the job has none.", examples=[EXAMPLE]
    )
    result_data: Any = Field(
        description="The checked value of a job with a `resultSchema`; null before the job has succeeded.",
        examples=[{"conclusion": "success", "risk": 2}],
    )
    logs: list[str] = Field(
        description="The last lines of the log. `/api/jobs/{id}/logs` has all of them.",
        examples=[["reading the issue"]],
    )
    workspace_setup: WorkspaceSetupView | None
    workspace_files: list[WorkspaceFileView]
    prompt_ref: PromptRef | None
    waiting: WaitingView | None = Field(description="Null unless the job waits.")
    retry_refused: str | None = Field(
        description="The reason why a failed job cannot be retried now. Null if it can, and for any other job.",
        examples=[None],
    )
    deadline_at: datetime | None = Field(description="Time at which the engine stops the running attempt.")
    config: ConfigView
    config_origins: dict[str, str] = Field(
        description="The layer that each setting comes from.", examples=[{"provider": "request", "model": "built-in"}]
    )
    outputs: OutputsView
    key_exposed: bool = Field(
        description="True if the agent could read the credentials of its model: a login, which cannot be proxied."
    )
    answered_by: str | None = Field(
        description="The model that answered last, by its own name; null if that is not known.",
        examples=["claude-sonnet-5-5"],
    )
    refused_hosts: list[str] = Field(
        description="Hosts, each with its port, that `config.network` has refused to the agent; at most 50.",
        examples=[["example.com:443"]],
    )
    isolation: IsolationName | None = Field(
        description="The isolation that the job gets, which may be stronger than the one that it asks for; null in a "
        "job of an earlier version.",
        examples=["sandbox"],
    )
    session: SessionView | None = Field(
        description="The session that the next attempt resumes if its workspace still exists; null if it starts over."
    )
    chain_next: ChainNext | None = Field(
        description="The agent that may follow in the chain; null without one, and for a job outside of a chain."
    )
    chain_ended: str | None = Field(description="Why the chain has no next job, as one sentence.")
    callback: CallbackView | None = Field(description="Null before the first message.")
    report: ReportView | None = Field(description="The report of the job to GitHub; null if there is none.")
    published: PublishedView | None = Field(description="The published parts of the report; null before the first.")
    metadata: dict[str, Any] = Field(examples=[{"repo": "octocat/hello-world"}])


def job_item(job: Job) -> dict[str, Any]:
    """Return the JSON that JobItem describes."""
    status, chain, title, resolved = job.status, job.spec.chain, job.title, job.resolved
    return {
        "id": job.id,
        "name": job.spec.type,
        "source": job.spec.source,
        "agentRole": job.spec.agent_role,
        "repo": repo_of(job),
        "status": API_STATUS[job.phase],
        "attempts": status.attempts,
        "createdAt": job.created_at,
        "processedAt": status.started_at,
        "finishedAt": status.finished_at,
        "failedReason": status.failed_reason and without_tokens(status.failed_reason),
        "chainId": chain.id if chain else None,
        "chainDepth": chain.depth if chain else None,
        "parentJobId": chain.parent_job_id if chain else None,
        "chainPath": chain.path if chain else None,
        "title": title and without_tokens(title),
        "provider": resolved.provider,
        "model": resolved.model,
        "priority": job.spec.priority,
        "failedCode": status.failed_code,
        "usage": usage_view(status.usage),
        "owner": job.spec.owner,
        "childJobId": status.child_job_id,
        "cancelRequestedAt": status.cancel_requested_at,
        "notBefore": job.not_before,
        "result": status.result,
        "activity": None,  # the last field: JobItems replaces it
    }


def job_detail(
    job: Job,
    *,
    result: Any,
    live: OutputTail | None,
    activity: str | None,
    place: Place,
    waiting: dict[str, Any] | None,
    retry_refused: str | None,
) -> dict[str, Any]:
    """Return the JSON that JobDetail describes.

    result: the whole result. live, activity: the output of the running attempt so far, and what it does now.
    place: of the latest attempt.
    waiting: see WaitingView. retry_refused: see JobDetail.
    """
    spec, status, resolved = job.spec, job.status, job.resolved
    logs, usage, outputs, session = status.logs, status.usage, status.outputs, status.session
    if live:
        logs, usage, outputs, session = live.logs, usage + live.usage, live.outputs, live.session or session
    return job_item(job) | {
        "activity": activity,
        "phase": job.phase.value,
        "rerunOf": spec.rerun_of,
        "followUpOf": spec.follow_up_of,
        "concurrency": concurrency_view(spec.concurrency),
        "cancelledBy": status.cancelled_by,
        "supersededBy": status.superseded_by,
        "priority": spec.priority,
        "accountName": status.slot,
        "k8sJobName": place.job_name,
        "executorPodName": place.pod_name,
        "result": result,
        "returnvalue": result,
        "resultSchema": job.result_schema,
        "resultData": status.result_data,
        "logs": logs,
        "workspaceSetup": _workspace_setup(job),
        "workspaceFiles": [{"name": file.name, "size": file.size} for file in spec.workspace_files],
        "promptRef": {"name": job.prompt_ref.name, "key": job.prompt_ref.key} if job.prompt_ref else None,
        "failedCode": status.failed_code,
        "cancelRequestedAt": status.cancel_requested_at,
        "waiting": waiting,
        "retryRefused": retry_refused,
        "deadlineAt": status.deadline_at,
        "notBefore": job.not_before if job.phase is Phase.PENDING else None,
        "config": resolved.config,
        "configOrigins": resolved.origins,
        "usage": usage_view(usage),
        "outputs": outputs_view(outputs),
        "keyExposed": outputs.key_exposed,
        "answeredBy": outputs.answered_by,
        "refusedHosts": outputs.refused_hosts,
        "isolation": resolved.isolation,
        "session": _session(session),
        "childJobId": status.child_job_id,
        "chainNext": chain_next(spec.chain),
        "chainEnded": status.chain_ended,
        "callback": _callback(job),
        "report": spec.report,
        "published": published_view(job),
        "metadata": spec.metadata,
    }


def usage_view(usage: Usage) -> dict[str, int | float | str | None]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cacheReadTokens": usage.cache_read_tokens,
        "cacheWriteTokens": usage.cache_write_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "costUsd": usage.known_cost_usd,
        "costKind": "notional" if usage.is_notional else "billed",
        "turns": usage.turns,
        "seconds": usage.seconds,
    }


def outputs_view(outputs: Outputs) -> dict[str, Any]:
    return {
        "branch": outputs.branch,
        "commit": outputs.commit,
        "pullRequestUrl": outputs.pull_request_url,
        "commits": outputs.commits,
        "filesChanged": outputs.files_changed,
        "bundleBytes": outputs.bundle_bytes,
    }


def _session(session: AgentSession | None) -> dict[str, Any] | None:
    return {"provider": session.provider, "id": session.id, "attempt": session.attempt} if session else None


def chain_next(chain: Chain | None) -> dict[str, Any] | None:
    if chain is None or chain.next is None:
        return None
    return {"agent": chain.next.agent_trigger_name, "condition": chain.next.condition}


def _callback(job: Job) -> dict[str, Any] | None:
    if (callback := job.status.callback) is None:
        return None
    return {"phase": callback.phase, "settledAt": callback.settled_at, "problem": callback.problem}


def published_view(job: Job) -> dict[str, Any] | None:
    if (published := job.status.published) is None:
        return None
    return {
        "commentUrl": published.comment_url,
        "checkUrl": published.check_url,
        "reviewUrl": published.review_url,
        "pullRequestUrl": published.pull_request_url,
        "refused": published.refused,
        "isComplete": job.ended and job.is_published,
    }


def _workspace_setup(job: Job) -> dict[str, Any] | None:
    if (setup := job.spec.workspace_setup) is None:
        return None
    return {
        "gitRepo": without_tokens(setup.git_repo),
        "gitRef": setup.git_ref,
        "gitDepth": setup.git_depth,
        "hasCredential": setup.credentials_ref is not None,
        **setup_view(setup),
    }
