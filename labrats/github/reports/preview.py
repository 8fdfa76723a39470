"""The report that a job would get now, without a look at GitHub."""

from typing import Any

from msgspec import to_builtins

from labrats.github.reports.check import check_of
from labrats.github.reports.comment import comment_body
from labrats.github.reports.pull_request import branch_name, pull_request_body, pull_request_title
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.report import CommentMode, PublishPolicy, Report, ReportTarget


def preview_of(reported: ReportedJob, report: Report, target: ReportTarget) -> dict[str, Any]:
    """Return the parts of the report in the API's form, see ReportPreview. Parts that are not set are None."""
    return {
        "comment": _comment(reported, report, target),
        "check": _check(reported, report),
        "review": _review(reported, report, target),
        "pullRequest": _pull_request(reported, report, target),
    }


def _comment(reported: ReportedJob, report: Report, target: ReportTarget) -> str | None:
    is_due = reported.job.ended if report.comment is CommentMode.FINAL else report.comment in _WRITTEN
    return comment_body(reported) if is_due and target.number is not None else None


_WRITTEN = (CommentMode.STICKY, CommentMode.PER_JOB)


def _check(reported: ReportedJob, report: Report) -> dict[str, Any] | None:
    if report.check is None or not report.check.enabled:
        return None
    check = check_of(reported)
    return {"name": check.name, "status": check.status, "conclusion": check.conclusion, "title": check.title}


def _review(reported: ReportedJob, report: Report, target: ReportTarget) -> dict[str, Any] | None:
    if report.review is None or not report.review.enabled or target.pull_request is None:
        return None
    return {"event": report.review.event, "findings": to_builtins(reported.publication.findings)}


def _pull_request(reported: ReportedJob, report: Report, target: ReportTarget) -> dict[str, Any] | None:
    rules = report.pull_request
    if rules is None or not rules.enabled or (report.policy or PublishPolicy()).max_pull_requests == 0:
        return None
    return {
        "branch": branch_name(rules.branch, reported, target),
        "title": pull_request_title(reported, rules, None),
        "body": pull_request_body(reported, rules, target),
        "draft": rules.draft,
    }
