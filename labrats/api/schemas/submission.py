"""What a caller may submit, and how it becomes a job."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from labrats.api.auth.keys import Caller
from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import whole
from labrats.api.schemas.base import Effort, Label, Provider, RequestBody
from labrats.api.schemas.file_names import check_distinct, why_unsafe
from labrats.api.schemas.mcp_servers import McpServersBody, mcp_servers
from labrats.api.schemas.patterns import GIT_REF, IN_WORDS
from labrats.api.schemas.sampling import SamplingBody, sampling
from labrats.api.services import Services
from labrats.files.attachments import Content
from labrats.index.catalog import Catalog
from labrats.intake.callback_urls import judge_callback_url
from labrats.intake.repositories import judged_repo
from labrats.intake.request import JobRequest, agent_named
from labrats.model.agent import AiAgent
from labrats.model.config import JobConfig
from labrats.model.errors import Invalid, Problem
from labrats.model.git_repo import FIELD as GIT_REPO_FIELD
from labrats.model.git_repo import GitRepo
from labrats.model.job import DEFAULT_PRIORITY, METADATA_BYTES, PROMPT_BYTES, Pipeline
from labrats.model.pdf import is_pdf
from labrats.model.phases import Phase
from labrats.model.record import encode
from labrats.settings import EngineSettings

FILES_BYTES: Final = 10 * 1024 * 1024
MAX_FILES: Final = 1000

ERROR_REPORTING: Final = "error-reporting"
"""The type of jobs whose prompt may be made of their `errors`."""


def _check_ref(ref: str) -> str:
    if ".." in ref or "@{" in ref:
        raise ValueError(IN_WORDS[GIT_REF])
    return ref


GitRef = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=GIT_REF),
    AfterValidator(_check_ref),
]


class WorkspaceSetupBody(RequestBody):
    """The repository to clone into the workspace."""

    git_repo: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None,
        description="Clone URL: https, http, ssh or scp form. A token in it is kept as a secret and never shown again.",
        examples=["https://github.com/octocat/hello-world.git"],
    )
    git_ref: GitRef | None = Field(default=None, description="Branch, tag or commit.", examples=["main"])
    git_depth: int | None = Field(default=None, ge=1, le=1_000_000, description="Depth of a shallow clone.")


class WorkspaceFileBody(RequestBody):
    """A file for the workspace."""

    name: str = Field(description="Relative path in the workspace.", examples=["notes/todo.txt"])
    data: str = Field(description="The contents, base64.", examples=["aGVsbG8K"])

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        if reason := why_unsafe(name):
            raise ValueError(reason)
        return name

    @field_validator("data")
    @classmethod
    def _is_base64(cls, data: str) -> str:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64") from None
        return data


class WorkspaceUploadBody(RequestBody):
    """A file uploaded before, to `/api/workspace-uploads`. It lies at the root of the workspace, under its name."""

    id: Label = Field(description="What the upload was answered with.", examples=["up-0123456789abcdef"])
    name: Label = Field(description="The file's name.", examples=["report.csv"])


class ConfigBody(RequestBody):
    """The settings of this run; what is absent is resolved from the other layers."""

    model: Label | None = Field(default=None, description="By its provider's name for it.", examples=["opus"])
    effort: Effort | None = Field(default=None, description="How much the model thinks.")
    provider: Provider | None = Field(default=None, description="What runs the job.")
    fast: bool | None = Field(default=None, description="Fast mode, Claude only.")
    timeout_ms: int | None = Field(default=None, ge=1, le=7 * 24 * 3600 * 1000, description="Milliseconds per attempt.")
    max_turns: int | None = Field(
        default=None, ge=1, le=100_000, description="The run is stopped after so many turns of the conversation."
    )
    executor_image: Label | None = Field(default=None, description="Another executor image, on Kubernetes.")
    react_enabled: bool | None = Field(default=None, description="ReAct tool-calling loop, local inference only.")
    max_cost_usd: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="The run is stopped when it has cost more US dollars."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=10**15, description="The run is stopped when it has used more tokens, in and out."
    )
    max_attempts: int | None = Field(
        default=None, ge=1, le=100, description="How many may be made by themselves, when failures may pass."
    )
    fallback_model: Label | None = Field(
        default=None, description="The model to fall back to when the first is overloaded."
    )
    mcp_servers: McpServersBody | None = None
    sampling: SamplingBody | None = None


def job_config(asked: ConfigBody) -> JobConfig:
    """The same as the engine has it."""
    settings = asked.model_dump(exclude_none=True, exclude={"mcp_servers", "sampling"})
    servers = None if asked.mcp_servers is None else mcp_servers(asked.mcp_servers)
    return JobConfig(**settings, mcp_servers=servers, sampling=sampling(asked.sampling))


class ErrorEntryBody(RequestBody):
    """An error that was observed, for `error-reporting`."""

    message: str = Field(min_length=1)
    stack: str | None = None
    count: int | None = Field(default=None, ge=0, le=10**15)
    first_seen: str | None = None
    last_seen: str | None = None
    service: str | None = None
    level: str | None = None
    context: dict[str, Any] | None = None


class PipelineBody(RequestBody):
    """What to run instead of one inference. `pdf-sections`: one per section of the first PDF in `workspaceUploads`."""

    type: Literal["pdf-sections"] = Field(description="The only one so far.")


class Submission(RequestBody):
    """A job to run."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "source": "manual",
                    "type": "implement-issue",
                    "prompt": "Add a --version flag to the command line.",
                    "config": {"provider": "mock"},
                    "metadata": {"repo": "octocat/hello-world"},
                }
            ]
        }
    }

    source: Label = Field(description="Where it comes from: github, manual, dashboard, …")
    type: Label = Field(description="Label of the job: implement-issue, code-review, …")
    prompt: str | None = Field(
        default=None, validate_default=True, min_length=1, description="What the agent is asked. At most 900 KiB."
    )
    errors: list[ErrorEntryBody] | None = Field(default=None, min_length=1, description="For `error-reporting`.")
    priority: Annotated[float, AfterValidator(whole)] = Field(
        default=DEFAULT_PRIORITY, ge=-1000, le=1000, allow_inf_nan=False, description="Lower runs first."
    )
    agent_role: Label | None = Field(
        default=None,
        description="The `triggerName` of the agent that lends its instructions and defaults. It must be enabled.",
        examples=["ai-reviewer"],
    )
    workspace_setup: WorkspaceSetupBody | None = None
    workspace_files: list[WorkspaceFileBody] = Field(default=[], max_length=MAX_FILES)
    workspace_uploads: list[WorkspaceUploadBody] = Field(default=[], max_length=MAX_FILES)
    config: ConfigBody = ConfigBody()
    callback_url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="Where to POST that the job runs and how it ended: http or https, without a credential in it.",
        examples=["https://ci.example.com/hooks/labrats"],
    )
    pipeline: PipelineBody | None = None
    metadata: dict[str, Any] = Field(default={}, description="Free key-values, echoed in callbacks and the dashboard.")

    @field_validator("prompt")
    @classmethod
    def _is_there(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if prompt is None and info.data.get("type") != ERROR_REPORTING:
            raise ValueError(f"is required, unless type is {ERROR_REPORTING}")
        return prompt


def decode_files(files: Sequence[WorkspaceFileBody]) -> list[tuple[str, bytes]]:
    """Name and contents of each. Raises 413 when they are too much."""
    decoded = [(file.name, base64.b64decode(file.data)) for file in files]
    if sum(len(data) for _, data in decoded) > FILES_BYTES:
        raise ApiError(413, "too_large", "workspaceFiles: at most 10 MiB, decoded, in all")
    return decoded


def check_complete(asked: Submission) -> None:
    """Raises 422 for what is missing although no single field is wrong, 413 for what is too large to keep."""
    if asked.prompt is None and asked.errors is None:
        raise Invalid(Problem("errors", "is required for an error-reporting job without a prompt"))
    check_distinct(
        [(f"workspaceUploads[{number}].name", upload.name) for number, upload in enumerate(asked.workspace_uploads)]
        + [(f"workspaceFiles[{number}].name", file.name) for number, file in enumerate(asked.workspace_files)]
    )
    setup = asked.workspace_setup
    if setup and setup.git_repo is None and (setup.git_ref or setup.git_depth):
        raise Invalid(Problem(GIT_REPO_FIELD, "is required for a gitRef or gitDepth"))
    if asked.prompt is not None and len(asked.prompt.encode()) > PROMPT_BYTES:
        raise ApiError(413, "too_large", "prompt: at most 900 KiB")
    if len(encode(asked.metadata)) > METADATA_BYTES:
        raise ApiError(413, "too_large", "metadata: at most 64 KiB")


async def checked_repo(asked: Submission, settings: EngineSettings) -> GitRepo | None:
    """The repository asked for, its address judged. Raises Invalid."""
    if asked.workspace_setup is None or asked.workspace_setup.git_repo is None:
        return None
    return await judged_repo(asked.workspace_setup.git_repo, GIT_REPO_FIELD, settings)


async def check_callback_url(asked: Submission, settings: EngineSettings) -> None:
    """Raises Invalid unless callbacks may go to the address."""
    if asked.callback_url is not None:
        await judge_callback_url(asked.callback_url, settings)


def agent_asked(asked: Submission, catalog: Catalog) -> AiAgent | None:
    """The agent that lends its instructions and defaults. Raises Invalid when there is none, or it is switched off."""
    return None if asked.agent_role is None else agent_named(asked.agent_role, catalog)


def job_request(
    asked: Submission,
    caller: Caller,
    agent: AiAgent | None,
    repo: GitRepo | None,
    files: Sequence[tuple[str, Content]],
) -> JobRequest:
    """What was asked for, its agent found, its repository judged and its files decoded."""
    setup = asked.workspace_setup or WorkspaceSetupBody()
    return JobRequest(
        source=asked.source,
        type=asked.type,
        owner=caller.id,
        api_key_ref=caller.secret,
        prompt=asked.prompt,
        errors=[error.model_dump(by_alias=True, exclude_none=True) for error in asked.errors or ()],
        agent=agent,
        config=job_config(asked.config),
        priority=asked.priority,
        repo=repo,
        git_ref=setup.git_ref,
        git_depth=setup.git_depth,
        files=files,
        pipeline=Pipeline(type=asked.pipeline.type) if asked.pipeline else None,
        callback_url=asked.callback_url,
        metadata=asked.metadata,
    )


def check_has_pdf(asked: Submission, files: Sequence[tuple[str, Content]]) -> None:
    """Raises Invalid when a pipeline is asked for that finds nothing to work on."""
    if asked.pipeline and not any(isinstance(content, Path) and is_pdf(content) for _, content in files):
        raise Invalid(Problem("workspaceUploads", f"the pipeline {asked.pipeline.type} needs a PDF among them"))


def refuse_when_full(services: Services) -> None:
    """Raises 429 while as many jobs wait as may."""
    if services.job_index.count_in(Phase.PENDING) >= services.settings.max_waiting_jobs:
        raise ApiError(429, "overloaded", "too many jobs are waiting; try again later", {"Retry-After": "10"})
