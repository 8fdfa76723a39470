"""Jobs: submit, list, show, follow, retry, publish again, run again, follow up, cancel."""

from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Annotated, Final, Literal

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.download import OpenFile
from labrats.api.http.event_stream import EventStream
from labrats.api.http.idempotency import KEY_HEADER, REPLAYED, IdempotencyKey, job_names
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.job_access import JobId, own_job
from labrats.api.routes.job_filters import WantedJobs
from labrats.api.routes.job_streams import LastEventId, parse_event_id, stream
from labrats.api.routes.job_texts import EXAMPLE_LOG, PlainLog, plain_log, result_of, with_result_of
from labrats.api.routes.queue import waiting_view
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.job import JobDetail, JobFacets, JobPage, job_detail
from labrats.api.schemas.submission import (
    NO_CHANGES,
    Message,
    Rerun,
    Submission,
    check_complete,
    job_request,
    message_changes,
    rerun_changes,
)
from labrats.api.services import Services
from labrats.intake.follow_ups import follow_up_request
from labrats.intake.job_names import JobNames
from labrats.intake.publish_again import require_commits
from labrats.intake.request import JobRequest
from labrats.intake.reruns import rerun_request
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import IllegalMove, NotFound
from labrats.model.job import Job, after_cancel_request, after_publish_request, after_retry_request, check_git_token
from labrats.model.phases import Phase
from labrats.model.protocol import StoredLine
from labrats.ports import compare_and_set

router = api_router("Jobs")


EXAMPLE_STREAM: Final = """\
id: 1-4
data: {"log":"reading the issue"}

data: {"done":true,"status":"completed"}

"""

EXAMPLE_PATCH: Final = """\
diff --git a/hello.txt b/hello.txt
--- a/hello.txt
+++ b/hello.txt
@@ -1 +1 @@
-hello
+hello, world
"""


class Patch(OpenFile):
    """A patch as raw bytes: its lines have the encodings of the changed files."""

    media_type = "text/x-diff"
    charset = "utf-8"


class Bundle(OpenFile):
    """A git bundle as raw bytes."""

    media_type = "application/x-git-bundle"


class Submitted(ResponseBody):
    """The answer to a submission."""

    job_id: str = Field(examples=["ir-3ab1c2d4"])
    source: str = Field(examples=["github"])
    type: str = Field(examples=["implement-issue"])


@router.post(
    "/api/jobs/submit",
    status_code=201,
    responses=answers(
        201,
        Submitted,
        "The job is on stable storage",
        400,
        413,
        415,
        422,
        429,
        headers={REPLAYED: f"`true` if an earlier request with the same `{KEY_HEADER}` created the job."},
    ),
    summary="Submit a job",
)
async def submit(request: Request, body: Submission, idempotency_key: IdempotencyKey = None) -> Response:
    """Queue a job. It is on stable storage when the answer arrives, and will end in exactly one terminal phase."""
    check_complete(body)
    caller = caller_of(request)
    return await _admitted(request, job_request(body, caller), job_names(idempotency_key, caller.id, body))


async def _admitted(request: Request, wanted: JobRequest, names: JobNames) -> Response:
    """Create the job, and return the answer to its submission."""
    return _submitted(*await services_of(request).admission.admit(wanted, names))


def _submitted(job: Job, is_replay: bool) -> Response:
    answer = json_response({"jobId": job.id, "source": job.spec.source, "type": job.spec.type}, 201)
    if is_replay:
        answer.headers[REPLAYED] = "true"
    return answer


Omit = Annotated[Literal["result"] | None, Query(description="A field to leave out: the result may be large.")]


@router.get("/api/jobs", responses=answers(200, JobPage, "A page of jobs", 403, 422), summary="List jobs")
async def list_jobs(
    request: Request,
    wanted: WantedJobs,
    page: Annotated[int, Query(ge=1, le=10**9, description="1 is the newest page.")] = 1,
    limit: Annotated[int, Query(description="Number of jobs on a page; clamped to 1-100.")] = 20,
    cursor: Annotated[
        str | None,
        Query(
            description="Empty for the first page, then the `next` of the page before. A cursor stays valid while jobs "
            "arrive. Instead of `total` and `page`, the answer has `next`: null on the last page."
        ),
    ] = None,
    sort: Annotated[Literal["newest", "oldest"], Query(description="The order, by creation.")] = "newest",
    omit: Omit = None,
) -> Response:
    """List the caller's jobs, newest first by default; an admin sees all jobs. Empty filters are ignored."""
    services, limit, oldest_first = services_of(request), min(100, max(1, limit)), sort == "oldest"
    if cursor is None:
        jobs, total = await services.job_index.find_jobs(wanted, page=page, limit=limit, oldest_first=oldest_first)
        place: dict[str, int | str | None] = {"total": total, "page": page, "limit": limit}
    else:
        jobs, following = await services.job_index.find_page(
            wanted, cursor=cursor or None, limit=limit, oldest_first=oldest_first
        )
        place = {"next": following, "limit": limit}
    items = await services.job_items.of(jobs, with_result=omit != "result")
    return json_response({"jobs": items, **place})


@router.get(
    "/api/jobs/facets",
    responses=answers(200, JobFacets, "The counts", 403, 422),
    summary="Count jobs by the values of their fields",
)
async def get_job_facets(request: Request, wanted: WantedJobs) -> Response:
    """Count the jobs that match the filters by status, failure code, model, agent, repository and owner.

    Each of these fields is counted without the filter by itself: `?model=opus` also counts the jobs of other models.
    """
    fixed = frozenset[str]() if caller_of(request).sees_all else frozenset({"owner"})
    facets = await services_of(request).job_index.facets(wanted, fixed=fixed)
    return json_response(
        {name: [{"value": value, "count": count} for value, count in values] for name, values in facets.items()}
    )


@router.get(
    "/api/jobs/{job_id}",
    responses=answers(200, JobDetail, "The job", 403, 404, 422),
    summary="A job's detail",
)
async def get_job(request: Request, job_id: JobId, omit: Omit = None) -> Response:
    """Return all about one job; while it runs, with its latest log lines and its usage so far."""
    job = await own_job(request, job_id)
    if omit == "result":
        return await detail_of(request, job, with_result=False)
    return await with_result_of(job, request, partial(detail_of, request, job))


@router.get(
    "/api/jobs/{job_id}/logs",
    response_class=EventStream,
    responses=answers(
        200, None, "The log, live or as text", 403, 404, 422,
        text={EventStream.media_type: EXAMPLE_STREAM, PlainLog.media_type: EXAMPLE_LOG},
    ),
    summary="Follow a job's log",
)  # fmt: skip
async def follow_log(
    request: Request,
    job_id: JobId,
    format: Annotated[  # noqa: A002, the API's word
        Literal["text"] | None, Query(description="`text`: the log so far as plain text, instead of a stream.")
    ] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Stream events: `{"log": "…"}` per line, then `{"done": true, "status": "…"}`. `Last-Event-ID` resumes."""
    async with services_of(request).stream_lock.hold():  # hundreds of readers may connect at once
        pass
    job = await own_job(request, job_id)
    if format == "text":
        return plain_log(services_of(request), job)
    return EventStream(stream(services_of(request), job_id, parse_event_id(last_event_id), log_line))


def log_line(_: int, stored: StoredLine, __: bytes) -> bytes | None:
    """Return the JSON of a log event, its text spliced from the stored line; None for another event."""
    return b'{"log":%s}' % stored.text if stored.is_log else None


@router.get(
    "/api/jobs/{job_id}/patch",
    response_class=Patch,
    responses=answers(200, None, "The patch", 403, 404, 422, text={Patch.media_type: EXAMPLE_PATCH}),
    summary="What a job changed",
)
async def get_patch(
    request: Request,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, description="The attempt. Default: the latest.")] = None,
) -> Response:
    """Return the changes of an attempt to its workspace, even a failed one's, for `git apply`.

    Those of a running attempt are the changes so far, and may be some seconds old. Files that git ignores are missing.
    """
    name, is_running = await _attempt(request, job_id, attempt, "patch")
    runner = services_of(request).runner
    if is_running:
        try:
            return Patch(await runner.changes_so_far(name))
        except NotFound as error:
            raise NotFound(f"the job {job_id} has changed no file so far") from error
    try:
        return Patch(await runner.patch(name))
    except NotFound as error:
        reason = "it changed no file, its log says why, or its output was deleted"
        raise NotFound(f"the job {job_id} left no patch: {reason}") from error


@router.get(
    "/api/jobs/{job_id}/bundle",
    response_class=Bundle,
    responses=answers(200, None, "The bundle", 403, 404, 422, text={Bundle.media_type: "the bundle's bytes"}),
    summary="The commits of a job",
)
async def get_bundle(
    request: Request,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, description="The attempt. Default: the latest.")] = None,
) -> Response:
    """Return the commits of an attempt, even a failed one's, as a git bundle with the ref `refs/heads/labrats`.

    Its prerequisite is the commit that was cloned. Changes that the agent has not committed are the last commit.
    """
    name, is_running = await _attempt(request, job_id, attempt, "bundle")
    if is_running:
        raise NotFound(f"the job {job_id} is running; its bundle is available once it has ended")
    try:
        return Bundle(await services_of(request).runner.bundle(name))
    except NotFound as error:
        reason = "it has no repository, it changed nothing, its log says why, or its output was deleted"
        raise NotFound(f"the job {job_id} left no bundle: {reason}") from error


async def _attempt(request: Request, job_id: str, attempt: int | None, kind: str) -> tuple[AttemptName, bool]:
    """Return the name of an attempt, the latest without a number, and whether it runs. Raises NotFound without any.

    kind: what the caller asks for.
    """
    job = await own_job(request, job_id)
    if job.status.attempts == 0:
        raise NotFound(f"the job {job_id} has not run yet: it has no {kind}")
    number = attempt or job.status.attempts
    if number > job.status.attempts:
        raise NotFound(f"the job {job_id} has {job.status.attempts} attempts, and no attempt {number}")
    return AttemptName(job_id, number), job.phase is Phase.RUNNING and number == job.status.attempts


@router.post(
    "/api/jobs/{job_id}/retry",
    responses=answers(200, JobDetail, "The job, waiting again", 400, 403, 404),
    summary="Retry a failed job",
)
async def retry(request: Request, job_id: JobId) -> Response:
    """Queue a failed job again. Its attempts are numbered on.

    A job is not retried while a newer one of its concurrency key supersedes it.
    """
    services = services_of(request)
    await _check_not_superseded(services, await own_job(request, job_id))
    _, job = await compare_and_set(
        services.store,
        lambda: own_job(request, job_id),
        lambda found: after_retry_request(found, services.clock.now()),
    )
    return await with_result_of(job, request, partial(detail_of, request, job))


@router.post(
    "/api/jobs/{job_id}/publish",
    responses=answers(200, JobDetail, "The job, whose report is being written", 400, 403, 404),
    summary="Write the report of a job to GitHub again",
)
async def publish(request: Request, job_id: JobId) -> Response:
    """Write the comment, check, review and pull request of an ended job again, without running its agent.

    What GitHub has stays as it is; what is missing is written. It is possible as long as the job's commits are stored.
    """
    services = services_of(request)
    await require_commits(services.runner, await own_job(request, job_id))
    _, job = await compare_and_set(
        services.store,
        lambda: own_job(request, job_id),
        lambda found: after_publish_request(found, services.clock.now()),
    )
    return await with_result_of(job, request, partial(detail_of, request, job))


@router.post(
    "/api/jobs/{job_id}/rerun",
    status_code=201,
    responses=answers(
        201,
        Submitted,
        "The new job is on stable storage",
        400,
        403,
        404,
        413,
        415,
        422,
        429,
        headers={REPLAYED: f"`true` if an earlier request with the same `{KEY_HEADER}` created the job."},
    ),
    summary="Run a job again as a new one",
)
async def rerun(
    request: Request, job_id: JobId, body: Rerun = NO_CHANGES, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit a job again, with its prompt, instructions, files and repository, and perhaps other settings.

    The new job belongs to the caller, is in no chain, has a callback only with `callbackUrl`, and reports to GitHub
    only with `report`.
    Settings of agents and the engine apply as they are now; those of a deleted or disabled agent as they were recorded.
    """
    services, caller, job = services_of(request), caller_of(request), await own_job(request, job_id)
    changes, names = rerun_changes(body, caller), job_names(idempotency_key, f"{caller.id} {job_id}", body)
    if stored := await services.admission.find(names):
        return _submitted(stored, is_replay=True)  # the job's token or files may be gone since
    wanted = await rerun_request(services.stored_jobs, job, changes, caller)
    return await _admitted(request, wanted, names)


@router.post(
    "/api/jobs/{job_id}/messages",
    status_code=201,
    responses=answers(
        201,
        Submitted,
        "The new job is on stable storage",
        400,
        403,
        404,
        413,
        415,
        422,
        429,
        headers={REPLAYED: f"`true` if an earlier request with the same `{KEY_HEADER}` created the job."},
    ),
    summary="Follow up an ended job",
)
async def send_message(
    request: Request, job_id: JobId, body: Message, idempotency_key: IdempotencyKey = None
) -> Response:
    """Send a further message to the agent of an ended job: a new job, which continues that one.

    It works in a copy of the job's session and workspace where they still exist. Otherwise it starts in a new
    workspace, and its prompt has the conversation so far. It has the job's agent, settings, repository, files and
    report. A job that has not ended is refused with the code `not_ended`.
    """
    services, caller, job = services_of(request), caller_of(request), await own_job(request, job_id)
    names = job_names(idempotency_key, f"{caller.id} {job_id} messages", body)
    if stored := await services.admission.find(names):
        return _submitted(stored, is_replay=True)  # the job may have been retried since
    async with AsyncExitStack() as stack:
        if job.status.result_cut:
            await stack.enter_async_context(services.large_answers.turn_of(caller.id))
            await stack.enter_async_context(services.large_answers.creation)
        wanted = await follow_up_request(services.stored_jobs, services.runner, job, message_changes(body), caller)
    return await _admitted(request, wanted, names)


@router.post(
    "/api/jobs/{job_id}/cancel",
    responses=answers(200, JobDetail, "Cancelled, or being cancelled", 400, 403, 404),
    summary="Cancel a job",
)
async def cancel(request: Request, job_id: JobId) -> Response:
    """Cancel a waiting job at once. Stop a running one, which is active until all its processes have ended."""
    services = services_of(request)
    before, job = await compare_and_set(
        services.store,
        lambda: own_job(request, job_id),
        lambda found: after_cancel_request(found, services.clock.now(), caller_of(request).id),
    )
    if job.ended:  # it was Pending; the controller counts the end of a Running one
        services.metrics.job_moved(before, job, services.clock.now())
    return await with_result_of(job, request, partial(detail_of, request, job))


async def _check_not_superseded(services: Services, job: Job) -> None:
    if job.phase is Phase.FAILED and (newer := await services.job_index.superseder_of(job)):
        raise IllegalMove(f"the job {newer} with the same concurrency key supersedes this one; wait until it has ended")


async def _reason_to_refuse_retry(services: Services, job: Job) -> str | None:
    """Return the reason why a failed job cannot be retried now; None if it can, and for any other job."""
    if job.phase is not Phase.FAILED:
        return None
    try:
        check_git_token(job, services.clock.now())
        await _check_not_superseded(services, job)
    except IllegalMove as error:
        return str(error)
    return None


async def detail_of(request: Request, job: Job, *, with_result: bool = True) -> Response:
    services = services_of(request)
    live = activity = None
    if job.phase is Phase.RUNNING:
        live = await services.runner.tail(job.attempt_name)
        activity = await services.activities.of(job.attempt_name, job.spec.owner)
    result = None
    if with_result:
        with suppress(NotFound):  # its retention period has passed
            result = await result_of(services, job)
    place = await services.runner.place(job.attempt_name)
    waiting = await waiting_view(services, job, caller_of(request)) if job.phase is Phase.PENDING else None
    refused = await _reason_to_refuse_retry(services, job)
    detail = job_detail(
        job, result=result, live=live, activity=activity, place=place, waiting=waiting, retry_refused=refused
    )
    if not with_result:
        del detail["result"], detail["returnvalue"]
    return json_response(detail)
