"""The commands for jobs: submit, jobs, job, logs, wait, cancel, retry, rerun, reply, patch, bundle."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import Parameter

from labrats.cli.errors import CODE_OF_STATUS, CommandError, ExitCode
from labrats.cli.follow import follow_events, follow_log
from labrats.cli.job_list import print_jobs, watch_jobs
from labrats.cli.job_view import outcome_sentence, print_job
from labrats.cli.key_values import RepeatedOption, parse_pairs
from labrats.cli.live_view import show_live
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_text, print_value
from labrats.cli.submit_options import (
    DEFAULT_SETTINGS,
    DEFAULT_SUBMIT_OPTIONS,
    SettingOptions,
    SubmitOptions,
    read_prompt,
    read_schema,
)

if TYPE_CHECKING:
    import httpx2

    from labrats.cli.client import Client

Follow = Annotated[bool, Parameter(alias="-f", negative=(), show_default=False)]


def submit(
    prompt: Annotated[str | None, Parameter(alias="-p", allow_leading_hyphen=True)] = None,
    *,
    submission: SubmitOptions = DEFAULT_SUBMIT_OPTIONS,
    follow: Follow = False,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Submit a job and print its id.

    Without a prompt, the command reads it from standard input.

    Args:
        prompt: The task for the agent. Use - to read it from standard input.
        follow: Print the job's log and result live, and exit with the code of its outcome.
    """
    body = submission.request(prompt)
    headers = {"Idempotency-Key": submission.idempotency_key} if submission.idempotency_key else {}
    with options.connect() as client:
        return _print_new_job(client, client.post("/api/jobs/submit", body, headers), options, follow=follow)


def jobs(
    *,
    status: Literal["waiting", "active", "completed", "failed", "cancelled"] | None = None,
    type: str | None = None,  # noqa: A002  # named like the field of the API
    source: str | None = None,
    agent: str | None = None,
    repo: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    failed_code: str | None = None,
    owner: str | None = None,
    chain: str | None = None,
    search: Annotated[str | None, Parameter(alias="-q")] = None,
    page: int = 1,
    limit: int = 20,
    watch: Annotated[bool, Parameter(alias="-w", negative=(), show_default=False)] = False,
    options: ApiOptions = DEFAULTS,
) -> None:
    """List jobs, newest first.

    With --watch, the list on a terminal stays up to date until Ctrl-C, also across restarts of the engine. Elsewhere,
    each matching job that changes is printed as a line, after those of the list.

    Args:
        status: Only jobs with this status.
        type: Only jobs of this type.
        source: Only jobs from this source.
        agent: Only jobs of this agent.
        repo: Only jobs about this repository.
        provider: Only jobs of this provider.
        model: Only jobs of this model.
        failed_code: Only jobs that failed with this code, such as timeout.
        owner: Only jobs that this API key submitted, by its id.
        chain: Only jobs of this chain, by its id.
        search: Only jobs that contain this text, or about this issue or pull request (#12, octo-org/api#12, its URL).
        page: The page number.
        limit: Jobs per page, at most 100.
        watch: Follow the changes of the matching jobs.
    """
    filters = {
        "status": status,
        "type": type,
        "source": source,
        "agentRole": agent,
        "repo": repo,
        "provider": provider,
        "model": model,
        "failedCode": failed_code,
        "owner": owner,
        "chainId": chain,
        "q": search,
        "page": page,
        "limit": limit,
    }
    query = {name: value for name, value in filters.items() if value is not None}
    if watch and page != 1:
        raise CommandError("--watch follows the first page; leave out --page", ExitCode.USAGE)
    with options.connect() as client:
        if watch:
            watch_jobs(client, query, as_json=options.json)
            return
        answer = client.get("/api/jobs", query)
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
    search: Annotated[str | None, Parameter(alias="-q")] = None,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Print a job's log.

    On a terminal, the output also shows how long each tool took and, below the log, the current activity and usage.

    Args:
        job_id: The job's id.
        follow: Print until the job ends, also across restarts of the engine, and exit with the code of its outcome.
        raw: Print only the lines of the log, as to a pipe.
        search: Print only the lines that contain this text, each with its number in the job's events.
    """
    with options.connect() as client:
        if search is not None:
            _print_matches(client, job_id, search, options)
            return ExitCode.OK
        if follow:
            return CODE_OF_STATUS[_print_log(client, job_id, options, raw=raw)]
        _print_log_once(client, job_id, options, raw=raw)
        return ExitCode.OK


def wait(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> int:
    """Wait until a job ends, print its result and exit with the code of its outcome.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        with _interruptible(job_id):
            for _ in follow_log(client, job_id):
                pass
        return _print_outcome(client, job_id, options)


def cancel(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Cancel a waiting or running job.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        answer = client.post(f"{_path(job_id)}/cancel")
    if options.json:
        print_text(answer.text)
    elif answer.json()["status"] == "active":
        print_stderr(f"{job_id} is being cancelled; it ends when its processes have stopped")
    else:
        print_stderr(f"{job_id} cancelled")


def retry(job_id: str, /, *, follow: Follow = False, options: ApiOptions = DEFAULTS) -> int:
    """Retry a failed job.

    Args:
        job_id: The job's id.
        follow: Print the new attempt's log and result live, and exit with the code of the outcome.
    """
    with options.connect() as client:
        answer = client.post(f"{_path(job_id)}/retry")
        number = answer.json()["attempts"] + 1
        if options.json:
            print_text(answer.text)
        else:
            print_stderr(f"{job_id} queued for attempt {number}")
        return follow_to_the_end(client, job_id, options, after=f"{number}-0") if follow else ExitCode.OK


def rerun(
    job_id: str,
    /,
    *,
    prompt: Annotated[str | None, Parameter(alias="-p", allow_leading_hyphen=True)] = None,
    settings: SettingOptions = DEFAULT_SETTINGS,
    priority: float | None = None,
    metadata: RepeatedOption = (),
    report: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    result_schema: Path | None = None,
    callback_url: str | None = None,
    follow: Follow = False,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Run a job again as a new one, and print its id.

    The new job has the prompt, files, repository and chosen settings of the first, unless an option changes them.

    Args:
        job_id: The job's id.
        prompt: Another prompt.
        priority: Another priority. Jobs with a lower number start first.
        metadata: Metadata that replaces that of the first job, KEY=VALUE. Repeatable.
        report: Report to GitHub where the first job did.
        result_schema: A file with the JSON Schema of the result, instead of the first job's.
        callback_url: The URL to which the engine reports the start and the end of the new job.
        follow: Print the new job's log and result live, and exit with the code of its outcome.
    """
    changes = {
        "prompt": prompt,
        "config": settings.config_body() or None,
        "priority": priority,
        "metadata": parse_pairs("--metadata", metadata) or None,
        "report": report or None,
        "resultSchema": read_schema(result_schema),
        "callbackUrl": callback_url,
    }
    with options.connect() as client:
        body = {name: value for name, value in changes.items() if value is not None}
        return _print_new_job(client, client.post(f"{_path(job_id)}/rerun", body), options, follow=follow)


def reply(
    job_id: str,
    /,
    prompt: Annotated[str | None, Parameter(alias="-p", allow_leading_hyphen=True)] = None,
    *,
    report: Annotated[bool | None, Parameter(show_default=False)] = None,
    result_schema: Path | None = None,
    callback_url: str | None = None,
    idempotency_key: str | None = None,
    follow: Follow = False,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Send a further message to the agent of an ended job, and print the id of the new job.

    The new job continues the ended one in a copy of its session and workspace where they still exist. Otherwise it
    gets the conversation so far. Without a prompt, the command reads it from standard input.

    Args:
        job_id: The id of the ended job.
        prompt: The message. Use - to read it from standard input.
        report: Report to GitHub where the job did. Default: as the job.
        result_schema: A file with the JSON Schema of the answer.
        callback_url: The URL to which the engine reports the start and the end of the new job.
        idempotency_key: A key that makes a retry safe: a second message with the same key returns the first job.
        follow: Print the new job's log and result live, and exit with the code of its outcome.
    """
    fields = {
        "prompt": read_prompt(prompt),
        "report": report,
        "resultSchema": read_schema(result_schema),
        "callbackUrl": callback_url,
    }
    body = {name: value for name, value in fields.items() if value is not None}
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    with options.connect() as client:
        return _print_new_job(client, client.post(f"{_path(job_id)}/messages", body, headers), options, follow=follow)


def patch(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Print the changes in a job's workspace as a patch: `labrats patch JOB | git apply`.

    Those of a running job are the changes so far.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        content = client.get(f"{_path(job_id)}/patch", content_type="text/x-diff").content
    if sys.stdout.isatty():
        print_text(content.decode("utf-8", "replace"))
    else:
        sys.stdout.buffer.write(content)


def bundle(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Print a job's commits as a git bundle: `labrats bundle JOB > job.bundle; git fetch job.bundle labrats`.

    Args:
        job_id: The job's id.
    """
    if sys.stdout.isatty():
        raise CommandError("a bundle is not text; write it to a file: labrats bundle JOB > job.bundle", ExitCode.USAGE)
    with options.connect() as client:
        content = client.get(f"{_path(job_id)}/bundle", content_type="application/x-git-bundle").content
    sys.stdout.buffer.write(content)


def _path(job_id: str) -> str:
    return f"/api/jobs/{quote(job_id, safe='')}"


def _print_new_job(client: "Client", answer: "httpx2.Response", options: ApiOptions, *, follow: bool) -> int:
    """Print the id of the job that was submitted, and then its log if `follow`. Return the exit status."""
    job_id = answer.json()["jobId"]
    if options.json:
        print_text(answer.text)
    elif follow:
        print_stderr(f"{job_id} submitted")
    else:
        print_text(job_id)
    return follow_to_the_end(client, job_id, options) if follow else ExitCode.OK


def follow_to_the_end(client: "Client", job_id: str, options: ApiOptions, after: str = "") -> int:
    """Print the log of the job until it ends, then its result and outcome. Return the exit code of its outcome."""
    status = _print_log(client, job_id, options, after)
    return CODE_OF_STATUS[status] if options.json else _print_outcome(client, job_id, options)


def _print_log(client: "Client", job_id: str, options: ApiOptions, after: str = "", *, raw: bool = False) -> str:
    """Print the log until the job ends. Return the job's final status."""
    with _interruptible(job_id):
        if sys.stdout.isatty() and not (raw or options.json):
            return show_live(follow_events(client, job_id, after))
        for line in follow_log(client, job_id, after):
            _print_line(line, options)
    return str(line["status"])


@contextmanager
def _interruptible(job_id: str) -> Iterator[None]:
    """On Ctrl-C, print that the job continues without this command."""
    try:
        yield
    except KeyboardInterrupt:
        print_stderr(f"\n{job_id} continues. Follow it: labrats logs -f {job_id}   Cancel it: labrats cancel {job_id}")
        raise


def _print_log_once(client: "Client", job_id: str, options: ApiOptions, *, raw: bool) -> None:
    job = client.get(_path(job_id)).json()
    if job["status"] in CODE_OF_STATUS:
        _print_log(client, job_id, options, raw=raw)
        return
    for text in job["logs"]:
        _print_line({"log": text}, options)
    print_stderr(
        f"{job_id} is {job['status']}; these are its latest log lines. For the full log: labrats logs -f {job_id}"
    )


def _print_matches(client: "Client", job_id: str, text: str, options: ApiOptions) -> None:
    """Print the log lines that contain a text, page by page."""
    query: dict[str, Any] = {"q": text, "kind": "log", "limit": 1000}
    while True:
        answer = client.get(f"{_path(job_id)}/events", query)
        page = answer.json()
        if options.json:
            print_text(answer.text)
        for event in page["events"] if not options.json else ():
            print_text(f"{event['id']}  {event['text']}")
        if page["next"] is None or not page["events"]:
            break
        query["after"] = page["next"]
    if not options.json:
        print_stderr(f"{page['total']} {'line' if page['total'] == 1 else 'lines'} with {text!r}")


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
        print_stderr(outcome_sentence(ended))
    return CODE_OF_STATUS[ended["status"]]
