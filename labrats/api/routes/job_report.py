"""The report of a job to GitHub: what is published, what was refused, and what would be written now."""

from typing import Any

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.job_access import JobId, own_job
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.job import published_view
from labrats.api.schemas.report import PublishedView, ReportView

router = api_router("Jobs")


class CheckPreview(ResponseBody):
    """A check, in GitHub's words."""

    name: str = Field(examples=["labrats/ai-reviewer"])
    status: str = Field(examples=["completed"])
    conclusion: str | None = Field(examples=["success"])
    title: str = Field(examples=["2 findings"])


class ReviewPreview(ResponseBody):
    """A review. Findings outside of the diff are written into its text."""

    event: str = Field(examples=["COMMENT"])
    findings: list[dict[str, Any]] = Field(examples=[[{"path": "src/main.py", "line": 3, "title": "unused import"}]])


class PullRequestPreview(ResponseBody):
    """A pull request, if the agent has made commits."""

    branch: str = Field(examples=["labrats/ai-developer/17"])
    title: str = Field(examples=["Add a --version flag"])
    body: str
    draft: bool


class ReportPreview(ResponseBody):
    """The parts of the report as they would be written now; null for those that the report does not have."""

    comment: str | None
    check: CheckPreview | None
    review: ReviewPreview | None
    pull_request: PullRequestPreview | None


class JobReportView(ResponseBody):
    """The report of a job to GitHub."""

    report: ReportView | None = Field(description="Null if the job reports nothing.")
    published: PublishedView | None = Field(description="Null before the first part is published.")
    preview: ReportPreview | None


@router.get(
    "/api/jobs/{job_id}/report",
    responses=answers(200, JobReportView, "The report", 403, 404),
    summary="Get a job's report to GitHub",
)
async def get_report(request: Request, job_id: JobId) -> Response:
    """Return the published parts, the refused ones, and the report as it would be written now.

    With the mode `preview` nothing is written.
    """
    services, job = services_of(request), await own_job(request, job_id)
    preview = await services.forge.preview(services.runner, job)
    return json_response({"report": job.spec.report, "published": published_view(job), "preview": preview})
