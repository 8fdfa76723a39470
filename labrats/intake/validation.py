"""The checks that a request must pass before it becomes a job. Each bound is checked here and nowhere else."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from labrats.files.attachments import Content
from labrats.files.uploads import Upload, Uploads
from labrats.index.catalog import Catalog
from labrats.intake.callback_urls import check_callback_url
from labrats.intake.repositories import allowed_repo
from labrats.intake.request import JobRequest, RepoAddress
from labrats.intake.settings import ENGINE_LAYER
from labrats.model.agent import AiAgent
from labrats.model.config import JobConfig, ResolvedConfig
from labrats.model.errors import AccessDenied, Invalid, NotFound, Problem, Problems, RetryLater, TooLarge
from labrats.model.git_repo import GitRepo
from labrats.model.image_name import problem_of_image
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.job import METADATA_BYTES, PROMPT_BYTES, Pipeline
from labrats.model.mcp_server import problem_of_mcp_servers
from labrats.model.mock_script import parse_script
from labrats.model.network import Network, is_restricted, problem_of_stored_network
from labrats.model.pdf import is_pdf
from labrats.model.record import encode
from labrats.model.result_schema import problem_of_result_schema
from labrats.model.variables import problem_of_variables
from labrats.model.workspace_setup import Setup, problem_of_setup
from labrats.settings import EngineSettings

NetworkProblem = Callable[[Network | None], str | None]
"""See Runner.network_problem."""

FILES_BYTES: Final = 10 * 1024 * 1024
"""The bound on the contents of all files in the body of a request."""


@dataclass(frozen=True)
class WorkspaceContents:
    """The repository and the files for a job's workspace, validated."""

    repo: GitRepo | None
    files: Sequence[tuple[str, Content]]


async def validate(
    request: JobRequest, uploads: Uploads, settings: EngineSettings, problems: Problems
) -> WorkspaceContents:
    """Check all of a request that does not depend on its settings. Raises TooLarge, Invalid, RetryLater.

    problems: collects those of the repository, the callback and the files. The contents are valid if it has none.
    """
    check_sizes(request.prompt, request.metadata, request.files)
    if len(encode([*request.errors])) > PROMPT_BYTES:
        raise TooLarge(Problem("errors", "must be at most 900 KiB as JSON"))
    repo, files = None, [*request.files]
    with problems.collected():
        repo = await _checked_repo(request.repo, settings)
    with problems.collected():
        if request.submitted.callback_url is not None:
            # The workers that drive all jobs do not wait for the names of applied ones. Each callback is checked again.
            owner = None if request.is_applied else request.owner
            await check_callback_url(request.submitted.callback_url, owner, settings)
    with problems.collected():
        files[:0] = await _uploaded_files(request, uploads)
        if request.pipeline:
            _check_has_pdf(request.pipeline, files)
    return WorkspaceContents(repo, files)


def check_sizes(prompt: str | None, metadata: dict[str, Any], files: Sequence[tuple[str, Content]] = ()) -> None:
    """Raise TooLarge where a part of a request exceeds its bound."""
    if prompt is not None and len(prompt.encode()) > PROMPT_BYTES:
        raise TooLarge(Problem("prompt", "must be at most 900 KiB"))
    if len(encode(metadata)) > METADATA_BYTES:
        raise TooLarge(Problem("metadata", "must be at most 64 KiB"))
    if sum(len(content) for _, content in files if isinstance(content, bytes)) > FILES_BYTES:
        raise TooLarge(Problem("workspaceFiles", "must be at most 10 MiB in all, decoded"))


async def _checked_repo(repo: RepoAddress | GitRepo | None, settings: EngineSettings) -> GitRepo | None:
    return await allowed_repo(repo.address, repo.field, settings) if isinstance(repo, RepoAddress) else repo


async def _uploaded_files(request: JobRequest, uploads: Uploads) -> list[tuple[str, Path]]:
    """Return the uploads that the request names. Raise Invalid with a problem for each that it may not use."""
    files, problems = [], []
    for number, reference in enumerate(request.uploads):
        try:
            upload = await find_upload(uploads, reference.id, reference.name, request.may_see)
            files.append((upload.name, uploads.path(upload)))
        except (NotFound, AccessDenied) as error:
            problems.append(Problem(f"workspaceUploads[{number}]", str(error)))
    if problems:
        raise Invalid(*problems)
    return files


async def find_upload(uploads: Uploads, upload_id: str, name: str, may_see: Callable[[str], bool]) -> Upload:
    """Return the upload with that id and name. Raises NotFound; AccessDenied for an owner that `may_see` denies."""
    upload = await uploads.get(upload_id)
    if not may_see(upload.owner):
        raise AccessDenied(f"the upload {upload_id} belongs to another API key")
    if upload.name != name:
        raise NotFound(f"the upload {upload_id} has no file {name!r}")
    return upload


def _check_has_pdf(pipeline: Pipeline, files: Sequence[tuple[str, Content]]) -> None:
    try:
        has_pdf = any(isinstance(content, Path) and is_pdf(content) for _, content in files)
    except OSError as error:
        raise RetryLater(f"an uploaded file cannot be read: {error.strerror}") from error
    if not has_pdf:
        raise Invalid(Problem("workspaceUploads", f"must contain a PDF for the pipeline {pipeline.type}"))


def enabled_agent(trigger_name: str, catalog: Catalog) -> AiAgent:
    """Return the agent with that `triggerName`. Raise Invalid where it is missing or disabled."""
    if (agent := catalog.agents_by_trigger_name.get(trigger_name)) is None:
        raise Invalid(Problem("agentRole", f"no agent has the `triggerName` {trigger_name!r}"))
    if not agent.spec.enabled:
        raise Invalid(Problem("agentRole", f"the agent {agent.name!r} is disabled"))
    return agent


def agent_of(trigger_name: str, request: JobRequest, catalog: Catalog) -> AiAgent | None:
    """Return the agent with that `triggerName`. Raise Invalid where it is missing or disabled.

    Return None for a rerun or follow-up of a job whose agent is missing or disabled: its recorded settings apply.
    """
    try:
        return enabled_agent(trigger_name, catalog)
    except Invalid:
        if request.first and request.first.job.spec.agent_role == trigger_name:
            return None
        raise


def result_schema_of(request: JobRequest, agent: AiAgent | None) -> dict[str, Any] | None:
    """Return the JSON Schema of the job's result: its own, or else its agent's. Raises Invalid for an invalid one.

    A pipeline has a result of its own, so that the agent's schema does not apply.
    """
    if (own := request.result_schema) is not None:
        if request.pipeline:
            raise Invalid(Problem("resultSchema", f"must be absent for the pipeline {request.pipeline.type}"))
        check_result_schema(own, "resultSchema")
        return own
    if request.first or request.pipeline or agent is None or agent.spec.result_schema is None:
        return None
    check_result_schema(agent.spec.result_schema, f"resultSchema of the agent {agent.name!r}")
    return agent.spec.result_schema


def check_result_schema(schema: dict[str, Any], field: str) -> None:
    """Raise Invalid if `schema` is no usable JSON Schema. field: where the caller wrote it."""
    if problem := problem_of_result_schema(schema):
        raise Invalid(Problem(field, problem))


def check_setup(setup: Setup, isolation: Isolation, network_problem: NetworkProblem) -> None:
    """Raise Invalid for invalid commands, caches and rules.

    isolation: the level of the job. network_problem: see Admission.
    """
    if invalid := problem_of_setup(setup):
        raise Invalid(invalid)
    if not is_restricted(setup.setup_network):
        return
    if problem := network_problem(setup.setup_network) or _problem_of_restriction(isolation):
        raise Invalid(Problem("workspaceSetup.setupNetwork", problem))


def check_settings(
    resolved: ResolvedConfig,
    metadata: Mapping[str, Any],
    allowed_images: Collection[str],
    levels: IsolationLevels,
    network_problem: NetworkProblem = lambda _: None,
    *,
    agent: str | None = None,
    untrusted: bool = False,
) -> None:
    """Raise Invalid with all problems for invalid or forbidden settings or an invalid mock script.

    levels, network_problem: see Admission. agent: the name of the job's agent. untrusted: see JobRequest.
    """
    problems = Problems()
    problems.add("config.mcpServers", problem_of_mcp_servers(resolved.config.mcp_servers or {}))
    problems.add("config.env", problem_of_variables(resolved.config.env or {}))
    isolation = resolved.isolation or levels.default
    # An external contributor cannot change the minimum: the job fails instead of being refused, so that it is seen.
    checked = (resolved.config.isolation or levels.default) if untrusted else isolation
    problem = levels.problem_of(checked)
    origin = resolved.origins.get("isolation") if checked is resolved.config.isolation else None
    problems.add("config.isolation", problem and _naming_origin(problem, origin, agent))
    network = resolved.config.network
    problem = problem_of_stored_network(network) if network else None
    if is_restricted(network):
        problem = problem or network_problem(network) or _problem_of_restriction(isolation)
    if resolved.origins.get("network") == ENGINE_LAYER:
        problem = problem and f"is that of LABRATS_NETWORK, but {problem}"
    problems.add("config.network", problem and _naming_origin(problem, resolved.origins.get("network"), agent))
    image = resolved.config.executor_image
    problems.add("config.executorImage", problem_of_image(image, allowed_images) if image else None)
    if resolved.provider == "mock":
        with problems.collected():
            parse_script(metadata)
    problems.check()


def _naming_origin(problem: str, origin: str | None, agent: str | None) -> str:
    """Name the agent whose setting has a problem. A caller may not have chosen it; the sender of an event cannot."""
    match origin:
        case "agent":
            return f"is that of the agent {agent}, but {problem}"
        case "trigger":
            return f"is that of a trigger of the agent {agent}, but {problem}"
        case _:
            return problem


def check_open_network(config: JobConfig, setup: Setup, network_problem: Callable[[], str | None]) -> None:
    """Raise Invalid if neither the agent nor the setup commands have a network rule, and both need one here."""
    rules = (config.network, setup.setup_network if setup.setup else None)
    if not any(map(is_restricted, rules)) and (problem := network_problem()):
        raise Invalid(Problem("config.network", problem))


def _problem_of_restriction(isolation: Isolation) -> str | None:
    """Return why the network of a job with this isolation cannot be restricted; None if it can."""
    if isolation is not Isolation.PROCESS:
        return None
    return "must be open: the isolation `process` cannot restrict it; set config.isolation to sandbox"
