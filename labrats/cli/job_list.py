"""Lists of jobs: printed once, or followed."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from labrats.cli.durations import describe_span
from labrats.cli.follow import follow_changes, until_reachable
from labrats.cli.output import Cell, fitted_lines, one_line, print_stderr, print_table, print_text, status_cell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from labrats.cli.client import Client

Item = dict[str, Any]
"""A job in a list, as the API answers it."""

_HEADINGS: Final = ["ID", "STATUS", "TYPE", "SOURCE", "AGE", "DURATION", "ATTEMPTS", "DETAIL"]
_REFRESHES_PER_SECOND: Final = 4
_SEARCHED: Final = ("id", "name", "source", "repo", "title")


def print_jobs(page: Mapping[str, Any]) -> None:
    """Print a page of jobs as a table. page: as the API answers it."""
    print_table(_HEADINGS, [_row(item) for item in page["jobs"]])
    shown = (page["page"] - 1) * page["limit"] + len(page["jobs"])
    if page["jobs"] and shown < page["total"]:
        print_stderr(f"{shown} of {page['total']} jobs; for more use --page {page['page'] + 1}")


def watch_jobs(client: "Client", query: Mapping[str, Any], *, as_json: bool) -> None:
    """Show the list of the jobs that match and follow their changes, until the process is interrupted.

    query: filters and `limit`, as in the API's list of jobs.
    Raises EngineUnreachable if the first connection fails, or after retries for two minutes.
    """
    if sys.stdout.isatty() and not as_json:
        _show_live(client, query)
    else:
        for line in changed_lines(client, query, _json if as_json else _line):
            print_text(line)


def changed_lines(client: "Client", query: Mapping[str, Any], describe: Callable[[Item], str]) -> Iterator[str]:
    """Yield a line for each job that matches: those of the list, oldest first, then each one whose line has changed.

    describe: returns the line of a job. A deleted one is `{"id": …, "deleted": true}`.
    """
    latest: dict[str, str] = {}
    for change in follow_changes(client):
        items = change["jobs"] if "jobs" in change else reversed(_read_list(client, query)["jobs"])
        for item in items:
            before = latest.pop(item["id"], None)
            if _matches(item, query):
                latest[item["id"]] = line = describe(item)
                if line != before:
                    yield line
        for job_id in change.get("gone", ()):
            if latest.pop(job_id, None):
                yield describe({"id": job_id, "deleted": True})


def _show_live(client: "Client", query: Mapping[str, Any]) -> None:
    """Keep the list on this terminal up to date."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    page: Mapping[str, Any] = {"jobs": [], "total": 0}
    console = Console(highlight=False, emoji=False)

    def table() -> "RenderableType":
        rows = [_row(item) for item in page["jobs"][: console.height - 2]]
        count = f"{len(rows)} of {page['total']} jobs · live"
        return Text("\n").join([*fitted_lines(_HEADINGS, rows, console.width), Text(count, style="dim")])

    with Live(console=console, get_renderable=table, refresh_per_second=_REFRESHES_PER_SECOND):
        for change in follow_changes(client):
            if "jobs" not in change or change["jobs"] or change["gone"]:
                page = _read_list(client, query)
            for item in page["jobs"]:
                item["activity"] = change.get("activities", {}).get(item["id"], item["activity"])


def _read_list(client: "Client", query: Mapping[str, Any]) -> Mapping[str, Any]:
    answer = until_reachable(partial(client.get, "/api/jobs", {**query, "omit": "result"}))
    page: Mapping[str, Any] = answer.json()
    return page


def _matches(item: Item, query: Mapping[str, Any]) -> bool:
    """Return whether the engine's list with this query would have the job."""
    filters = {"name" if name == "type" else name: value for name, value in query.items()}
    text = str(filters.pop("q", "")).lower()
    searched = " ".join(item[field] or "" for field in _SEARCHED).lower()
    return text in searched and all(item[name] == value for name, value in filters.items() if name in item)


def _row(item: Item) -> list[Cell]:
    return [
        item["id"],
        status_cell(item["status"]),
        item["name"],
        item["source"],
        describe_span(item["createdAt"], None),
        describe_span(item.get("processedAt"), item.get("finishedAt")),
        str(item["attempts"]),
        item.get("failedReason") or item.get("activity") or "",
    ]


def _json(item: Item) -> str:
    return json.dumps(item, ensure_ascii=False)


def _line(item: Item) -> str:
    """Describe a job in one line, without what changes by itself, such as its age."""
    if item.get("deleted"):
        return f"{item['id']}  deleted"
    texts = [item["name"], item["source"], item.get("repo") or "", item.get("failedReason") or item.get("title") or ""]
    return "  ".join([item["id"], f"{item['status']:<9}", *(one_line(text) for text in texts if text)])
