"""Follow-ups: a further prompt to the agent of an ended job, as a new job that continues the conversation."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Final

from labrats.intake.request import FollowUp, JobRequest
from labrats.intake.reruns import Changes, rerun_request
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.caller import Caller
from labrats.model.conversation import TEXT_BYTES, continued
from labrats.model.errors import IllegalMove, NotEnded, NotFound
from labrats.model.job import Job
from labrats.model.outside_text import text_within
from labrats.model.phases import Phase
from labrats.ports import Runner

_NOT_ENDED: Final = (
    "the job has not ended: wait for its end or cancel it, then send the message again "
    "(`labrats wait {id}`, `labrats cancel {id}`)"
)


async def follow_up_request(
    stored_jobs: StoredJobs, runner: Runner, job: Job, message: Changes, caller: Caller
) -> JobRequest:
    """Return the request for a follow-up of `job`, which continues that job and not later ones of the conversation.

    The new job belongs to the caller. It has the agent, settings, repository and files of the first one, its report
    unless `message.report` is False, and is untrusted if that is.

    Raises NotEnded while the job has not ended, IllegalMove if a part of it no longer exists, and Invalid if a report
    is wanted and the job has none.
    """
    if not job.ended:
        raise NotEnded(_NOT_ENDED.format(id=job.id))
    if job.spec.pipeline:
        raise IllegalMove("a pipeline has no conversation to continue; run the job again with another prompt")
    try:
        earlier_prompt = (await stored_jobs.texts_of(job)).prompt
    except NotFound as error:
        raise IllegalMove("the job's prompt was deleted; submit a new job") from error
    earlier = await stored_jobs.conversation_of(job)
    follow_up = FollowUp(job.id, job.metadata.uid, continued(earlier, earlier_prompt, await _answer_of(runner, job)))
    request = await rerun_request(stored_jobs, job, message, caller, follow_up)
    return request if message.report is False else replace(request, report=job.spec.report)


async def _answer_of(runner: Runner, job: Job) -> str:
    """Return the answer of the job's agent, or what became of the job without one."""
    if job.phase is Phase.CANCELLED:
        return "(This job was cancelled before it had an answer.)"
    if job.phase is Phase.FAILED:
        return f"(This job failed: {job.status.failed_reason})"
    if job.status.result_cut:
        with suppress(NotFound):  # its retention period has passed
            return text_within(await runner.result(job.attempt_name), TEXT_BYTES)
    result = job.status.result
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
