"""Requests to write the report of an ended job to GitHub again, from what the job has left behind."""

from labrats.model.errors import IllegalMove, NotFound
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.ports import Runner


async def require_commits(runner: Runner, job: Job) -> None:
    """Raise IllegalMove if the commits that the report of a job needs are no longer stored. Raises RetryLater, too."""
    rules = job.spec.report.pull_request if job.spec.report else None
    if job.phase is Phase.SUCCEEDED and rules and rules.enabled and job.status.outputs.bundle_bytes:
        try:
            (await runner.bundle(job.attempt_name)).close()
        except NotFound:
            raise IllegalMove("the commits of the job are no longer stored; run the job again") from None
