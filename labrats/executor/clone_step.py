"""The step after `prepare` in the pod of an attempt with a repository.

It clones the repository into the workspace, in a container of its own, with credentials that no later one has. The
limits of the attempt apply: a small pack of a hostile server can fill the disk of the node.
"""

import asyncio
from functools import partial
from pathlib import Path

from labrats.executor.context import RunContext
from labrats.executor.event_lines import STDOUT, EventLines
from labrats.executor.event_writer import EventWriter
from labrats.executor.inputs import read_task
from labrats.executor.outcomes import run_step, run_with_timeout
from labrats.executor.resource_limits.watcher import run_within_limits
from labrats.executor.secret_files import read_secrets, values_to_redact
from labrats.executor.workspace import clone_repository
from labrats.model.protocol import CREDENTIALS_FOLDER, NEXT_SEQ_FILE
from labrats.model.redaction import Redactor
from labrats.processes import become_unreadable


def clone(source: Path, scratch: Path) -> int:
    """Clone the repository of the task in `source` into its workspace. Return the exit status."""
    become_unreadable()
    credentials = read_secrets(source / "secrets")
    events = EventWriter(EventLines(STDOUT, None), Redactor(values_to_redact(credentials)))

    async def step() -> None:
        task = read_task(source)
        context = RunContext(task, "", "", credentials, scratch, scratch / CREDENTIALS_FOLDER, events)
        await run_within_limits(partial(run_with_timeout, _clone, context), task.limits, [scratch])

    return asyncio.run(run_step(step, events))


async def _clone(context: RunContext) -> None:
    context.events.status("started")
    await clone_repository(context)
    (context.folder / NEXT_SEQ_FILE).write_text(str(context.events.lines.next_seq))
