"""How jobs look to callers."""

from datetime import datetime
from typing import Any

from pydantic import Field

from labrats.api.bodies import ResponseBody
from labrats.cache import repo_of
from labrats.model.job import Job
from labrats.model.phases import API_STATUS
from labrats.model.record import encode
from labrats.ports import OutputTail


class JobItem(ResponseBody):
    """A job in a list."""

    id: str = Field(examples=["ir-3ab1c2d4"])
    name: str = Field(description="The job's type.", examples=["implement-issue"])
    source: str = Field(examples=["github"])
    agent_role: str | None
    repo: str | None = Field(description="From `metadata.repo`.", examples=["octocat/hello-world"])
    status: str = Field(description="waiting, active, completed, failed or cancelled.", examples=["completed"])
    attempts: int = Field(description="Attempts begun so far.", examples=[1])
    created_at: datetime
    processed_at: datetime | None = Field(description="When the latest attempt was started.")
    finished_at: datetime | None
    failed_reason: str | None = Field(description="One sentence for people.")
    chain_id: str | None
    chain_depth: int | None
    parent_job_id: str | None
    chain_path: list[str] | None
    result: Any = Field(description="What the agent answered; null where it is too large for a list.")


class JobPage(ResponseBody):
    """One page of jobs, newest first."""

    jobs: list[JobItem]
    total: int = Field(description="How many match, on all pages.")
    page: int
    limit: int


class UsageView(ResponseBody):
    """What the job consumed, over all its attempts."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost_usd: float
    turns: int


class OutputsView(ResponseBody):
    """What the agent made, where it did."""

    branch: str | None
    commit: str | None
    pull_request_url: str | None


class WorkspaceSetupView(ResponseBody):
    """The repository, without any credential."""

    git_repo: str
    git_ref: str | None
    git_depth: int | None
    has_credential: bool = Field(description="Whether a token came with the address; it is never shown.")


class WorkspaceFileView(ResponseBody):
    """A file that came with the job."""

    name: str
    size: int


class PromptRef(ResponseBody):
    """Where the prompt is kept."""

    name: str
    key: str


class JobDetail(JobItem):
    """A job, whole."""

    phase: str = Field(description="Pending, Running, Succeeded, Failed or Cancelled.")
    priority: int | float
    account_name: str | None = Field(description="The AiModel whose slot the job holds or held.")
    k8s_job_name: str | None
    executor_pod_name: str | None
    returnvalue: Any = Field(description="The result, whole.")
    logs: list[str] = Field(description="The last lines; all of them are at `/api/jobs/{id}/logs`.")
    workspace_setup: WorkspaceSetupView | None
    workspace_files: list[WorkspaceFileView]
    prompt_ref: PromptRef | None
    failed_code: str | None = Field(description="Why it failed, for programs.", examples=["timeout"])
    cancel_requested_at: datetime | None
    deadline_at: datetime | None = Field(description="When the engine ends the running attempt.")
    config: dict[str, Any] = Field(description="The settings it runs with, resolved.")
    config_origins: dict[str, str] = Field(description="For each setting the layer it came from.")
    usage: UsageView
    outputs: OutputsView
    metadata: dict[str, Any]


def job_item(job: Job) -> dict[str, Any]:
    """`job` as JobItem describes it."""
    status = job.status
    return {
        "id": job.id,
        "name": job.spec.type,
        "source": job.spec.source,
        "agentRole": None,
        "repo": repo_of(job),
        "status": API_STATUS[job.phase],
        "attempts": status.attempts,
        "createdAt": job.created_at,
        "processedAt": status.started_at,
        "finishedAt": status.finished_at,
        "failedReason": status.failed_reason,
        "chainId": None,
        "chainDepth": None,
        "parentJobId": None,
        "chainPath": None,
        "result": status.result,
    }


def job_detail(job: Job, *, result: Any, live: OutputTail) -> dict[str, Any]:
    """`job` as JobDetail describes it. result: the whole one. live: what the running attempt has said so far."""
    spec, status, resolved = job.spec, job.status, job.resolved
    usage = status.usage + live.usage
    outputs = live.outputs if live.logs else status.outputs
    return job_item(job) | {
        "phase": job.phase.value,
        "priority": spec.priority,
        "accountName": status.slot,
        "k8sJobName": None,
        "executorPodName": None,
        "returnvalue": result,
        "logs": live.logs or status.logs,
        "workspaceSetup": _workspace_setup(job),
        "workspaceFiles": [{"name": file.name, "size": file.size} for file in spec.workspace_files],
        "promptRef": {"name": spec.prompt_ref.name, "key": spec.prompt_ref.key} if spec.prompt_ref else None,
        "failedCode": status.failed_code,
        "cancelRequestedAt": status.cancel_requested_at,
        "deadlineAt": status.deadline_at,
        "config": resolved.config,
        "configOrigins": resolved.origins,
        "usage": {
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "cacheReadTokens": usage.cache_read_tokens,
            "costUsd": usage.cost_usd,
            "turns": usage.turns,
        },
        "outputs": {
            "branch": outputs.branch,
            "commit": outputs.commit,
            "pullRequestUrl": outputs.pull_request_url,
        },
        "metadata": spec.metadata,
    }


def _workspace_setup(job: Job) -> dict[str, Any] | None:
    if (setup := job.spec.workspace_setup) is None:
        return None
    return {
        "gitRepo": setup.git_repo,
        "gitRef": setup.git_ref,
        "gitDepth": setup.git_depth,
        "hasCredential": setup.credentials_ref is not None,
    }


def as_json(answer: dict[str, Any]) -> bytes:
    return encode(answer)
