"""Report the changes in the workspace while the agent runs, for people who follow its work.

Each report is computed in a repository of its own, which borrows the objects of the engine's: the final report finds
that one as it was, even if git is killed meanwhile. The workspace is only read.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from labrats.executor.context import RunContext
from labrats.executor.engine_repository import EMPTY_REPOSITORY, DiffFailed, EngineRepository, run_git
from labrats.executor.workspace_diff import Baseline, changes_since, repository_of
from labrats.executor.workspace_remote import fetch_files
from labrats.files.trees import remove_path
from labrats.model.errors import GiveUp
from labrats.model.protocol import CHANGES_FILE, CHANGES_WANTED_FILE

PAUSE_SECONDS: Final = 5.0
"""Shortest time between two reports."""

PRINTED_BYTES: Final = 16 * 1024 * 1024
PRINTED_BYTES_PER_SECOND: Final = 64 * 1024
"""Limits on the reports of an executor that prints them, since a node keeps only some MiB of a container's log."""

_PAUSE_FACTOR: Final = 20
"""The pause after a report, in multiples of its time: reports take at most a twentieth of an attempt's time."""

_SECONDS: Final = 30.0
"""Limit on the time of a report."""

_POLL_SECONDS: Final = 0.5
_FOLDER: Final = "running.git"


@asynccontextmanager
async def reported_changes(context: RunContext, baseline: Baseline | None) -> AsyncIterator[None]:
    """Report the changes since the baseline when they are wanted, until the context exits."""
    if baseline is None:
        yield
        return
    run = _Reports(context, baseline, context.events.lines.next_seq).run()
    reports = asyncio.create_task(run, name="changes-so-far")
    try:
        yield
    finally:
        reports.cancel()
        await asyncio.wait([reports])
        if not reports.cancelled() and (error := reports.exception()):
            with suppress(GiveUp):  # the output is full
                context.events.log(f"[the changes so far could not be computed: {context.events.field(repr(error))}]")


def remove_report(context: RunContext) -> None:
    """Remove the last report, once the final patch is stored."""
    if folder := context.events.lines.folder:
        for name in (CHANGES_FILE, CHANGES_WANTED_FILE):
            (folder / name).unlink(missing_ok=True)


@dataclass
class _Reports:
    """The reports about one run of an agent.

    A report is wanted once the engine asks for it by a file. An executor that shares no folder with the engine reports
    after each new event, since an agent changes files by its tools. reported_seq: the number of the event after those.
    """

    context: RunContext
    baseline: Baseline
    reported_seq: int
    printed_bytes: int = 0
    last: bytes = b""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if self._is_wanted():
                began, printed = time.monotonic(), self.printed_bytes
                with suppress(DiffFailed, OSError, TimeoutError):  # the final report says what is wrong
                    async with asyncio.timeout(_SECONDS):
                        await self._report()
                self._note_answer()
                pause = max(PAUSE_SECONDS, _PAUSE_FACTOR * (time.monotonic() - began))
                await asyncio.sleep(max(pause, (self.printed_bytes - printed) / PRINTED_BYTES_PER_SECOND))

    def _is_wanted(self) -> bool:
        lines = self.context.events.lines
        if lines.folder:
            return (lines.folder / CHANGES_WANTED_FILE).exists()
        return lines.next_seq != self.reported_seq and self.printed_bytes < PRINTED_BYTES

    def _note_answer(self) -> None:
        lines = self.context.events.lines
        self.reported_seq = lines.next_seq
        if lines.folder:
            with suppress(OSError):
                (lines.folder / CHANGES_WANTED_FILE).unlink()

    async def _report(self) -> None:
        events = self.context.events
        patch = await asyncio.to_thread(events.redact_bytes, await changes_so_far(self.context, self.baseline))
        if events.lines.folder or patch != self.last:
            events.lines.store_file(CHANGES_FILE, patch)
        if events.lines.folder is None and patch != self.last:
            self.last, self.printed_bytes = patch, self.printed_bytes + len(patch)


async def changes_so_far(context: RunContext, baseline: Baseline) -> bytes:
    """Return the patch of the changes since the baseline. Raises DiffFailed. Ignored files are left out."""
    folder = context.folder / _FOLDER
    try:
        repository = await _borrowing(repository_of(context), folder)
        if not (baseline.tree or repository.has_files()):
            return b""
        files = await fetch_files(repository, None, may_change_access=False)
        return (await changes_since(baseline, context, repository, files.tree, lambda _: None))[1]
    finally:
        await asyncio.to_thread(remove_path, folder)


async def _borrowing(engine: EngineRepository, git_dir: Path) -> EngineRepository:
    """Create a repository with the objects and the index of the engine's."""
    await asyncio.to_thread(remove_path, git_dir)
    await run_git([*EMPTY_REPOSITORY, str(git_dir)], git_dir.parent)
    if not engine.git_dir.exists():  # the workspace was empty
        return replace(engine, git_dir=git_dir)
    (git_dir / "objects" / "info").mkdir(exist_ok=True)
    (git_dir / "objects" / "info" / "alternates").write_text(f"{engine.git_dir / 'objects'}\n")
    await asyncio.to_thread(engine.copy_state, git_dir)

    def confine(
        command: Sequence[str], readable: Collection[Path] = (), writable: Collection[Path] = ()
    ) -> AbstractContextManager[Sequence[str]]:
        return engine.confine(command, readable=[*readable, engine.git_dir], writable=writable)

    return replace(engine, git_dir=git_dir, confine=confine)
