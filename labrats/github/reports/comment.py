"""The comment of a job on an issue or pull request."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import structs

from labrats.github.reports.markdown import code_block, neutralised, one_line
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.durations import describe_seconds
from labrats.model.job import Job, Usage
from labrats.model.outside_text import AGENT_MARK
from labrats.model.phases import Phase
from labrats.model.record import Record, encode
from labrats.model.report import CommentMode

COMMENT_BYTES: Final = 60 * 1024
"""The bound on a comment. GitHub refuses comments of more than 65,536 characters."""

_TEXT_BYTES: Final = 32 * 1024
_PATCH_LENGTH: Final = 16 * 1024
_MOST_EARLIER: Final = 20
_REASON_LENGTH: Final = 300
_LISTED: Final = 10
_MARKER_START: Final = "<!-- labrats:report "
_MARKER_END: Final = " -->"
_LIST_START: Final = "<details><summary>Earlier jobs</summary>"


class EarlierJob(Record):
    """An earlier job of the same comment. state: its last known one, in words."""

    id: str
    state: str


class CommentMarker(Record):
    """The identity of a comment, hidden in its first line.

    key:        the agent of a sticky comment, or else the id of its job.
    job:        the job that the comment shows.
    created_at: the creation of that job.
    state:      its state, in words.
    earlier:    the jobs that it showed before, the latest first.
    """

    key: str
    job: str
    created_at: datetime
    state: str = ""
    earlier: tuple[EarlierJob, ...] = ()


_MARKERS: Final = msgspec.json.Decoder(CommentMarker)


def marker_of(body: str) -> CommentMarker | None:
    """Return the marker in a comment's first line; None if it has none."""
    line = body.partition("\n")[0].strip()
    if not (line.startswith(_MARKER_START) and line.endswith(_MARKER_END)):
        return None
    try:
        return _MARKERS.decode(line[len(_MARKER_START) : -len(_MARKER_END)].replace("\\u002d", "-"))
    except msgspec.DecodeError:
        return None


def comment_key(reported: ReportedJob) -> str:
    """Return the key by which the comment of a job is found again."""
    report = reported.job.spec.report
    is_sticky = report is not None and report.comment is CommentMode.STICKY
    return f"agent {reported.agent}" if is_sticky else f"job {reported.job.id}"


def comment_body(reported: ReportedJob, present: str = "") -> str:
    """Return the text of the comment.

    present: the text that the comment has; empty if it does not exist. If that shows a newer job, it stays, and lists
             this job among the earlier ones.
    """
    job, before = reported.job, marker_of(present)
    if before and before.job != job.id and before.created_at > job.created_at:
        return _with_earlier_job(present, before, EarlierJob(id=job.id, state=_state_of(reported)))
    marker = CommentMarker(
        key=comment_key(reported),
        job=job.id,
        created_at=job.created_at,
        state=_state_of(reported),
        earlier=_earlier_jobs(job, before),
    )
    parts = [_marker_line(marker), f"{AGENT_MARK}\n{_headline(reported)}", *_parts(reported), _footer(reported)]
    return "\n\n".join(part for part in [*parts, _list_of(marker.earlier)] if part)


def ending_key(reported: ReportedJob) -> str:
    """Return the key by which the short comment at the end of a job is found again."""
    return f"end of attempt {reported.job.status.attempts} of {reported.job.id}"


def ending_body(reported: ReportedJob, comment_url: str) -> str:
    """Return the text of the comment at the end of a job that a comment has started: its answer, or why it failed.

    comment_url: of the comment with all of its result.
    """
    job = reported.job
    marker = CommentMarker(key=ending_key(reported), job=job.id, created_at=job.created_at, state=_STATES[job.phase])
    parts = [_marker_line(marker), f"{AGENT_MARK}\n{_headline(reported)} See {comment_url}", *_failure(reported)]
    if job.phase is Phase.SUCCEEDED:
        parts.append(neutralised(answer_of(reported), reported.known_hosts, _TEXT_BYTES))
    return "\n\n".join(part for part in parts if part)


def _with_earlier_job(present: str, marker: CommentMarker, job: EarlierJob) -> str:
    """Return the text of a comment that shows another job, with the state of an earlier one."""
    others = marker.earlier if job.id in {each.id for each in marker.earlier} else (*marker.earlier, job)
    earlier = tuple(job if each.id == job.id else each for each in others)[:_MOST_EARLIER]
    if earlier == marker.earlier:
        return present
    rest = present.partition("\n")[2]
    rest = rest.rpartition(f"\n\n{_LIST_START}")[0] if marker.earlier else rest
    return f"{_marker_line(structs.replace(marker, earlier=earlier))}\n{rest}\n\n{_list_of(earlier)}"


def _list_of(earlier: Sequence[EarlierJob]) -> str:
    """Return the list of earlier jobs, which is the last part of a comment; empty without any."""
    if not earlier:
        return ""
    return f"{_LIST_START}\n\n" + "\n".join(f"- `{each.id}` {each.state}" for each in earlier) + "\n\n</details>"


def _marker_line(marker: CommentMarker) -> str:
    # Two hyphens would end an HTML comment early; JSON may escape them.
    return f"{_MARKER_START}{encode(marker).decode().replace('--', '-' + chr(92) + 'u002d')}{_MARKER_END}"


def _earlier_jobs(job: Job, earlier: CommentMarker | None) -> tuple[EarlierJob, ...]:
    if earlier is None:
        return ()
    others = [each for each in earlier.earlier if each.id != job.id]
    if earlier.job != job.id:
        others.insert(0, EarlierJob(id=earlier.job, state=earlier.state or "was followed by a later job"))
    return tuple(others[:_MOST_EARLIER])


_STATES: Final[Mapping[Phase, str]] = {
    Phase.PENDING: "is waiting",
    Phase.RUNNING: "is working on this",
    Phase.SUCCEEDED: "has finished",
    Phase.FAILED: "has failed",
    Phase.CANCELLED: "was cancelled",
}


def _state_of(reported: ReportedJob) -> str:
    """Return the state by which a later job's comment lists this one: with its pull request, if that is elsewhere."""
    state, url = _STATES[reported.job.phase], reported.pull_request_url
    report = reported.job.spec.report
    number = report.target.pull_request if report and report.target else None
    return state if url is None or url.endswith(f"/pull/{number}") else f"{state}: {url}"


def _headline(reported: ReportedJob) -> str:
    """Return the state of the job in one line, with what it has left on GitHub."""
    job, agent = reported.job, one_line(reported.agent, reported.known_hosts, 100)
    state = _STATES[job.phase]
    if job.phase is Phase.PENDING:
        state += _wait_of(job)
    elif job.phase is Phase.SUCCEEDED and reported.lost:
        state += reported.lost
    elif job.phase is Phase.SUCCEEDED and changed_nothing(reported):
        state += " and changed nothing"
    elif job.phase is Phase.CANCELLED and job.status.superseded_by:
        state += f", because `{job.status.superseded_by}` supersedes it"
    results = " and ".join(_results(reported)) if job.phase is Phase.SUCCEEDED else ""
    return f"**{agent}** {state}. {results}".rstrip() + ("." if results else "")


def _results(reported: ReportedJob) -> Iterator[str]:
    """Yield what the job has left on GitHub, in the order of its weight."""
    report = reported.job.spec.report
    number = report.target.pull_request if report and report.target else None
    if (url := reported.pull_request_url) and url.endswith(f"/pull/{number}"):
        if not reported.lost:
            yield "New commits"
    elif url:
        yield f"Pull request #{url.rpartition('/')[2]}"
    if reported.review_url:
        yield f"[Review]({reported.review_url})"


def _wait_of(job: Job) -> str:
    if until := job.status.not_before:
        return f" until {until:%d %b %H:%M} UTC"
    if job.spec.concurrency:
        return " for its turn"
    return f" for a free slot of `{one_line(job.resolved.model, (), 100)}`"


def changed_nothing(reported: ReportedJob) -> bool:
    """Return whether the job was to make a pull request, and has no changes for one."""
    report, outputs = reported.job.spec.report, reported.job.status.outputs
    wants_changes = report is not None and report.pull_request is not None and report.pull_request.enabled
    return wants_changes and not (
        reported.pull_request_url or reported.patch or reported.lost or outputs.files_changed or outputs.commit
    )


def _parts(reported: ReportedJob) -> Iterator[str]:
    job, hosts = reported.job, reported.known_hosts
    yield from _failure(reported)
    if job.phase is Phase.RUNNING and reported.activity:
        yield f"Now: {one_line(reported.activity, hosts, 200)}"
    if job.phase is Phase.SUCCEEDED:
        yield neutralised(answer_of(reported), hosts, _TEXT_BYTES)
    if reported.pull_request_url:
        yield f"Pull request: {reported.pull_request_url}"
    if reported.patch:
        cut = neutral_patch(reported.patch, reported.url)
        yield f"<details><summary>The changes as a patch</summary>\n\n{code_block(cut, 'diff')}\n\n</details>"
    if refused := job.status.outputs.refused_hosts:
        hosts_line = ", ".join(f"`{one_line(each, (), 100)}`" for each in refused[:_LISTED])
        yield f"The network rule refused {hosts_line}{' and more' if len(refused) > _LISTED else ''}."
    if reported.waiting:
        yield f"The rest is being published: {', '.join(reported.waiting)}."
    if reported.refused:
        listed = reported.refused[:_LISTED]
        yield "Not published:\n" + "\n".join(f"- {one_line(each, hosts, _REASON_LENGTH)}" for each in listed)


def _failure(reported: ReportedJob) -> Iterator[str]:
    job = reported.job
    if job.status.failed_reason and job.phase is not Phase.SUCCEEDED:
        yield f"> {one_line(job.status.failed_reason, reported.known_hosts, _REASON_LENGTH)}"
    if job.phase is Phase.FAILED:
        yield "To run it again, comment `/labrats retry`."


def answer_of(reported: ReportedJob) -> str:
    """Return the text of a succeeded job: the comment in `publish.json`, or else the agent's answer."""
    if reported.publication.comment:
        return reported.publication.comment
    result = reported.job.status.result
    if reported.job.status.result_cut:
        return "The answer is too long for a comment." + (f" See {reported.url}" if reported.url else "")
    if result is None:
        return ""
    data = reported.job.status.result_data
    if data is not None and _is_json_of(result, data):
        return code_block(json.dumps(data, indent=2, ensure_ascii=False), "json")
    return result if isinstance(result, str) else code_block(encode(result).decode(), "json")


def _is_json_of(result: Any, data: Any) -> bool:
    """Return whether a result is nothing but the JSON of its checked value, or the value itself."""
    if not isinstance(result, str):
        return bool(result == data)
    try:
        return bool(msgspec.json.decode(result) == data)
    except (msgspec.DecodeError, RecursionError):  # it may be nested too deep
        return False


def neutral_patch(patch: str, url: str | None) -> str:
    """Return the start of a patch for a block of code. url: of the job, whose page has the whole patch."""
    if len(patch) <= _PATCH_LENGTH:
        return patch
    return f"{patch[:_PATCH_LENGTH]}\n[the rest does not fit{f'; the whole is at {url}' if url else ''}]"


def _footer(reported: ReportedJob) -> str:
    """Return the model, time, cost and link of the job in one small line."""
    job, status = reported.job, reported.job.status
    name = f"[`{job.id}`]({reported.url})" if reported.url else f"`{job.id}`"
    parts = [f"job {name}", f"`{one_line(job.resolved.model, (), 100)}`"]
    if status.attempts > 1:
        parts.append(f"attempt {status.attempts}")
    if job.phase is Phase.RUNNING and status.started_at:
        parts.append(f"started at {status.started_at:%H:%M} UTC")
    if job.ended and status.started_at and status.finished_at:
        parts.append(describe_seconds((status.finished_at - status.started_at).total_seconds()))
    parts += _consumption(status.usage)
    return f"<sub>{' · '.join(parts)}</sub>"


def _consumption(usage: Usage) -> Iterator[str]:
    if usage.tokens:
        yield f"{usage.tokens:,} tokens"
    if usage.cost_usd:
        digits = 2 if usage.cost_usd >= 0.01 else 4  # as on the dashboard
        yield f"${usage.cost_usd:.{digits}f}{' (paid by a subscription)' if usage.is_notional else ''}"
