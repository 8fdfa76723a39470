"""The body of a submission, and its conversion to a request to run a job."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from labrats.api.schemas.base import IsolationLevel, Label, Provider, RequestBody, int_if_whole
from labrats.api.schemas.concurrency import ConcurrencyBody, concurrency_from
from labrats.api.schemas.file_names import check_distinct, why_unsafe
from labrats.api.schemas.mcp_servers import McpServersBody, mcp_servers
from labrats.api.schemas.network import NetworkBody, network_rule
from labrats.api.schemas.patterns import GIT_REF, PATTERN_MESSAGES
from labrats.api.schemas.record_fields import record_of, with_fields_of
from labrats.api.schemas.report import SubmittedReportBody, report_of
from labrats.api.schemas.result_schema import ResultSchemaBody
from labrats.api.schemas.sampling import SamplingBody, sampling
from labrats.api.schemas.variables import VariablesBody, variables
from labrats.api.schemas.workspace_setup import SetupBody, setup_of
from labrats.files.attachments import Content
from labrats.intake.request import JobRequest, RepoAddress
from labrats.intake.reruns import Changes
from labrats.model.caller import Caller
from labrats.model.config import JobConfig
from labrats.model.effort import Effort
from labrats.model.errors import AccessDenied, Invalid, Problems
from labrats.model.git_repo import FIELD as GIT_REPO_FIELD
from labrats.model.git_repo import parse_git_repo
from labrats.model.job import DEFAULT_PRIORITY, Pipeline, SubmittedFields, WorkspaceUpload
from labrats.model.result_schema import problem_of_result_schema
from labrats.net.client import InvalidUrl, parse_url

MAX_FILES: Final = 1000

ERROR_REPORTING: Final = "error-reporting"
"""The type of jobs whose prompt may be written from their `errors`."""

_REPORT_NEEDS_ADMIN: Final = "report needs an API key with the scope `admin`"


def _check_ref(ref: str) -> str:
    if ".." in ref or "@{" in ref:
        raise ValueError(PATTERN_MESSAGES[GIT_REF])
    return ref


GitRef = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=GIT_REF),
    AfterValidator(_check_ref),
]


# Admission repeats the next three checks, and makes those that need settings or the network. Here they are reported
# together with the problems of all other fields.


def _check_repo(address: str) -> str:
    try:
        if not address.startswith("/"):  # the settings say which local paths are allowed
            parse_git_repo(address)
    except Invalid as error:
        raise ValueError(error.problems[0].message) from None
    return address


def _check_callback(url: str) -> str:
    try:
        parse_url(url)
    except InvalidUrl as error:
        raise ValueError(str(error)) from None
    return url


def _check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    if problem := problem_of_result_schema(schema):
        raise ValueError(problem)
    return schema


class WorkspaceSetupBody(SetupBody):
    """The repository to clone into the workspace, and what prepares it."""

    git_repo: Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_repo)] | None = Field(
        default=None,
        description="Clone URL: https, http, ssh or scp form. A token in it is stored as a secret and never shown.",
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
    def _check_name(cls, name: str) -> str:
        if reason := why_unsafe(name):
            raise ValueError(reason)
        return name

    @field_validator("data")
    @classmethod
    def _check_base64(cls, data: str) -> str:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("must be base64") from None
        return data


class WorkspaceUploadBody(RequestBody):
    """An earlier upload to `/api/workspace-uploads`. The file is placed at the root of the workspace."""

    id: Label = Field(description="The id in the answer to the upload.", examples=["up-0123456789abcdef"])
    name: Label = Field(description="The file's name.", examples=["report.csv"])


class ConfigBody(RequestBody):
    """Settings of the job. Missing ones are resolved from the other layers."""

    model: Label | None = Field(default=None, description="The provider's name for the model.", examples=["opus"])
    effort: Effort | None = Field(default=None, description="Reasoning effort of the model.")
    provider: Provider | None = Field(default=None, description="The provider that runs the job.")
    fast: bool | None = Field(default=None, description="Fast mode; Claude only.")
    timeout_ms: int | None = Field(default=None, ge=1, le=7 * 24 * 3600 * 1000, description="Milliseconds per attempt.")
    max_turns: int | None = Field(
        default=None, ge=1, le=100_000, description="Turns of the conversation after which the attempt is stopped."
    )
    executor_image: Label | None = Field(default=None, description="Executor image, on Kubernetes.")
    react_enabled: bool | None = Field(default=None, description="ReAct tool-calling loop; local inference only.")
    max_cost_usd: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Cost in US dollars above which the attempt is stopped."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=10**15, description="Input and output tokens above which the attempt is stopped."
    )
    max_attempts: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Attempts in all. Another one starts after a failure that may be temporary.",
    )
    fallback_model: Label | None = Field(default=None, description="The model to use while the first is overloaded.")
    mcp_servers: McpServersBody | None = None
    sampling: SamplingBody | None = None
    env: VariablesBody | None = None
    network: NetworkBody | None = None
    isolation: IsolationLevel | None = None


def _check_access(config: ConfigBody, caller: Caller) -> None:
    """Raise AccessDenied for settings of administrators from another caller."""
    if config.env is not None and not caller.is_admin:
        raise AccessDenied("config.env needs an API key with the scope `admin`")


def job_config(body: ConfigBody) -> JobConfig:
    """Return the settings in the engine's form."""
    settings = body.model_dump(exclude_none=True, exclude={"mcp_servers", "sampling", "env", "network"})
    servers = None if body.mcp_servers is None else mcp_servers(body.mcp_servers)
    env = None if body.env is None else variables(body.env)
    network = None if body.network is None else network_rule(body.network)
    return JobConfig(**settings, mcp_servers=servers, sampling=sampling(body.sampling), env=env, network=network)


class ErrorEntryBody(RequestBody):
    """An observed error, for `error-reporting`."""

    message: str = Field(min_length=1)
    stack: str | None = None
    count: int | None = Field(default=None, ge=0, le=10**15)
    first_seen: str | None = None
    last_seen: str | None = None
    service: str | None = None
    level: str | None = None
    context: dict[str, Any] | None = None


class PipelineBody(RequestBody):
    """A series of runs instead of one. `pdf-sections`: one for each section of the first PDF in `workspaceUploads`."""

    type: Literal["pdf-sections"] = Field(description="The only pipeline so far.")


CallbackUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_check_callback)]
CALLBACK_URL: Final[Any] = Field(
    default=None,
    description="URL for a POST when the job starts and when it ends: http or https, without a credential.",
    examples=["https://ci.example.com/hooks/labrats"],
)

OwnSchema = Annotated[ResultSchemaBody, AfterValidator(_check_schema)]


@with_fields_of(SubmittedFields)
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

    source: Label = Field(description="The job's origin: github, manual, dashboard, …")
    type: Label = Field(description="The kind of job: implement-issue, code-review, …")
    prompt: str | None = Field(
        default=None, validate_default=True, min_length=1, description="The task for the agent. At most 900 KiB."
    )
    errors: list[ErrorEntryBody] | None = Field(default=None, min_length=1, description="For `error-reporting`.")
    priority: Annotated[float, AfterValidator(int_if_whole)] = Field(
        default=DEFAULT_PRIORITY, ge=-1000, le=1000, allow_inf_nan=False, description="Lower runs first."
    )
    agent_role: Label | None = Field(
        default=None,
        description="The `triggerName` of the agent that provides instructions and defaults. It must be enabled.",
        examples=["ai-reviewer"],
    )
    concurrency: ConcurrencyBody | None = None
    workspace_setup: WorkspaceSetupBody | None = None
    workspace_files: list[WorkspaceFileBody] = Field(default=[], max_length=MAX_FILES)
    workspace_uploads: list[WorkspaceUploadBody] = Field(default=[], max_length=MAX_FILES)
    config: ConfigBody = ConfigBody()
    callback_url: CallbackUrl | None = CALLBACK_URL
    report: SubmittedReportBody | None = None
    pipeline: PipelineBody | None = None
    result_schema: OwnSchema | None = None
    metadata: dict[str, Any] = Field(default={}, description="Free key-values, shown in callbacks and the dashboard.")

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if prompt is None and info.data.get("type") != ERROR_REPORTING:
            raise ValueError(f"is required, unless type is {ERROR_REPORTING}")
        return prompt


class Rerun(RequestBody):
    """Changes to a job that runs again. Absent fields keep the values of the first job."""

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [{"config": {"model": "opus"}}]}}

    prompt: str | None = Field(default=None, min_length=1, description="Another prompt. At most 900 KiB.")
    config: ConfigBody = Field(default=ConfigBody(), description="Settings to change.")
    priority: Annotated[float, AfterValidator(int_if_whole)] | None = Field(
        default=None, ge=-1000, le=1000, allow_inf_nan=False
    )
    metadata: dict[str, Any] | None = Field(default=None, description="Replaces the metadata of the first job.")
    report: bool = Field(
        default=False,
        description="The new job reports to GitHub where the first one did, by the same rules. Only administrators may "
        "set it.",
    )
    result_schema: OwnSchema | None = Field(default=None, description="Replaces the schema of the first job's result.")
    callback_url: CallbackUrl | None = CALLBACK_URL


NO_CHANGES: Final = Rerun()


def rerun_changes(body: Rerun, caller: Caller) -> Changes:
    """Return the changes in the engine's form. Raises AccessDenied."""
    _check_access(body.config, caller)
    if body.report and not caller.is_admin:
        raise AccessDenied(_REPORT_NEEDS_ADMIN)
    return Changes(
        body.prompt,
        job_config(body.config),
        body.priority,
        body.metadata,
        body.report,
        body.result_schema,
        body.callback_url,
    )


class Message(RequestBody):
    """A further message to the agent of an ended job."""

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [{"prompt": "Add a test, too."}]}}

    prompt: str = Field(min_length=1, description="At most 900 KiB.")
    report: bool | None = Field(
        default=None,
        description="The new job reports to GitHub where the job did, if it did. `false`: it does not. `true`: the "
        "message is refused if the job has no report.",
    )
    result_schema: OwnSchema | None = Field(
        default=None, description="JSON Schema of the answer. Without one, the answer is free, also if the job had one."
    )
    callback_url: CallbackUrl | None = CALLBACK_URL

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must not be blank")
        return prompt


def message_changes(body: Message) -> Changes:
    """Return the message in the engine's form."""
    return Changes(body.prompt, report=body.report, result_schema=body.result_schema, callback_url=body.callback_url)


def check_complete(submission: Submission) -> None:
    """Raise Invalid with all problems of a submission whose fields are valid one by one but not together."""
    problems = Problems()
    if submission.prompt is None and submission.errors is None:
        problems.add("errors", "is required for an error-reporting job without a prompt")
    with problems.collected():
        check_distinct(
            [
                (f"workspaceUploads[{number}].name", upload.name)
                for number, upload in enumerate(submission.workspace_uploads)
            ]
            + [(f"workspaceFiles[{number}].name", file.name) for number, file in enumerate(submission.workspace_files)]
        )
    setup = submission.workspace_setup
    if setup and setup.git_repo is None and (setup.git_ref or setup.git_depth):
        problems.add(GIT_REPO_FIELD, "is required for a gitRef or gitDepth")
    elif setup and setup.git_repo is None and setup_of(setup).as_fields():
        problems.add(GIT_REPO_FIELD, "is required for setup commands and caches")
    problems.check()


def job_request(submission: Submission, caller: Caller, files: Sequence[tuple[str, Content]] = ()) -> JobRequest:
    """Return the request to run the submitted job. files: further files for the workspace. Raises AccessDenied."""
    _check_access(submission.config, caller)
    if submission.report is not None and not caller.is_admin:
        raise AccessDenied(_REPORT_NEEDS_ADMIN)
    setup = submission.workspace_setup or WorkspaceSetupBody()
    return JobRequest(
        source=submission.source,
        type=submission.type,
        owner=caller.id,
        api_key_ref=caller.secret,
        prompt=submission.prompt,
        errors=[error.model_dump(by_alias=True, exclude_none=True) for error in submission.errors or ()],
        agent_role=submission.agent_role,
        config=job_config(submission.config),
        submitted=record_of(SubmittedFields, submission),
        concurrency=concurrency_from(submission.concurrency),
        repo=RepoAddress(setup.git_repo) if setup.git_repo is not None else None,
        git_ref=setup.git_ref,
        git_depth=setup.git_depth,
        setup=setup_of(setup),
        files=[*files, *((file.name, base64.b64decode(file.data)) for file in submission.workspace_files)],
        uploads=[WorkspaceUpload(id=upload.id, name=upload.name) for upload in submission.workspace_uploads],
        may_see=caller.may_see,
        pipeline=Pipeline(type=submission.pipeline.type) if submission.pipeline else None,
        is_by_admin=caller.is_admin,
        report=report_of(submission.report),
        result_schema=submission.result_schema,
        metadata=submission.metadata,
    )
