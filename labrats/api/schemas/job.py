"""How jobs look to callers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from labrats.api.schemas.base import ResponseBody, optional
from labrats.api.schemas.mcp_servers import McpServerView
from labrats.api.schemas.sampling import SamplingView
from labrats.index.jobs import repo_of
from labrats.model.git_repo import without_tokens
from labrats.model.job import AgentSession, CallbackPhase, FailedCode, Job, Outputs, Usage
from labrats.model.phases import API_STATUS, Phase
from labrats.ports import OutputTail, Place

Status = Literal["waiting", "active", "completed", "failed", "cancelled"]


class JobItem(ResponseBody):
    """A job in a list."""

    id: str = Field(examples=["ir-3ab1c2d4"])
    name: str = Field(description="The job's type.", examples=["implement-issue"])
    source: str = Field(examples=["github"])
    agent_role: str | None
    repo: str | None = Field(description="From `metadata.repo`.", examples=["octocat/hello-world"])
    status: Status = Field(examples=["completed"])
    attempts: int = Field(description="Attempts begun so far.", examples=[1])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    processed_at: datetime | None = Field(
        description="When the latest attempt was started.", examples=["2030-01-01T12:00:02Z"]
    )
    finished_at: datetime | None = Field(examples=["2030-01-01T12:00:44Z"])
    failed_reason: str | None = Field(description="One sentence for people.")
    chain_id: str | None
    chain_depth: int | None
    parent_job_id: str | None
    chain_path: list[str] | None
    result: Any = Field(
        description="What the agent answered; null where it is too large for a list.",
        examples=["Done, see the branch."],
    )


class JobPage(ResponseBody):
    """One page of jobs, newest first."""

    jobs: list[JobItem]
    total: int = Field(description="How many match, on all pages.", examples=[1])
    page: int = Field(examples=[1])
    limit: int = Field(examples=[20])


class UsageView(ResponseBody):
    """What the job consumed, over all its attempts."""

    input_tokens: int = Field(examples=[1200])
    output_tokens: int = Field(examples=[340])
    cache_read_tokens: int = Field(examples=[800])
    cache_write_tokens: int = Field(
        description="The share of the input tokens that was written to the provider's cache.", examples=[0]
    )
    reasoning_tokens: int = Field(description="How many of the output tokens nobody saw.", examples=[0])
    cost_usd: float | None = Field(
        description="Null where the model's price, or what it consumed, is not known.", examples=[0.0125]
    )
    turns: int = Field(description="Answers of a model.", examples=[3])
    seconds: float = Field(description="How long its ended attempts held a slot.", examples=[41.7])


class OutputsView(ResponseBody):
    """What the agent made, where it did."""

    branch: str | None
    commit: str | None
    pull_request_url: str | None
    commits: list[str] = Field(description="New commits, newest first, at most 50.", examples=[[]])
    files_changed: int | None = Field(
        description="How many files the patch is about; null where that is not known.", examples=[2]
    )


class SessionView(ResponseBody):
    """A session of the agent's own program."""

    provider: str = Field(description="Whose program it is.", examples=["claude"])
    id: str = Field(description="How that calls it.", examples=["0b6c7c5e-3f0a-4b7e-9c55-3d1f6a2b8e90"])
    attempt: int = Field(description="In whose workspace it began.", examples=[1])


class WorkspaceSetupView(ResponseBody):
    """The repository, without any credential."""

    git_repo: str = Field(examples=["https://github.com/octocat/hello-world.git"])
    git_ref: str | None = Field(examples=["main"])
    git_depth: int | None
    has_credential: bool = Field(description="Whether a token came with the address; it is never shown.")


class WorkspaceFileView(ResponseBody):
    """A file that came with the job."""

    name: str = Field(examples=["notes/todo.txt"])
    size: int = Field(examples=[6])


class PromptRef(ResponseBody):
    """Where the prompt is kept."""

    name: str = Field(examples=["ir-3ab1c2d4-prompt"])
    key: str = Field(examples=["prompt"])


class CallbackView(ResponseBody):
    """What became of the last message to the `callbackUrl` that is done with."""

    phase: CallbackPhase
    settled_at: datetime
    problem: str | None = Field(description="Why it was given up; null when it was delivered.")


class ConfigView(ResponseBody):
    """The settings a job runs with. What no layer sets is absent."""

    provider: str = Field(examples=["claude"])
    model: str = Field(examples=["sonnet"])
    effort: str = Field(examples=["medium"])
    fast: bool
    timeout_ms: int = Field(examples=[3_300_000])
    max_turns: int = Field(examples=[25])
    max_attempts: int = Field(examples=[1])
    executor_image: str = optional()
    executor_resources: dict[str, dict[str, str]] = optional(description="Of the attempt's container, on Kubernetes.")
    react_enabled: bool = optional()
    max_cost_usd: float = optional()
    max_tokens: int = optional()
    fallback_model: str = optional()
    mcp_servers: dict[str, McpServerView] = optional(description="Servers of tools (MCP), by name.")
    sampling: SamplingView = optional(description="How a local model chooses its words.")


class JobDetail(JobItem):
    """A job, whole."""

    result: Any = Field(description="What the agent answered, whole.", examples=["Done, see the branch."])
    phase: Phase = Field(examples=["Succeeded"])
    priority: int | float = Field(examples=[2])
    account_name: str | None = Field(description="The AiModel whose slot the job holds or held.")
    k8s_job_name: str | None = Field(alias="k8sJobName", description="The latest attempt's Job, on Kubernetes.")
    executor_pod_name: str | None = Field(description="The pod of that Job, once it has started.")
    returnvalue: Any = Field(description="The same as `result`.", examples=["Done, see the branch."])
    logs: list[str] = Field(
        description="The last lines; all of them are at `/api/jobs/{id}/logs`.", examples=[["reading the issue"]]
    )
    workspace_setup: WorkspaceSetupView | None
    workspace_files: list[WorkspaceFileView]
    prompt_ref: PromptRef | None
    failed_code: FailedCode | None = Field(description="Why it failed, for programs.", examples=["timeout"])
    cancel_requested_at: datetime | None
    deadline_at: datetime | None = Field(description="When the engine ends the running attempt.")
    not_before: datetime | None = Field(
        description="A waiting job that was put back, for the reason in `failedReason`, does not start before this."
    )
    config: ConfigView
    config_origins: dict[str, str] = Field(
        description="For each setting the layer it came from.", examples=[{"provider": "request", "model": "built-in"}]
    )
    usage: UsageView
    outputs: OutputsView
    session: SessionView | None = Field(
        description="With which another attempt goes on, where its workspace is still kept. Null where it begins anew."
    )
    child_job_id: str | None = Field(description="The job that follows it in its chain.")
    chain_ended: str | None = Field(description="Why none follows, where its chain might have gone on: one sentence.")
    callback: CallbackView | None = Field(description="Null before the caller was told anything.")
    metadata: dict[str, Any] = Field(examples=[{"repo": "octocat/hello-world"}])


def job_item(job: Job) -> dict[str, Any]:
    """`job` as JobItem describes it."""
    status, chain = job.status, job.spec.chain
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
        "result": status.result,
    }


def job_detail(job: Job, *, result: Any, live: OutputTail | None, place: Place) -> dict[str, Any]:
    """`job` as JobDetail describes it. result: the whole one. live: what the running attempt has said so far.

    place: where its latest attempt runs or ran.
    """
    spec, status, resolved = job.spec, job.status, job.resolved
    logs, usage, outputs, session = status.logs, status.usage, status.outputs, status.session
    if live:
        logs, usage, outputs, session = live.logs, usage + live.usage, live.outputs, live.session or session
    return job_item(job) | {
        "phase": job.phase.value,
        "priority": spec.priority,
        "accountName": status.slot,
        "k8sJobName": place.job_name,
        "executorPodName": place.pod_name,
        "result": result,
        "returnvalue": result,
        "logs": logs,
        "workspaceSetup": _workspace_setup(job),
        "workspaceFiles": [{"name": file.name, "size": file.size} for file in spec.workspace_files],
        "promptRef": {"name": job.prompt_ref.name, "key": job.prompt_ref.key} if job.prompt_ref else None,
        "failedCode": status.failed_code,
        "cancelRequestedAt": status.cancel_requested_at,
        "deadlineAt": status.deadline_at,
        "notBefore": status.not_before if job.phase is Phase.PENDING else None,
        "config": resolved.config,
        "configOrigins": resolved.origins,
        "usage": usage_view(usage),
        "outputs": outputs_view(outputs),
        "session": _session(session),
        "childJobId": status.child_job_id,
        "chainEnded": status.chain_ended,
        "callback": _callback(job),
        "metadata": spec.metadata,
    }


def usage_view(usage: Usage) -> dict[str, int | float | None]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cacheReadTokens": usage.cache_read_tokens,
        "cacheWriteTokens": usage.cache_write_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "costUsd": usage.known_cost_usd,
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
    }


def _session(session: AgentSession | None) -> dict[str, Any] | None:
    return {"provider": session.provider, "id": session.id, "attempt": session.attempt} if session else None


def _callback(job: Job) -> dict[str, Any] | None:
    if (callback := job.status.callback) is None:
        return None
    return {"phase": callback.phase, "settledAt": callback.settled_at, "problem": callback.problem}


def _workspace_setup(job: Job) -> dict[str, Any] | None:
    if (setup := job.spec.workspace_setup) is None:
        return None
    return {
        "gitRepo": without_tokens(setup.git_repo),
        "gitRef": setup.git_ref,
        "gitDepth": setup.git_depth,
        "hasCredential": setup.credentials_ref is not None,
    }
