"""The check run of a job, or the commit status that takes its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from labrats.github.reports.comment import answer_of, changed_nothing
from labrats.github.reports.markdown import neutralised, one_line
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase

_SUMMARY_BYTES: Final = 60_000
_TITLE_LENGTH: Final = 200
_DESCRIPTION_LENGTH: Final = 140

_ANNOTATION_TITLE_LENGTH: Final = 200
_ANNOTATION_BYTES: Final = 8 * 1024
_LEVELS: Final = {"info": "notice", "warning": "warning", "error": "failure"}

_NEEDS_ACTION: Final = frozenset(
    {FailedCode.AUTH, FailedCode.QUOTA, FailedCode.MODEL_NOT_FOUND, FailedCode.INVALID, FailedCode.BUDGET}
)
_TIMED_OUT: Final = frozenset({FailedCode.TIMEOUT, FailedCode.START_TIMEOUT})
_CONCLUSIONS: Final = frozenset({"success", "failure", "neutral", "action_required"})
"""Conclusions that a checked value may contain."""

_STATUS_STATES: Final[Mapping[str | None, str]] = {
    None: "pending",
    "success": "success",
    "neutral": "success",
    "failure": "failure",
}


@dataclass(frozen=True)
class Annotation:
    """A finding on lines of a file. level: `notice`, `warning` or `failure`."""

    path: str
    start_line: int
    end_line: int
    level: str
    title: str
    message: str


@dataclass(frozen=True)
class Button:
    """A button of a check run. identifier: comes back with the event of a click."""

    label: str
    description: str
    identifier: str


@dataclass(frozen=True)
class Check:
    """A check in GitHub's words. conclusion: None while the job has not ended."""

    name: str
    status: str
    conclusion: str | None
    title: str
    summary: str
    annotations: Sequence[Annotation] = ()
    buttons: Sequence[Button] = ()

    @property
    def status_state(self) -> str:
        """The state of the commit status that says the same."""
        return _STATUS_STATES.get(self.conclusion, "error")

    @property
    def description(self) -> str:
        """The text of that commit status."""
        return self.title[:_DESCRIPTION_LENGTH]


def check_of(reported: ReportedJob) -> Check:
    """Return the check of the job in its present state."""
    report, hosts = reported.job.spec.report, reported.known_hosts
    name = (report.check.name if report and report.check else None) or f"labrats/{reported.agent}"
    status = {Phase.PENDING: "queued", Phase.RUNNING: "in_progress"}.get(reported.job.phase, "completed")
    conclusion = conclusion_of(reported)
    has_verdict = reported.job.phase is Phase.SUCCEEDED and _has_seen_head(reported)
    title = one_line(_title(reported, conclusion), hosts, _TITLE_LENGTH)
    summary = answer_of(reported) if reported.job.phase is Phase.SUCCEEDED else reported.job.status.failed_reason or ""
    return Check(
        name=name,
        status=status,
        conclusion=conclusion,
        title=title,
        summary=neutralised(summary, hosts, _SUMMARY_BYTES) or title,
        annotations=_annotations(reported) if has_verdict else (),
        buttons=_buttons(reported.job.phase),
    )


def _annotations(reported: ReportedJob) -> Sequence[Annotation]:
    """Return the findings on the new version of files."""
    hosts = reported.known_hosts
    return [
        Annotation(
            path=finding.path,
            start_line=min(finding.start_line or finding.line, finding.line),
            end_line=finding.line,
            level=_LEVELS[finding.severity],
            title=one_line(finding.title, hosts, _ANNOTATION_TITLE_LENGTH),
            message=neutralised(finding.body or finding.title or "a finding", hosts, _ANNOTATION_BYTES, is_last=True),
        )
        for finding in reported.publication.findings
        if finding.side == "RIGHT" and finding.line is not None
    ]


def _buttons(phase: Phase) -> Sequence[Button]:
    if phase in (Phase.PENDING, Phase.RUNNING):
        return [Button("Cancel", "Cancel the job", "cancel")]
    return [Button("Retry", "Retry the job", "retry")] if phase is Phase.FAILED else []


def conclusion_of(reported: ReportedJob) -> str | None:
    """Return GitHub's word for the end of the job; None if it has not ended.

    The checked value of a job that succeeded decides, or else a finding of the severity `error` fails its check. Where
    findings may be lost, or are about another commit than that of the check, the check has no verdict.
    """
    job = reported.job
    match job.phase:
        case Phase.SUCCEEDED:
            if not _has_seen_head(reported):
                return "neutral"
            if reported.lost:
                return "neutral"
            if decided := _conclusion_in(job.status.result_data):
                return decided
            if reported.ignored:
                return "action_required"
            if any(finding.severity == "error" for finding in reported.publication.findings):
                return "failure"
            return "neutral" if changed_nothing(reported) else "success"
        case Phase.CANCELLED:
            return "cancelled"
        case Phase.FAILED:
            if job.status.failed_code in _TIMED_OUT:
                return "timed_out"
            return "action_required" if job.status.failed_code in _NEEDS_ACTION else "failure"
    return None


def seen_commit(job: Job, sent: str | None) -> str | None:
    """Return the commit that the agent has seen; None if that is unknown, as after attempts on different ones.

    sent: the commit that the job is about, which an agent without a repository was told of.
    """
    return job.status.outputs.base_commit if job.spec.workspace_setup else sent


def _has_seen_head(reported: ReportedJob) -> bool:
    return reported.head_sha is None or seen_commit(reported.job, reported.head_sha) == reported.head_sha


def _conclusion_in(data: Any) -> str | None:
    """Return the field `conclusion` of a checked value; None if it has none that GitHub knows."""
    found = data.get("conclusion") if isinstance(data, Mapping) else None
    return found if isinstance(found, str) and found in _CONCLUSIONS else None


def _title(reported: ReportedJob, conclusion: str | None) -> str:
    job = reported.job
    if job.phase is Phase.PENDING:
        if until := job.status.not_before:
            return f"waiting until {until:%d %b %H:%M} UTC"
        return "waiting for its turn" if job.spec.concurrency else "waiting for a free slot"
    if job.phase is Phase.RUNNING:
        return "the agent is working"
    if job.phase is Phase.SUCCEEDED:
        if not _has_seen_head(reported):
            commit = (job.status.outputs.base_commit or "")[:7]
            return f"no verdict: the agent has seen {commit or 'an unknown commit'} instead of this commit"
        if reported.lost:
            return f"done{reported.lost}"
        if decided := _conclusion_in(job.status.result_data):
            return f"the agent's conclusion: {decided}"
        if reported.ignored:
            return f"publish.json is ignored: {reported.ignored}"
        number = len(reported.publication.findings)
        if number:
            return f"{number} finding{'s' if number > 1 else ''}"
        return "nothing to change" if conclusion == "neutral" else "done"
    if job.status.superseded_by:
        return f"superseded by {job.status.superseded_by}"
    return job.status.failed_reason or conclusion or "ended"
