"""Write the check run of a job, or a commit status with credentials that are no App's."""

from dataclasses import asdict
from typing import Any, Final

import msgspec

from labrats.github.client.access import CHECKS, STATUSES, Access
from labrats.github.publisher.creations import Creations
from labrats.github.reports.check import Annotation, Check, check_of
from labrats.github.reports.reported_job import ReportedJob

_ANNOTATIONS_AT_ONCE: Final = 50


class CheckApp(msgspec.Struct, frozen=True):
    """The App that made a check run."""

    id: int


class CheckOutput(msgspec.Struct, frozen=True):
    """The texts of a check run."""

    annotations_count: int = 0


class CheckRun(msgspec.Struct, frozen=True):
    """A check run."""

    id: int
    html_url: str | None = None
    external_id: str | None = None
    app: CheckApp | None = None
    output: CheckOutput = CheckOutput()


class _CheckRuns(msgspec.Struct):
    check_runs: list[CheckRun]


class _Status(msgspec.Struct):
    context: str = ""
    state: str = ""
    description: str | None = None


async def write_check(access: Access, creations: Creations, head_sha: str, reported: ReportedJob) -> str | None:
    """Bring the check of the job on a commit up to date, and return its URL. Raises RefusedByGitHub, RetryLater."""
    check = check_of(reported)
    if access.identity.app_id is None:
        await _write_status(access, head_sha, check, reported)
        return None
    body, name = _body(check, reported), f"check run of {head_sha}"
    run_id = creations.id_of(name) or await _find(access, head_sha, check.name, reported.job.id)
    if run_id is not None:
        written = await access.repository.patch(f"/check-runs/{run_id}", body, CheckRun, CHECKS)
    else:
        new, post = body | {"head_sha": head_sha}, access.repository.post
        written = await creations.create(
            name, lambda: post("/check-runs", new, CheckRun, CHECKS, name=name), lambda run: run.id
        )
    await _annotate(access, written, check)
    return written.html_url


async def _annotate(access: Access, run: CheckRun, check: Check) -> None:
    """Add the annotations that the check run does not have yet, in blocks: GitHub keeps all that it gets."""
    while run.output.annotations_count < len(check.annotations):
        start = run.output.annotations_count
        block = [_annotation(each) for each in check.annotations[start : start + _ANNOTATIONS_AT_ONCE]]
        body = {"output": {"title": check.title, "summary": check.summary, "annotations": block}}
        run = await access.repository.patch(f"/check-runs/{run.id}", body, CheckRun, CHECKS)
        if run.output.annotations_count <= start:
            return  # GitHub does not count them


def _annotation(annotation: Annotation) -> dict[str, Any]:
    return {
        "path": annotation.path,
        "start_line": annotation.start_line,
        "end_line": annotation.end_line,
        "annotation_level": annotation.level,
        "message": annotation.message,
    } | ({"title": annotation.title} if annotation.title else {})


def _body(check: Check, reported: ReportedJob) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": check.name,
        "external_id": reported.job.id,
        "status": check.status,
        "output": {"title": check.title, "summary": check.summary},
        "actions": [asdict(button) for button in check.buttons],
    }
    if reported.url:
        body["details_url"] = reported.url
    if check.conclusion:
        body["conclusion"] = check.conclusion
    return body


async def _find(access: Access, head_sha: str, name: str, job_id: str) -> int | None:
    """Return the id of the check run of the job; None if GitHub lists none."""
    path, query = f"/commits/{head_sha}/check-runs", {"check_name": name, "filter": "all"}
    async for page in access.repository.pages(path, _CheckRuns, CHECKS, **query):
        for run in page.check_runs:
            if run.external_id == job_id and run.app and run.app.id == access.identity.app_id:
                return run.id
    return None


async def _write_status(access: Access, head_sha: str, check: Check, reported: ReportedJob) -> None:
    statuses = await access.repository.get(f"/commits/{head_sha}/statuses", list[_Status], STATUSES)
    latest = next((each for each in statuses if each.context == check.name), None)
    if latest and (latest.state, latest.description) == (check.status_state, check.description):
        return
    body = {"state": check.status_state, "context": check.name, "description": check.description}
    if reported.url:
        body["target_url"] = reported.url
    await access.repository.add(f"/statuses/{head_sha}", body, STATUSES)
