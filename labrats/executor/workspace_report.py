"""Report what an attempt leaves: its publication, its changes, its commits and the files of its session."""

import asyncio
from typing import Final

import msgspec

from labrats.executor.context import RunContext
from labrats.executor.session_files import report_session_files
from labrats.executor.workspace_bundle import report_bundle
from labrats.executor.workspace_diff import (
    Baseline,
    clear_special_files,
    fetch_work,
    logged_failure,
    report_changes,
)
from labrats.files.safe_paths import open_inside
from labrats.files.trees import give_owner_access
from labrats.model.errors import GiveUp, Invalid, Problem
from labrats.model.publication import PUBLICATION_BYTES, PUBLICATION_PATH, parse_publication, rejected_publication
from labrats.model.record import encode

SECONDS: Final = 60.0
SECONDS_WHEN_STOPPED: Final = 5.0
"""Limit on the time for changes and commits, and a shorter one for an attempt that was stopped and is killed soon."""

_SHARE_OF_FILES: Final = 0.8
"""Share of that time for the files, after which the commits are still reported."""


async def report_workspace(context: RunContext, baseline: Baseline | None) -> None:
    """Report what the agent has left. If a part fails, log the reason and report the rest."""
    give_owner_access(context.workspace)  # an agent can take it from itself
    _report_publication(context)
    if baseline is None:
        return
    stopped = (task := asyncio.current_task()) is not None and task.cancelling() > 0
    seconds = SECONDS_WHEN_STOPPED if stopped else SECONDS
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await clear_special_files(context)
            work = await fetch_work(context, baseline, seconds * _SHARE_OF_FILES)
            with logged_failure(context):
                await report_changes(context, baseline, work)
            with logged_failure(context, "no bundle of the commits is stored"):
                await report_bundle(context, baseline, work)
            await report_session_files(context)
    except TimeoutError:
        if not limit.expired():
            raise
        context.events.log(f"[the changes in the workspace could not be computed within {seconds:g} s]")


def _report_publication(context: RunContext) -> None:
    """Store the publication that the agent has written. Log, and store instead, what is wrong with an invalid one."""
    try:
        if (raw := _written_publication(context)) is not None:
            written = msgspec.to_builtins(parse_publication(raw))
            content = encode(context.events.redact_value(written))
            parse_publication(content)  # a mark may be longer than the secret
            context.events.publication(content)
    except (GiveUp, Invalid) as error:
        context.events.log(f"[{PUBLICATION_PATH} is ignored: {context.events.field(str(error))}]")
        context.events.publication(rejected_publication(context.events.redact_value(str(error))))


def _written_publication(context: RunContext) -> bytes | None:
    """Return the content of the agent's file; None if there is none. Raises Invalid, and GiveUp for a link."""
    try:
        with open_inside(context.workspace, PUBLICATION_PATH) as file:
            content = file.read(PUBLICATION_BYTES + 1)
    except GiveUp as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    if len(content) > PUBLICATION_BYTES:
        raise Invalid(Problem("publication", f"must have at most {PUBLICATION_BYTES // 1024} KiB"))
    return content
