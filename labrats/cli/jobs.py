"""The commands about jobs: submit, jobs, job, logs, wait, cancel, retry, patch."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import Parameter

from labrats.cli.durations import describe_span
from labrats.cli.exits import CODE_OF_STATUS, ExitCode
from labrats.cli.follow import follow_events, follow_log
from labrats.cli.job_view import outcome_sentence, print_job
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_table, print_text, print_value, remark, status_cell
from labrats.cli.run_view import show_run
from labrats.cli.submission import NOTHING_ASKED, Submission

if TYPE_CHECKING:
    from labrats.cli.client import Client

Follow = Annotated[bool, Parameter(alias="-f", negative=(), show_default=False)]


def submit(
    prompt: Annotated[str | None, Parameter(alias="-p", allow_leading_hyphen=True)] = None,
    *,
    asked: Submission = NOTHING_ASKED,
    follow: Follow = False,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Submit a job and print its id.

    The prompt is read from standard input when it is not given.

    Args:
        prompt: What the agent is to do; - reads standard input.
        follow: Print the job's log and result as they come, and exit with its outcome.
    """
    body = asked.request(prompt)
    headers = {"Idempotency-Key": asked.idempotency_key} if asked.idempotency_key else {}
    with options.connect() as client:
        answer = client.post("/api/jobs/submit", body, headers)
        job_id = answer.json()["jobId"]
        if options.json:
            print_text(answer.text)
        elif follow:
            remark(f"{job_id} is submitted")
        else:
            print_text(job_id)
        return _follow_to_the_end(client, job_id, options) if follow else ExitCode.OK


def jobs(
    *,
    status: Literal["waiting", "active", "completed", "failed", "cancelled"] | None = None,
    type: str | None = None,  # noqa: A002  # the option is called as the field is
    source: str | None = None,
    agent: str | None = None,
    repo: str | None = None,
    chain: str | None = None,
    search: Annotated[str | None, Parameter(alias="-q")] = None,
    page: int = 1,
    limit: int = 20,
    options: ApiOptions = DEFAULTS,
) -> None:
    """List jobs, newest first.

    Args:
        status: Only jobs that stand so.
        type: Only jobs of this type.
        source: Only jobs from this source.
        agent: Only jobs of this agent.
        repo: Only jobs about this repository.
        chain: Only jobs of this chain, by its id.
        search: Only jobs in which this text is found.
        page: Which page.
        limit: Jobs on a page, at most 100.
    """
    asked = {
        "status": status,
        "type": type,
        "source": source,
        "agentRole": agent,
        "repo": repo,
        "chainId": chain,
        "q": search,
        "page": page,
        "limit": limit,
    }
    with options.connect() as client:
        answer = client.get("/api/jobs", {name: value for name, value in asked.items() if value is not None})
    if options.json:
        print_text(answer.text)
    else:
        print_jobs(answer.json())


def job(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Show a job: its settings, outcome, result and last log lines.

    Args:
        job_id: The job's id, such as ir-3ab1c2d4.
    """
    with options.connect() as client:
        answer = client.get(_path(job_id))
    if options.json:
        print_text(answer.text)
    else:
        print_job(answer.json())


def logs(
    job_id: str,
    /,
    *,
    follow: Follow = False,
    raw: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Print a job's log.

    On a terminal it also says how long each tool took, and below the log what the agent does and has consumed so far.

    Args:
        job_id: The job's id.
        follow: Go on until the job ends, also across restarts of the engine, and exit with its outcome.
        raw: Print the lines of the log alone, as they are printed into a pipe.
    """
    with options.connect() as client:
        if follow:
            return CODE_OF_STATUS[_print_log(client, job_id, options, raw=raw)]
        _print_log_so_far(client, job_id, options, raw=raw)
        return ExitCode.OK


def wait(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> int:
    """Wait until a job ends, print its result and exit with its outcome.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        with _interruptible(job_id):
            for _ in follow_log(client, job_id):
                pass
        return _print_outcome(client, job_id, options)


def cancel(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Cancel a job that waits or runs.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        answer = client.post(f"{_path(job_id)}/cancel")
    if options.json:
        print_text(answer.text)
    elif answer.json()["status"] == "active":
        remark(f"{job_id} is being cancelled; it ends when its processes are gone")
    else:
        remark(f"{job_id} is cancelled")


def retry(job_id: str, /, *, follow: Follow = False, options: ApiOptions = DEFAULTS) -> int:
    """Run a failed job again.

    Args:
        job_id: The job's id.
        follow: Print the new attempt's log and result as they come, and exit with the outcome.
    """
    with options.connect() as client:
        answer = client.post(f"{_path(job_id)}/retry")
        number = answer.json()["attempts"] + 1
        if options.json:
            print_text(answer.text)
        else:
            remark(f"{job_id} waits for attempt {number}")
        return _follow_to_the_end(client, job_id, options, after=f"{number}-0") if follow else ExitCode.OK


def patch(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Print what a job changed in its workspace: `labrats patch JOB | git apply`.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        content = client.get(f"{_path(job_id)}/patch", content_type="text/x-diff").content
    if sys.stdout.isatty():
        print_text(content.decode("utf-8", "replace"))
    else:
        sys.stdout.buffer.write(content)


def _path(job_id: str) -> str:
    return f"/api/jobs/{quote(job_id, safe='')}"


def print_jobs(answer: dict[str, Any]) -> None:
    """Print a page of jobs as a table."""
    print_table(
        ["ID", "STATUS", "TYPE", "SOURCE", "AGE", "DURATION", "ATTEMPTS", "REASON"],
        [
            [
                item["id"],
                status_cell(item["status"]),
                item["name"],
                item["source"],
                describe_span(item["createdAt"], None),
                describe_span(item.get("processedAt"), item.get("finishedAt")),
                str(item["attempts"]),
                item.get("failedReason") or "",
            ]
            for item in answer["jobs"]
        ],
    )
    shown = (answer["page"] - 1) * answer["limit"] + len(answer["jobs"])
    if answer["jobs"] and shown < answer["total"]:
        remark(f"{shown} of {answer['total']} jobs; more with --page {answer['page'] + 1}")


def _follow_to_the_end(client: "Client", job_id: str, options: ApiOptions, after: str = "") -> int:
    status = _print_log(client, job_id, options, after)
    return CODE_OF_STATUS[status] if options.json else _print_outcome(client, job_id, options)


def _print_log(client: "Client", job_id: str, options: ApiOptions, after: str = "", *, raw: bool = False) -> str:
    """Print the log until the job ends, and return the status it ended with."""
    with _interruptible(job_id):
        if sys.stdout.isatty() and not (raw or options.json):
            return show_run(follow_events(client, job_id, after))
        for line in follow_log(client, job_id, after):
            _print_line(line, options)
    return str(line["status"])


@contextmanager
def _interruptible(job_id: str) -> Iterator[None]:
    """Say to whoever presses Ctrl-C that only the following ends."""
    try:
        yield
    except KeyboardInterrupt:
        remark(f"\n{job_id} goes on. Follow it: labrats logs -f {job_id}   End it: labrats cancel {job_id}")
        raise


def _print_log_so_far(client: "Client", job_id: str, options: ApiOptions, *, raw: bool) -> None:
    job = client.get(_path(job_id)).json()
    if job["status"] in CODE_OF_STATUS:
        _print_log(client, job_id, options, raw=raw)
        return
    for text in job["logs"]:
        _print_line({"log": text}, options)
    remark(f"{job_id} is {job['status']}; this is the end of its log so far. All of it, live: labrats logs -f {job_id}")


def _print_line(line: dict[str, Any], options: ApiOptions) -> None:
    if options.json:
        print_text(json.dumps(line, ensure_ascii=False))
    elif not line.get("done"):
        print_text(line["log"])


def _print_outcome(client: "Client", job_id: str, options: ApiOptions) -> int:
    answer = client.get(_path(job_id))
    ended = answer.json()
    if options.json:
        print_text(answer.text)
    else:
        if ended["returnvalue"] is not None:
            print_value(ended["returnvalue"])
        remark(outcome_sentence(ended))
    return CODE_OF_STATUS[ended["status"]]
