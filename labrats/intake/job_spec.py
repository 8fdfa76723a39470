"""The stored form of a prepared request: the spec of its job, and the resources stored with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import asdict

from labrats.intake.request import JobRequest, Texts
from labrats.intake.stored_events import event_part
from labrats.intake.validation import WorkspaceContents
from labrats.model.agent import AiAgent
from labrats.model.concurrency import Concurrency
from labrats.model.config import ResolvedConfig
from labrats.model.conversation import encode_conversation
from labrats.model.core_resources import (
    CONVERSATION_KEY,
    EVENT_KEY,
    INSTRUCTIONS_KEY,
    JOB_CREDENTIALS,
    PROMPT_KEY,
    ConfigMap,
    Secret,
)
from labrats.model.git_repo import GitRepo
from labrats.model.job import Job, JobSpec, KeyReference, WorkspaceFile, WorkspaceSetup, git_secret_name, title_of
from labrats.model.record import Metadata, Resource
from labrats.model.report import Report
from labrats.model.workspace_setup import Setup


@dataclass(frozen=True)
class PreparedJob:
    """A validated request with its settings and texts. Only the store can still refuse it."""

    request: JobRequest
    contents: WorkspaceContents
    agent: AiAgent | None
    setup: Setup
    resolved: ResolvedConfig
    texts: Texts
    report: Report | None = None
    concurrency: Concurrency | None = None
    result_schema: dict[str, Any] | None = None


def spec_of(prepared: PreparedJob, job_id: str, files: tuple[WorkspaceFile, ...]) -> JobSpec:
    """Return the spec of the job. It names the resources that hold the texts and the repository's credential.

    files: the files for the workspace, as they are stored.
    """
    request, repo, texts_name = prepared.request, prepared.contents.repo, f"{job_id}-prompt"
    first, follow_up = request.first.job if request.first else None, request.follow_up
    has_instructions = prepared.texts.instructions is not None
    return JobSpec(
        source=request.source,
        type=request.type,
        agent_role=prepared.agent.spec.trigger_name if prepared.agent else request.agent_role,
        title=title_of(request.prompt) or (first.spec.title if first else None),
        rerun_of=first.id if first and not (follow_up and follow_up.of == first.id) else None,
        follow_up_of=follow_up.of if follow_up else None,
        follow_up_uid=follow_up.uid if follow_up else None,
        conversation_ref=KeyReference(name=f"{job_id}-conversation", key=CONVERSATION_KEY) if follow_up else None,
        prompt_ref=KeyReference(name=texts_name, key=PROMPT_KEY),
        instructions_ref=KeyReference(name=texts_name, key=INSTRUCTIONS_KEY) if has_instructions else None,
        concurrency=prepared.concurrency,
        workspace_setup=_workspace_setup(prepared, job_id, repo) if repo else None,
        workspace_files=files,
        pipeline=request.pipeline,
        report=prepared.report,
        result_schema=prepared.result_schema,
        event_ref=KeyReference(name=f"{job_id}-event", key=EVENT_KEY) if request.event and request.has_next else None,
        chain=request.chain,
        config=request.config,
        resolved=prepared.resolved,
        metadata=request.metadata,
        untrusted=request.untrusted,
        by_admin=request.is_of_admin,
        owner=request.owner,
        api_key_ref=request.api_key_ref,
        **asdict(request.submitted),
    )


def _workspace_setup(prepared: PreparedJob, job_id: str, repo: GitRepo) -> WorkspaceSetup:
    request = prepared.request
    return WorkspaceSetup(
        git_repo=repo.url,
        git_ref=request.git_ref,
        git_depth=request.git_depth,
        credentials_ref=git_secret_name(job_id) if repo.has_credential or request.token_from else None,
        token_from=request.token_from,
        **prepared.setup.as_fields(),
    )


def parts_of(job: Job, prepared: PreparedJob) -> Sequence[Resource]:
    """Return the resources that are stored with `job`: texts, conversation, event, repository's credential."""
    assert job.spec.prompt_ref is not None, "spec_of always sets one"
    texts = {PROMPT_KEY: prepared.texts.prompt}
    if job.spec.instructions_ref is not None:
        texts[INSTRUCTIONS_KEY] = prepared.texts.instructions or ""
    parts: list[Resource] = [ConfigMap(metadata=Metadata(name=job.spec.prompt_ref.name), data=texts)]
    if job.spec.conversation_ref and (follow_up := prepared.request.follow_up):
        conversation = {job.spec.conversation_ref.key: encode_conversation(follow_up.conversation)}
        parts.append(ConfigMap(metadata=Metadata(name=job.spec.conversation_ref.name), data=conversation))
    if job.spec.event_ref and prepared.request.event:
        parts.append(event_part(job.spec.event_ref.name, prepared.request.event))
    setup, repo = job.spec.workspace_setup, prepared.contents.repo
    if setup and setup.credentials_ref and repo and not setup.token_from:
        credential = {"username": repo.username, "password": repo.password}
        metadata = Metadata(name=setup.credentials_ref, labels=JOB_CREDENTIALS)
        parts.append(Secret(metadata=metadata, data=credential))
    return parts
