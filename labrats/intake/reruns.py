"""Requests to run a job again as a new one, with the same texts, files and repository, and perhaps other settings."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from labrats.intake.request import FirstJob, FollowUp, JobRequest
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.caller import Caller
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.config import REQUEST_LAYER, RERUN_LAYER, JobConfig, ResolvedConfig, wire_name
from labrats.model.errors import IllegalMove, Invalid, NotFound, Problem
from labrats.model.git_repo import GitRepo
from labrats.model.job import Job, SubmittedFields, check_git_token
from labrats.model.workspace_setup import Setup

_CHOSEN: Final = frozenset({REQUEST_LAYER, RERUN_LAYER, "trigger", "webhook-source-override", "webhook-source"})
"""The layers whose settings were chosen for the first job. Those of agents and the engine apply as they are now."""


@dataclass(frozen=True)
class Changes:
    """Changes to the first job. None where nothing changes.

    report: True if the new job must report where the first one did, by the same rules; False if it must not.
    """

    prompt: str | None = None
    config: JobConfig = JobConfig()
    priority: int | float | None = None
    metadata: dict[str, Any] | None = None
    report: bool | None = None
    result_schema: dict[str, Any] | None = None
    callback_url: str | None = None


async def rerun_request(
    stored_jobs: StoredJobs, job: Job, changes: Changes, caller: Caller, follow_up: FollowUp | None = None
) -> JobRequest:
    """Return the request to run `job` again.

    The new job belongs to the caller and is in no chain. Only a callback of `changes` reports it. If the first one is
    somebody else's, its files and commands fill no cached folder of the caller, and it has no concurrency key. Else it
    waits for the others of the key. A rerun of a follow-up continues the same conversation. follow_up: the
    conversation of a job that continues `job` instead.

    Raises IllegalMove if a part of the first job no longer exists, if its git token has expired, or if the job, applied
    with kubectl or of a delivery, was never accepted: the new job would get its Secrets without the checks. Raises
    Invalid if a report is wanted and the first job has none, or if an applied job may no longer have its Secrets.
    """
    if not stored_jobs.has_accepted(job):
        raise IllegalMove("the job was never accepted, so that nothing has checked what it asks for; submit it again")
    if changes.report and not (job.spec.report and job.spec.report.target):
        raise Invalid(Problem("report", "must be false: the first job reports to no issue or pull request"))
    spec, setup, is_own = job.spec, job.spec.workspace_setup, job.spec.owner == caller.id
    if spec.resolved is None:  # applied with kubectl
        await stored_jobs.check_credentials(job)
    try:
        texts = await stored_jobs.texts_of(job)
        repo = await (_repo_of_follow_up if follow_up else _repo_of_rerun)(stored_jobs, job)
    except NotFound as error:
        raise IllegalMove("the job's prompt or git credential was deleted; submit the job again") from error
    return JobRequest(
        source=spec.source,
        type=spec.type,
        owner=caller.id,
        api_key_ref=caller.secret,
        prompt=changes.prompt,
        follow_up=follow_up or await _same_conversation(stored_jobs, job),
        first=FirstJob(job, texts, chosen_settings(job.resolved)),
        agent_role=spec.agent_role,
        config=changes.config,
        submitted=SubmittedFields(
            priority=spec.priority if changes.priority is None else changes.priority, callback_url=changes.callback_url
        ),
        concurrency=_in_turn(spec.concurrency) if spec.concurrency and is_own else None,
        repo=repo,
        token_from=setup.token_from if setup else None,
        git_ref=setup.git_ref if setup else None,
        git_depth=setup.git_depth if setup else None,
        setup=(setup or Setup()) if is_own else _without_caches(setup or Setup()),
        files=await stored_jobs.files_of(job),
        is_by_admin=caller.is_admin,
        untrusted=spec.untrusted,
        pipeline=spec.pipeline,
        report=spec.report if changes.report else None,
        result_schema=changes.result_schema or (None if follow_up else job.result_schema),  # a follow-up is a talk
        metadata=spec.metadata if changes.metadata is None else changes.metadata,
    )


def _in_turn(concurrency: Concurrency) -> Concurrency:
    """Return the key for a job that waits for the others of the key and supersedes none: they may be newer work."""
    return replace(concurrency, on_new=OnNew.QUEUE, debounce_seconds=0)


def _without_caches(setup: Setup) -> Setup:
    """Return the setup with no cached folders, also none of the agent's."""
    return Setup(**(setup.as_fields() | {"cache": ()}))


async def _repo_of_rerun(stored_jobs: StoredJobs, job: Job) -> GitRepo | None:
    check_git_token(job, stored_jobs.clock.now())
    return await stored_jobs.repo_of(job)


async def _repo_of_follow_up(stored_jobs: StoredJobs, job: Job) -> GitRepo | None:
    """Return the repository, without its credential once that has expired: the workspace may still exist."""
    try:
        return await _repo_of_rerun(stored_jobs, job)
    except (IllegalMove, NotFound):
        setup = job.spec.workspace_setup
        return GitRepo(setup.git_repo) if setup else None


async def _same_conversation(stored_jobs: StoredJobs, job: Job) -> FollowUp | None:
    spec = job.spec
    if spec.follow_up_of is None:
        return None
    return FollowUp(spec.follow_up_of, spec.follow_up_uid, await stored_jobs.conversation_of(job))


def chosen_settings(resolved: ResolvedConfig) -> JobConfig:
    """Return the settings that were chosen for a job, and its provider.

    Of the isolation, that is the level that the job got: its caller may have asked for less than a caller without an
    admin key can have, and an administrator who runs the job again must not grant it unawares.
    """
    values = msgspec.structs.asdict(resolved.config)
    chosen = {name: value for name, value in values.items() if resolved.origins.get(wire_name(name)) in _CHOSEN}
    if "isolation" in chosen:
        chosen["isolation"] = resolved.isolation
    return JobConfig(**(chosen | {"provider": resolved.provider}))
