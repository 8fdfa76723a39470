"""The commands for the report of a job to GitHub."""

from typing import Any
from urllib.parse import quote

from labrats.cli.job_view import published_parts, report_sentence
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_text


def published(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Show what a job has published on GitHub, what was refused and why, and what would be written now.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        answer = client.get(f"/api/jobs/{quote(job_id, safe='')}/report")
    if options.json:
        print_text(answer.text)
    else:
        _print_report(job_id, answer.json())


def publish(job_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Write the report of an ended job to GitHub again, without running its agent.

    What GitHub has stays as it is; what is missing is written.

    Args:
        job_id: The job's id.
    """
    with options.connect() as client:
        answer = client.post(f"/api/jobs/{quote(job_id, safe='')}/publish")
    if options.json:
        print_text(answer.text)
    else:
        print_stderr(f"{job_id} is being published; `labrats published {job_id}` shows the result")


def _print_report(job_id: str, found: dict[str, Any]) -> None:
    if found["report"] is None:
        print_stderr(f"{job_id} reports nothing to GitHub")
        return
    print_text(report_sentence(found["report"]))
    for label, value in published_parts(found["published"] or {}):
        if value:
            print_text(f"  {label:<10} {value}")
    for name, part in (found["preview"] or {}).items():
        if part is not None and found["report"].get("mode") == "preview":
            print_text(f"\n{name} that would be written:\n{_as_text(part)}")
    if not found["published"] and found["report"].get("mode") != "preview":
        print_stderr("nothing is published yet")


def _as_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return "\n".join(f"  {name}: {value}" for name, value in part.items())
