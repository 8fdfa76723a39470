"""The failed checks of a commit, with the ends of their logs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from labrats.github.client.access import READ_ACTIONS, READ_CHECKS, Access
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.events.failed_checks import FAILURES
from labrats.model.outside_text import shortened, without_hidden

LOG_BYTES: Final = 24 * 1024
"""The end of each log that is read."""

_MOST_FAILURES: Final = 5
_MOST_ANNOTATIONS: Final = 30
_TEXT_BYTES: Final = 8 * 1024
_ACTIONS: Final = "github-actions"
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TIME: Final = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", re.MULTILINE)


@dataclass(frozen=True)
class CheckFailure:
    """A failed check. annotations: one line each. log: its end; None for a check without one."""

    name: str
    conclusion: str
    url: str | None
    summary: str
    annotations: Sequence[str]
    log: str | None


class _App(msgspec.Struct, frozen=True):
    id: int
    slug: str = ""


class _Output(msgspec.Struct, frozen=True):
    title: str | None = None
    summary: str | None = None
    text: str | None = None


class _Suite(msgspec.Struct, frozen=True):
    """Checks of one App or workflow. head_branch: the branch in this repository; None for a fork's."""

    id: int
    head_branch: str | None = None


class _Suites(msgspec.Struct):
    check_suites: list[_Suite]


class _SuiteOfRun(msgspec.Struct, frozen=True):
    id: int


class _Run(msgspec.Struct, frozen=True):
    id: int
    name: str
    status: str
    conclusion: str | None = None
    html_url: str | None = None
    app: _App | None = None
    check_suite: _SuiteOfRun | None = None
    output: _Output = _Output()


class _Runs(msgspec.Struct):
    check_runs: list[_Run]


class _Annotation(msgspec.Struct, frozen=True):
    path: str
    start_line: int | None = None
    message: str | None = None


async def read_failures(access: Access, branch: str, sha: str, *, may_wait: bool) -> Sequence[CheckFailure] | None:
    """Return the failed checks of the head of a branch but our own; None if others still run and `may_wait`.

    Raises RefusedByGitHub, RetryLater.
    """
    runs = await _runs(access, branch, sha)
    if may_wait and any(run.status != "completed" for run in runs):
        return None
    failed = [run for run in runs if run.conclusion in FAILURES]
    return [await _failure(access, run) for run in failed[:_MOST_FAILURES]]


async def _runs(access: Access, branch: str, sha: str) -> list[_Run]:
    """Return the checks of a commit that ran for a branch of the repository.

    Everybody can open a pull request from a fork with the same commit, and choose what its checks print.
    """
    runs: list[_Run] = []
    async for page in access.repository.pages(f"/commits/{sha}/check-runs", _Runs, READ_CHECKS, filter="latest"):
        runs += (run for run in page.check_runs if not run.app or run.app.id != access.identity.app_id)
    if not runs:
        return []
    suites: set[int] = set()  # read after the runs, so that the suite of each is among them
    async for found in access.repository.pages(f"/commits/{sha}/check-suites", _Suites, READ_CHECKS):
        suites |= {suite.id for suite in found.check_suites if suite.head_branch == branch}
    return [run for run in runs if run.check_suite and run.check_suite.id in suites]


async def _failure(access: Access, run: _Run) -> CheckFailure:
    output = run.output
    parts = filter(None, [output.title, output.summary, output.text])
    return CheckFailure(
        name=run.name,
        conclusion=run.conclusion or "",
        url=run.html_url,
        summary=shortened("\n\n".join(parts), _TEXT_BYTES),
        annotations=await _annotations(access, run),
        log=await _log(access, run),
    )


async def _annotations(access: Access, run: _Run) -> Sequence[str]:
    path = f"/check-runs/{run.id}/annotations"
    found = await access.repository.get(path, list[_Annotation], READ_CHECKS, per_page=_MOST_ANNOTATIONS)
    return [f"{each.path}:{each.start_line}: {each.message}" for each in found]


async def _log(access: Access, run: _Run) -> str | None:
    """Return the end of the log of a job of GitHub Actions, whose id is that of its check; why there is none."""
    if run.app is None or run.app.slug != _ACTIONS:
        return None
    try:
        end = await access.repository.stored_text(f"/actions/jobs/{run.id}/logs", READ_ACTIONS, LOG_BYTES)
    except RefusedByGitHub as error:
        return f"[the log cannot be read: {error}]"
    text = _TIME.sub("", _COLOURS.sub("", end.decode(errors="replace")))
    return without_hidden(text)
