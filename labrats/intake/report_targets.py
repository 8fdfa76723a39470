"""The report of a new job to GitHub: resolved from the layers that may set it, with the target of the job."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent
from labrats.intake.request import JobRequest
from labrats.model.agent import AiAgent
from labrats.model.errors import Invalid, Problem
from labrats.model.report import Report, ReportTarget
from labrats.model.webhook_source import GITHUB, WebhookSource

_NOTHING = "must set `comment`, `check`, `review`, `pullRequest`, `labels` or `reactions`, which no layer sets"
_ONE_SOURCE = "must name a WebhookSource of type `github` that has a `credentialsRef`"

_CHECKS: Final = ("check_run", "workflow_run", "check_suite")


def report_of(request: JobRequest, agent: AiAgent | None, catalog: Catalog) -> Report | None:
    """Return the report of the requested job with its target; None if nothing is to be written, or nowhere.

    Raises Invalid for a submitted target whose credentials are not known.
    """
    source = request.webhook_source
    override = source.spec.override_of(request.repo_name) if source else None
    layers = [
        request.report,
        request.trigger.report if request.trigger else None,
        override.report if override else None,
        source.spec.report if source else None,
        agent.spec.report if agent else None,
    ]
    report = Report()
    for layer in layers:
        report = report.over(layer)
    if report.target:
        if not report.writes_anything:
            raise Invalid(Problem("report", _NOTHING))
        return replace(report, target=_with_source(report.target, catalog))
    if source is None or source.spec.credentials_ref is None or request.event is None or not report.writes_anything:
        return None
    target = target_of(request.event, source)
    opened = request.parent_pull_request
    if target and opened and target.pull_request != opened.number:
        target = replace(target, issue=None, pull_request=opened.number, head_sha=opened.commit, comment=None)
    return replace(report, target=target) if target else None


def target_of(event: IncomingEvent, source: WebhookSource) -> ReportTarget | None:
    """Return the thing that an event of GitHub is about; None if the event names no repository."""
    repository = event.text("repository", "full_name")
    if repository is None or source.spec.type != GITHUB:
        return None
    issue, pull_request = _issue_and_pull_request(event)
    return ReportTarget(
        repository=repository,
        issue=issue,
        pull_request=pull_request,
        source=source.name,
        head_sha=_head_sha(event),
        comment=_number(event.find("comment", "id")) if event.find("issue") is not None else None,
        repository_id=_number(event.find("repository", "id")),
    )


def _issue_and_pull_request(event: IncomingEvent) -> tuple[int | None, int | None]:
    if (number := _number(event.find("pull_request", "number"))) is not None:
        return None, number
    if (number := _number(event.find("issue", "number"))) is not None:
        return (None, number) if event.find("issue", "pull_request") is not None else (number, None)
    for subject in _CHECKS:
        pull_requests = event.find(subject, "pull_requests")
        if isinstance(pull_requests, list) and pull_requests and isinstance(pull_requests[0], Mapping):
            return None, _number(pull_requests[0].get("number"))
    return None, None


def _head_sha(event: IncomingEvent) -> str | None:
    paths = (("pull_request", "head", "sha"), ("check_run", "head_sha"), ("workflow_run", "head_sha"), ("after",))
    return next((sha for path in paths if (sha := event.text(*path))), None)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _with_source(target: ReportTarget, catalog: Catalog) -> ReportTarget:
    """Return the target with the name of the WebhookSource whose credentials are used. Raises Invalid."""
    with_credentials = [
        each for each in catalog.webhook_sources if each.spec.type == GITHUB and each.spec.credentials_ref is not None
    ]
    if target.source is not None:
        if not any(each.name == target.source for each in with_credentials):
            raise Invalid(Problem("report.target.source", _ONE_SOURCE))
        return target
    match with_credentials:
        case [only]:
            return replace(target, source=only.name)
        case []:
            message = "is required: no WebhookSource of type `github` has a `credentialsRef`, so nothing can be written"
        case _:
            message = "is required: several WebhookSources have a `credentialsRef`"
    raise Invalid(Problem("report.target.source", message))
