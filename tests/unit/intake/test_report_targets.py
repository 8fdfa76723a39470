"""The report of a job: each of its keys from the first layer that sets it, and the thing that it is about."""

from typing import Any

import pytest

from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent
from labrats.intake.report_targets import report_of, target_of
from labrats.intake.request import JobRequest
from labrats.model.agent import AiAgent
from labrats.model.errors import Invalid
from labrats.model.record import Metadata
from labrats.model.report import CheckReport, CommentMode, Report, ReportTarget
from labrats.model.webhook_source import RepoOverride, WebhookSource, WebhookSourceSpec
from tests.support.builders import a_trigger, an_agent
from tests.support.deliveries import a_pull_request_event, an_issue_event

LAYERS = ("request", "trigger", "override", "source", "agent")
TARGET = ReportTarget(repository="octo/demo", issue=7, source="github")


def a_source(name: str = "github", *, credentials: str | None = "app", **fields: Any) -> WebhookSource:
    spec = WebhookSourceSpec(type="github", credentials_ref=credentials, **fields)
    return WebhookSource(metadata=Metadata(name=name, resource_version="1"), spec=spec)


def a_catalog(*sources: WebhookSource) -> Catalog:
    catalog = Catalog()
    for source in sources:
        catalog.put(source)
    return catalog


def an_event(name: str = "issues.labeled", **payload: Any) -> IncomingEvent:
    return IncomingEvent("github", name, payload or an_issue_event())


def a_request(**fields: Any) -> JobRequest:
    usual = {"source": "github", "type": "task", "owner": "key-1", "metadata": {"repo": "octo/demo"}}
    return JobRequest(**usual | fields)


def of_layers(reports: dict[str, Report], *, key: str = "comment") -> Any:
    """Return the value of a key of a job's report when these layers set theirs."""
    overrides = {"octo/demo": RepoOverride(report=reports.get("override"))}
    source = a_source(report=reports.get("source"), repo_overrides=overrides)
    agent: AiAgent = an_agent(report=reports.get("agent"))
    request = a_request(
        event=an_event(),
        webhook_source=source,
        trigger=a_trigger(report=reports.get("trigger")),
        report=reports.get("request"),
    )
    report = report_of(request, agent, a_catalog(source))
    return report and getattr(report, key)


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_the_first_layer_that_sets_a_key_wins(strongest: int) -> None:
    """The layer `strongest` sets one mode, and all below it set another."""
    reports = {name: Report(comment=CommentMode.FINAL) for name in LAYERS[strongest + 1 :]}
    reports[LAYERS[strongest]] = Report(comment=CommentMode.STICKY)
    assert of_layers(reports) is CommentMode.STICKY


def test_each_key_resolves_on_its_own() -> None:
    reports = {"trigger": Report(check=CheckReport(name="mine")), "agent": Report(comment=CommentMode.STICKY)}
    assert of_layers(reports) is CommentMode.STICKY
    assert of_layers(reports, key="check") == CheckReport(name="mine")


@pytest.mark.parametrize(
    "report",
    [Report(), Report(comment=CommentMode.NONE), Report(check=CheckReport(enabled=False), comment=CommentMode.NONE)],
)
def test_nothing_is_reported_where_nothing_is_to_be_written(report: Report) -> None:
    assert of_layers({"trigger": report}) is None


def test_nothing_is_reported_without_credentials() -> None:
    source = a_source(credentials=None, report=Report(comment=CommentMode.STICKY))
    request = a_request(event=an_event(), webhook_source=source)
    assert report_of(request, None, a_catalog(source)) is None


def test_an_agent_reports_nothing_for_a_job_without_an_event_or_target() -> None:
    agent = an_agent(report=Report(comment=CommentMode.STICKY))
    assert report_of(a_request(agent=agent), agent, a_catalog(a_source())) is None


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (an_issue_event(), {"issue": 7}),
        (an_issue_event(comment={"id": 33, "body": "hi"}), {"issue": 7, "comment": 33}),
        (
            an_issue_event(issue={"number": 8, "pull_request": {}}, comment={"id": 33}),
            {"pull_request": 8, "comment": 33},
        ),
        (
            a_pull_request_event() | {"pull_request": {"number": 8, "head": {"sha": "a" * 40}}},
            {"pull_request": 8, "head_sha": "a" * 40},
        ),
        (
            {
                "repository": {"full_name": "octo/demo"},
                "check_run": {"head_sha": "b" * 40, "pull_requests": [{"number": 9}]},
            },
            {"pull_request": 9, "head_sha": "b" * 40},
        ),
        ({"repository": {"full_name": "octo/demo"}, "after": "c" * 40}, {"head_sha": "c" * 40}),
        (an_issue_event(issue={"number": True}), {}),
    ],
)
def test_the_target_is_what_the_event_is_about(payload: dict[str, Any], wanted: dict[str, Any]) -> None:
    target = target_of(IncomingEvent("github", "any", payload), a_source())
    repository_id = payload["repository"].get("id")
    assert target == ReportTarget(repository="octo/demo", source="github", repository_id=repository_id, **wanted)


def test_an_event_without_a_repository_has_no_target() -> None:
    assert target_of(IncomingEvent("github", "ping", {"zen": "x"}), a_source()) is None


def submitted(target: ReportTarget, *sources: WebhookSource) -> Report | None:
    request = a_request(report=Report(comment=CommentMode.PER_JOB, target=target))
    return report_of(request, None, a_catalog(*sources))


def test_a_submitted_target_gets_the_only_source_with_credentials() -> None:
    report = submitted(ReportTarget(repository="octo/demo", issue=7), a_source(), a_source("other", credentials=None))
    assert report
    assert report.target == TARGET


@pytest.mark.parametrize(
    ("sources", "named", "message"),
    [
        ([], None, "no WebhookSource of type `github` has a `credentialsRef`"),
        ([a_source(), a_source("other")], None, "several WebhookSources have a `credentialsRef`"),
        ([a_source()], "unknown", "must name a WebhookSource of type `github`"),
        ([a_source(credentials=None)], "github", "must name a WebhookSource of type `github`"),
    ],
)
def test_a_submitted_target_without_one_source_is_refused(
    sources: list[WebhookSource], named: str | None, message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        submitted(ReportTarget(repository="octo/demo", issue=7, source=named), *sources)


def test_a_submitted_target_needs_something_to_write() -> None:
    with pytest.raises(Invalid, match="must set `comment`"):
        report_of(a_request(report=Report(target=TARGET)), None, a_catalog(a_source()))
