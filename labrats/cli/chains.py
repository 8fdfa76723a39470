"""The command `labrats chain`, which draws the jobs of a chain."""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from labrats.cli.durations import describe_span
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import STATUS_STYLES, one_line, paint, print_value

if TYPE_CHECKING:
    from labrats.cli.client import Client

_MAX_JOBS: Final = 100
"""The largest page that the API returns."""


def chain(chain_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Show the jobs of a chain in order, with agent, status and duration, and why the chain ended.

    Args:
        chain_id: The id of the chain or of one of its jobs.
    """
    with options.connect() as client:
        if chain_id.startswith("ir-"):
            chain_id = _chain_of(client, chain_id)
        found = client.get("/api/jobs", {"chainId": chain_id, "limit": _MAX_JOBS}).json()["jobs"]
        if not found:
            raise CommandError(f"chain {chain_id!r} not found, or not visible to your API key", ExitCode.REFUSED)
        jobs = [client.get(_path(job["id"])).json() for job in reversed(found)]
    if options.json:
        print_value(jobs)
        return
    print(f"chain {one_line(chain_id)}")
    for job in sorted(jobs, key=lambda job: job["chainDepth"]):
        _print_link(job)


def _chain_of(client: "Client", job_id: str) -> str:
    found = client.get(_path(job_id)).json()["chainId"]
    if found is None:
        raise CommandError(f"job {job_id} is not part of a chain", ExitCode.REFUSED)
    return str(found)


def _path(job_id: str) -> str:
    return f"/api/jobs/{quote(job_id, safe='')}"


def _print_link(job: dict[str, Any]) -> None:
    depth = job["chainDepth"]
    indent = f"{'   ' * (depth - 1)}└─ " if depth else ""
    status = paint(job["status"], STATUS_STYLES.get(job["status"], ""))
    facts = (job["id"], one_line(job["agentRole"] or ""), status, describe_span(job["processedAt"], job["finishedAt"]))
    print(indent + "  ".join(filter(None, facts)))
    if job["chainEnded"]:
        print(f"{'   ' * (depth + 1)}ended here: {one_line(job['chainEnded'])}")
